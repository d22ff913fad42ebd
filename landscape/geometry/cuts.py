"""Cutting planes: what gradients taken at several points say about where a level set is.

A point w with ψ(w_i) = t + e_i and gradient g_i gives the cut g_i·(w − w_i) + e_i ≥ 0, the linear model of
{ψ ≥ t}. At the kinks of a ReLU network one gradient says little; several cuts together describe the corner.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from landscape.geometry.gauge import Gauge, dot, norm_of

# Sweeps of coordinate ascent on the multipliers. A rough solution is enough: the next cut corrects it.
_SWEEPS = 10
_REGULARISATION = 1e-4
_UNUSED = -torch.inf


class Cuts:
    """At most ``capacity`` cuts g·w ≥ b for each of R rays, the least useful replaced first."""

    def __init__(self, like: Tensor, capacity: int) -> None:
        rays, size = like.shape
        self.normal = like.new_zeros((rays, capacity, size))  # unit rows
        self.offset = torch.full((rays, capacity), _UNUSED, dtype=torch.float64, device=like.device)
        self.last_active = torch.zeros_like(self.offset)
        self.clock = 0

    def add(self, rows: Tensor, v: Tensor, excess: Tensor, gradient: Tensor) -> None:
        """Cuts of points ``v`` at which ψ misses the level by ``excess``; what is not finite is left out."""
        length = norm_of(gradient, 2)
        offset = (dot(gradient, v) - excess) / length
        good = torch.isfinite(offset)
        rows, self.clock = rows[good], self.clock + 1
        slot = self.last_active[rows].argmin(1)
        self.normal[rows, slot] = (gradient / length[:, None].to(gradient.dtype))[good]
        self.offset[rows, slot] = offset[good]
        self.last_active[rows, slot] = self.clock

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Normals and offsets of distinct rays in ascending order, as many as are in use at the most."""
        used = slice(min(self.clock, self.offset.shape[1]))
        if len(rows) == len(self.normal):  # all of them are not copied
            return self.normal[:, used], self.offset[:, used]
        return self.normal[rows, used], self.offset[rows, used]

    def around(self, rows: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Normals, and offsets that do not cut off ``v``, which is on the level, ``(R, m, n), (R, m)``.

        Where ψ is not concave a cut may exclude points of the level set that are known; such a cut is dropped.
        """
        normal, offset = self.of(rows)
        at_v = torch.einsum("rmn,rn->rm", normal, v).double()
        wrong = at_v < offset - 1e-3 * offset.abs()
        return normal, torch.where(wrong, _UNUSED, torch.minimum(offset, at_v))

    def mark_active(self, rows: Tensor, weights: Tensor) -> None:
        """Remember which cuts held the last solution."""
        active = weights > 1e-9 * weights.amax(1, keepdim=True)
        used = slice(weights.shape[1])
        self.last_active[rows, used] = torch.where(active, float(self.clock), self.last_active[rows, used])


def project(
    centre: Tensor, normal: Tensor, offset: Tensor, onto: Callable[[Tensor], Tensor], updates: int
) -> tuple[Tensor, Tensor]:
    """About the point nearest to ``centre`` that obeys the cuts and lies in a convex set, and the cuts' weights.

    min ½‖w − centre‖² with g_i·w ≥ b_i and w in C has w = P_C(centre + Σ λ_i g_i), λ ≥ 0. λ is found by coordinate
    ascent for a given set of coordinates that P_C holds fast, which is then updated (semismooth Newton).

    Args:
        centre: ``(R, n)``.
        normal: Unit normals g, ``(R, m, n)``.
        offset: b, ``(R, m)``; −inf where there is no cut.
        onto: Projection P_C on rows, ``(R, n) -> (R, n)``.
        updates: Of that set; a single one gives a shorter step, that does not quite satisfy the cuts.
    """
    bound = torch.where(torch.isfinite(offset), offset, -1e6)
    weights = torch.zeros_like(bound)
    moved, w = centre, onto(centre)
    for _ in range(updates):
        free = w == moved
        moving = normal if free.all() else normal * free[:, None]
        gram = torch.einsum("rmn,rkn->rmk", moving, normal).double()
        gram.diagonal(dim1=1, dim2=2).add_(_REGULARISATION)
        missing = bound - torch.einsum("rmn,rn->rm", normal, w).double()
        target = missing + torch.einsum("rmk,rk->rm", gram, weights) - _REGULARISATION * weights
        weights = _descend(gram, target, weights, _SWEEPS)
        moved = centre + torch.einsum("rm,rmn->rn", weights.to(normal.dtype), normal)
        w = onto(moved)
    return w, weights


def nonnegative_least_squares(matrix: Tensor, target: Tensor, sweeps: int = 200) -> Tensor:
    """Argmin ½ λᵀKλ − bᵀλ over λ ≥ 0 by coordinate descent, ``(R, m, m), (R, m) -> (R, m)``."""
    weights = torch.zeros_like(target)
    regular = matrix + _REGULARISATION**2 * torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
    return _descend(regular, target, weights, sweeps)


def _descend(matrix: Tensor, target: Tensor, start: Tensor, sweeps: int) -> Tensor:
    weights = start.clone()
    for _ in range(sweeps):
        for i in range(matrix.shape[1]):
            gap = target[:, i] - (matrix[:, i] * weights).sum(1)
            weights[:, i] = (weights[:, i] + gap / matrix[:, i, i]).clamp_min(0)
    return weights


def onto_ball(gauge: Gauge, radius: Tensor) -> Callable[[Tensor], Tensor]:
    """Projection on ‖w‖ ≤ radius and on the bounds, ``(R,)``; in the 2-norm on the bounds alone."""
    limit = radius[:, None]

    def project_rows(w: Tensor) -> Tensor:
        if gauge.norm == math.inf:
            return gauge.clip(torch.maximum(torch.minimum(w, limit.to(w.dtype)), -limit.to(w.dtype)))
        if gauge.norm == 1:
            return _onto_simplex_of_signs(w, radius, gauge)
        return gauge.clip(w)

    return project_rows


def _onto_simplex_of_signs(w: Tensor, radius: Tensor, gauge: Gauge) -> Tensor:
    """Projection on ‖w‖₁ ≤ radius and on the bounds: shrink by the threshold at which the norm fits.

    The threshold is bracketed by bisection, for the norm falls as it grows (Duchi et al. 2008 sort instead).
    """
    low, high = torch.zeros_like(radius), w.abs().amax(1).double()
    fits = gauge.length(gauge.clip(w)) <= radius
    for _ in range(40):
        middle = (low + high) / 2
        over = gauge.length(gauge.clip(_shrink(w, middle))) > radius
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    return gauge.clip(torch.where(fits[:, None], w, _shrink(w, high)))


def _shrink(w: Tensor, threshold: Tensor) -> Tensor:
    return w.sign() * (w.abs() - threshold[:, None].to(w.dtype)).clamp_min(0)
