"""What a step descends: the batch loss itself, or what is put in its place for the sake of a wide minimum."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Generator, Tensor

from landscape.errors import ConfigurationError

PLAIN = "plain"

# The mean losses (M,) of the batches of M runs where they stand, and the gradients by their parameters, tensors
# (M, …), in the memory in which the optimizer will find them.
Differentiate = Callable[[], tuple[Tensor, Iterable[Tensor]]]

# Step of FGSM from a random start, in units of ε (Wong et al. 2020).
_RANDOM_START_STEP = 1.25
# All steps of PGD together, in units of ε (Madry et al. 2018, fig. 6).
_REACH = 2.5
# A share of the epochs, as written, may be a rounding above a whole number of them.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Method:
    """Plain training, and the three places in which a method may differ from it."""

    def images(self, x: Tensor, gradient: Callable[[Tensor], Tensor], noise: Callable[[float], Tensor]) -> Tensor:
        """The batch that is trained on, in place of ``x``, in the same shape.

        Args:
            x: Images in [0, 1], in any shape.
            gradient: Gradient of the samples' losses by such images.
            noise: Drawn from U(−r, r) in the shape of ``x``, for a radius r.
        """
        return x

    def descend(self, theta: Sequence[Tensor], differentiate: Differentiate) -> Tensor:
        """Leave the gradients for the optimizer; the batch losses ``(M,)`` at θ, which stays what it is.

        Args:
            theta: Parameters of M runs, tensors ``(M, …)``.
            differentiate: Batch losses and gradients at what stands in ``theta``.
        """
        return differentiate()[0]

    def averages(self, epoch: int, epochs: int) -> bool:
        """Whether the weights at the end of this epoch, of so many, enter the average that stands for the run."""
        return False


@dataclass(frozen=True)
class SharpnessAware(Method):
    """Gradient at θ + ρ g/‖g‖₂, or at θ where its gradient g = 0 (Foret et al. 2021, eq. 2 and algorithm 1)."""

    rho: float = 0.05

    def __post_init__(self) -> None:
        _check(self, "rho", self.rho > 0, "a number > 0")

    def descend(self, theta: Sequence[Tensor], differentiate: Differentiate) -> Tensor:
        """Two passes, see `Method`."""
        losses, slopes = differentiate()
        gradients, start = list(slopes), [tensor.clone() for tensor in theta]
        norms = gradient_norms(gradients)
        for tensor, gradient in zip(theta, gradients, strict=True):
            tensor.add_((gradient / _column(norms, gradient)).mul_(self.rho))
        differentiate()
        for tensor, before in zip(theta, start, strict=True):
            tensor.copy_(before)
        return losses


@dataclass(frozen=True)
class Flooding(Method):
    """|L − b| + b in place of the batch loss L (Ishida et al. 2020, eq. 5)."""

    level: float = 0.02

    def __post_init__(self) -> None:
        _check(self, "level", self.level >= 0, "a number ≥ 0")

    def descend(self, theta: Sequence[Tensor], differentiate: Differentiate) -> Tensor:
        """Gradient times the sign of L − b, see `Method`."""
        losses, gradients = differentiate()
        signs = (losses - self.level).sign()
        for gradient in gradients:
            gradient.mul_(_column(signs, gradient))
        return losses


@dataclass(frozen=True)
class WeightAveraging(Method):
    """Mean of the weights at the ends of the last epochs (Izmailov et al. 2018, algorithm 1; constant rate)."""

    start: float = 0.75

    def __post_init__(self) -> None:
        _check(self, "start", 0 <= self.start <= 1, "a share of the epochs, from 0 to 1")

    def averages(self, epoch: int, epochs: int) -> bool:
        """From ⌈start · epochs⌉ on, or from the first, see `Method`."""
        return epoch >= max(1, math.ceil(self.start * epochs - _ROUNDING))


@dataclass(frozen=True)
class FgsmTraining(Method):
    """clip(x + ε sign ∇_x ℓ, 0, 1) in place of x (Goodfellow et al. 2015; Madry et al. 2018, eq. 2.1, one step).

    With a random start in the ball the step is 1.25 ε, and ends in the ball (Wong et al. 2020, algorithm 3).
    """

    epsilon: float = 0.3
    random_start: bool = False

    def __post_init__(self) -> None:
        _check(self, "epsilon", self.epsilon > 0, "a number > 0")

    def images(self, x: Tensor, gradient: Callable[[Tensor], Tensor], noise: Callable[[float], Tensor]) -> Tensor:
        """Adversarial images, see `Method`."""
        size = self.epsilon * (_RANDOM_START_STEP if self.random_start else 1)
        start = x + noise(self.epsilon) if self.random_start else x
        return ascend(x, start, gradient, self.epsilon, size, 1)


@dataclass(frozen=True)
class PgdTraining(Method):
    """Images after steps along sign ∇_x ℓ within the ε-ball and [0, 1], in place of x (Madry et al. 2018, §2.1).

    A step is 2.5 ε/steps long unless ``step_size`` is given; steps begin at a random point of the ball.
    """

    epsilon: float = 0.3
    steps: int = 7
    step_size: float | None = None
    random_start: bool = True

    def __post_init__(self) -> None:
        _check(self, "epsilon", self.epsilon > 0, "a number > 0")
        _check(self, "steps", self.steps >= 1, "a whole number ≥ 1")
        if self.step_size is None:
            object.__setattr__(self, "step_size", _REACH * self.epsilon / self.steps)
        _check(self, "step_size", self._size > 0, "a number > 0")

    @property
    def _size(self) -> float:
        return self.step_size or 0.0

    def images(self, x: Tensor, gradient: Callable[[Tensor], Tensor], noise: Callable[[float], Tensor]) -> Tensor:
        """Adversarial images, see `Method`."""
        start = x + noise(self.epsilon) if self.random_start else x
        return ascend(x, start, gradient, self.epsilon, self._size, self.steps)


METHODS: dict[str, type[Method]] = {
    PLAIN: Method,
    "sam": SharpnessAware,
    "flooding": Flooding,
    "swa": WeightAveraging,
    "fgsm-training": FgsmTraining,
    "pgd-training": PgdTraining,
}


def make_method(name: str, arguments: Mapping[str, Any]) -> Method:
    """The method of that name.

    Raises:
        ConfigurationError: If the name or an argument is unknown, or a value impossible.
    """
    if name not in METHODS:
        raise ConfigurationError(f"unknown method {name!r}; choose one of {', '.join(METHODS)}.")
    known = {field.name: str(field.type) for field in fields(METHODS[name])}
    if unknown := sorted(set(arguments) - set(known)):
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        raise ConfigurationError(f"method {name!r} takes no argument {', '.join(map(str, unknown))}; {takes}.")
    values = {key: _converted(name, key, value, known[key]) for key, value in arguments.items()}
    return METHODS[name](**values)


def arguments_text(arguments: Mapping[str, Any]) -> str:
    """Arguments in one word, such as ``epsilon=0.3,steps=7``."""
    text = json.dumps(dict(arguments), sort_keys=True, separators=(",", "="))
    return text.translate(str.maketrans("", "", '{}[]"'))


def _converted(method: str, name: str, value: Any, kind: str) -> Any:
    """The value in the type of the argument; ConfigurationError if it is of another kind."""
    truth = isinstance(value, bool)
    if kind == "bool" and truth:
        return value
    if kind == "int" and isinstance(value, int) and not truth:
        return value
    if kind.startswith("float") and isinstance(value, int | float) and not truth and math.isfinite(value):
        return float(value)
    wanted = {"bool": "true or false", "int": "a whole number"}.get(kind, "a finite number")
    raise ConfigurationError(f"{name} = {value!r} of method {method!r} cannot be; pass {wanted}.")


def _check(method: Method, name: str, possible: bool, wanted: str) -> None:
    if not possible:
        raise ConfigurationError(f"{name} = {getattr(method, name)} cannot be; pass {wanted}.")


def gradient_norms(gradients: Sequence[Tensor]) -> Tensor:
    """2-norms ``(M,)`` of the gradients of M runs, tensors ``(M, …)``; 1 where there is none.

    Row by row, since threads divide a sum over one row otherwise than those over several; in float64, so that no
    square leaves the range of numbers.
    """
    rows = zip(*gradients, strict=True)
    parts = [torch.stack([torch.linalg.vector_norm(p, dtype=torch.float64) for p in row]) for row in rows]
    norms = torch.stack([torch.linalg.vector_norm(part) for part in parts])
    return torch.where(norms == 0, 1.0, norms)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """One value for each run, to be multiplied with a tensor ``(M, …)``."""
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


def ascend(
    x: Tensor, start: Tensor, gradient: Callable[[Tensor], Tensor], epsilon: float, size: float, steps: int
) -> Tensor:
    """Steps z ← z + size · sign ∇ℓ(z), each ended in the ball {‖z − x‖∞ ≤ ε} and the box [0, 1]."""
    lower, upper = (x - epsilon).clamp_min_(0), (x + epsilon).clamp_max_(1)
    z = start.clamp(lower, upper)
    for _ in range(steps):
        z = (z + gradient(z).sign().mul_(size)).clamp_(lower, upper)
    return z


def uniform_noise(generator: Generator, shape: Sequence[int], radius: float) -> Tensor:
    """Numbers from U(−r, r) in float32."""
    return torch.rand(tuple(shape), generator=generator).mul_(2).sub_(1).mul_(radius)
