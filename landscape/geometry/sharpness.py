"""Worst-case sharpness S(ρ) = max {φ(x) : ‖x − x*‖ ≤ ρ} − φ*, the inverse function of the distance d(c)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.errors import ConfigurationError
from landscape.geometry.ascent import Peaks, Spheres, climb
from landscape.geometry.gauge import Gauge, make_gauge
from landscape.geometry.metrics import metric_scale
from landscape.geometry.origins import Origins
from landscape.geometry.starts import random_directions
from landscape.geometry.vectors import norm_of
from landscape.objectives import Objective

# Ascents at each radius: the highest of all starts and of the ends of the radius before.
_CLIMBERS = 6
# Ascents are compared after a rough climb to this angle; the highest is refined.
_ROUGH = 0.1
# Directions closer than this cosine count as one.
_SAME_DIRECTION = 0.995
# Lanczos steps for the eigenvectors among the starts.
_LANCZOS = 30


@dataclass(frozen=True)
class WorstCaseSharpness:
    """Largest rises of φ found in balls about B origins, for R radii."""

    radii: Tensor  # (B, R)
    value: Tensor  # (B,) φ at the origin
    sharpness: Tensor  # (B, R) φ(point) − φ(origin): a lower bound on S(ρ), non-decreasing in ρ
    points: Tensor  # (B, R, n) where it is attained, at a distance of ρ or less
    misalignment: Tensor  # (B, R) 1 − ⟨g, u⟩/‖g‖_*: zero at a stationary point of the sphere
    num_gradients: float  # gradients of φ per origin
    num_values: float  # values of φ per origin


def worst_case_sharpness(
    phi: Objective,
    radii: Sequence[float] | Tensor,
    norm: float = 2,
    metric: str | Tensor = "euclidean",
    starts: Tensor | None = None,
    seed: int = 0,
    num_random: int = 1,
    tol: float = 1e-2,
    budget: int = 40,
) -> WorstCaseSharpness:
    """S(ρ) = max {φ(origin + D v) : ‖v‖ ≤ ρ} − φ(origin), what SAM minimises (Foret et al. 2021).

    Projected ascent on spheres from several starts, all rows in lock-step, smallest radius first; the directions
    found for one radius are tried at all others. Every number is that of a point that was found: a lower bound
    on S; of maxima inside the ball, only those on one of the other spheres are seen.
    S is the inverse of d: d(c) = min {ρ : S(ρ) ≥ c − φ(origin)}. Points where φ is not finite are not used.

    Args:
        phi: Any Objective with origin ``(B, n)``.
        radii: Radii ρ of the balls, ``(R,)``, or ``(B, R)`` with radii of its own for each row.
        norm: 1, 2 or infinity, of v.
        metric: D: ``euclidean``, ``elementwise``, or a non-negative tensor that broadcasts to ``(B, n)``.
        starts: Displacements to start from, ``(S, B, n)``, such as eigenvectors or points of level sets minus the
            origin; NaN for none. By default ± the two leading eigenvectors of ∇²φ. The gradient and
            ``num_random`` random directions are always added.
        seed: Of the random directions.
        num_random: Random directions among the starts.
        tol: An ascent stops at this angle between displacement and gradient.
        budget: Gradients per ascent and radius at most.

    Raises:
        ConfigurationError: If radii, norm, metric or tolerances make no sense.
        ObjectiveError: If φ or its gradient is not finite at the origin.
    """
    if not (tol > 0 and budget > 0 and num_random >= 0):
        raise ConfigurationError(
            f"tol = {tol}, budget = {budget}, num_random = {num_random} cannot be; pass positive numbers."
        )
    given = _check_radii(radii, phi.origin)
    ordered, order = given.sort(1)
    search = _Search(phi, make_gauge(phi.origin, metric_scale(phi.origin, metric), norm, None), seed, tol, budget)
    found = search.run(ordered, search.starts(starts, num_random))
    back = order.argsort(1)
    return search.result(given, ordered, found, back)


class _Search(Origins):
    """What all radii share: the origins, and what an ascent may cost."""

    def __init__(self, phi: Objective, gauge: Gauge, seed: int, tol: float, budget: int) -> None:
        super().__init__(phi, gauge, seed)
        self.tol, self.budget = tol, budget

    def starts(self, given: Tensor | None, num_random: int) -> Tensor:
        """Given or leading directions, the gradient, and random directions, of unit norm, ``(S, B, n)``."""
        scale = self.gauge.scale.double()
        inverse = torch.where(scale > 0, 1 / scale, 0.0)
        displacements = self._eigenvectors() if given is None else given
        steepest = self.gradient.double() * scale
        random = [draw() * (scale > 0) for draw in random_directions(steepest, num_random, self.generator)]
        return self.gauge.polar(torch.cat([displacements.double() * inverse, torch.stack([steepest, *random])]))[0]

    def run(self, radii: Tensor, starts: Tensor) -> list[Peaks]:
        """The highest point found on the sphere of each radius, ``(B, R)`` ascending; then shared among them."""
        found: list[Peaks] = []
        ends = starts[:0]
        for radius in radii.T:
            candidates = torch.cat([ends, starts])
            leaders = _leaders(candidates, self._heights(radius, candidates), _CLIMBERS)
            rough = self._climb(radius, leaders, max(_ROUGH, self.tol))
            ends = rough.direction.reshape(leaders.shape)
            best = _leaders(ends, rough.height.reshape(ends.shape[:2]), 1)
            found.append(self._climb(radius, best, self.tol))
        directions = torch.stack([peaks.direction for peaks in found])
        return [self._share(radius, peaks, directions) for radius, peaks in zip(radii.T, found, strict=True)]

    def result(self, radii: Tensor, ordered: Tensor, found: list[Peaks], back: Tensor) -> WorstCaseSharpness:
        """Take the highest point within each radius, the origin included; in the order of ``radii``."""
        directions = torch.stack([peaks.direction for peaks in found], 1)
        offset = ordered[..., None] * directions * self.gauge.scale[:, None]
        points = self.phi.origin[:, None] + torch.nan_to_num(offset).to(self.phi.origin.dtype)
        rises = torch.stack([self.phi.value(p) for p in points.unbind(1)], 1) - self.value[:, None]
        self.counter.values += rises.numel()
        sharpness, source = torch.nan_to_num(rises, -torch.inf, -torch.inf, -torch.inf).cummax(1)
        points = points.gather(1, source[..., None].expand_as(points))
        inside = sharpness > 0
        misalignment = torch.stack([peaks.misalignment for peaks in found], 1).gather(1, source)
        return WorstCaseSharpness(
            radii=radii,
            value=self.value,
            sharpness=sharpness.clamp_min(0).gather(1, back),
            points=torch.where(inside[..., None], points, self.phi.origin[:, None]).gather(
                1, back[..., None].expand_as(points)
            ),
            misalignment=torch.where(inside, misalignment, torch.nan).gather(1, back),
            num_gradients=self.counter.gradients / self.rows,
            num_values=self.counter.values / self.rows,
        )

    def _share(self, radius: Tensor, peaks: Peaks, directions: Tensor) -> Peaks:
        """Climb again from the direction of another radius where that is higher already."""
        heights = self._heights(radius, directions)
        best = _leaders(directions, heights, 1)
        better = heights.amax(0) > peaks.height
        if not better.any():
            return peaks
        again = self._climb(radius, torch.where(better[:, None], best, torch.nan), self.tol)
        return Peaks(
            torch.where(better[:, None], again.direction, peaks.direction),
            torch.where(better, again.height, peaks.height),
            torch.where(better, again.misalignment, peaks.misalignment),
        )

    def _heights(self, radius: Tensor, directions: Tensor) -> Tensor:
        count = len(directions)
        return self._spheres(radius, count).height(directions.flatten(0, 1)).reshape(count, self.rows)

    def _climb(self, radius: Tensor, directions: Tensor, tol: float) -> Peaks:
        flat = directions.reshape(-1, directions.shape[-1])
        count = len(flat) // self.rows
        return climb(self._spheres(radius, count), flat, self.height.repeat(count), tol, self.budget)

    def _spheres(self, radius: Tensor, count: int) -> Spheres:
        """Spheres for ``count`` directions of every origin, direction-major."""
        rows = torch.arange(self.rows, device=radius.device).repeat(count)
        return Spheres(self.psi.take(rows), self.gauge.take(rows), radius[rows], self.counter)

    def _eigenvectors(self) -> Tensor:
        """± the two leading eigenvectors."""
        vectors = self.leading_pairs(_LANCZOS).eigenvectors.transpose(0, 1)
        return torch.cat([vectors, -vectors])


def _leaders(directions: Tensor, heights: Tensor, count: int) -> Tensor:
    """The ``count`` highest of distinct directions, ``(M, B, n), (M, B) -> (count, B, n)``; NaN for the rest."""
    rows = torch.arange(heights.shape[1], device=heights.device)
    unit = directions / norm_of(directions, 2)[..., None]
    left, chosen = heights.clone(), []
    for _ in range(min(count, len(directions))):
        highest, winner = left.max(0)
        some = (highest > -torch.inf)[:, None]
        chosen.append(torch.where(some, directions[winner, rows], torch.nan))
        close = (unit * unit[winner, rows]).sum(-1) > _SAME_DIRECTION
        left = torch.where(close, -torch.inf, left)
        left[winner, rows] = -torch.inf
    return torch.stack(chosen)


def _check_radii(radii: Sequence[float] | Tensor, origin: Tensor) -> Tensor:
    """Radii as ``(B, R)``, float64."""
    chosen = torch.as_tensor(radii, dtype=torch.float64, device=origin.device)
    if chosen.ndim == 1:
        chosen = chosen.expand(len(origin), -1)
    if chosen.ndim != 2 or len(chosen) != len(origin) or not chosen.shape[1]:
        raise ConfigurationError(
            f"radii of shape {tuple(chosen.shape)} do not fit {len(origin)} origins; pass (R,) or (B, R)."
        )
    if not (torch.isfinite(chosen).all() and (chosen > 0).all()):
        raise ConfigurationError(f"radii {chosen.tolist()} cannot be used; pass finite numbers above zero.")
    return chosen
