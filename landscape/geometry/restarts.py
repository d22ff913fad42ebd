"""Where a search begins anew: displacements that lead from a local minimum to other ones, usually deeper."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

from landscape.geometry.contest import Contest
from landscape.geometry.rays import Rays
from landscape.geometry.vectors import finite, norm_of, steepest_direction

# Gradients are averaged over so many pairs of opposite points, at so many lengths of the displacement.
_PAIRS = 2
_SURROUNDINGS = {1.0: 2.0, 2.0: 4.0, math.inf: 2.0}
# Corners of a ball that are looked at: on both sides of so many coordinates, the steepest.
_CORNERS = 16
# Large steps: how many, and the first one in units of the radius, from 1 to this.
_ANNEALING, _LARGEST_STEP = 24, 100.0
# By how much the radius changes in each, at first and at last.
_PACE, _LAST_PACE = 0.3, 0.03


def corners(rays: Rays, v: Tensor, contest: Contest) -> Tensor:
    """Corners of balls in the 1-norm as large as ``v``, where ψ is highest; NaN if below the level, ``(R, n)``.

    A convex function is highest on a ball at one of its corners, and each of them can hold a search.
    """
    rows = torch.nonzero(finite(v))[:, 0]
    if not len(rows):
        return torch.full_like(v, torch.nan)
    some, here = rays.take(rows), v[rows]
    radius = some.gauge.length(here)
    excess, gradient = some.excess_and_gradient(here)
    contest.charge(rows)
    highest, corner = torch.zeros_like(excess), torch.full_like(gradient, torch.nan)
    for coordinate in gradient.abs().topk(min(_CORNERS, v.shape[1])).indices.T:
        axis = functional.one_hot(coordinate, v.shape[1]).to(v.dtype)
        for side in (axis, -axis):
            excess = some.excess(side, radius)
            higher = excess > highest
            highest = torch.where(higher, excess, highest)
            corner = torch.where(higher[:, None], some.displacement(side, radius), corner)
    return torch.full_like(v, torch.nan).index_copy(0, rows, corner)


def smoothed(rays: Rays, v: Tensor, contest: Contest, generator: Generator) -> Tensor:
    """Displacements as long as ``v`` along the mean unit gradient around it, ``(R, n)``.

    The average smooths kinks and small dents away (randomised smoothing, Duchi et al. 2012).
    """
    rows = torch.nonzero(finite(v))[:, 0]
    if not len(rows):
        return torch.full_like(v, torch.nan)
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


def annealed(rays: Rays, v: Tensor, contest: Contest, generator: Generator) -> Tensor:
    """Displacements found by large steps that shrink, ``(R, n)``: they cross from one basin into others.

    Each step adds a multiple of the steepest direction to the unit displacement, and moves the radius towards the
    level, as minimum-norm attacks do (Rony et al. 2018; cosine schedule of Pintor et al. 2021). Noise at the start
    and in the size of the steps makes every attempt another one.
    """
    rows = torch.nonzero(finite(v))[:, 0]
    if not len(rows):
        return torch.full_like(v, torch.nan)
    some = rays.take(rows)
    unit, radius = some.gauge.polar(v[rows])
    noise, _ = some.gauge.polar(torch.randn(unit.shape, generator=generator, dtype=torch.float32).to(unit))
    largest = _LARGEST_STEP ** torch.rand(len(unit), 1, generator=generator, dtype=torch.float32).to(unit)
    unit, _ = some.gauge.polar(unit + noise)
    for number in range(_ANNEALING):
        excess, gradient = some.excess_and_gradient(some.displacement(unit, radius))
        contest.charge(rows)
        cooling = (1 + math.cos(math.pi * number / _ANNEALING)) / 2
        steepest, _ = some.gauge.polar(steepest_direction(gradient, rays.gauge.norm))
        unit, _ = some.gauge.polar(unit + cooling * largest * steepest.nan_to_num())
        pace = _LAST_PACE + _PACE * cooling
        radius = radius * torch.where(excess >= 0, 1 - pace, 1 + pace)
    result = torch.full_like(v, torch.nan)
    result[rows] = some.displacement(unit, radius)
    return result
