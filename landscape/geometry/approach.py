"""From the inside to the level: a few cutting-plane steps lead from a rough start to a point near it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.geometry.contest import Contest
from landscape.geometry.cuts import Cuts, onto_bounds, project
from landscape.geometry.gauge import Gauge
from landscape.geometry.rays import Rays, crossing, outer_bracket
from landscape.geometry.vectors import dot, dots, finite

# A point counts as on the level when ψ misses it by less than this share of the climb.
_NEAR_LEVEL = 0.05
_ROUNDS = 4
# A step goes at most this much farther than the one before.
_GROWTH = 4.0
# Below this share of the mean, a gradient's component does not decide the sign of a step in the ∞-norm.
_UNDECIDED = 0.1
# Accuracy of a crossing from which a descent starts, in units of the climb.
_LOOSE = 0.02
# Updates of the set of coordinates at bounds in a step; where it only tells how much each cut weighs, fewer.
_UPDATES, _FEW_UPDATES = 4, 2


@dataclass(frozen=True)
class Landing:
    """Points near the level, with what is known of ψ there; NaN where there is none."""

    v: Tensor  # (R, n) displacement
    excess: Tensor  # (R,) ψ − target
    gradient: Tensor  # (R, n) of ψ with respect to v


def approach(rays: Rays, start: Tensor, contest: Contest) -> Landing:
    """Points near the level, from displacements to look at first, ``(R, n)``.

    Each round takes the shortest displacement that satisfies the linear models of ψ at all points seen so far
    (Kelley 1960). Rays that do not end on the level are searched outwards.
    """
    nowhere = torch.full_like(start, torch.nan)
    landing = Landing(nowhere, torch.full_like(rays.height, torch.nan), nowhere.clone())
    rows = torch.nonzero(finite(start) & (rays.height < rays.target))[:, 0]
    v, cuts = start.clone(), Cuts(start, _ROUNDS)
    for _ in range(_ROUNDS):
        if not len(rows):
            break
        some = rays.take(rows)
        here = v.index_select(0, rows)
        excess, gradient = some.excess_and_gradient(here)
        contest.charge(rows)
        near = (excess.abs() <= _NEAR_LEVEL * some.climb) & (dot(gradient, here) > 0)
        _land(landing, rows[near], here[near], excess[near], gradient[near])
        cuts.add(rows, here, excess, gradient)
        far = torch.nonzero(~near)[:, 0]
        rows, here, excess = rows[far], here.index_select(0, far), excess[far]
        v[rows] = _next(some.gauge.take(far), cuts, rows, here, excess)
    if len(rows):
        _land_outwards(landing, rays, rows, (v, start))
    return landing


def _land(landing: Landing, rows: Tensor, v: Tensor, excess: Tensor, gradient: Tensor) -> None:
    landing.v[rows], landing.excess[rows], landing.gradient[rows] = v, excess, gradient


def _next(gauge: Gauge, cuts: Cuts, rows: Tensor, v: Tensor, excess: Tensor) -> Tensor:
    """Where to look after ``v``: at the shortest displacement that all cuts allow."""
    following = shortest(gauge, *cuts.of(rows))
    length, size = gauge.length(v), gauge.length(following)
    lost = ~finite(following) | ~(size > 0)
    turned = torch.where(excess < 0, 2.0, 0.25).to(v.dtype)[:, None] * v
    limited = following * (_GROWTH * length / size).clamp(max=1).to(v.dtype)[:, None]
    return gauge.clip(torch.where(lost[:, None], turned, limited))


def _land_outwards(landing: Landing, rays: Rays, rows: Tensor, displacements: tuple[Tensor, ...]) -> None:
    """Land at the first crossing on the ray through one of several displacements, tried in order."""
    for v in displacements:
        some = rays.take(rows)
        unit, length = some.gauge.polar(v[rows])
        radius = crossing(some, unit, outer_bracket(some, unit, length.nan_to_num(torch.inf)), _LOOSE)
        met = torch.isfinite(radius)
        if met.any():
            there = some.displacement(unit, radius)[met]
            _land(landing, rows[met], there, *some.take(torch.nonzero(met)[:, 0]).excess_and_gradient(there))
        rows = rows[~met]
        if not len(rows):
            break


def shortest(gauge: Gauge, normal: Tensor, offset: Tensor) -> Tensor:
    """About the shortest displacement that obeys the cuts, ``(R, m, n), (R, m) -> (R, n)``."""
    centre = torch.zeros_like(normal[:, 0])
    updates = 1 if gauge.lower is None else _UPDATES if gauge.norm == 2 else _FEW_UPDATES
    w, weights = project(centre, normal, offset, onto_bounds(gauge), updates)
    if gauge.norm == 2:
        return w
    pull = torch.einsum("rm,rmn->rn", weights.to(normal.dtype), normal)
    if gauge.norm == 1 and gauge.lower is not None:
        return _steepest_first(gauge, pull, (weights * offset.nan_to_num(neginf=0.0)).sum(1))
    size = pull.abs()
    if gauge.norm == 1:
        shape = torch.where(size >= 0.5 * size.amax(1, keepdim=True), pull, 0.0)
    else:
        shape = pull / torch.maximum(size, _UNDECIDED * size.mean(1, keepdim=True))
    grown = dots(normal, shape)
    needed = torch.where((weights > 0) & (grown > 0), offset / grown, 0.0).amax(1)
    return shape * needed[:, None].to(shape.dtype)


def _steepest_first(gauge: Gauge, normal: Tensor, offset: Tensor) -> Tensor:
    """The shortest displacement in the 1-norm with g·w ≥ b: the steepest coordinates go to their bounds."""
    if gauge.lower is None or gauge.upper is None:
        return torch.full_like(normal, torch.nan)
    order = normal.abs().argsort(1, descending=True)
    slope = normal.abs().gather(1, order).double()
    room = torch.where(normal > 0, gauge.upper, -gauge.lower).gather(1, order).double()
    before = (slope * room).cumsum(1) - slope * room
    amount = torch.where(slope > 0, (offset[:, None] - before) / slope, 0.0).clamp_min(0).minimum(room)
    return torch.zeros_like(normal).scatter(1, order, amount.to(normal.dtype)) * normal.sign()
