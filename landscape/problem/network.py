"""A network as a function of its parameters and inputs, without touching the network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from landscape.errors import ObjectiveError
from landscape.problem.losses import loss_by_name


def ravel(model: nn.Module) -> Tensor:
    """All parameters in ``named_parameters()`` order as one vector ``(n,)``, detached."""
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def parameter_views(model: nn.Module, vector: Tensor) -> dict[str, Tensor]:
    """Named views of a parameter vector ``(n,)``."""
    parts = vector.split([p.numel() for p in model.parameters()])
    return {name: part.reshape(p.shape) for (name, p), part in zip(model.named_parameters(), parts, strict=True)}


def unravel(model: nn.Module, vector: Tensor) -> dict[str, Tensor]:
    """Named parameters from a vector ``(n,)``; convolution kernels in channels-last order for speed."""
    return {name: channels_last(part) for name, part in parameter_views(model, vector).items()}


def detached(model: nn.Module) -> dict[str, Tensor]:
    """The model's parameters, cut off from its gradients; convolution kernels in channels-last order for speed."""
    return {name: channels_last(p.detach()) for name, p in model.named_parameters()}


def channels_last(tensor: Tensor) -> Tensor:
    """The same 4-D tensor in the memory layout in which convolutions run fastest; others as they are.

    Not by ``contiguous``: with one channel it leaves the strides alone, by which torch chooses its kernels.
    """
    return tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def check_problem(model: nn.Module, x: Tensor, y: Tensor, loss: str) -> None:
    """Refuse what would give a wrong φ: shapes that disagree, dropout or batch norm in train mode."""
    loss_by_name(loss)
    if y.ndim != 1 or len(x) != len(y) or not len(y):
        raise ObjectiveError(
            f"inputs of shape {tuple(x.shape)} and labels of shape {tuple(y.shape)} do not belong together; "
            f"pass (N, …) and (N,) with N ≥ 1."
        )
    moving = [k for k, m in model.named_modules() if m.training and isinstance(m, _BatchNorm | _DropoutNd)]
    if moving:
        raise ObjectiveError(
            f"the model is in train mode and {', '.join(moving)} would make φ random; call model.eval() first."
        )
    if not all(p.numel() for p in model.parameters()):
        raise ObjectiveError("the model has empty parameters.")
