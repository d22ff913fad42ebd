"""Sets of perturbed inputs, and the largest value of linear functions on them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from landscape.geometry.vectors import dual_norm, norm_of

# Refinements of the multiplier of a ball cut by a box; every multiplier gives a valid bound.
_REFINEMENTS = 3

# Least radius of a ball around a box, and its relative surplus, so that rounding leaves no corner outside.
_POINT = 1e-9


@dataclass(frozen=True)
class Perturbation:
    """{x + δ : ‖δ‖_p ≤ r, lower ≤ x + δ ≤ upper}, one set a row, for p in {1, 2, ∞}."""

    center: Tensor  # (B, n)
    radius: Tensor  # (B,)
    norm: float
    lower: Tensor | None = None  # (B, n), below the center
    upper: Tensor | None = None  # (B, n), above the center

    def maximum(self, coefficients: Tensor) -> Tensor:
        """Max a·x over the set or, for p = 2 with a box, a bound from above, ``(B or 1, M, n) -> (B, M)``."""
        value: Tensor = torch.einsum("bmn,bn->bm", coefficients.expand(len(self.center), -1, -1), self.center)
        radius = self.radius[:, None]
        if self.lower is None or self.upper is None:
            return value + radius * dual_norm(coefficients, self.norm).to(value.dtype)
        down, up = (self.lower - self.center)[:, None], (self.upper - self.center)[:, None]
        return value + _CUT[self.norm](coefficients, radius, down, up)

    def take(self, rows: Tensor, radius: Tensor) -> Perturbation:
        """The sets of some rows with other radii, ``(R,), (R,)``."""
        if self.lower is None or self.upper is None:
            return replace(self, center=self.center[rows], radius=radius)
        return Perturbation(self.center[rows], radius, self.norm, self.lower[rows], self.upper[rows])

    @property
    def covering_radius(self) -> Tensor:
        """Radius from which on the ball contains the whole box, ``(B,)``; ∞ without a box."""
        if self.lower is None or self.upper is None:
            return torch.full_like(self.radius, torch.inf)
        farthest = torch.maximum(self.center - self.lower, self.upper - self.center)
        return norm_of(farthest, self.norm).to(farthest.dtype).clamp_min(_POINT) * (1 + _POINT)


def _cut_cube(a: Tensor, radius: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """Max a·δ over |δ_i| ≤ r within the box: each coordinate for itself."""
    reach = radius[..., None]
    return torch.maximum(a * down.maximum(-reach), a * up.minimum(reach)).sum(-1)


def _cut_ball(a: Tensor, radius: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """Max a·δ over ‖δ‖₂ ≤ r within the box, from above, by its dual in one multiplier λ > 0.

    g(λ) = λ r²/2 + Σ max_{δ_i in the box} (a_i δ_i − λ δ_i²/2) bounds it for every λ; at λ = ‖a‖/r it is no
    larger than r ‖a‖. Where δ(λ) is shorter than r a smaller λ is better, and the other way round.
    """
    tiny = torch.finfo(a.dtype).tiny
    multiplier = (torch.linalg.vector_norm(a, dim=-1) / radius).clamp_min(tiny)
    best = _cut_cube(a, radius, down, up)  # holds the ball, and is tight where the box is the smaller of the two
    for _ in range(1 + _REFINEMENTS):
        delta = (a / multiplier[..., None]).maximum(down).minimum(up)
        square = delta.square().sum(-1)
        best = best.minimum((a * delta).sum(-1) + multiplier * (radius.square() - square) / 2)
        multiplier = (multiplier * square.sqrt() / radius).clamp_min(tiny)
    return best


def _cut_octahedron(a: Tensor, radius: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """Max a·δ over ‖δ‖₁ ≤ r within the box: spend r on the steepest coordinates first."""
    room = torch.where(a > 0, up, -down)
    steepness, order = a.abs().expand_as(room).sort(dim=-1, descending=True)
    room = room.gather(-1, order)
    spent_before = room.cumsum(-1) - room
    return (steepness * (radius[..., None] - spent_before).clamp_min(0).minimum(room)).sum(-1)


_CUT = {1.0: _cut_octahedron, 2.0: _cut_ball, torch.inf: _cut_cube}
