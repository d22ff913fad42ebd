"""Linear functions above and below each layer of a network on a box of inputs (Zhang et al. 2018, table 2).

A relaxation carries coefficients of a layer's outputs back to coefficients of its inputs: if a·f(x) is to be
bounded from above, positive coefficients take the function above f, negative ones that below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from landscape.errors import ModelError
from landscape.problem.normalisation import Shift

# Modules that are x ↦ Jx + b in eval mode, each sample for itself.
AFFINE = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.AvgPool2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.Flatten,
    nn.Identity,
    nn.Dropout,
    Shift,
)

# Halvings of the interval in which a tangent point of tanh is searched.
_HALVINGS = 40


class Substitution(Protocol):
    """One layer replaced by linear functions of its inputs."""

    def __call__(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients ``(B, M, *outputs)`` -> coefficients ``(B, M, *inputs)`` and constants ``(B, M)``.

        The leading dimension of coefficients that are the same for all samples may be 1.
        """


@dataclass(frozen=True)
class Affine:
    """An affine module; nothing is lost. Its transpose is what autograd computes, strides and padding included."""

    module: nn.Module
    shape: tuple[int, ...]  # of one input

    def __call__(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """See `Substitution`."""
        nothing = coefficients.new_zeros(1, *self.shape)
        constant, transpose = torch.func.vjp(self.module, nothing)[:2]
        (carried,) = torch.vmap(transpose)(coefficients.reshape(-1, *constant.shape))
        return carried.reshape(*coefficients.shape[:2], *self.shape), _contract(coefficients, constant)


@dataclass(frozen=True)
class Relaxation:
    """Functions ``slope * x + offset`` above and below an elementwise activation."""

    upper_slope: Tensor  # (B, *inputs), and so the others
    upper_offset: Tensor
    lower_slope: Tensor
    lower_offset: Tensor

    def __call__(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """See `Substitution`."""
        above, below = coefficients.clamp_min(0), coefficients.clamp_max(0)
        constant = _contract(above, self.upper_offset) + _contract(below, self.lower_offset)
        return above * self.upper_slope[:, None] + below * self.lower_slope[:, None], constant


@dataclass(frozen=True)
class PoolRelaxation:
    """Functions ``Σ slope_i x_i + offset`` of the inputs of each window, above and below their maximum."""

    windows: Windows
    upper_slope: Tensor  # (B, channels, inputs of a window, windows)
    upper_offset: Tensor  # (B, channels, windows)
    lower_slope: Tensor  # (B, channels, inputs of a window, windows)

    def __call__(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """See `Substitution`."""
        flat = coefficients.flatten(3)
        above, below = flat.clamp_min(0), flat.clamp_max(0)
        spread = above[:, :, :, None] * self.upper_slope[:, None]
        spread += below[:, :, :, None] * self.lower_slope[:, None]
        return self.windows.sum_back(spread), _contract(above, self.upper_offset)


@dataclass(frozen=True)
class Windows:
    """The windows of a max-pooling layer on inputs of one shape."""

    module: nn.MaxPool2d
    shape: tuple[int, ...]  # (channels, height, width)

    @property
    def _geometry(self) -> dict[str, tuple[int, int]]:
        kernel, step = _pair(self.module.kernel_size), _pair(self.module.stride)
        return {"kernel_size": kernel, "stride": step, "dilation": _pair(self.module.dilation)}

    @property
    def _padding(self) -> tuple[int, int]:
        return _pair(self.module.padding)

    def split(self, x: Tensor) -> Tensor:
        """Inputs by window, −∞ in the padding: ``(B, C, H, W) -> (B, C, inputs of a window, windows)``."""
        rows, columns = self._padding
        padded = functional.pad(x, (columns, columns, rows, rows), value=float("-inf"))
        parts = functional.unfold(padded, **self._geometry)
        return parts.reshape(len(x), self.shape[0], -1, parts.shape[-1])

    def sum_back(self, parts: Tensor) -> Tensor:
        """Transpose of `split`, ``(B, M, C, inputs of a window, windows) -> (B, M, C, H, W)``."""
        (rows, columns), (height, width) = self._padding, self.shape[1:]
        flat = parts.reshape(parts.shape[:2].numel(), -1, parts.shape[-1])
        padded = functional.fold(flat, (height + 2 * rows, width + 2 * columns), **self._geometry)
        inner = padded[..., rows : rows + height, columns : columns + width]
        return inner.reshape(*parts.shape[:2], *self.shape)


def relax(module: nn.Module, lower: Tensor, upper: Tensor) -> Substitution:
    """Relaxation of an activation or max-pooling layer on inputs in [lower, upper], ``(B, *inputs)``."""
    if isinstance(module, nn.MaxPool2d):
        return _relax_pool(Windows(module, tuple(lower.shape[1:])), lower, upper)
    return ACTIVATIONS[type(module)](lower, upper)


def relax_relu(lower: Tensor, upper: Tensor) -> Relaxation:
    """Chord above; below, x or 0, whichever leaves the smaller area (Zhang et al. 2018, "CROWN-Ada")."""
    low, high = lower.clamp_max(0), upper.clamp_min(0)
    # Both bounds on one side of zero: 0/(0 − lower) = 0 or upper/(upper − 0) = 1, and the offset vanishes.
    chord = high / (high - low).clamp_min(torch.finfo(high.dtype).tiny)
    return Relaxation(chord, -chord * low, (high > -low).to(low.dtype), torch.zeros_like(low))


def relax_tanh(lower: Tensor, upper: Tensor) -> Relaxation:
    """Tangent where it lies on the right side, else chord; tanh is odd, so what is below mirrors what is above."""
    slope, offset = _above_tanh(lower, upper)
    mirrored_slope, mirrored_offset = _above_tanh(-upper, -lower)
    return Relaxation(slope, offset, mirrored_slope, -mirrored_offset)


def relax_sigmoid(lower: Tensor, upper: Tensor) -> Relaxation:
    """By σ(x) = (1 + tanh(x/2))/2."""
    t = relax_tanh(lower / 2, upper / 2)
    return Relaxation(t.upper_slope / 4, (1 + t.upper_offset) / 2, t.lower_slope / 4, (1 + t.lower_offset) / 2)


ACTIVATIONS: dict[type[nn.Module], Callable[[Tensor, Tensor], Relaxation]] = {
    nn.ReLU: relax_relu,
    nn.Tanh: relax_tanh,
    nn.Sigmoid: relax_sigmoid,
}


def check_supported(module: nn.Module) -> None:
    """Refuse a module for which no linear bounds are known; subclasses may compute anything, so they are unknown.

    Raises:
        ModelError: If the module is none of `AFFINE`, `ACTIVATIONS` and MaxPool2d, or is used in a way that mixes
            samples or leaves a window incomplete.
    """
    kinds = (*AFFINE, *ACTIVATIONS, nn.MaxPool2d)
    if type(module) not in kinds:
        names = ", ".join(kind.__name__ for kind in kinds if kind is not Shift)
        raise ModelError(
            f"no linear bounds are known for {type(module).__name__}; build the model from Sequential, {names}."
        )
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is None:
        raise ModelError(f"{module} has no running statistics and mixes the samples of a batch; track them.")
    if isinstance(module, nn.MaxPool2d) and (module.ceil_mode or module.return_indices):
        raise ModelError(f"{module} cannot be bounded; use MaxPool2d without ceil_mode and return_indices.")


def _above_tanh(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and offset of a line above tanh on [lower, upper].

    A tangent at t ≥ 0 lies above tanh on [lower, ∞) if it does at ``lower``, and the higher t, the more it does.
    If that at ``upper`` is too low, tanh lies below its chord.
    """
    value = lower.tanh()
    low, t = lower.clamp_min(0), upper.clamp_min(0)
    for _ in range(_HALVINGS):
        middle = (low + t) / 2
        fits = _tangent(middle, lower) >= value
        low, t = torch.where(fits, low, middle), torch.where(fits, middle, t)
    t = torch.where(lower >= 0, (lower + upper) / 2, t)
    chord = (upper.tanh() - value) / (upper - lower)
    slope = torch.where(_tangent(t, lower) >= value, _slope(t), chord)
    at = torch.where(_tangent(t, lower) >= value, t, upper)
    return slope, at.tanh() - slope * at


def _slope(t: Tensor) -> Tensor:
    return 1 - t.tanh() ** 2


def _tangent(t: Tensor, x: Tensor) -> Tensor:
    """The tangent of tanh at t, at x."""
    return t.tanh() + _slope(t) * (x - t)


def _relax_pool(windows: Windows, lower: Tensor, upper: Tensor) -> PoolRelaxation:
    """Above, γ + Σ (u_i − γ)/(u_i − l_i) (x_i − l_i) or the constant max u; below, the input with the largest l.

    The maximum is convex, so it is enough that the plane lies above it at the corners of the box: true for every
    γ in [max l, min u] (Boopathy et al. 2019, "CNN-Cert"). Inputs that cannot be the largest are left out.
    """
    low, high = windows.split(lower), windows.split(upper)
    floor, largest = low.max(2, keepdim=True)
    below = torch.zeros_like(low).scatter_(2, largest, 1.0)
    possible = (high > floor) | (below > 0)
    inverse = torch.where(possible, 1 / (high - low), 0.0)
    high = torch.where(possible, high, floor)
    balanced = ((high * inverse).sum(2, keepdim=True) - 1) / inverse.sum(2, keepdim=True)
    ceiling = torch.where(possible, high, torch.inf).amin(2, keepdim=True)
    gamma = torch.minimum(balanced.maximum(floor), ceiling)
    slope = (high - gamma) * inverse
    offset = gamma[:, :, 0] - torch.where(possible, slope * low, 0.0).sum(2)
    at_centre = gamma[:, :, 0] + torch.where(possible, high - gamma, 0.0).sum(2) / 2
    highest = high.amax(2)
    constant = highest < at_centre
    slope = torch.where(constant[:, :, None], 0.0, slope)
    return PoolRelaxation(windows, slope, torch.where(constant, highest, offset), below)


def _contract(coefficients: Tensor, constant: Tensor) -> Tensor:
    """Σ over all outputs, ``(B, M, *outputs), (B, *outputs) -> (B, M)``; either B may be 1."""
    return (coefficients.flatten(2) @ constant.flatten(1)[:, :, None])[..., 0]


def _pair(size: int | tuple[int, ...]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
