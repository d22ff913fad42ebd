"""Optimizers by name, and their state as flat arrays that a segment can hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from landscape.errors import CorruptSnapshotError
from landscape.training.config import TrainingConfig

Array = np.ndarray


def build_optimizer(config: TrainingConfig, parameters: Iterable[Tensor]) -> Optimizer:
    """The optimizer of a run, with PyTorch's defaults for all that the configuration leaves open."""
    if config.optimizer == "adam":
        return Adam(parameters, lr=config.learning_rate, fused=True)
    return SGD(parameters, lr=config.learning_rate, momentum=config.momentum, fused=True)


def optimizer_state(optimizer: Optimizer) -> dict[str, Array]:
    """State of all parameters, each entry concatenated over parameters; empty where there is none yet."""
    states = [optimizer.state[p] for group in optimizer.param_groups for p in group["params"]]
    names = sorted({name for state in states for name, value in state.items() if value is not None})
    return {name: np.concatenate([state[name].detach().reshape(-1).numpy() for state in states]) for name in names}


@torch.no_grad()
def restore_optimizer_state(optimizer: Optimizer, stored: Mapping[str, Array]) -> None:
    """Put back what `optimizer_state` returned.

    Raises:
        CorruptSnapshotError: If the arrays do not fit the parameters.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    expected = _state_names(optimizer)
    if set(stored) != expected:
        raise CorruptSnapshotError(
            f"the stored optimizer state holds {sorted(stored)}; "
            f"{type(optimizer).__name__} needs {sorted(expected)}."
        )
    for name, array in stored.items():
        like = [torch.zeros(()) if name == "step" else p for p in parameters]
        sizes = [t.numel() for t in like]
        if array.size != sum(sizes):
            raise CorruptSnapshotError(
                f"the stored optimizer state {name!r} has {array.size} numbers, the model needs {sum(sizes)}."
            )
        parts = torch.from_numpy(array.copy()).split(sizes)
        for parameter, template, part in zip(parameters, like, parts, strict=True):
            optimizer.state[parameter][name] = _fresh_like(template, part)


def _state_names(optimizer: Optimizer) -> set[str]:
    if isinstance(optimizer, Adam):
        return {"step", "exp_avg", "exp_avg_sq"}
    return {"momentum_buffer"} if optimizer.param_groups[0]["momentum"] else set()


def _fresh_like(template: Tensor, values: Tensor) -> Tensor:
    # A fresh allocation in the parameter's own memory format: bits of a resumed run depend on both.
    return torch.empty_like(template).copy_(values.reshape(template.shape))
