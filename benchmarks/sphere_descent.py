"""The distance to a level set as a function of the direction, and quasi-Newton descent on it.

Let r(u) be the radius at which the ray from the origin in the unit direction u meets {φ = c}, φ > 0. With
g = ∇ log φ there, ∇ log r = G = −P g/(g·u), P the projector onto the tangent space of the sphere, so that log r is
minimised over directions by L-BFGS with backtracking. Every point that is visited lies on the level set.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.objectives import Objective

MEMORY = 12
NEWTON_STEPS = 6


@dataclass
class Bill:
    """Evaluations of one row."""

    gradients: int = 0
    values: int = 0


@dataclass(frozen=True)
class Point:
    """Where a ray meets the level, and the tangent gradient G of log r there."""

    direction: Tensor  # (n,) unit, float64
    radius: float
    gradient: Tensor  # (n,)

    @property
    def tangent(self) -> float:
        """Tangent of the angle between direction and ∇φ."""
        return float(torch.linalg.vector_norm(self.gradient))


class LevelSet:
    """{φ = c}, seen from the origin of φ along rays."""

    def __init__(self, phi: Objective, level: float, bill: Bill) -> None:
        self.phi, self.level, self.bill = phi, level, bill
        self.origin = phi.origin[0].double()
        self.climb = math.log(level) - float(phi.value(phi.origin).log())

    def excess(self, direction: Tensor, radius: float) -> float:
        """log φ − log c at a point; inf where φ is not finite."""
        self.bill.values += 1
        value = float(self.phi.value(self._point(direction, radius))[0])
        return math.log(max(value, 1e-300) / self.level) if math.isfinite(value) else math.inf

    def first_crossing(self, direction: Tensor, radius: float, grow: float = 2.0) -> float | None:
        """A radius near the level, by growing ``radius`` until φ exceeds c and halving the bracket thrice."""
        low, high = 0.0, radius
        while self.excess(direction, high) < 0:
            low, high = high, grow * high
            if high > 1e6:
                return None
        for _ in range(3 if low > 0 else 8):
            middle = math.sqrt(low * high) if low > 0 else high / 2
            low, high = (low, middle) if self.excess(direction, middle) >= 0 else (middle, high)
        return high

    def meet(self, direction: Tensor, guess: float, tolerance: float = 0.02) -> Point | None:
        """Newton's method in the radius, until log φ misses by ``tolerance`` of the climb; then first order."""
        radius = guess
        for _ in range(NEWTON_STEPS):
            self.bill.gradients += 1
            value, slopes = self.phi.value_and_grad(self._point(direction, radius))
            slope = slopes[0].double() / value
            excess, radial = float(value.log()) - math.log(self.level), float(slope @ direction)
            if not (math.isfinite(excess) and math.isfinite(radial) and radial > 0):
                return None
            corrected = min(max(radius - excess / radial, radius / 2), 2 * radius)
            if abs(excess) <= tolerance * self.climb:
                return Point(direction, corrected, direction - slope / radial)
            radius = corrected
        return None

    def _point(self, direction: Tensor, radius: float) -> Tensor:
        return (self.origin + radius * direction)[None].to(self.phi.origin.dtype)


class Descent:
    """L-BFGS on log r over the sphere of directions; can be stopped, moved to another level, and continued."""

    def __init__(self, level_set: LevelSet, start: Point) -> None:
        self.level_set, self.point = level_set, start
        self.memory: deque[tuple[Tensor, Tensor]] = deque(maxlen=MEMORY)
        self.stalled = False

    def run(self, gradients: int, tol: float) -> Descent:
        """Descend for about so many gradients, or until the angle is small or no step is shorter."""
        bill, before = self.level_set.bill, self.level_set.bill.gradients
        recent: deque[float] = deque(maxlen=8)
        while not self.stalled and self.point.tangent > tol and bill.gradients - before < gradients:
            self.step()
            recent.append(self.point.radius)
            self.stalled |= len(recent) == 8 and recent[0] < recent[-1] * (1 + 1e-5)
        return self

    def step(self) -> None:
        """One step; where the quasi-Newton direction fails, forget the memory, and then give up."""
        heading = self._heading()
        slope, size = float(heading @ self.point.gradient), 1.0
        for _ in range(5):
            moved = self.point.direction + size * heading
            direction = moved / torch.linalg.vector_norm(moved)
            # The ray meets the plane tangent to the level set at this share of the present radius.
            share = float((self.point.direction - self.point.gradient) @ direction)
            trial = self.level_set.meet(direction, self.point.radius / share) if share > 0.05 else None
            if trial and math.log(trial.radius / self.point.radius) <= 1e-4 * size * slope:
                self._accept(trial)
                return
            size *= 0.3
        self.stalled = not self.memory
        self.memory.clear()

    def moved_to(self, level_set: LevelSet) -> Descent | None:
        """The same descent on another level, from the same direction."""
        if level_set is self.level_set:
            return self._copy(level_set, self.point)
        ratio = (level_set.climb / self.level_set.climb) ** 0.5
        point = level_set.meet(self.point.direction, self.point.radius * ratio)
        if point is None:
            radius = level_set.first_crossing(self.point.direction, self.point.radius * ratio, 1.1)
            point = level_set.meet(self.point.direction, radius) if radius else None
        return self._copy(level_set, point) if point else None

    def _copy(self, level_set: LevelSet, point: Point) -> Descent:
        copy = Descent(level_set, point)
        copy.memory = self.memory.copy()
        return copy

    def _heading(self) -> Tensor:
        heading = -self._inverse_hessian(self.point.gradient)
        heading -= (heading @ self.point.direction) * self.point.direction
        if float(heading @ self.point.gradient) >= 0:
            self.memory.clear()
            heading = -self.point.gradient
        longest = max(1.0, self.point.tangent)
        return heading * min(1.0, longest / float(torch.linalg.vector_norm(heading)))

    def _inverse_hessian(self, vector: Tensor) -> Tensor:
        """Two-loop recursion (Nocedal & Wright 2006, Algorithm 7.4); the identity without memory."""
        q, stack = vector.clone(), []
        for s, y in reversed(self.memory):
            alpha = float(s @ q) / float(s @ y)
            stack.append(alpha)
            q -= alpha * y
        if self.memory:
            s, y = self.memory[-1]
            q *= float(s @ y) / float(y @ y)
        for s, y in self.memory:
            q += (stack.pop() - float(y @ q) / float(s @ y)) * s
        return q

    def _accept(self, trial: Point) -> None:
        s, y = trial.direction - self.point.direction, trial.gradient - self.point.gradient
        if float(s @ y) > 1e-3 * float(s @ s):
            self.memory.append((s, y))
        self.point = trial
