"""Limited-memory quasi-Newton directions for many functions in lock-step."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.geometry.vectors import dot

# A pair is kept only if the function curves upwards along it by more than this.
_LEAST_CURVATURE = 1e-4


class CurvaturePairs:
    """The inverse Hessian of R functions of n variables, as L-BFGS remembers it (Nocedal 1980)."""

    def __init__(self, like: Tensor, capacity: int) -> None:
        self.rays, size = like.shape
        self.capacity = capacity
        # Pair k of ray r is row k R + r; untouched memory costs nothing.
        self.moves = like.new_empty((capacity * self.rays, size))  # Δu
        self.changes = like.new_empty((capacity * self.rays, size))  # Δ∇f
        self.weights = like.new_empty(capacity * self.rays, dtype=torch.float64)  # 1/⟨Δu, Δ∇f⟩
        self.scale = torch.ones(self.rays, dtype=torch.float64, device=like.device)
        self.count = torch.zeros(self.rays, dtype=torch.int64, device=like.device)

    def add(self, rows: Tensor, move: Tensor, change: Tensor) -> None:
        """Remember how the gradient changed with a move, ``(R, n), (R, n)``."""
        curvature = dot(move, change)
        good = curvature > _LEAST_CURVATURE * dot(move, move)
        if not good.all():
            rows, move, change, curvature = rows[good], move[good], change[good], curvature[good]
        place = self._place(rows, 0)
        self.moves.index_copy_(0, place, move)
        self.changes.index_copy_(0, place, change)
        self.weights[place] = 1 / curvature
        self.scale[rows] = curvature / dot(change, change)
        self.count[rows] += 1

    def solve(self, rows: Tensor, slope: Tensor) -> Tensor:
        """Inverse Hessian times ``slope``, ``(R, n) -> (R, n)``, by the two-loop recursion."""
        result, pairs = slope.clone(), []
        known = self.count[rows]
        for age in range(1, 1 + min(self.capacity, int(known.max()) if len(rows) else 0)):
            some = torch.nonzero(known >= age)[:, 0]
            place = self._place(rows[some], age)
            factor = self.weights[place] * dot(self.moves.index_select(0, place), result.index_select(0, some))
            _add(result, some, -factor, self.changes.index_select(0, place))
            pairs.append((some, place, factor))
        result *= self.scale[rows, None].to(result.dtype)
        for some, place, factor in reversed(pairs):
            change = dot(self.changes.index_select(0, place), result.index_select(0, some))
            _add(result, some, factor - self.weights[place] * change, self.moves.index_select(0, place))
        return result

    def _place(self, rows: Tensor, age: int) -> Tensor:
        """Where the last pair but ``age - 1`` of some rays is; at age 0, where the next one goes."""
        return (self.count[rows] - age) % self.capacity * self.rays + rows


def _add(result: Tensor, rows: Tensor, factor: Tensor, vectors: Tensor) -> None:
    """Add multiples of vectors to some rows of the result, which it changes."""
    vectors *= factor[:, None].to(vectors.dtype)
    if len(rows) == len(result):
        result += vectors
    else:
        result.index_add_(0, rows, vectors)
