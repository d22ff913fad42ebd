"""From random points of a ball up to the level: what gets there is nearer than the ball's radius.

A point at distance r is the nearest of its level just if φ stays below the level within r. Starts far away do not
see small regions above the level near the origin; points between them and the origin do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from landscape.geometry.contest import Contest
from landscape.geometry.cuts import Cuts, onto_ball, onto_bounds, project
from landscape.geometry.rays import Rays, crossing
from landscape.geometry.starts import Starts

# A step aims this share of the climb above the level, not more, for a hill may end there. It goes no farther than
# this share of the radius.
_BEYOND = 2e-3
_LONGEST_STEP = 0.3
# Accuracy of a crossing from which a descent starts, in units of the climb.
_LOOSE = 0.02


@dataclass(frozen=True)
class Climbers:
    """How many of them for each origin, the gradients that each may take, and the linear models it obeys."""

    number: int
    steps: int
    cuts: int

    @property
    def cost(self) -> int:
        """Gradients for each origin."""
        return self.number * self.steps


# Smooth hills are found by many, and climbed in a few steps. At kinks one linear model alone leads to and fro
# across the ridge: there few climb long.
MANY, LONG = Climbers(16, 4, 1), Climbers(4, 16, 3)
# From starts, where none has reached the level.
_FROM_STARTS = Climbers(4, 20, 3)


def climb_within(rays: Rays, radius: Tensor, contest: Contest, climbers: Climbers, generator: Generator) -> Tensor:
    """Displacements on the level shorter than ``radius``, NaN where none was found, ``(R,) -> (R, n)``."""
    rows = torch.nonzero(torch.isfinite(radius))[:, 0].repeat(climbers.number)
    some, limit = rays.take(rows), radius[rows]
    return _climb(rays, rows, _random_points(some, limit, generator), limit, contest, climbers)


def climb_out(rays: Rays, lost: Tensor, starts: Starts, contest: Contest) -> Tensor:
    """Displacements on the level from some of the starts, for the rays that are lost, ``(R,) -> (R, n)``.

    Where φ is concave these steps come to the level if there is one (Polyak 1969), on whatever ray it is.
    """
    few = torch.stack(list(starts)[:: -(-len(starts) // _FROM_STARTS.number)])
    index = torch.nonzero(lost)[:, 0]
    rows = index.repeat(len(few))
    limit = torch.full((len(rows),), torch.inf, dtype=torch.float64, device=rows.device)
    return _climb(rays, rows, few[:, index].reshape(len(rows), -1), limit, contest, _FROM_STARTS)


def _climb(rays: Rays, rows: Tensor, v: Tensor, limit: Tensor, contest: Contest, kind: Climbers) -> Tensor:
    """Steps along cutting planes to the level, projected on the ball; each ray's shortest end.

    Args:
        rays: R rays.
        rows: Which ray each climber belongs to, ``(K,)``.
        v: Where climbers begin, ``(K, n)``.
        limit: Radii of their balls, ``(K,)``.
        contest: Of the R rays.
        kind: Of climbers.
    """
    found = torch.full_like(rays.psi.origin, torch.nan)
    shortest = torch.full_like(rays.height, torch.inf).index_copy(0, rows, limit)
    some, everyone, cuts = rays.take(rows), torch.arange(len(rows), device=rows.device), Cuts(v, kind.cuts)
    for _ in range(kind.steps if len(rows) else 0):
        excess, gradient = some.excess_and_gradient(v)
        contest.charge(rows)
        length = torch.where(excess >= 0, some.gauge.length(v), torch.inf)
        best = shortest.scatter_reduce(0, rows, length, "amin")
        nearer = torch.nonzero((length == best[rows]) & (length < shortest[rows]))[:, 0]
        found[rows[nearer]], shortest = v[nearer], best
        cuts.add(everyone, v, excess - _BEYOND * some.climb, gradient)
        v = _into_ball(some, v + _step(some, cuts.of(everyone), v, limit), limit)
    unit, length = rays.gauge.polar(found)
    met = crossing(rays, unit, torch.where(torch.isfinite(length), length, torch.inf), _LOOSE)
    return rays.displacement(unit, torch.where(torch.isfinite(met), met, torch.nan))


def _step(rays: Rays, cuts: tuple[Tensor, Tensor], v: Tensor, limit: Tensor) -> Tensor:
    """The shortest step to just above the level, by linear models of ψ, shortened if that is far."""
    onto = onto_bounds(rays.gauge) if rays.gauge.norm == 2 else onto_ball(rays.gauge, limit)
    target, _ = project(v, *cuts, onto, 1)
    step = target - v
    factor = (_LONGEST_STEP * limit / rays.gauge.length(step)).clamp(max=1)
    return (factor[:, None].to(step.dtype) * step).nan_to_num()


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
