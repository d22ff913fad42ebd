"""A network as a function of its parameters and inputs, without touching the network."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from landscape.errors import ConfigurationError, ObjectiveError
from landscape.problem.losses import loss_by_name
from landscape.problem.normalisation import parameter_names

# Samples that a model is tried on.
_PROBED = 3


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


def parameter_indices(model: nn.Module, patterns: Sequence[str]) -> dict[str, Tensor]:
    """Positions in θ of the parameters whose names match any of the patterns, by name; all if there is none.

    Raises:
        ConfigurationError: If a pattern matches no name.
    """
    sizes = dict(zip(parameter_names(model), (p.numel() for p in model.parameters()), strict=True))
    for pattern in patterns:
        if not fnmatch.filter(sizes, pattern):
            raise ConfigurationError(f"no parameter matches {pattern!r}; the model has {', '.join(sizes)}.")
    parts = torch.arange(sum(sizes.values())).split(list(sizes.values()))
    chosen = {name for pattern in patterns or ("*",) for name in fnmatch.filter(sizes, pattern)}
    return {name: part for name, part in zip(sizes, parts, strict=True) if name in chosen}


def channels_last(tensor: Tensor) -> Tensor:
    """The same 4-D tensor in the memory layout in which convolutions run fastest; others as they are.

    Not by ``contiguous``: with one channel it leaves the strides alone, by which torch chooses its kernels.
    """
    return tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def check_problem(model: nn.Module, x: Tensor, y: Tensor, loss: str) -> None:
    """Refuse what would give a wrong φ: shapes that disagree, randomness, samples that interact."""
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
    _check_outputs(model, x[:_PROBED])


def _check_outputs(model: nn.Module, x: Tensor) -> None:
    """Refuse outputs that are random, depend on other samples, or change the model; a few samples tell."""
    together, alone = _outputs_apart(model, x), _outputs_apart(model, x[:1])
    if together.ndim != 2 or len(together) != len(x):
        raise ObjectiveError(
            f"the model returns shape {tuple(together.shape)} for {len(x)} samples; it must return one row of "
            f"logits per sample, shape ({len(x)}, K)."
        )
    for other, mine, what in (
        (_outputs_apart(model, x), together, "returns other logits when it runs again: φ would be random"),
        (alone, together[:1], "returns other logits for a sample among others than for the same sample alone"),
    ):
        if not _agree(other, mine):
            raise ObjectiveError(f"the model {what}; call model.eval(), and remove what does this.")


def _outputs_apart(model: nn.Module, x: Tensor) -> Tensor:
    """Logits, with copies of the buffers.

    Raises:
        ObjectiveError: If the model writes on its buffers.
    """
    buffers = {name: b.detach().clone() for name, b in model.named_buffers()}
    before = {name: b.clone() for name, b in buffers.items()}
    with torch.no_grad():
        logits: Tensor = functional_call(model, buffers, (x,))
    changed = [name for name, b in buffers.items() if not torch.equal(b, before[name])]
    if changed:
        raise ObjectiveError(
            f"the model changes its buffers {', '.join(changed)} when it runs; call model.eval() first."
        )
    return logits


def _agree(a: Tensor, b: Tensor) -> bool:
    """Up to rounding, which may depend on the number of samples; NaN agrees with NaN."""
    scale = b.abs().nan_to_num(0).amax()
    return torch.allclose(a, b, rtol=0, atol=float(scale * torch.finfo(b.dtype).eps ** 0.5), equal_nan=True)
