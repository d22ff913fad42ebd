"""Search over all levels of an Objective, one after the other or, from many origins, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from landscape.geometry.descent import Ends
from landscape.geometry.eigenpairs import Eigenpairs
from landscape.geometry.gauge import Gauge
from landscape.geometry.origins import Origins
from landscape.geometry.rays import Rays
from landscape.geometry.search import TOGETHER, Effort, Nearest, nearest, on_level, refine
from landscape.geometry.starts import Starts, random_directions
from landscape.geometry.vectors import dual_norm, is_large, norm_of, steepest_direction
from landscape.objectives import Objective

# Ends of one level that are followed to the next, the shortest ones, if they are not longer by this factor.
_FOLLOWED = 4
_WORTH_FOLLOWING = 1.5
# Directions this far apart, relative to their length, lead to different points.
_OTHER = 0.3
# Points this far above the level, in units of the climb, are looked at.
_ABOVE = 1e-4
FAR = 30.0
# From so many origins on, levels are searched side by side: few rows at a time would cost as much as many.
_MANY = 8
# Lanczos steps for starts; each holds a vector.
_LANCZOS, _FEW_LANCZOS = 30, 8


class Continuation(Origins):
    """What all levels share: the origins, and the budget."""

    def __init__(self, phi: Objective, gauge: Gauge, effort: Effort, seed: int) -> None:
        super().__init__(phi, gauge, seed)
        self.effort = effort

    def starts(self, lowest: Tensor, given: Tensor | None, num_random: int) -> Starts:
        """Given or leading displacements, the steepest one, and random ones, in the metric's coordinates."""
        scale, origin = self.gauge.scale, self.phi.origin
        displacements = self._eigenvectors(lowest) if given is None else given

        def rescaled(v: Tensor) -> Tensor:
            w = v.to(origin.dtype) * torch.where(scale > 0, 1 / scale, 0.0)
            return torch.where(w.any(-1, keepdim=True), w, torch.nan)

        length = self._first_length(lowest, Starts(tuple(partial(rescaled, v) for v in displacements)))

        def leading(v: Tensor) -> Tensor:
            return self.gauge.clip(rescaled(v))

        def steepest() -> Tensor:
            slope = self.gradient.to(origin.dtype) * scale
            return self._stretched(steepest_direction(slope, self.gauge.norm), length)

        def random(make: Callable[[], Tensor]) -> Tensor:
            return self._stretched(make() * (scale > 0), FAR * length)

        directions = random_directions(origin, num_random, self.generator)
        given_first = (partial(leading, v) for v in displacements)
        return Starts((*given_first, steepest, *(partial(random, make) for make in directions)))

    def _stretched(self, direction: Tensor, length: Tensor) -> Tensor:
        """Displacements of some length, ``(B, n), (B,)``; NaN where the direction is zero."""
        norms = self.gauge.length(direction)
        factor = (length / torch.where(norms > 0, norms, torch.nan)).to(direction.dtype)
        return self.gauge.clip(direction * factor[:, None])

    def run(self, levels: Tensor, starts: Starts) -> list[Nearest]:
        """Search all levels; results come in the order of ``levels``, ``(C,)``."""
        order = torch.argsort(levels)
        many = self.rows >= _MANY and not is_large(self.gradient)
        found = (self._side_by_side if many else self._upwards_and_back)(levels[order], starts)
        back = torch.argsort(order)
        return [self._exact(level, found[i]) for level, i in zip(levels, back.tolist(), strict=True)]

    def _side_by_side(self, ascending: Tensor, starts: Starts) -> list[Nearest]:
        """Search all levels from the same starts, then exchange directions between neighbours."""
        found: list[Nearest] = []
        for some in ascending.split(self._together(len(starts))):
            rays = self.rays(some, len(starts))
            found += nearest(rays, starts.tiled(len(some)), self.effort, self.generator).split(self.rows)
        self._exchange(ascending, found)
        return found

    def _together(self, vectors: int) -> int:
        """How many times so many vectors for each origin may be held together, at least 1."""
        return max(1, TOGETHER // max(1, vectors * self.gradient.numel()))

    def _exchange(self, ascending: Tensor, found: list[Nearest]) -> None:
        """Follow directions to neighbouring levels as long as they lead to nearer points."""
        pairs = [(i, j) for i in range(len(found)) for j in (i - 1, i + 1) if 0 <= j < len(found)]
        fresh = torch.ones(len(found), self.rows, dtype=torch.bool, device=ascending.device)
        for _ in range(len(found) - 1):
            if not fresh.any():
                break
            before = [each.radius for each in found]
            for some in torch.tensor(pairs).split(self._together(1)):
                here, there = some.T.tolist()
                pair = [found[i] for i in here], [found[j] for j in there]
                points = self._follow(ascending[here], *pair, fresh[there].flatten(), turned=True)
                for i, point in zip(here, points, strict=True):
                    found[i] = found[i].with_point(*point)
            fresh = torch.stack([each.radius < radius for each, radius in zip(found, before, strict=True)])

    def _upwards_and_back(self, ascending: Tensor, starts: Starts) -> list[Nearest]:
        """Search one level after the other: the ends of one are the starts of the next.

        Another branch of minima may be nearer at high levels, to which the best ends of the lowest do not lead: so
        the highest is searched from its other ends, too, of large vectors from the first starts, and what is found
        there is followed downwards.
        """
        found = [self._search(ascending[0], starts)]
        others = starts
        if not is_large(self.gradient):  # what is not made anew is held all the time
            others = self._moved(found[0].ends, ~self._followed(found[0].ends), ascending[0], ascending[-1])
        for lower, level in pairwise(ascending):
            ends = found[-1].ends
            onward = self._moved(ends, self._followed(ends), lower, level)
            found[-1] = found[-1].without_ends()
            del ends
            result = self._search(level, onward)
            del onward  # in large models its memory is needed
            result = self._again(level, starts, result, ~torch.isfinite(result.radius))
            if level == ascending[-1]:  # its ends lead to no other level
                result = result.without_ends()
                result = self._again(level, others, result, torch.ones_like(result.radius, dtype=torch.bool))
            found.append(result)
        self._back_and_forth(ascending, found)
        return found

    def _back_and_forth(self, ascending: Tensor, found: list[Nearest]) -> None:
        """Follow directions downwards, then upwards, one level after the other."""
        everyone = torch.ones(self.rows, dtype=torch.bool, device=ascending.device)
        downwards, upwards = range(len(found) - 2, -1, -1), range(1, len(found))
        for numbers, step in ((downwards, 1), (upwards, -1)):
            for i in numbers:  # upwards, other directions were among the starts
                pair = [found[i]], [found[i + step]]
                (point,) = self._follow(ascending[i : i + 1], *pair, everyone, turned=step > 0)
                found[i] = found[i].with_point(*point)

    def _exact(self, level: Tensor, found: Nearest) -> Nearest:
        direction, radius = on_level(self.rays(level, 1), found.direction, found.radius)
        return replace(found, direction=direction, radius=radius)

    def _search(self, level: Tensor, starts: Starts) -> Nearest:
        return nearest(self.rays(level, len(starts)), starts, self.effort, self.generator)

    def rays(self, levels: Tensor, count: int) -> Rays:
        """Rays of ``count`` starts for every origin on one or several levels: start-major, origins in a row."""
        targets = self.to_search(levels).reshape(-1).repeat_interleave(self.rows).repeat(count)
        rows = torch.arange(self.rows, device=levels.device).repeat(len(targets) // self.rows)
        return Rays(self.psi.take(rows), self.gauge.take(rows), self.height[rows], targets, self.counter)

    def _followed(self, ends: Ends) -> Tensor:
        """Which ends are followed to the next level, ``(S, B)``: not those far behind the best."""
        radius = self._own_radius(ends)
        place = radius.argsort(0).argsort(0)
        return (place < _FOLLOWED) & (radius <= _WORTH_FOLLOWING * radius.amin(0))

    def _own_radius(self, ends: Ends) -> Tensor:
        return torch.where(ends.single, ends.radius, torch.inf).reshape(-1, self.rows)

    def _moved(self, ends: Ends, chosen: Tensor, lower: Tensor, level: Tensor) -> Starts:
        """Chosen ends of a level, moved on to where their slope meets another level, as starts."""
        ahead = (self.to_search(level) - self.to_search(lower)) / ends.growth
        # Where the ray is nearly flat its slope says nothing: then no farther than twice the radius.
        length = ends.radius + torch.where(ahead > 0, ahead, 0.0).minimum(ends.radius)
        usable = chosen & torch.isfinite(self._own_radius(ends))
        shown = torch.where(usable.reshape(-1), length, torch.nan)
        v = (shown[:, None].to(ends.direction.dtype) * ends.direction).reshape(*usable.shape, -1)
        return Starts(tuple(partial(self.gauge.clip, part) for part in v))

    def _again(self, level: Tensor, starts: Starts, result: Nearest, due: Tensor) -> Nearest:
        """Search from other starts, too, in the rows that are due, ``(B,)`` bool.

        The rays to the nearest points of a low level may top out below the next one.
        """
        if not due.any():
            return result
        again = self._search(level, starts.among(due))
        better = again.radius < result.radius
        rows = torch.nonzero(better.repeat(len(result.ends.radius) // self.rows))[:, 0]
        return Nearest(
            torch.where(better[:, None], again.direction, result.direction),
            torch.where(better, again.radius, result.radius),
            replace(
                result.ends.replaced(rows, again.ends.take(rows)),
                twin=result.ends.twin.index_copy(0, rows, again.ends.twin[rows]),
            ),
            torch.cat([result.radii, again.radii]),
        )

    def _follow(
        self, levels: Tensor, found: Sequence[Nearest], neighbours: Sequence[Nearest], due: Tensor, turned: bool
    ) -> list[tuple[Tensor, Tensor]]:
        """Points on K levels from the directions of the nearest points on neighbouring levels; inf for none.

        Where φ is above the level there within the radius found, or where nothing was found.

        Args:
            levels: ``(K,)``.
            found: On them.
            neighbours: On the neighbouring ones.
            due: Which rows to look at, ``(K B,)`` bool.
            turned: Whether a direction that is another one is reason enough, too.
        """
        rays = self.rays(levels, 1)
        own, direction = torch.cat([f.radius for f in found]), torch.cat([f.direction for f in found])
        radius, theirs = torch.cat([n.radius for n in neighbours]), torch.cat([n.direction for n in neighbours])
        other = norm_of(theirs - direction, 2) > _OTHER * norm_of(direction, 2)
        del direction
        reach = torch.where(torch.isfinite(own), own, torch.nan)
        reason = (rays.excess(theirs, reach) > _ABOVE * rays.climb) | torch.isinf(own) | (other & turned)
        rows = torch.nonzero(due & torch.isfinite(radius) & (rays.height < rays.target) & reason)[:, 0]
        lengths = torch.full_like(own, torch.inf)
        if len(rows):
            guess = torch.minimum(radius, 1.2 * own)[rows]
            theirs[rows], lengths[rows] = refine(rays.take(rows), theirs[rows], guess, self.effort)
        return list(zip(theirs.split(self.rows), lengths.split(self.rows), strict=True))

    def _eigenvectors(self, lowest: Tensor) -> Tensor:
        """± the two leading eigenvectors, as long as the quadratic model √(2 (c − φ)/λ) is to the lowest level."""
        pairs = self.leading_pairs(_FEW_LANCZOS if is_large(self.gradient) else _LANCZOS)
        return eigenvector_starts(pairs, lowest, self.value)

    def _first_length(self, lowest: Tensor, given: Starts) -> Tensor:
        """How far to look first in a direction about which nothing is known, ``(B,)``.

        As far as the shortest of the given displacements; without any, where the tangent at the origin meets the
        lowest level, and no farther than the origin's norm.
        """
        norm = torch.linalg.vector_norm(self.phi.origin, dim=-1, dtype=torch.float64).clamp_min(1.0)
        slope = dual_norm(self.gradient * self.gauge.scale, self.gauge.norm)
        linear = (self.to_search(lowest) - self.height).abs() / slope
        guess = torch.where(torch.isfinite(linear) & (linear > 0), linear, 1e-3 * norm).minimum(norm)
        if not len(given):
            return guess
        lengths = torch.stack([self.gauge.length(v) for v in given])
        shortest = torch.where(lengths > 0, lengths, torch.inf).amin(0)
        return torch.where(torch.isfinite(shortest), shortest, guess)


def eigenvector_starts(pairs: Eigenpairs, level: Tensor | float, value: Tensor) -> Tensor:
    """± eigenvectors with positive eigenvalues, as long as the quadratic model is to the level, ``(2k, B, n)``.

    Where the model gives no length, with a negative eigenvalue or below the minimum, the eigenvector has length 1.
    """
    length = torch.sqrt(2 * (level - value[:, None]) / pairs.eigenvalues)
    length = torch.where(torch.isfinite(length) & (length > 0), length, 1.0)
    vectors = (pairs.eigenvectors * length[..., None].to(pairs.eigenvectors.dtype)).transpose(0, 1)
    return torch.cat([vectors, -vectors])
