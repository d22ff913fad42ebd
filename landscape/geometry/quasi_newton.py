"""Limited-memory quasi-Newton directions for many functions in lock-step."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.geometry.gauge import dot

# A pair is kept only if the function curves upwards along it by more than this.
_LEAST_CURVATURE = 1e-4


class CurvaturePairs:
    """The inverse Hessian of R functions of n variables, as L-BFGS remembers it (Nocedal 1980)."""

    def __init__(self, like: Tensor, capacity: int) -> None:
        rays, size = like.shape
        self.capacity = capacity
        self.moves = like.new_zeros((capacity, rays, size))  # Δu
        self.changes = like.new_zeros((capacity, rays, size))  # Δ∇f
        self.weights = torch.zeros((capacity, rays), dtype=torch.float64, device=like.device)  # 1/⟨Δu, Δ∇f⟩
        self.scale = torch.ones(rays, dtype=torch.float64, device=like.device)
        self.count = torch.zeros(rays, dtype=torch.int64, device=like.device)

    def add(self, rows: Tensor, move: Tensor, change: Tensor) -> None:
        """Remember how the gradient changed with a move, ``(R, n), (R, n)``."""
        curvature = dot(move, change)
        good = curvature > _LEAST_CURVATURE * dot(move, move)
        if not good.all():
            rows, move, change, curvature = rows[good], move[good], change[good], curvature[good]
        slot = self.count[rows] % self.capacity
        self.moves[slot, rows], self.changes[slot, rows] = move, change
        self.weights[slot, rows] = 1 / curvature
        self.scale[rows] = curvature / dot(change, change)
        self.count[rows] += 1

    def solve(self, rows: Tensor, slope: Tensor) -> Tensor:
        """Inverse Hessian times ``slope``, ``(R, n) -> (R, n)``, by the two-loop recursion."""
        result, factors = slope, []
        known = range(min(self.capacity, int(self.count[rows].max()) if len(rows) else 0))
        for age in known:
            slot = (self.count[rows] - 1 - age) % self.capacity
            factor = self.weights[slot, rows] * dot(self.moves[slot, rows], result)
            result = result - factor[:, None].to(result.dtype) * self.changes[slot, rows]
            factors.append(factor)
        result = result * self.scale[rows, None].to(result.dtype)
        for age in reversed(known):
            slot = (self.count[rows] - 1 - age) % self.capacity
            factor = factors[age] - self.weights[slot, rows] * dot(self.changes[slot, rows], result)
            result = result + factor[:, None].to(result.dtype) * self.moves[slot, rows]
        return result
