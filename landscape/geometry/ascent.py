"""Projected ascent: the largest value of φ at a given distance, the dual of polar descent.

On the sphere {origin + ρ D u : ‖u‖ = 1} let g = ∇ψ with respect to D⁻¹x, and s(g) the steepest unit direction of
the norm: g/‖g‖₂, sign g for the maximum norm, the leading coordinate for ‖·‖₁. A point is stationary on the
sphere where u = s(g). A step moves u towards s(g) and back to the sphere; what does not raise ψ is cut back.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.geometry.gauge import Gauge
from landscape.geometry.rays import Counter
from landscape.geometry.vectors import dual_norm, finite, steepest_direction
from landscape.objectives import Objective

# Bounds of the adapted step; cut back below the last one, an ascent has ended at a kink or in rounding noise.
_LARGEST_STEP = 20.0
_SMALLEST_STEP = 0.05
_GIVE_UP_STEP = 0.01
# Every so many rounds, an ascent that gained less than this share of its climb ends.
_REVIEW = 5
_PROGRESS = 1e-5


@dataclass(frozen=True)
class Spheres:
    """R spheres about points of an objective."""

    psi: Objective  # search form of φ, R rows
    gauge: Gauge  # of R rows, without bounds
    radius: Tensor  # (R,)
    counter: Counter

    def point(self, direction: Tensor) -> Tensor:
        """Points in the given unit directions, ``(R, n) -> (R, n)``."""
        offset = self.radius[:, None] * direction * self.gauge.scale
        return self.psi.origin + offset.to(self.psi.origin.dtype)

    def height(self, direction: Tensor) -> Tensor:
        """ψ at these points; −∞ where it, or the direction, is not finite, ``(R,)``."""
        self.counter.values += len(direction)
        return torch.nan_to_num(self.psi.value(self.point(direction)), -torch.inf, -torch.inf, -torch.inf)

    def height_and_gradient(self, direction: Tensor) -> tuple[Tensor, Tensor]:
        """ψ likewise, and its gradient with respect to D⁻¹x, float64, ``(R,), (R, n)``."""
        self.counter.gradients += len(direction)
        value, gradient = self.psi.value_and_grad(self.point(direction))
        height = torch.nan_to_num(value, -torch.inf, -torch.inf, -torch.inf)
        return height, gradient.double() * self.gauge.scale

    def take(self, rows: Tensor) -> Spheres:
        """Select or repeat spheres."""
        return Spheres(self.psi.take(rows), self.gauge.take(rows), self.radius[rows], self.counter)


@dataclass(frozen=True)
class Peaks:
    """Where ascents ended."""

    direction: Tensor  # (R, n) of unit norm, float64
    height: Tensor  # (R,) ψ there; −∞ without a direction
    misalignment: Tensor  # (R,) 1 − ⟨g, u⟩/‖g‖_*: zero at a stationary point


def climb(spheres: Spheres, direction: Tensor, base: Tensor, tol: float, budget: int) -> Peaks:
    """Raise ψ over the sphere from each direction, all in lock-step; ψ never decreases.

    Args:
        spheres: R spheres.
        direction: Unit directions to start from, ``(R, n)``; NaN is left alone.
        base: ψ at the origins, against which progress is measured, ``(R,)``.
        tol: Stop at this angle between u and g (‖·‖₂), or at the misalignment 1 − cos of it (other norms).
        budget: Gradients per ascent at most.
    """
    ascent = _Ascent(spheres, direction, base, tol**2 / 2)
    for spent in range(1, budget):
        if not ascent.active.any():
            break
        ascent.advance()
        if spent % _REVIEW == 0:
            ascent.review()
    return Peaks(ascent.direction, ascent.height, ascent.misalignment)


class _Ascent:
    """R ascents in lock-step: each round costs every active one a gradient, at its trial point."""

    def __init__(self, spheres: Spheres, direction: Tensor, base: Tensor, tolerance: float) -> None:
        self.spheres, self.base, self.tolerance = spheres, base, tolerance
        self.direction = direction.double().clone()
        self.height = torch.full_like(base, -torch.inf)
        self.misalignment = torch.full_like(base, torch.nan)
        self.slope = torch.zeros_like(self.direction)  # s(g) − u; for ‖·‖₂ its part tangent to the sphere
        self.step = torch.ones_like(base)
        self.active = finite(self.direction)
        rows = torch.nonzero(self.active)[:, 0]
        height, gradient = spheres.take(rows).height_and_gradient(self.direction[rows])
        self._move(rows, self.direction[rows], height, gradient)
        self.reviewed = self.height.clone()

    def advance(self) -> None:
        """Evaluate all trial points; accept those that are higher, cut back the steps of the others."""
        rows = torch.nonzero(self.active)[:, 0]
        trial = self._propose(rows)
        height, gradient = self.spheres.take(rows).height_and_gradient(trial)
        higher = height > self.height[rows]
        moved, before = trial[higher] - self.direction[rows[higher]], self.slope[rows[higher]]
        self._move(rows[higher], trial[higher], height[higher], gradient[higher])
        self._adapt(rows[higher], moved, before)
        self.step[rows[~higher]] /= 3
        self.active[rows] &= self.step[rows] > _GIVE_UP_STEP

    def review(self) -> None:
        """Stop ascents without progress since the last review."""
        gained = self.height - self.reviewed
        self.active &= gained > _PROGRESS * (self.height - self.base).abs()
        self.reviewed = self.height.clone()

    def _propose(self, rows: Tensor) -> Tensor:
        gauge = self.spheres.gauge
        step = self.step[rows] if gauge.norm == 2 else self.step[rows].clamp(max=1)
        unit, _ = gauge.polar(self.direction[rows] + step[:, None] * self.slope[rows])
        return unit

    def _move(self, rows: Tensor, direction: Tensor, height: Tensor, gradient: Tensor) -> None:
        gauge = self.spheres.gauge
        along = (gradient * direction).sum(-1) / dual_norm(gradient, gauge.norm)
        steepest, _ = gauge.polar(steepest_direction(gradient, gauge.norm))
        slope = steepest - (along[:, None] * direction if gauge.norm == 2 else direction)
        self.direction[rows], self.height[rows] = direction, height
        self.slope[rows], self.misalignment[rows] = slope, (1 - along).clamp_min(0)
        self.active[rows] &= (1 - along > self.tolerance) & torch.isfinite(height)

    def _adapt(self, rows: Tensor, moved: Tensor, before: Tensor) -> None:
        """Set the next step to ‖Δu‖² / ⟨Δu, −Δslope⟩ (Barzilai & Borwein 1988), or lengthen the last one."""
        bend = (moved * (before - self.slope[rows])).sum(-1)
        step = (moved * moved).sum(-1) / bend
        usable = (bend > 0) & torch.isfinite(step) & (self.spheres.gauge.norm == 2)
        self.step[rows] = torch.where(usable, step, 1.5 * self.step[rows]).clamp(_SMALLEST_STEP, _LARGEST_STEP)
