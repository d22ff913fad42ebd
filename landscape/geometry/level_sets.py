"""Distances from a point to level sets of any Objective, and the widths they define."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from landscape.errors import ConfigurationError, ObjectiveError
from landscape.geometry.eigenpairs import top_eigenpairs
from landscape.geometry.rays import Counter, Rays, crossing
from landscape.geometry.search import Nearest, Starts, nearest, refine
from landscape.objective import Objective, search_form

METRICS = ("euclidean", "elementwise")

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
    search = _Search(phi, _scale(phi.origin, metric), tol, budget)
    return search.run(chosen, search.starts(chosen.min(), starts, seed, num_random))


def width(result: LevelSetDistance) -> Tensor:
    """Width of a minimum, w(c) = d(c) / (c − φ(x*)), ``(B, C)`` (Khritankov et al., Definition 1)."""
    return result.distance / (result.levels - result.value[:, None])


class _Search:
    """What all levels share: φ at the origin, its search form, the metric, the budget and the bill."""

    def __init__(self, phi: Objective, scale: Tensor, tol: float, budget: int) -> None:
        self.phi, self.scale, self.tol, self.budget = phi, scale, tol, budget
        self.rows, self.size = phi.origin.shape
        self.psi, self.to_search = search_form(phi)
        self.counter = Counter(values=self.rows, gradients=self.rows)
        self.value = phi.value(phi.origin)
        self.height, self.gradient = self.psi.value_and_grad(phi.origin)
        if not (torch.isfinite(self.value).all() and torch.isfinite(self.gradient).all()):
            raise ObjectiveError("φ or its gradient is not finite at the origin, which has then no landscape.")

    def starts(self, lowest: Tensor, given: Tensor | None, seed: int, num_random: int) -> Starts:
        """Given or leading directions, the gradient, and random directions, in the metric's coordinates."""
        inverse = torch.where(self.scale > 0, 1 / self.scale, 0.0)
        displacements = self._eigenvectors() if given is None else given
        shape = (num_random, self.rows, self.size)
        random = torch.randn(shape, generator=Generator().manual_seed(seed), dtype=torch.float64)
        steepest = (self.gradient.double() * self.scale)[None]
        free = (self.scale > 0).to(self.value)
        everything = torch.cat([displacements.double() * inverse, steepest, random.to(free.device) * free])
        norms = torch.linalg.vector_norm(everything, dim=-1, keepdim=True)
        direction = everything / torch.where(norms > 0, norms, torch.nan)
        count = len(direction)
        twin = torch.arange(count, device=norms.device)[:, None].expand(count, self.rows)
        return Starts(direction, self._first_radius(lowest).expand(count, -1), twin)

    def run(self, levels: Tensor, starts: Starts) -> LevelSetDistance:
        """Search all levels, lowest first."""
        order = torch.argsort(levels)
        found: list[Nearest] = []
        first = starts
        for level in levels[order]:
            rays = self._rays(level, len(starts.direction))
            result, starts = nearest(rays, starts, self.tol, self.budget)
            if found and not torch.isfinite(result.radius).all():
                result, starts = self._start_over(rays, first, result, starts)
            found.append(result)
        for lower in range(len(found) - 2, -1, -1):
            found[lower] = self._share_ray(levels[order][lower], found[lower], found[lower + 1])
        back = torch.argsort(order)
        return self._assemble(levels, [found[i] for i in back.tolist()])

    def _start_over(self, rays: Rays, first: Starts, result: Nearest, starts: Starts) -> tuple[Nearest, Starts]:
        """Search again from the first starts where the ends of the level before lead nowhere.

        The rays to the nearest points of a low level may top out below the next one.
        """
        lost = ~torch.isfinite(result.radius)
        again, onward = nearest(
            rays, replace(first, radius=torch.where(lost, first.radius, torch.inf)), self.tol, self.budget
        )
        return (
            Nearest(
                torch.where(lost[:, None], again.direction, result.direction),
                torch.where(lost, again.radius, result.radius),
                torch.where(lost, again.ends, result.ends),
            ),
            Starts(
                torch.where(lost[:, None], onward.direction, starts.direction),
                torch.where(lost, onward.radius, starts.radius),
                torch.where(lost, onward.twin, starts.twin),
            ),
        )

    def _share_ray(self, level: Tensor, found: Nearest, above: Nearest) -> Nearest:
        """Use the ray to the next level where it crosses this one earlier than the point found."""
        rays = self._rays(level, 1)
        crossed = crossing(rays, above.direction, torch.where(rays.height < rays.target, above.radius, torch.inf))
        shorter = crossed < found.radius
        if not shorter.any():
            return found
        start = torch.where(shorter, crossed, torch.inf)
        direction, radius = refine(rays, above.direction, start, self.tol, self.budget)
        return Nearest(
            torch.where(shorter[:, None], direction, found.direction),
            torch.where(shorter, radius, found.radius),
            found.ends,
        )

    def _eigenvectors(self) -> Tensor:
        """± the two leading eigenvectors, roughly: a direction to start from needs no digits."""
        pairs = top_eigenpairs(self.phi, min(2, self.size), tol=0.1, max_steps=30)
        # A Hessian-vector product costs about two gradients.
        self.counter.gradients += 2 * pairs.num_hvp * self.rows
        vectors = pairs.eigenvectors.transpose(0, 1)
        return torch.cat([vectors, -vectors])

    def _first_radius(self, lowest: Tensor) -> Tensor:
        """Where the tangent at the origin meets the lowest level, ``(B,)``; no more than the origin's norm."""
        norm = torch.linalg.vector_norm(self.phi.origin.double(), dim=-1).clamp_min(1.0)
        slope = torch.linalg.vector_norm(self.gradient.double() * self.scale, dim=-1)
        linear = (self.to_search(lowest) - self.height).abs() / slope
        return torch.where(torch.isfinite(linear) & (linear > 0), linear, 1e-3 * norm).clamp(max=norm)

    def _rays(self, level: Tensor, count: int) -> Rays:
        """Rays of ``count`` starts for every origin, start-major."""
        rows = torch.arange(self.rows, device=level.device).repeat(count)
        scale = self.scale if len(self.scale) == 1 else self.scale[rows]
        target = self.to_search(level).expand(len(rows))
        return Rays(self.psi.take(rows), scale, self.height[rows], target, self.counter)

    def _assemble(self, levels: Tensor, found: list[Nearest]) -> LevelSetDistance:
        below = self.value[:, None] >= levels
        distance = torch.stack([f.radius for f in found], 1)
        reached = torch.isfinite(distance) & ~below
        points, errors, angles = zip(
            *(self._evidence(c, f) for c, f in zip(levels, found, strict=True)), strict=True
        )
        ends = torch.stack([f.ends for f in found], 2)
        longest = torch.where(torch.isfinite(ends), ends, 0.0).amax(0)

        def shown(x: Tensor) -> Tensor:
            return torch.where(reached, x, torch.nan)

        return LevelSetDistance(
            levels=levels,
            value=self.value,
            distance=shown(distance),
            points=torch.where(reached[..., None], torch.stack(points, 1), torch.nan),
            level_error=shown(torch.stack(errors, 1)),
            angle=shown(torch.stack(angles, 1)),
            spread=shown((longest / distance - 1).clamp_min(0)),
            agreement=shown((ends <= _AGREEING * distance).double().mean(0)),
            reached=reached,
            below_minimum=below,
            num_gradients=self.counter.gradients / self.rows,
            num_values=self.counter.values / self.rows,
        )

    def _evidence(self, level: Tensor, found: Nearest) -> tuple[Tensor, Tensor, Tensor]:
        """Nearest points, |φ − c| there, and the angle between displacement and gradient."""
        rays = self._rays(level, 1)
        radius = torch.where(torch.isfinite(found.radius), found.radius, 0.0)
        points = rays.point(found.direction, radius)
        _, gradient = rays.excess_and_gradient(found.direction, radius)
        self.counter.values += self.rows
        return points, (self.phi.value(points) - level).abs(), _angle(found.direction, gradient.double())


