"""Polar descent: the nearest point of a level set, seen as a minimum over directions.

On the unit sphere of directions u, let r(u) be the radius at which the ray from the origin crosses the level.
With g = ∇ψ at the crossing, moving u by a tangent vector du changes r by dr/r = −g·du / (g·u), so the gradient
of log r is G = −P g / (g·u), P the projector onto the tangent space. A step of length 1 along −G,
u ← (u − G)/‖u − G‖ = g/‖g‖, is the fixed-point iteration of Hasofer, Lind, Rackwitz and Fiessler; steps that
do not shorten r are cut back, and lengths are adapted from the change of G (Barzilai & Borwein 1988).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.geometry.rays import Rays

# A trial point counts as on the level when ψ misses it by less than this share of the climb; the radius is
# corrected for the rest to first order.
_ON_LEVEL = 0.02
_CORRECTIONS = 3
# Every so many rounds descents are reviewed: progress below this share ends one, and so does being beaten by this.
_REVIEW = 5
_PROGRESS = 1e-4
_HOPELESS = 1.1
# Bounds of the adapted step; cut back below the last one, a descent has ended at a kink or in rounding noise.
_LARGEST_STEP = 10.0
_SMALLEST_STEP = 0.05
_GIVE_UP_STEP = 0.02


@dataclass(frozen=True)
class Ends:
    """Where descents ended; radii are accurate to first order in the miss of the level."""

    direction: Tensor  # (R, n) unit, float64
    radius: Tensor  # (R,)
    tangent: Tensor  # (R,) tan of the angle between direction and gradient


def descend(rays: Rays, direction: Tensor, radius: Tensor, tol: float, budget: int, competition: Tensor) -> Ends:
    """Shorten the rays that reach their level, until the angle to the gradient or the progress is small.

    Args:
        rays: R rays.
        direction: Unit directions to start from, ``(R, n)``.
        radius: Where each crosses its level, ``(R,)``; inf is left alone.
        tol: Stop at this tangent of the angle between direction and gradient.
        budget: Gradients per ray at most.
        competition: Rays with the same number compete; clear losers stop early, ``(R,)``.
    """
    walk = _Walk(rays, direction, radius, tol)
    for spent in range(1, budget):
        if not walk.active.any():
            break
        walk.advance()
        if spent % _REVIEW == 0:
            walk.review(competition)
    return Ends(walk.direction, walk.radius, walk.tangent)


class _Walk:
    """R descents in lock-step: each round costs every active one a gradient, at its trial point."""

    def __init__(self, rays: Rays, direction: Tensor, radius: Tensor, tol: float) -> None:
        self.rays, self.tol = rays, tol
        self.direction, self.radius = direction.double().clone(), radius.clone()
        self.slope = torch.zeros_like(self.direction)  # −G, the tangent vector along which r shrinks
        self.tangent = torch.full_like(radius, torch.inf)  # ‖G‖
        self.step = torch.ones_like(radius)
        self.active = torch.isfinite(radius)
        self.corrections = torch.zeros_like(radius)
        self.reviewed = radius.clone()
        self._measure_start()
        self.trial_direction, self.trial_radius = self._propose(torch.arange(len(radius), device=radius.device))

    def advance(self) -> None:
        """Evaluate all trial points; accept, correct or reject each."""
        rows = torch.nonzero(self.active)[:, 0]
        some = self.rays.take(rows)
        u, r = self.trial_direction[rows], self.trial_radius[rows]
        excess, gradient = some.excess_and_gradient(u, r)
        radial = (gradient.double() * u).sum(-1)
        corrected = r - excess / radial
        usable = torch.isfinite(corrected) & (radial > 0) & (corrected > r / 3) & (corrected < 3 * r)
        on_level = usable & (excess.abs() <= _ON_LEVEL * (some.target - some.height).abs())
        shorter = on_level & (corrected < self.radius[rows])
        self.corrections[rows] += 1
        correct = usable & ~on_level & (self.corrections[rows] < _CORRECTIONS)
        self._accept(rows[shorter], u[shorter], corrected[shorter], gradient[shorter], radial[shorter])
        self.step[rows[~shorter & ~correct]] /= 3
        self.trial_radius[rows[correct]] = corrected[correct]
        done = rows[~correct]
        self.corrections[done] = 0
        self.trial_direction[done], self.trial_radius[done] = self._propose(done)
        self.active[done] = (self.tangent[done] > self.tol) & (self.step[done] > _GIVE_UP_STEP)

    def review(self, competition: Tensor) -> None:
        """Stop descents without progress since the last review, and clear losers of a competition.

        A loser would stay longer than the best even if its level set were the tangent plane.
        """
        best = torch.full(
            (int(competition.max()) + 1,), torch.inf, dtype=self.radius.dtype, device=self.radius.device
        )
        best = best.scatter_reduce(0, competition, self.radius, "amin")
        promising = self.radius / torch.sqrt(1 + self.tangent**2) <= _HOPELESS * best[competition]
        self.active &= (self.radius < self.reviewed * (1 - _PROGRESS)) & promising
        self.reviewed = self.radius.clone()

    def _measure_start(self) -> None:
        rows = torch.nonzero(self.active)[:, 0]
        if not len(rows):
            return
        u = self.direction[rows]
        excess, gradient = self.rays.take(rows).excess_and_gradient(u, self.radius[rows])
        radial = (gradient.double() * u).sum(-1)
        corrected = self.radius[rows] - excess / radial
        self.radius[rows] = torch.where((radial > 0) & (corrected > 0), corrected, self.radius[rows])
        self._set_slope(rows, u, gradient, radial)
        self.active[rows] = (radial > 0) & (self.tangent[rows] > self.tol)

    def _propose(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Trial directions, and the radii at which they meet the plane tangent to the level set."""
        step, slope = self.step[rows], self.slope[rows]
        moved = self.direction[rows] + step[:, None] * slope
        length = torch.linalg.vector_norm(moved, dim=-1)
        return moved / length[:, None], self.radius[rows] * length / (1 + step * self.tangent[rows] ** 2)

    def _accept(self, rows: Tensor, u: Tensor, radius: Tensor, gradient: Tensor, radial: Tensor) -> None:
        """Move, and set the next step to ‖Δu‖² / ⟨Δu, ΔG⟩."""
        moved, before = u - self.direction[rows], self.slope[rows]
        self.direction[rows], self.radius[rows] = u, radius
        self._set_slope(rows, u, gradient, radial)
        curvature = (moved * (before - self.slope[rows])).sum(-1)
        step = (moved * moved).sum(-1) / curvature
        usable = (curvature > 0) & torch.isfinite(step)
        self.step[rows] = torch.where(usable, step, 1.5 * self.step[rows]).clamp(_SMALLEST_STEP, _LARGEST_STEP)

    def _set_slope(self, rows: Tensor, u: Tensor, gradient: Tensor, radial: Tensor) -> None:
        slope = gradient.double() / radial[:, None] - u
        self.slope[rows] = slope
        self.tangent[rows] = torch.linalg.vector_norm(slope, dim=-1)
