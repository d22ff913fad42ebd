"""Polar descent: the nearest point of a level set, seen as a minimum over directions.

On the unit sphere of directions u, let r(u) be the radius at which the ray from the origin crosses the level.
With g = ∇ψ at the crossing, moving u by a tangent vector du changes r by dr/r = −g·du / (g·u), so the gradient
of log r is G = −P g / (g·u), P the projector onto the tangent space. A step of length 1 along −G,
u ← (u − G)/‖u − G‖ = g/‖g‖, is the fixed-point iteration of Hasofer, Lind, Rackwitz and Fiessler. Where balls are
round, steps are quasi-Newton; where they have corners, or displacements are bounded, they follow cutting planes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from landscape.geometry.approach import Landing
from landscape.geometry.contest import Contest
from landscape.geometry.cuts import Cuts, onto_ball, onto_bounds, project
from landscape.geometry.quasi_newton import CurvaturePairs
from landscape.geometry.rays import Rays
from landscape.geometry.vectors import dot, is_large, norm_of

# A trial point counts as on the level when ψ misses it by less than this share of the climb; the radius is
# corrected for the rest to first order, once it is less than this many times the square of the tolerance, to which
# distances are accurate, and than this share.
_ON_LEVEL = 0.1
_EXACT, _LEAST_EXACT = 300.0, 0.03
_SECANTS = 2
# Every so many rounds descents are reviewed: half of the competitors of an origin may stay, unless they are
# further behind than this; progress below this share ends one.
_REVIEW = 4
_HOPELESS = 1.1
_AT_LEAST = (2, 1)
_PROGRESS = 1e-3
_PATIENCE = 2
# Rays closer than this, relative to their length, at radii closer than this ratio, are on the way to one minimum.
_SAME_DIRECTION = 0.1
_SAME_RADIUS = 1.01
# A descent ends at a kink or in rounding noise when its steps are cut back below this.
_GIVE_UP_STEP = 0.02
# Memory of a quasi-Newton descent and of a bundle, in vectors for each ray; all rays together take this many
# numbers at the most.
_PAIRS, _CUTS = 5, 8
_MEMORY = 2**28
# Updates of the set of coordinates at bounds in a step within a box.
_UPDATES = 4
# The largest share by which a step along cutting planes shortens the radius.
_LARGEST_CUT = 0.3


@dataclass(frozen=True)
class Ends:
    """Where descents ended; radii are accurate to first order in the miss of the level."""

    direction: Tensor  # (R, n) of length 1; NaN where there was no start
    radius: Tensor  # (R,) inf where there was no start
    growth: Tensor  # (R,) dψ/dr along the ray
    stationary: Tensor  # (R,) bool: the angle to the gradient had become small
    twin: Tensor  # (R,) the ray that each has merged with, its own number if none

    @property
    def single(self) -> Tensor:
        """Which rays have not merged with another, ``(R,)`` bool."""
        return self.twin == torch.arange(len(self.twin), device=self.twin.device)

    def take(self, rows: Tensor) -> Ends:
        """Select rays; those that merged lose their twins."""
        direction = self.direction.index_select(0, rows)
        alone = torch.arange(len(direction), device=direction.device)
        return Ends(direction, self.radius[rows], self.growth[rows], self.stationary[rows], alone)

    def replaced(self, rows: Tensor, others: Ends) -> Ends:
        """The same with other ends in some rows."""
        return Ends(
            self.direction.index_copy(0, rows, others.direction),
            self.radius.index_copy(0, rows, others.radius),
            self.growth.index_copy(0, rows, others.growth),
            self.stationary.index_copy(0, rows, others.stationary),
            self.twin,
        )


def descend(
    rays: Rays, landing: Landing, tol: float, contest: Contest, most: float = math.inf, at_kinks: bool = False
) -> Ends:
    """Shorten the rays that reach their level, until the angle to the gradient or the progress is small.

    Args:
        rays: R rays.
        landing: Points near the level to start from.
        tol: Stop at this tangent of the angle between direction and gradient.
        contest: Rays of one origin compete for its budget; losers stop early.
        most: Rounds at most.
        at_kinks: Follow cutting planes, even where balls are round.
    """
    walk = (_QuasiNewton if rays.gauge.round and not at_kinks else _CuttingPlanes)(rays, landing, tol)
    del landing  # the descent goes on from its own vectors
    walk.merge(contest)
    walk.review(contest, 1)
    rounds = 0
    while rounds < most and walk.active.any():
        rows = torch.nonzero(walk.active)[:, 0]
        walk.advance(rows)
        contest.charge(rows)
        rounds += 1
        walk.active &= contest.open
        if rounds % _REVIEW == 0:
            walk.merge(contest)
            walk.review(contest, 1 + rounds // _REVIEW)
    return Ends(walk.direction, walk.radius, walk.growth, walk.stationary, walk.twin)


def settle(rays: Rays, direction: Tensor, radius: Tensor, excess: Tensor, growth: Tensor, tol: float) -> Tensor:
    """Radius at which rays meet their level, by secant steps from a point nearby; inf where it is not nearby.

    To first order that is r − e/ψ′; at kinks this is too short or too long, so what misses the level by
    more than a share of the climb that follows from ``tol`` is looked at again, with values only.
    """
    exact = min(_EXACT * tol**2, _LEAST_EXACT)
    before, missed = radius, excess
    found = radius - excess / growth
    near = (excess.abs() <= _ON_LEVEL * rays.climb) & (growth > 0)
    near &= torch.isfinite(found) & (found > radius / 3) & (found < 3 * radius)
    rows = torch.nonzero(near & (excess.abs() > exact * rays.climb))[:, 0]
    for _ in range(_SECANTS):
        if not len(rows):
            break
        some = rays.take(rows)
        now = some.excess(direction.index_select(0, rows), found[rows])
        slope = (now - missed[rows]) / (found[rows] - before[rows])
        better = found[rows] - now / slope
        steady = torch.isfinite(better) & (slope > 0) & (better > 0.5 * found[rows]) & (better < 2 * found[rows])
        before, missed = before.index_copy(0, rows, found[rows]), missed.index_copy(0, rows, now)
        found = found.index_copy(0, rows, torch.where(steady, better, torch.inf))
        rows = rows[steady & (now.abs() > exact * some.climb)]
    return torch.where(near, found, torch.inf)


class _Walk(ABC):
    """R descents in lock-step: each round costs every active one a gradient, at its trial point."""

    def __init__(self, rays: Rays, landing: Landing, tol: float) -> None:
        self.rays, self.tol = rays, tol
        self.direction, length = rays.gauge.polar(landing.v)
        self.growth = growth = dot(landing.gradient, rays.gauge.growing(landing.v)) / length
        settled = torch.full_like(length, torch.inf)
        rows = torch.nonzero(torch.isfinite(growth))[:, 0]
        settled[rows] = settle(
            rays.take(rows), self.direction[rows], length[rows], landing.excess[rows], growth[rows], tol
        )
        self.active = torch.isfinite(settled)
        beyond = landing.excess >= 0  # then the level is met on the way, wherever that is
        self.radius = torch.where(beyond, settled.minimum(length), settled)
        self.step = torch.ones_like(length)
        self.promise = self.radius.clone()  # how short a ray may still become
        self.reviewed = torch.full_like(length, torch.inf)
        self.stationary = torch.zeros_like(self.active)
        self.twin = torch.arange(len(length), device=length.device)

    @abstractmethod
    def advance(self, rows: Tensor) -> None:
        """Evaluate a trial point of each of the rows; accept it or not."""

    def merge(self, contest: Contest) -> None:
        """Let rays that have come to the same point go on as one; the first of them does the work.

        Rays are start-major, so that rays of one origin are as many places apart as there are origins.
        """
        origins = len(contest.left)
        for first, second in combinations(range(len(self.radius) // origins), 2):
            a, b = (torch.arange(origins, device=self.twin.device) + s * origins for s in (first, second))
            ratio = self.radius[a] / self.radius[b]
            near = (ratio < _SAME_RADIUS) & (ratio > 1 / _SAME_RADIUS) & (self.twin[a] == a) & (self.twin[b] == b)
            if not near.any():
                continue
            a, b = a[near], b[near]
            apart = norm_of(self.direction[a] - self.direction[b], 2)
            same = apart < _SAME_DIRECTION * norm_of(self.direction[a], 2)
            self.twin[b[same]] = a[same]
            self.active[b[same]] = False
        self.twin = self.twin[self.twin]  # whoever had merged with one that merges now follows it

    def review(self, contest: Contest, number: int) -> None:
        """Stop descents without progress since the last review, and losers of a contest."""
        running = torch.where(self.active, self.radius, torch.inf)
        self.active &= contest.rank(running) < (contest.size() >> number).clamp_min(_AT_LEAST[number > 2])
        self.active &= self.promise <= _HOPELESS * contest.best(self.radius)
        if number % _PATIENCE == 0:
            self.active &= self.radius < self.reviewed * (1 - _PROGRESS)
            self.reviewed = self.radius.clone()


def _capacity(like: Tensor, most: int) -> int:
    """Vectors to remember for each ray; of large ones half as many."""
    most = most // 2 if is_large(like) else most
    return max(1, min(most, _MEMORY // max(1, like.numel())))


class _QuasiNewton(_Walk):
    """Descent of log r(u) over the sphere by L-BFGS steps, cut back where they do not shorten r."""

    def __init__(self, rays: Rays, landing: Landing, tol: float) -> None:
        super().__init__(rays, landing, tol)
        self.pairs = CurvaturePairs(self.direction, _capacity(self.direction, _PAIRS))
        self.slope = torch.zeros_like(self.direction)  # −G, the tangent vector along which r shrinks
        self.move = torch.zeros_like(self.direction)  # the step to try, in the tangent space
        rows = torch.nonzero(self.active)[:, 0]
        self._set_slope(rows, landing.gradient[rows])
        self.move[rows] = self.slope[rows]

    def advance(self, rows: Tensor) -> None:
        some, radius = self.rays.take(rows), self.radius[rows]
        u, length, growing = self._trial(rows)
        excess, gradient = some.excess_and_gradient(some.displacement(u, length))
        growth = dot(gradient, u)
        corrected = settle(some, u, length, excess, growth, self.tol)
        shorter = corrected < radius * (1 - _PROGRESS * growing.clamp(0, 1))
        self.growth[rows[shorter]] = growth[shorter]
        if shorter.all():  # copies would cost large models memory
            self._accept(rows, u, corrected, gradient)
        else:
            self._accept(rows[shorter], u[shorter], corrected[shorter], gradient[shorter])
        self.step[rows] = torch.where(shorter, 1.0, self.step[rows] / 3)
        self.active[rows] = (self._tangent(rows) > self.tol) & (self.step[rows] > _GIVE_UP_STEP)

    def _trial(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Trial directions, and the radii at which they meet the plane tangent to the level set."""
        step, move = self.step[rows], self.move.index_select(0, rows)
        moved = self.direction.index_select(0, rows) + step[:, None].to(move.dtype) * move
        length, growing = norm_of(moved, 2), step * dot(self.slope.index_select(0, rows), move)
        return moved / length[:, None].to(moved.dtype), self.radius[rows] * length / (1 + growing), growing

    def _accept(self, rows: Tensor, u: Tensor, radius: Tensor, gradient: Tensor) -> None:
        move, before = u - self.direction.index_select(0, rows), self.slope.index_select(0, rows)
        self.direction[rows], self.radius[rows] = u, radius
        self._set_slope(rows, gradient)
        before -= self.slope[rows]
        self.pairs.add(rows, move, before)
        del move, before
        proposal = self.pairs.solve(rows, self.slope[rows])
        proposal = proposal - dot(proposal, u)[:, None].to(u.dtype) * u
        downhill = dot(proposal, self.slope[rows])
        safe = downhill > 1e-3 * norm_of(proposal, 2) * self._tangent(rows)
        self.move[rows] = torch.where(safe[:, None], proposal, self.slope[rows])

    def _set_slope(self, rows: Tensor, gradient: Tensor) -> None:
        u = self.direction.index_select(0, rows)
        slope = gradient / dot(gradient, u)[:, None].to(u.dtype)
        slope -= u
        self.slope[rows] = slope
        del u, slope
        tangent = self._tangent(rows)
        self.promise[rows] = self.radius[rows] / torch.sqrt(1 + tangent**2)
        self.stationary[rows] = tangent <= self.tol
        self.active[rows] &= tangent > self.tol

    def _tangent(self, rows: Tensor) -> Tensor:
        return norm_of(self.slope.index_select(0, rows), 2)


