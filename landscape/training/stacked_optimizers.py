"""SGD and Adam for several runs at once, as PyTorch has them; each run has a learning rate of its own.

Optimizers of PyTorch's, one for each run, cost many calls in a step. Only operations that round once are used, so
that the bits of a run do not depend on where in the stack it lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from landscape.errors import CorruptSnapshotError
from landscape.problem.stacked_layers import Workspace
from landscape.training.config import TrainingConfig

Array = np.ndarray

# PyTorch's defaults (Kingma & Ba 2015).
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


class StackedOptimizer(Protocol):
    """Moves M runs by their gradients; its state has a row for each run."""

    state: dict[str, Tensor]

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        """Move θ ``(M, S)`` in place; the gradient may be overwritten."""


class StackedSGD:
    """θ ← θ − η b with b ← μ b + g."""

    def __init__(self, configs: Sequence[TrainingConfig], like: Tensor) -> None:
        self._rate = _column([config.learning_rate for config in configs], like)
        self._momentum = _column([config.momentum for config in configs], like)
        moving = any(config.momentum for config in configs)
        self.state = {"momentum_buffer": torch.zeros_like(like)} if moving else {}

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        """Move θ in place, see `StackedOptimizer`."""
        if self.state:
            gradient = self.state["momentum_buffer"].mul_(self._momentum).add_(gradient)
            theta.sub_(gradient * self._rate)
        else:
            theta.sub_(gradient.mul_(self._rate))


class StackedAdam:
    """θ ← θ − η m̂ / (√v̂ + ε) with the means m and v of g and g² (Kingma & Ba 2015, algorithm 1)."""

    def __init__(self, configs: Sequence[TrainingConfig], like: Tensor) -> None:
        self._rates = np.array([[config.learning_rate] for config in configs])
        self.state = {name: torch.zeros_like(like) for name in ("exp_avg", "exp_avg_sq")}
        self.state["step"] = torch.zeros((len(like), 1))
        self._space = Workspace()

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        """Move θ in place, see `StackedOptimizer`."""
        mean, square, count = (self.state[name] for name in ("exp_avg", "exp_avg_sq", "step"))
        shape, (first, second) = tuple(theta.shape), _BETAS
        count += 1
        steps = count.double().numpy()
        rates = torch.from_numpy(self._rates / (1 - first**steps)).to(theta)
        roots = torch.from_numpy(np.sqrt(1 - second**steps)).to(theta)
        other = torch.mul(gradient, gradient, out=self._space("other", shape, theta))
        square.mul_(second).add_(other.mul_(1 - second))
        mean.mul_(first).add_(gradient.mul_(1 - first))
        below = torch.sqrt(square, out=other).div_(roots).add_(_EPSILON)
        theta.sub_(torch.div(mean, below, out=other).mul_(rates))


def stacked_optimizer(configs: Sequence[TrainingConfig], like: Tensor) -> StackedOptimizer:
    """The optimizer of runs that differ in nothing but rates and momentum, for parameters ``(M, S)``."""
    return StackedAdam(configs, like) if configs[0].optimizer == "adam" else StackedSGD(configs, like)


def state_of(
    optimizer: StackedOptimizer, member: int, config: TrainingConfig, sizes: Sequence[int]
) -> dict[str, Array]:
    """State of one run as the optimizer of its parameters, of these sizes, would have it."""
    rows = {name: optimizer.state[name][member].numpy() for name in _names(config)}
    return {
        name: np.repeat(row, len(sizes)) if name == "step" else row[: sum(sizes)].copy()
        for name, row in rows.items()
    }


def restore_state(
    optimizer: StackedOptimizer,
    member: int,
    config: TrainingConfig,
    sizes: Sequence[int],
    stored: Mapping[str, Array],
) -> None:
    """Put back what `state_of` returned.

    Raises:
        CorruptSnapshotError: If it is the state of another optimizer, or of other parameters.
    """
    names = _names(config)
    if set(stored) != set(names):
        raise CorruptSnapshotError(
            f"the stored optimizer state holds {sorted(stored)}; {config.optimizer} needs {sorted(names)}."
        )
    for name, array in stored.items():
        expected = len(sizes) if name == "step" else sum(sizes)
        if array.size != expected:
            raise CorruptSnapshotError(
                f"the stored optimizer state {name!r} has {array.size} numbers, the model needs {expected}."
            )
        values = torch.from_numpy(array[:1].copy() if name == "step" else array.copy())
        optimizer.state[name][member, : len(values)] = values


def _names(config: TrainingConfig) -> tuple[str, ...]:
    if config.optimizer == "adam":
        return ("step", "exp_avg", "exp_avg_sq")
    return ("momentum_buffer",) if config.momentum else ()


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype)[:, None]
