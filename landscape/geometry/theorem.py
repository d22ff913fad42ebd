"""Theorem 1 of Khritankov et al. as a measurement: does φ stay below c, and below the cone, within d(c)?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from landscape.geometry.level_sets import LevelSetDistance, width
from landscape.objectives import Objective

# Numbers in one block of points that are evaluated at once.
_BLOCK = 8_000_000


@dataclass(frozen=True)
class TheoremCheck:
    """Both parts of Theorem 1 on points of the ball ‖x − x*‖ ≤ d(c), as shares of the points that were tried.

    Rows and levels without a distance hold NaN.
    """

    levels: Tensor  # (C,)
    num_points: Tensor  # (B, C) points at which φ is defined
    above_level: Tensor  # (B, C) share with φ(x) > c, against part 1
    above_cone: Tensor  # (B, C) share with φ(x) − φ* > ‖x − x*‖ / w(c), against part 2
    not_convex: Tensor  # (B, C) share with φ((x + x*)/2) > (φ(x) + φ*)/2: no premise for part 2 on that segment
    worst_level: Tensor  # (B, C) max (φ(x) − φ*) / (c − φ*); above 1, d(c) is too long
    worst_ratio: Tensor  # (B, C) max (φ(x) − φ*) w(c) / ‖x − x*‖


def check_theorem(
    phi: Objective, found: LevelSetDistance, directions: Tensor, fractions: Tensor, tolerance: float = 1e-4
) -> TheoremCheck:
    """Theorem 1 at the points x* + f d(c) u, for every row and level.

    1. φ(x) ≤ c. This follows from continuity on the ball alone, by the intermediate value theorem on the segment
       from x* to x: if it fails, the d(c) that was found is longer than the true one.
    2. φ(x) − φ(x*) ≤ ‖x − x*‖ / w(c), if φ is convex on the ball.

    Args:
        phi: The objective whose distances were found.
        found: Euclidean distances d(c).
        directions: u, ``(S, B, n)``, of any length; what is zero or not finite is left out.
        fractions: f in (0, 1], ``(S,)``.
        tolerance: Excess over either bound that is not counted, in units of the bound.
    """
    units = directions / torch.linalg.vector_norm(directions, dim=-1, keepdim=True)
    climb = found.levels - found.value[:, None]
    columns = []
    for i in range(len(found.levels)):
        steps = fractions.to(units)[:, None] * found.distance[:, i].to(units)
        rise = (_values(phi, units, steps) - found.value) / climb[:, i]
        half = (_values(phi, units, steps / 2) - found.value) / climb[:, i]
        columns.append(_column(rise, half, fractions.to(rise)[:, None], tolerance))
    stacked = [torch.stack(parts, 1) for parts in zip(*columns, strict=True)]
    return TheoremCheck(found.levels, *stacked)


def _column(rise: Tensor, half: Tensor, fraction: Tensor, tolerance: float) -> tuple[Tensor, ...]:
    """The fields of a check for one level; ``rise`` and ``half`` are in units of c − φ*, ``(S, B)``."""
    ratio = rise / fraction
    defined = torch.isfinite(ratio)
    count = defined.sum(0)

    def share(violated: Tensor) -> Tensor:
        return (violated & defined).sum(0) / torch.where(count > 0, count.double(), torch.nan)

    def worst(values: Tensor) -> Tensor:
        largest = torch.where(defined, values, -torch.inf).amax(0)
        return torch.where(count > 0, largest, torch.nan)

    return (
        count,
        share(rise > 1 + tolerance),
        share(ratio > 1 + tolerance),
        share(half > rise / 2 + tolerance * fraction),
        worst(rise),
        worst(ratio),
    )


def _values(phi: Objective, units: Tensor, steps: Tensor) -> Tensor:
    """φ at x* + step · u, a block of directions at a time, ``(S, B, n), (S, B) -> (S, B)``."""
    count, rows, size = units.shape
    block = max(1, _BLOCK // (rows * size))
    values = []
    for u, step in zip(units.split(block), steps.split(block), strict=True):
        index = torch.arange(rows, device=u.device).repeat(len(u))
        points = phi.origin + step[..., None] * u
        values.append(phi.take(index).value(points.reshape(-1, size)).reshape(len(u), rows))
    return torch.cat(values) if count else units.new_empty(0, rows, dtype=torch.float64)


def random_rays(origin: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Uniform directions ``(count, B, n)``, and fractions uniform in (0, 1], ``(count,)``.

    In high dimension they are benign: a random direction has next to no part in the few curved ones.
    """
    generator = Generator().manual_seed(seed)
    directions = torch.randn((count, *origin.shape), generator=generator, dtype=torch.float64)
    fractions = 1 - torch.rand(count, generator=generator, dtype=torch.float64)
    return directions.to(origin), fractions.to(origin.device)


def even_rays(directions: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Every direction of ``(S, B, n)`` at the fractions 1/steps, 2/steps, …, 1."""
    fractions = torch.arange(1, steps + 1, dtype=torch.float64, device=directions.device) / steps
    return directions.repeat_interleave(steps, 0), fractions.repeat(len(directions))


def width_ratios(found: LevelSetDistance) -> Tensor:
    """w(c) / w(c′) for every pair of levels, ``(B, C′, C)``; NaN where not c′ < c or a distance is missing.

    The highest point of the ball of radius d(c′) is at c′, so that part 2 of Theorem 1 holds on the ball of radius
    d(c) if and only if no lower level has a smaller width: all these ratios are at most 1, as they are if φ is
    convex. It is the one test of part 2 that does not depend on luck with directions.
    """
    w = width(found)
    lower = found.levels[:, None] < found.levels
    return torch.where(lower, w[:, None, :] / w[:, :, None], torch.nan)


def slope_ratio(found: LevelSetDistance) -> Tensor:
    """‖∇φ(x_c)‖ w(c) at the nearest points that were found, ``(B, C)``.

    A Lipschitz constant K of φ on the ball is no smaller than 1/w(c), by the definition of w, and no smaller than
    ‖∇φ(x_c)‖. This is the second bound in units of the first: 1 for a cone, 2 for a quadratic, and unbounded in
    general.
    """
    return found.gradient_norm * width(found)
