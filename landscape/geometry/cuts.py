"""Cutting planes: what gradients taken at several points say about where a level set is.

A point w with ψ(w_i) = t + e_i and gradient g_i gives the cut g_i·(w − w_i) + e_i ≥ 0, the linear model of
{ψ ≥ t}. At the kinks of a ReLU network one gradient says little; several cuts together describe the corner.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.geometry.gauge import Gauge
from landscape.geometry.vectors import dot, dots, norm_of, where_equal

# Sweeps of coordinate ascent on the multipliers. A rough solution is enough: the next cut corrects it.
_SWEEPS = 20
_REGULARISATION = 1e-4
# They have settled when no sweep changes one by more than this share of the largest.
_SETTLED = 1e-6
_UNUSED = -torch.inf


class Cuts:
    """At most ``capacity`` cuts g·w ≥ b for each of R rays, the least useful replaced first."""

    def __init__(self, like: Tensor, capacity: int) -> None:
        rays, size = like.shape
        # Memory that no cut has needed yet stays untouched, and costs nothing.
        self.normal = like.new_empty((capacity, rays, size))  # unit rows, zero where there is no cut
        self.offset = torch.full((rays, capacity), _UNUSED, dtype=torch.float64, device=like.device)
        self.last_active = torch.zeros_like(self.offset)
        self.clock = 0

    def add(self, rows: Tensor, v: Tensor, excess: Tensor, gradient: Tensor) -> None:
        """Cuts of points ``v`` at which ψ misses the level by ``excess``; what is not finite is left out."""
        length = norm_of(gradient, 2)
        offset = (dot(gradient, v) - excess) / length
        good = torch.isfinite(offset)
        unit = gradient / length[:, None].to(gradient.dtype)
        if not good.all():
            rows, offset, unit = rows[good], offset[good], unit[good]
        if self.clock < len(self.normal):
            self.normal[self.clock] = 0.0
        self.clock += 1
        slot = self.last_active[rows].argmin(1)
        self.normal.flatten(0, 1).index_copy_(0, slot * self.normal.shape[1] + rows, unit)
        self.offset[rows, slot] = offset
        self.last_active[rows, slot] = self.clock

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Normals and offsets of distinct rays in ascending order, as many as are in use at the most."""
        used = slice(min(self.clock, len(self.normal)))
        normal, offset = self.normal[used], self.offset[:, used]
        if len(rows) < normal.shape[1]:  # all of them are not copied
            normal, offset = normal.index_select(1, rows), offset[rows]
        return normal.transpose(0, 1), offset

    def around(self, rows: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Normals, and offsets that do not cut off ``v``, which is on the level, ``(R, m, n), (R, m)``.

        Where ψ is not concave a cut may exclude points of the level set that are known; such a cut is dropped.
        """
        normal, offset = self.of(rows)
        at_v = dots(normal, v)
        wrong = at_v < offset - 1e-3 * offset.abs()
        return normal, torch.where(wrong, _UNUSED, torch.minimum(offset, at_v))

    def mark_active(self, rows: Tensor, weights: Tensor) -> None:
        """Remember which cuts held the last solution."""
        active = weights > 1e-9 * weights.amax(1, keepdim=True)
        used = slice(weights.shape[1])
        self.last_active[rows, used] = torch.where(active, float(self.clock), self.last_active[rows, used])


@dataclass(frozen=True)
class Projected:
    """Projection of rows on a convex set, with its derivative J v = free · v − rim ⟨rim, v⟩."""

    w: Tensor  # (R, n)
    free: Tensor | None = None  # (R, n) 1 for coordinates that move freely, 0 for those held; None: all are free
    rim: Tensor | None = None  # (R, n) unit normal of the face that w is on, 0 if it is on none


Projection = Callable[[Tensor], Projected]


def project(
    centre: Tensor, normal: Tensor, offset: Tensor, onto: Projection, updates: int
) -> tuple[Tensor, Tensor]:
    """About the point nearest to ``centre`` that obeys the cuts and lies in a convex set, and the cuts' weights.

    min ½‖w − centre‖² with g_i·w ≥ b_i and w in C has w = P_C(centre + Σ λ_i g_i), λ ≥ 0. λ is found by coordinate
    ascent for a given derivative of P_C, which is then updated (semismooth Newton).

    Args:
        centre: ``(R, n)``.
        normal: Unit normals g, ``(R, m, n)``.
        offset: b, ``(R, m)``; −inf where there is no cut.
        onto: Projection P_C on rows.
        updates: Of its derivative; a single one gives a shorter step, that does not quite satisfy the cuts.
    """
    bound = torch.where(torch.isfinite(offset), offset, -1e6)
    weights = torch.zeros_like(bound)
    here = onto(centre)
    for _ in range(updates):
        missing = bound - dots(normal, here.w)
        gram = _gram(normal, here)
        target = missing + torch.einsum("rmk,rk->rm", gram, weights) - _REGULARISATION * weights
        weights = _descend(gram, target, weights, _SWEEPS)
        here = onto(centre + torch.einsum("rm,rmn->rn", weights.to(normal.dtype), normal))
    return here.w, weights


def _gram(normal: Tensor, at: Projected) -> Tensor:
    """G J Gᵀ for the derivative J of a projection, made regular, ``(R, m, n) -> (R, m, m)``."""
    moving = normal if at.free is None else normal * at.free[:, None]
    gram = torch.einsum("rmn,rkn->rmk", moving, normal).double()
    if at.rim is not None:
        along = dots(normal, at.rim)
        gram -= along[:, :, None] * along[:, None]
    gram.diagonal(dim1=1, dim2=2).add_(_REGULARISATION)
    return gram


def nonnegative_least_squares(matrix: Tensor, target: Tensor, sweeps: int = 200) -> Tensor:
    """Argmin ½ λᵀKλ − bᵀλ over λ ≥ 0 by coordinate descent, ``(R, m, m), (R, m) -> (R, m)``."""
    weights = torch.zeros_like(target)
    regular = matrix + _REGULARISATION**2 * torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
    return _descend(regular, target, weights, sweeps)


def _descend(matrix: Tensor, target: Tensor, start: Tensor, sweeps: int) -> Tensor:
    columns = matrix.permute(1, 2, 0).contiguous()  # (m, m, R): every operation runs along R
    weights = list(start.T.contiguous())
    missing = (target - torch.einsum("rmk,rk->rm", matrix, start)).T.contiguous()
    scale = 1 / columns.diagonal(dim1=0, dim2=1).T
    coordinates = list(zip(columns, missing, scale, strict=True))
    before = torch.stack(weights)
    for sweep in range(1, sweeps + 1):
        for i, (column, gap, inverse) in enumerate(coordinates):
            weight = torch.addcmul(weights[i], gap, inverse).clamp_min_(0)
            missing.addcmul_(column, weights[i] - weight)
            weights[i] = weight
        if sweep.bit_count() == 1:  # after 1, 2, 4, ... sweeps
            now = torch.stack(weights)
            if ((now - before).abs() <= _SETTLED * now.amax(0)).all():
                break
            before = now
    return torch.stack(weights, 1)


def onto_bounds(gauge: Gauge) -> Projection:
    """Projection on the bounds of displacements."""

    def project_rows(w: Tensor) -> Projected:
        clipped = gauge.clip(w)
        return Projected(clipped, where_equal(clipped, w))

    return Projected if gauge.lower is None else project_rows


def onto_ball(gauge: Gauge, radius: Tensor) -> Projection:
    """Projection on ‖w‖ ≤ radius, ``(R,)``, in the 1- or ∞-norm, and on the bounds."""
    if gauge.norm == 1:
        return lambda w: _onto_simplex_of_signs(w, radius, gauge)
    return onto_bounds(gauge.within(radius))


def _onto_simplex_of_signs(w: Tensor, radius: Tensor, gauge: Gauge) -> Projected:
    """Projection on ‖w‖₁ ≤ radius and on the bounds: shrink by the threshold at which the norm fits.

    The threshold is bracketed by bisection, for the norm falls as it grows (Duchi et al. 2008 sort instead).
    """
    low, high = torch.zeros_like(radius), w.abs().amax(1).double()
    fits = gauge.length(gauge.clip(w)) <= radius
    for _ in range(40):
        middle = (low + high) / 2
        over = gauge.length(gauge.clip(_shrink(w, middle))) > radius
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    shrunk = torch.where(fits[:, None], w, _shrink(w, high))
    result = gauge.clip(shrunk)
    free = (result == shrunk) & (fits[:, None] | (result != 0))
    rim = torch.where(fits[:, None], 0.0, result.sign() * free)
    return Projected(result, free.to(result.dtype), rim / norm_of(rim, 2)[:, None].clamp_min(1).to(rim.dtype))


def _shrink(w: Tensor, threshold: Tensor) -> Tensor:
    return w.sign() * (w.abs() - threshold[:, None].to(w.dtype)).clamp_min(0)
