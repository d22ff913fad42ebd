"""Where a search begins anew: displacements that lead from a local minimum to other ones, usually deeper."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from landscape.geometry.contest import Contest
from landscape.geometry.gauge import norm_of, steepest_direction
from landscape.geometry.rays import Rays

# Gradients are averaged over so many pairs of opposite points, at so many lengths of the displacement.
_PAIRS = 2
_SURROUNDINGS = {1.0: 2.0, 2.0: 4.0, math.inf: 2.0}
# Large steps: how many, the first one in units of the radius, and the change of the radius in each.
_ANNEALING, _LARGEST_STEP, _PACE = 24, 10.0, 0.05


def smoothed(rays: Rays, v: Tensor, contest: Contest, generator: Generator) -> Tensor:
    """Displacements as long as ``v`` along the mean unit gradient around it, ``(R, n)``.

    The average smooths kinks and small dents away (randomised smoothing, Duchi et al. 2012).
    """
    rows = torch.nonzero(torch.isfinite(v).all(-1))[:, 0]
    some, centre = rays.take(rows), v[rows]
    spread = _SURROUNDINGS[rays.gauge.norm] * norm_of(centre, 2) / math.sqrt(v.shape[1])
    total = torch.zeros_like(centre)
    for _ in range(_PAIRS):
        noise = torch.randn(centre.shape, generator=generator, dtype=torch.float32).to(centre)
        for side in (spread, -spread):
            _, gradient = some.excess_and_gradient(
                some.gauge.clip(centre + side[:, None].to(centre.dtype) * noise)
            )
            contest.charge(rows)
            total += torch.nan_to_num(gradient / norm_of(gradient, 2)[:, None].to(gradient.dtype))
    unit, _ = some.gauge.polar(steepest_direction(total, rays.gauge.norm))
    result = torch.full_like(v, torch.nan)
    result[rows] = some.displacement(unit, some.gauge.length(centre))
    return result


def annealed(rays: Rays, v: Tensor, contest: Contest) -> Tensor:
    """Displacements found by large steps that shrink, ``(R, n)``: they cross from one basin into others.

    Each step adds a multiple of the steepest direction to the unit displacement, and moves the radius a little
    towards the level, as minimum-norm attacks do (Rony et al. 2018; cosine schedule of Pintor et al. 2021).
    """
    rows = torch.nonzero(torch.isfinite(v).all(-1))[:, 0]
    some = rays.take(rows)
    unit, radius = some.gauge.polar(v[rows])
    for number in range(_ANNEALING):
        excess, gradient = some.excess_and_gradient(some.displacement(unit, radius))
        contest.charge(rows)
        steepest, _ = some.gauge.polar(steepest_direction(gradient, rays.gauge.norm))
        step = _LARGEST_STEP * (1 + math.cos(math.pi * number / _ANNEALING)) / 2
        unit, _ = some.gauge.polar(unit + step * steepest.nan_to_num())
        radius = radius * torch.where(excess >= 0, 1 - _PACE, 1 + _PACE)
    result = torch.full_like(v, torch.nan)
    result[rows] = some.displacement(unit, radius)
    return result