class _CuttingPlanes(_Walk):
    """A bundle method: steps go to the best point that all linear models of ψ near the level allow.

    In the 2-norm that is the shortest displacement. In the others the shortest one is a corner of a ball, far
    away; so a step goes to the nearest point in a ball that is smaller by a share (the level method of Lemaréchal,
    Nemirovskii & Nesterov 1995).
    """

    def __init__(self, rays: Rays, landing: Landing, tol: float) -> None:
        super().__init__(rays, landing, tol)
        self.cuts = Cuts(self.direction, _capacity(self.direction, _CUTS))
        rows = torch.nonzero(self.active)[:, 0]
        self.cuts.add(rows, landing.v[rows], landing.excess[rows], landing.gradient[rows])
        self.step *= 1.0 if rays.gauge.norm == 2 else 1 / 3
        self.least = max(tol**2, 1e-6) / _LARGEST_CUT if rays.gauge.norm != 2 else _GIVE_UP_STEP

    def advance(self, rows: Tensor) -> None:
        some, radius = self.rays.take(rows), self.radius[rows]
        v = some.displacement(self.direction.index_select(0, rows), radius)
        trial = self._trial(rows, some, v)
        length = some.gauge.length(trial)
        excess, gradient = some.excess_and_gradient(trial)
        growth = dot(gradient, some.gauge.growing(trial)) / length
        unit = trial / length[:, None].to(trial.dtype)
        corrected = settle(some, unit, length, excess, growth, self.tol)
        corrected = torch.where(excess >= 0, corrected.minimum(length), corrected)
        shorter = corrected < radius
        well = shorter & (radius - corrected > 0.5 * (radius - length))
        self.cuts.add(rows, trial, excess, gradient)
        unit, size = some.gauge.polar(some.displacement(unit, torch.where(shorter, corrected, length)))
        self.direction[rows[shorter]], self.radius[rows[shorter]] = unit[shorter], size[shorter]
        self.growth[rows[shorter]] = growth[shorter]
        step = self.step[rows]
        self.step[rows] = torch.where(well, (2 * step).clamp(max=1), torch.where(shorter, step, step / 3))
        self.promise[rows] = torch.minimum(self.radius[rows], self.radius[rows] * (1 - _LARGEST_CUT * step))
        gain = 1 - length / radius
        self.active[rows] = (self.step[rows] > self.least) & (gain > self.tol**2 / 2 * (some.gauge.norm == 2))

    def _trial(self, rows: Tensor, rays: Rays, v: Tensor) -> Tensor:
        normal, offset = self.cuts.around(rows, v)
        step, gauge = self.step[rows], rays.gauge
        if gauge.norm == 2:
            target, weights = project(torch.zeros_like(v), normal, offset, onto_bounds(gauge), _UPDATES)
            trial = v + step[:, None].to(v.dtype) * (target - v)
        else:
            ball = onto_ball(gauge, self.radius[rows] * (1 - _LARGEST_CUT * step))
            trial, weights = project(v, normal, offset, ball, _UPDATES if gauge.norm == 1 else 1)
        self.cuts.mark_active(rows, weights)
        return trial
