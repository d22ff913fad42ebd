"""How far a displacement goes: metric, norm and bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from landscape.errors import ConfigurationError
from landscape.geometry.vectors import norm_of

NORMS = (1.0, 2.0, math.inf)

Box = tuple[float | Tensor, float | Tensor]


def check_norm(norm: float) -> float:
    """The norm as a float.

    Raises:
        ConfigurationError: Unless it is 1, 2 or infinity.
    """
    if norm not in NORMS:
        raise ConfigurationError(f"norm = {norm} is unknown; choose 1, 2 or infinity (math.inf).")
    return float(norm)


@dataclass(frozen=True)
class Gauge:
    """Points are x = x₀ + D v; the distance of x from x₀ is ‖v‖, and v may be bounded. All are of one type."""

    scale: Tensor  # (1 or R, n) the metric D
    norm: float
    lower: Tensor | None = None  # (R, n) bounds of v
    upper: Tensor | None = None
    identity: bool = False  # known of D, which then need not be multiplied by

    @property
    def round(self) -> bool:
        """Whether balls are round and nothing is bounded."""
        return self.norm == 2 and self.lower is None

    def stretched(self, v: Tensor) -> Tensor:
        """D v, or D g of a gradient with respect to x, ``(R, n) -> (R, n)``; v itself if D is the identity."""
        return v if self.identity else v * self.scale.to(v.dtype)

    def length(self, v: Tensor) -> Tensor:
        """‖v‖, ``(R, n) -> (R,)``."""
        return norm_of(v, self.norm)

    def clip(self, v: Tensor) -> Tensor:
        """The nearest displacement within the bounds."""
        if self.lower is None or self.upper is None:
            return v
        return torch.clamp(v, self.lower, self.upper)

    def within(self, radius: Tensor) -> Gauge:
        """The same with displacements of which no coordinate exceeds ``radius``, ``(R,)``."""
        limit = radius[:, None].to(self.scale.dtype).expand(-1, self.scale.shape[1])
        if self.lower is None or self.upper is None:
            return replace(self, lower=-limit, upper=limit)
        return replace(self, lower=self.lower.maximum(-limit), upper=self.upper.minimum(limit))

    def growing(self, v: Tensor) -> Tensor:
        """The part of ``v`` that goes on along a ray, ``(R, n)``: what has come to a bound stays there."""
        if self.lower is None or self.upper is None:
            return v
        # Comparisons into numbers, and products, are several times as fast as truth values and a choice by them.
        above, below = (torch.gt(a, b, out=torch.empty_like(v)) for a, b in ((v, self.lower), (self.upper, v)))
        return v * above.mul_(below)

    def polar(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Direction of length 1 and length of ``v``, ``(…, n) -> (…, n), (…)``; NaN for the zero vector."""
        length = self.length(v)
        return v / torch.where(length > 0, length, torch.nan).to(v.dtype)[..., None], length

    def take(self, rows: Tensor) -> Gauge:
        """Select or repeat rows."""
        scale = self.scale if len(self.scale) == 1 else self.scale.index_select(0, rows)
        if self.lower is None or self.upper is None:
            return replace(self, scale=scale)
        return replace(
            self, scale=scale, lower=self.lower.index_select(0, rows), upper=self.upper.index_select(0, rows)
        )


def make_gauge(origin: Tensor, scale: Tensor, norm: float, box: Box | None) -> Gauge:
    """Gauge of displacements from ``origin``, ``(B, n)``; a box (lower, upper) bounds x, not v.

    Raises:
        ConfigurationError: If the norm is unknown, or the box does not hold the origin.
    """
    norm = check_norm(norm)
    # One number for all variables, seen as a vector, stays one number.
    scale = scale[:, :1].to(origin.dtype).expand_as(scale) if not scale.stride(-1) else scale.to(origin.dtype)
    identity = not scale.stride(-1) and bool((scale[:, 0] == 1).all())
    if box is None:
        return Gauge(scale, norm, identity=identity)
    try:
        low, high = (torch.as_tensor(b, dtype=origin.dtype, device=origin.device).expand_as(origin) for b in box)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"the box does not fit origins of shape {tuple(origin.shape)}: pass a pair (lower, upper) "
            "of numbers or tensors."
        ) from error
    if not ((low <= origin) & (origin <= high)).all():
        raise ConfigurationError(
            "the origin lies outside the box: pass bounds that hold it, or no box if inputs are scaled otherwise."
        )
    free = scale > 0
    lower, upper = (torch.where(free, (b - origin) / torch.where(free, scale, 1.0), 0.0) for b in (low, high))
    return Gauge(scale, norm, lower, upper, identity)
