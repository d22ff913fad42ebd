"""From random points of a ball up to the level: what gets there is nearer than the ball's radius.

A point at distance r is the nearest of its level just if φ stays below the level within r. Starts far away do not
see small regions above the level near the origin; points between them and the origin do.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from landscape.geometry.contest import Contest
from landscape.geometry.rays import Rays, crossing
from landscape.geometry.starts import Starts
from landscape.geometry.vectors import dot, steepest_direction

# Climbers for each origin, and the gradients that each may take.
CLIMBERS, STEPS = 16, 4
# The same where no start has reached the level.
_FEW, _STEPS_OUT = 4, 20
# A step aims this share of the climb above the level, and goes no farther than this share of the radius.
_BEYOND = 0.05
_LONGEST_STEP = 0.3
# Accuracy of a crossing from which a descent starts, in units of the climb.
_LOOSE = 0.02


def climb_within(rays: Rays, radius: Tensor, contest: Contest, generator: Generator) -> Tensor:
    """Displacements on the level shorter than ``radius``, NaN where none was found, ``(R,) -> (R, n)``."""
    rows = torch.nonzero(torch.isfinite(radius))[:, 0].repeat(CLIMBERS)
    some, limit = rays.take(rows), radius[rows]
    return _climb(rays, rows, _random_points(some, limit, generator), limit, contest, STEPS)


def climb_out(rays: Rays, lost: Tensor, starts: Starts, contest: Contest) -> Tensor:
    """Displacements on the level from some of the starts, for the rays that are lost, ``(R,) -> (R, n)``.

    Where φ is concave these steps come to the level if there is one (Polyak 1969), on whatever ray it is.
    """
    few = torch.stack(list(starts)[:: -(-len(starts) // _FEW)])
    index = torch.nonzero(lost)[:, 0]
    rows = index.repeat(len(few))
    limit = torch.full((len(rows),), torch.inf, dtype=torch.float64, device=rows.device)
    return _climb(rays, rows, few[:, index].reshape(len(rows), -1), limit, contest, _STEPS_OUT)


def _climb(rays: Rays, rows: Tensor, v: Tensor, limit: Tensor, contest: Contest, steps: int) -> Tensor:
    """Newton steps to the level, projected on the ball as in PGD (Madry et al. 2018); each ray's shortest end.

    Args:
        rays: R rays.
        rows: Which ray each climber belongs to, ``(K,)``.
        v: Where climbers begin, ``(K, n)``.
        limit: Radii of their balls, ``(K,)``.
        contest: Of the R rays.
        steps: Gradients for each climber.
    """
    found = torch.full_like(rays.psi.origin, torch.nan)
    shortest = torch.full_like(rays.height, torch.inf).index_copy(0, rows, limit)
    some = rays.take(rows)
    for _ in range(steps if len(rows) else 0):
        excess, gradient = some.excess_and_gradient(v)
        contest.charge(rows)
        length = torch.where(excess >= 0, some.gauge.length(v), torch.inf)
        best = shortest.scatter_reduce(0, rows, length, "amin")
        nearer = torch.nonzero((length == best[rows]) & (length < shortest[rows]))[:, 0]
        found[rows[nearer]], shortest = v[nearer], best
        v = _into_ball(some, v + _step(some, excess, gradient, limit), limit)
    unit, length = rays.gauge.polar(found)
    met = crossing(rays, unit, torch.where(torch.isfinite(length), length, torch.inf), _LOOSE)
    return rays.displacement(unit, torch.where(torch.isfinite(met), met, torch.nan))


def _step(rays: Rays, excess: Tensor, gradient: Tensor, limit: Tensor) -> Tensor:
    """The shortest step to just above the level, by the linear model of ψ, shortened if that is far."""
    steepest = steepest_direction(gradient, rays.gauge.norm)
    length = (_BEYOND * rays.climb - excess) / dot(gradient, steepest)
    size = rays.gauge.length(steepest) * length.abs()
    length = torch.nan_to_num(length * (_LONGEST_STEP * limit / size).clamp(max=1), posinf=0.0, neginf=0.0)
    return length[:, None].to(steepest.dtype) * steepest


def _random_points(rays: Rays, limit: Tensor, generator: Generator) -> Tensor:
    """Points within the balls, in random directions of the coordinates that are not frozen, ``(R, n)``."""
    origin, scale = rays.psi.origin, rays.gauge.scale
    noise = torch.randn(origin.shape, generator=generator, dtype=torch.float32).to(origin)
    share = torch.rand(len(origin), generator=generator, dtype=torch.float64).to(limit) ** (1 / origin.shape[1])
    unit, _ = rays.gauge.polar(noise * (scale > 0).to(noise.dtype))
    return rays.displacement(unit, share * limit)


def _into_ball(rays: Rays, v: Tensor, limit: Tensor) -> Tensor:
    factor = (limit / rays.gauge.length(v)).nan_to_num(1.0).clamp(max=1)
    return rays.gauge.clip(factor[:, None].to(v.dtype) * v)
