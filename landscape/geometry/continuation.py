"""Search over all levels of an Objective: the ends of one level are the starts of the next."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Generator, Tensor

from landscape.errors import ObjectiveError
from landscape.geometry.eigenpairs import top_eigenpairs
from landscape.geometry.rays import Counter, Rays, crossing
from landscape.geometry.search import Nearest, Starts, nearest, refine
from landscape.objectives import Objective, search_form


class Continuation:
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

    def run(self, levels: Tensor, starts: Starts) -> list[Nearest]:
        """Search all levels, lowest first; results come in the order of ``levels``, ``(C,)``."""
        order = torch.argsort(levels)
        found: list[Nearest] = []
        first = starts
        for level in levels[order]:
            rays = self.rays(level, len(starts.direction))
            result, starts = nearest(rays, starts, self.tol, self.budget)
            if found and not torch.isfinite(result.radius).all():
                result, starts = self._start_over(rays, first, result, starts)
            found.append(result)
        for lower in range(len(found) - 2, -1, -1):
            found[lower] = self._share_ray(levels[order][lower], found[lower], found[lower + 1])
        back = torch.argsort(order)
        return [found[i] for i in back.tolist()]

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
        rays = self.rays(level, 1)
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

    def rays(self, level: Tensor, count: int) -> Rays:
        """Rays of ``count`` starts for every origin, start-major."""
        rows = torch.arange(self.rows, device=level.device).repeat(count)
        scale = self.scale if len(self.scale) == 1 else self.scale[rows]
        target = self.to_search(level).expand(len(rows))
        return Rays(self.psi.take(rows), scale, self.height[rows], target, self.counter)
