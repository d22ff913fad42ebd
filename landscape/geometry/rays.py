"""Crossings of a level on rays, for many rays in lock-step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.geometry.gauge import Gauge
from landscape.objectives import Objective

# Accuracy of a crossing, in units of the climb from the origin to the level; no better than so many units of
# rounding.
_TOLERANCE = 1e-7
_ROUNDING = 16
_MAX_EVALUATIONS = 60
# Secant steps from a radius that is nearly right, and how far they may lead, relative to it.
_MAX_SECANTS = 8
_NEARBY = 0.1


@dataclass
class Counter:
    """Evaluations of φ and of its gradient, in rows."""

    values: int = 0
    gradients: int = 0


@dataclass(frozen=True)
class Rays:
    """R rays x(r) = origin + r D u from points of an objective, with a level to find on each.

    Where displacements are bounded, a ray that leaves the bounds goes on along them: v = clip(r u).
    """

    psi: Objective  # search form of φ, R rows
    gauge: Gauge  # of R rows
    height: Tensor  # (R,) ψ at the origin
    target: Tensor  # (R,) level of ψ
    counter: Counter

    @property
    def climb(self) -> Tensor:
        """ψ from the origin to the level, ``(R,)``."""
        return (self.target - self.height).abs()

    @property
    def tolerance(self) -> float:
        """How nearly a point is on its level, in units of the climb."""
        return max(_TOLERANCE, _ROUNDING * torch.finfo(self.psi.origin.dtype).eps)

    def displacement(self, direction: Tensor, radius: Tensor) -> Tensor:
        """V at the given radii, ``(R, n), (R,) -> (R, n)``."""
        return self.gauge.clip(radius[:, None].to(direction.dtype) * direction)

    def point(self, v: Tensor) -> Tensor:
        """Points x₀ + D v, ``(R, n) -> (R, n)``."""
        return self.psi.origin + self.gauge.stretched(v).to(self.psi.origin.dtype)

    def excess(self, direction: Tensor, radius: Tensor) -> Tensor:
        """ψ − target at the given radii, ``(R,)`` float64; what is not finite counts as NaN."""
        self.counter.values += len(radius)
        return self.psi.value(self.point(self.displacement(direction, radius))) - self.target

    def excess_and_gradient(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """ψ − target, and the gradient with respect to v, ``(R, n) -> (R,), (R, n)``."""
        self.counter.gradients += len(v)
        value, gradient = self.psi.value_and_grad(self.point(v))
        return value - self.target, self.gauge.stretched(gradient)

    def take(self, rows: Tensor) -> Rays:
        """Select or repeat rays; all of them in their order are not copied."""
        if len(rows) == len(self.height) and torch.equal(rows, torch.arange(len(rows), device=rows.device)):
            return self
        return Rays(self.psi.take(rows), self.gauge.take(rows), self.height[rows], self.target[rows], self.counter)


def outer_bracket(rays: Rays, direction: Tensor, guess: Tensor, expansions: int = 40) -> Tensor:
    """A radius at which each ray is above its level, found by doubling; inf where none is met, ``(R,)``."""
    radius = guess.clone()
    found = torch.zeros_like(radius, dtype=torch.bool)
    lost = ~torch.isfinite(radius)
    for _ in range(expansions):
        open_rows = torch.nonzero(~found & ~lost)[:, 0]
        if not len(open_rows):
            break
        excess = rays.take(open_rows).excess(direction.index_select(0, open_rows), radius[open_rows])
        found[open_rows] = excess >= 0
        lost[open_rows] = torch.isnan(excess)
        radius = torch.where(found | lost, radius, 2 * radius)
    return torch.where(found, radius, torch.inf)


def crossing(rays: Rays, direction: Tensor, upper: Tensor, tolerance: float = 0.0) -> Tensor:
    """A radius in (0, upper] at which each ray crosses its level; inf where ``upper`` is, ``(R,)``.

    It ends where ψ misses the level by less than ``tolerance`` times the climb, or by what points on it may miss.

    Chandrupatla's method (1997): inverse quadratic interpolation where it is safe, bisection elsewhere.
    """
    result = torch.full_like(upper, torch.inf)
    rows = torch.nonzero(torch.isfinite(upper))[:, 0]
    if len(rows):
        some = rays.take(rows)
        result[rows] = _chandrupatla(
            lambda radius, index: some.take(index).excess(direction.index_select(0, rows[index]), radius),
            upper[rows],
            some.height - some.target,
            max(tolerance, rays.tolerance) * torch.nan_to_num(some.target - some.height, posinf=1.0).abs(),
            2 * torch.finfo(rays.psi.origin.dtype).eps,
        )
    return result


def polished(rays: Rays, direction: Tensor, radius: Tensor) -> Tensor:
    """Radii at which rays cross their level, by secant steps from radii nearby; inf where they do not arrive."""
    result = torch.full_like(radius, torch.inf)
    rows = torch.nonzero(torch.isfinite(radius) & (rays.height < rays.target))[:, 0]
    before, missed = torch.zeros_like(radius), rays.height - rays.target
    now = radius.clone()
    for _ in range(_MAX_SECANTS):
        if not len(rows):
            break
        some, here = rays.take(rows), now[rows]
        excess = some.excess(direction.index_select(0, rows), here)
        arrived = excess.abs() <= rays.tolerance * some.climb
        result[rows[arrived]] = here[arrived]
        slope = (excess - missed[rows]) / (here - before[rows])
        following = here - excess / slope
        steady = ~arrived & (slope > 0) & ((following / radius[rows] - 1).abs() < _NEARBY)
        before[rows], missed[rows], now[rows] = here, excess, following
        rows = rows[steady]
    return result


def _chandrupatla(
    function: Callable[[Tensor, Tensor], Tensor],
    upper: Tensor,
    start: Tensor,
    tolerance: Tensor,
    resolution: float,
) -> Tensor:
    """Roots of increasing-at-the-ends functions on [0, upper], values below ``tolerance`` accepted, ``(R,)``.

    Brackets narrower than ``resolution``, relative to the root, hold one point only, as points are rounded.
    """
    everything = torch.arange(len(upper), device=upper.device)
    b, fb = torch.zeros_like(upper), start
    a, fa = upper.clone(), function(upper, everything)
    c, fc = b.clone(), fb.clone()
    fraction = torch.full_like(upper, 0.5)
    for _ in range(_MAX_EVALUATIONS):
        root, value = _closer(a, fa, b, fb)
        width = (b - a).abs()
        active = (value.abs() > tolerance) & (width > resolution * root.abs().clamp_min(1e-300))
        index = torch.nonzero(active)[:, 0]
        if not len(index):
            break
        trial = (a + fraction * (b - a))[index]
        new = function(trial, index)
        new = torch.where(torch.isnan(new), torch.inf, new)
        same = torch.sign(new) == torch.sign(fa[index])
        c[index] = torch.where(same, a[index], b[index])
        fc[index] = torch.where(same, fa[index], fb[index])
        b[index] = torch.where(same, b[index], a[index])
        fb[index] = torch.where(same, fb[index], fa[index])
        a[index], fa[index] = trial, new
        fraction = _next_fraction(a, fa, b, fb, c, fc)
    return _closer(a, fa, b, fb)[0]


def _closer(a: Tensor, fa: Tensor, b: Tensor, fb: Tensor) -> tuple[Tensor, Tensor]:
    first = fa.abs() < fb.abs()
    return torch.where(first, a, b), torch.where(first, fa, fb)


def _next_fraction(a: Tensor, fa: Tensor, b: Tensor, fb: Tensor, c: Tensor, fc: Tensor) -> Tensor:
    """Where in the bracket [a, b] to look next: by inverse quadratic interpolation if it is monotone there."""
    xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
    safe = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
    interpolated = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
    fraction = torch.where(safe & torch.isfinite(interpolated), interpolated, 0.5)
    return fraction.clamp(1e-6, 1 - 1e-6)