def _angle(first: Tensor, second: Tensor) -> Tensor:
    """Angle between rows, ``(B, n), (B, n) -> (B,)``; accurate for small angles, where arccos is not."""
    a = first / torch.linalg.vector_norm(first, dim=-1, keepdim=True)
    b = second / torch.linalg.vector_norm(second, dim=-1, keepdim=True)
    difference, total = torch.linalg.vector_norm(a - b, dim=-1), torch.linalg.vector_norm(a + b, dim=-1)
    return 2 * torch.atan2(difference, total)


def _scale(origin: Tensor, metric: str | Tensor) -> Tensor:
    """The metric D as a matrix of one row for all origins, or one for each, float64."""
    if isinstance(metric, Tensor):
        scale = _broadcast(metric, origin)
    elif metric == "euclidean":
        scale = torch.ones((1, origin.shape[1]), dtype=torch.float64, device=origin.device)
    elif metric == "elementwise":
        scale = origin.double().abs()
    else:
        raise ConfigurationError(
            f"unknown metric {metric!r}; choose one of {', '.join(METRICS)} or pass a tensor."
        )
    if not (torch.isfinite(scale).all() and (scale >= 0).all() and (scale > 0).any(-1).all()):
        raise ConfigurationError("the metric must be finite, non-negative, and positive somewhere in every row.")
    return scale


def _broadcast(metric: Tensor, origin: Tensor) -> Tensor:
    try:
        return metric.to(origin.device, torch.float64).broadcast_to(origin.shape)
    except RuntimeError as error:
        raise ConfigurationError(
            f"a metric of shape {tuple(metric.shape)} does not fit origins of shape {tuple(origin.shape)}."
        ) from error
