"""Distances from a point to level sets of any Objective, and the widths they define."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.errors import ConfigurationError
from landscape.geometry.continuation import Continuation
from landscape.geometry.metrics import metric_scale
from landscape.geometry.search import Nearest
from landscape.objectives import Objective

# Ends within this factor of the shortest distance count as having found it.
_AGREEING = 1.01


@dataclass(frozen=True)
class LevelSetDistance:
    """Distances from B origins to C level sets, with the evidence for each."""

    levels: Tensor  # (C,)
    value: Tensor  # (B,) φ at the origin
    distance: Tensor  # (B, C), NaN where the level was not reached or is not above φ at the origin
    points: Tensor  # (B, C, n) the nearest points found, NaN likewise
    level_error: Tensor  # (B, C) |φ(point) − c|
    angle: Tensor  # (B, C) angle between displacement and gradient, radians
    spread: Tensor  # (B, C) longest over shortest end of the starts that reached the level, minus 1
    agreement: Tensor  # (B, C) share of all starts that ended within 1 % of the shortest
    reached: Tensor  # (B, C) bool
    below_minimum: Tensor  # (B, C) bool: c ≤ φ(origin), so that no width is defined
    num_gradients: float  # gradients of φ per origin
    num_values: float  # values of φ per origin


def level_set_distance(
    phi: Objective,
    levels: Sequence[float] | Tensor,
    metric: str | Tensor = "euclidean",
    starts: Tensor | None = None,
    seed: int = 0,
    num_random: int = 1,
    tol: float = 1e-2,
    budget: int = 60,
) -> LevelSetDistance:
    """d(c) = min {‖D⁻¹(x − origin)‖₂ : φ(x) = c} by polar descent from several starts, all rows in lock-step.

    Every distance is that of a point on the level set, hence an upper bound; how good, its evidence tells.
    Levels are taken in ascending order: the ends of one are the starts of the next, and a ray to the next level
    that crosses this one earlier replaces its nearest point.

    Args:
        phi: Any Objective with origin ``(B, n)``.
        levels: Values c of φ, ``(C,)``.
        metric: D: ``euclidean`` (identity), ``elementwise`` (diag |origin|, invariant under all rescalings of
            ReLU networks; freezes zeros), or a non-negative tensor that broadcasts to ``(B, n)``.
        starts: Displacements to start from, ``(S, B, n)``; by default ± the two leading eigenvectors of ∇²φ.
            The gradient and ``num_random`` random directions are always added.
        seed: Of the random directions.
        num_random: Random directions among the starts.
        tol: Descent stops at this tangent of the angle between displacement and gradient; the distance is then
            accurate to about tol².
        budget: Gradients per start and level at most.

    Raises:
        ConfigurationError: If levels, metric or tolerances make no sense.
        ObjectiveError: If φ or its gradient is not finite at the origin.
    """
    chosen = torch.as_tensor(levels, dtype=torch.float64, device=phi.origin.device).reshape(-1)
    if not len(chosen) or not torch.isfinite(chosen).all():
        raise ConfigurationError(f"levels {chosen.tolist()} cannot be used; pass at least one finite number.")
    if not (tol > 0 and budget > 0 and num_random >= 0):
        raise ConfigurationError(
            f"tol = {tol}, budget = {budget}, num_random = {num_random} cannot be; pass positive numbers."
        )
    search = Continuation(phi, metric_scale(phi.origin, metric), tol, budget)
    found = search.run(chosen, search.starts(chosen.min(), starts, seed, num_random))
    return _assemble(search, chosen, found)


def width(result: LevelSetDistance) -> Tensor:
    """Width of a minimum, w(c) = d(c) / (c − φ(x*)), ``(B, C)`` (Khritankov et al., Definition 1)."""
    return result.distance / (result.levels - result.value[:, None])


def _assemble(search: Continuation, levels: Tensor, found: list[Nearest]) -> LevelSetDistance:
    below = search.value[:, None] >= levels
    distance = torch.stack([f.radius for f in found], 1)
    reached = torch.isfinite(distance) & ~below
    points, errors, angles = zip(
        *(_evidence(search, c, f) for c, f in zip(levels, found, strict=True)), strict=True
    )
    ends = torch.stack([f.ends for f in found], 2)
    longest = torch.where(torch.isfinite(ends), ends, 0.0).amax(0)

    def shown(x: Tensor) -> Tensor:
        return torch.where(reached, x, torch.nan)

    return LevelSetDistance(
        levels=levels,
        value=search.value,
        distance=shown(distance),
        points=torch.where(reached[..., None], torch.stack(points, 1), torch.nan),
        level_error=shown(torch.stack(errors, 1)),
        angle=shown(torch.stack(angles, 1)),
        spread=shown((longest / distance - 1).clamp_min(0)),
        agreement=shown((ends <= _AGREEING * distance).double().mean(0)),
        reached=reached,
        below_minimum=below,
        num_gradients=search.counter.gradients / search.rows,
        num_values=search.counter.values / search.rows,
    )


def _evidence(search: Continuation, level: Tensor, found: Nearest) -> tuple[Tensor, Tensor, Tensor]:
    """Nearest points, |φ − c| there, and the angle between displacement and gradient."""
    rays = search.rays(level, 1)
    radius = torch.where(torch.isfinite(found.radius), found.radius, 0.0)
    points = rays.point(found.direction, radius)
    _, gradient = rays.excess_and_gradient(found.direction, radius)
    search.counter.values += search.rows
    return points, (search.phi.value(points) - level).abs(), _angle(found.direction, gradient.double())


def _angle(first: Tensor, second: Tensor) -> Tensor:
    """Angle between rows, ``(B, n), (B, n) -> (B,)``; accurate for small angles, where arccos is not."""
    a = first / torch.linalg.vector_norm(first, dim=-1, keepdim=True)
    b = second / torch.linalg.vector_norm(second, dim=-1, keepdim=True)
    difference, total = torch.linalg.vector_norm(a - b, dim=-1), torch.linalg.vector_norm(a + b, dim=-1)
    return 2 * torch.atan2(difference, total)
