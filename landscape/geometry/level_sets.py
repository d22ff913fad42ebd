"""Distances from a point to level sets of any Objective, and the widths they define."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.errors import ConfigurationError
from landscape.geometry.continuation import Continuation
from landscape.geometry.evidence import LOOKS, PointEvidence, levels_off, no_evidence, point_evidence
from landscape.geometry.gauge import Box, make_gauge
from landscape.geometry.metrics import metric_scale
from landscape.geometry.search import Effort, Nearest
from landscape.geometry.starts import Starts
from landscape.objectives import Objective

# Ends within this factor of the shortest distance count as having found it.
_AGREEING = 1.01
# Angles (radians) between displacement and the cone of gradients, for a grade of strong and of fair.
_STRONG_ANGLE = 0.1
_FAIR_ANGLE = 0.35


@dataclass(frozen=True)
class LevelSetDistance:
    """Distances from B origins to C level sets, with the evidence for each; NaN where there is no distance."""

    levels: Tensor  # (C,)
    value: Tensor  # (B,) φ at the origin
    distance: Tensor  # (B, C)
    points: Tensor  # (B, C, n) the nearest points found
    level_error: Tensor  # (B, C) |φ(point) − c|
    angle: Tensor  # (B, C) angle between displacement and gradient, radians
    kink_angle: Tensor  # (B, C) angle between displacement and the cone of gradients around the point
    curvature: Tensor  # (B, C) λ λ_max(P H P), below 1 at a local minimum; NaN if not computed
    gradient_norm: Tensor  # (B, C) dual norm of ∇φ there, in the metric's coordinates; d′(c) is its inverse
    spread: Tensor  # (B, C) longest over shortest end of the searches that reached the level, minus 1
    agreement: Tensor  # (B, C) share of the searches that ended within 1 % of the shortest
    agreeing: Tensor  # (B, C) number of searches that ended within 1 % of the shortest
    reached: Tensor  # (B, C) bool
    saturated: Tensor  # (B, C) bool: not reached, and φ levels off below c on all rays that were tried
    below_minimum: Tensor  # (B, C) bool: c ≤ φ(origin), so that no width is defined
    num_gradients: float  # gradients of φ per origin, for the search
    num_values: float  # values of φ per origin, for the search
    num_evidence_gradients: float  # gradients per origin, for the evidence
    num_evidence_hvp: float  # Hessian-vector products per origin, for the evidence

    @property
    def minimal(self) -> Tensor:
        """Whether the second-order condition of a local minimum holds, ``(B, C)`` bool; False if not computed."""
        return self.curvature < 1

    @property
    def grade(self) -> list[list[str]]:
        """What to make of each distance, in one word: see `grades`."""
        return grades(self)


def level_set_distance(  # noqa: PLR0913  (the options of one search)
    phi: Objective,
    levels: Sequence[float] | Tensor,
    norm: float = 2,
    metric: str | Tensor = "euclidean",
    starts: Tensor | None = None,
    box: Box | None = None,
    *,
    seed: int = 0,
    num_random: int = 1,
    tol: float = 1e-2,
    budget: int = 85,
    restarts: int = 2,
    second_order: bool = False,
    evidence: bool = True,
) -> LevelSetDistance:
    """d(c) = min {‖D⁻¹(x − origin)‖ : φ(x) = c} from several starts, all rows in lock-step.

    Every distance is that of a point on the level set, hence an upper bound; how good, its evidence tells. Starts
    approach the level by cutting planes and descend on it (`landscape.geometry.descent`); those that fall behind
    stop. Then the search restarts from the best point, led by gradients averaged over its surroundings, and with
    more than four restarts from the next best ones, too, by large steps. Of fewer than eight origins, the ends of
    one level are the starts of the next, upwards and back; of more, levels are searched side by side.

    Args:
        phi: Any Objective with origin ``(B, n)``.
        levels: Values c of φ, ``(C,)``.
        norm: 1, 2 or infinity.
        metric: D: ``euclidean`` (identity), ``elementwise`` (diag |origin|, invariant under all rescalings of
            ReLU networks; freezes zeros), or a non-negative tensor that broadcasts to ``(B, n)``; zeros freeze.
        starts: Displacements to look at first, ``(S, B, n)``; by default ± the two leading eigenvectors of ∇²φ.
            The gradient and ``num_random`` random directions are always added.
        box: Bounds (lower, upper) of x, numbers or tensors; the point sought lies within.
        seed: Of the random directions, and of the noise of restarts and evidence.
        num_random: Random directions among the starts.
        tol: Descent stops at this tangent of the angle between displacement and gradient; the distance is then
            accurate to about tol²/2, as far as one local minimum goes.
        budget: Gradients for each origin and level, all starts together. Some more are spent to follow
            neighbouring levels, and where no ray meets the level; of few origins the highest level may take twice
            as many.
        restarts: How often to begin anew from the best points while the budget lasts.
        second_order: Also compute the curvature of the level set, by Hessian-vector products (2-norm, no box).
        evidence: Look at the gradients around the points found; else what they say is NaN.

    Raises:
        ConfigurationError: If levels, norm, metric, box or tolerances make no sense, or the curvature is asked for
            without evidence.
        ObjectiveError: If φ or its gradient is not finite at the origin.
    """
    chosen = _checked_levels(levels, phi.origin.device)
    if second_order and not evidence:
        raise ConfigurationError("the curvature is evidence: pass evidence=True, or leave second_order out.")
    if not (tol > 0 and budget > 0 and num_random >= 0 and restarts >= 0):
        raise ConfigurationError(
            f"tol = {tol}, budget = {budget}, num_random = {num_random}, restarts = {restarts} cannot be; "
            "pass positive numbers."
        )
    gauge = make_gauge(phi.origin, metric_scale(phi.origin, metric), norm, box)
    search = Continuation(phi, gauge, Effort(tol, budget, restarts), seed)
    first = search.starts(chosen.min(), starts, num_random)
    found = search.run(chosen, first)

    def look(v: Tensor, level: Tensor) -> PointEvidence:
        if not evidence:
            return no_evidence(v)
        return point_evidence(phi, gauge, v, level, second_order, search.generator)

    return _assemble(search, chosen, found, first, look)


def _checked_levels(levels: Sequence[float] | Tensor, device: torch.device) -> Tensor:
    chosen = torch.as_tensor(levels, dtype=torch.float64, device=device).reshape(-1)
    if not len(chosen) or not torch.isfinite(chosen).all():
        raise ConfigurationError(f"levels {chosen.tolist()} cannot be used; pass at least one finite number.")
    return chosen


def width(result: LevelSetDistance) -> Tensor:
    """Width of a minimum, w(c) = d(c) / (c − φ(x*)), ``(B, C)`` (Khritankov et al., Definition 1)."""
    return result.distance / (result.levels - result.value[:, None])


def grades(result: LevelSetDistance) -> list[list[str]]:
    """What to make of each distance, in one word.

    ``strong``: stationary, a local minimum to second order if that was computed, and at least two searches agree.
    ``fair``: stationary up to kinks, and nothing speaks against it. ``weak``: an upper bound, no more. Else
    ``below_minimum``, ``saturated`` or ``not_reached``.
    """
    tested = torch.isfinite(result.curvature)
    refuted = tested & ~result.minimal
    strong = (result.kink_angle < _STRONG_ANGLE) & ~refuted & (result.agreeing >= 2)
    fair = (result.kink_angle < _FAIR_ANGLE) & ~refuted
    words = (
        (result.below_minimum, "below_minimum"),
        (result.saturated, "saturated"),
        (~result.reached, "not_reached"),
        (strong, "strong"),
        (fair, "fair"),
    )

    def word(row: int, level: int) -> str:
        return next((name for holds, name in words if holds[row, level]), "weak")

    return [[word(row, level) for level in range(len(result.levels))] for row in range(len(result.value))]


def _assemble(
    search: Continuation,
    levels: Tensor,
    found: list[Nearest],
    first: Starts,
    look: Callable[[Tensor, Tensor], PointEvidence],
) -> LevelSetDistance:
    below = search.value[:, None] >= levels
    distance = torch.stack([f.radius for f in found], 1)
    reached = torch.isfinite(distance) & ~below
    lengths = torch.where(reached, distance, torch.nan)
    displacements = [f.direction * lengths[:, i, None].to(f.direction.dtype) for i, f in enumerate(found)]
    evidence = [look(v, c) for v, c in zip(displacements, levels, strict=True)]
    radii = [f.radii for f in found]
    ended = [torch.isfinite(r).sum(0) for r in radii]
    agreeing = torch.stack([(r <= _AGREEING * f.radius).sum(0) for r, f in zip(radii, found, strict=True)], 1)
    longest = torch.stack([torch.where(torch.isfinite(r), r, 0.0).amax(0) for r in radii], 1)

    def shown(x: Tensor) -> Tensor:
        return torch.where(reached, x, torch.nan)

    def column(name: str) -> Tensor:
        return shown(torch.stack([getattr(e, name) for e in evidence], 1))

    points = [search.phi.origin + (v * search.gauge.scale).to(search.phi.origin.dtype) for v in displacements]
    return LevelSetDistance(
        levels=levels,
        value=search.value,
        distance=lengths,
        points=torch.stack(points, 1),
        level_error=column("level_error"),
        angle=column("angle"),
        kink_angle=column("kink_angle"),
        curvature=column("curvature"),
        gradient_norm=column("gradient_norm"),
        spread=shown((longest / distance - 1).clamp_min(0)),
        agreement=shown(agreeing / torch.stack(ended, 1)),
        agreeing=torch.where(reached, agreeing, 0),
        reached=reached,
        saturated=_saturated(search, first, reached | below),
        below_minimum=below,
        num_gradients=search.counter.gradients / search.rows,
        num_values=search.counter.values / search.rows,
        num_evidence_gradients=sum(e.num_gradients for e in evidence) / search.rows,
        num_evidence_hvp=sum(e.num_hvp for e in evidence) / search.rows,
    )


def _saturated(search: Continuation, first: Starts, settled: Tensor) -> Tensor:
    """Where a level is out of reach because φ levels off below it, ``(B, C)`` bool."""
    rows = torch.nonzero(~settled.all(1))[:, 0]
    flat = torch.zeros(len(settled), dtype=torch.bool, device=settled.device)
    if len(rows):
        flat[rows] = levels_off(search.phi, search.gauge, first, rows)
        search.counter.values += LOOKS * len(first) * len(rows)
    return ~settled & flat[:, None]
