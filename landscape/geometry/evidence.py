"""How good a point of a level set is as its nearest point: residual, angles, second order, saturation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from landscape.errors import ObjectiveError
from landscape.geometry.cuts import nonnegative_least_squares
from landscape.geometry.eigenpairs import top_eigenpairs
from landscape.geometry.gauge import Gauge
from landscape.geometry.starts import Starts
from landscape.geometry.vectors import blocks, dot, dual_norm, finite, norm_of
from landscape.objectives import HessianVectorProduct, Objective

# Gradients around a point, and how far away, relative to the displacement: nearer kinks count as being there.
_AROUND = 4
_NEARBY = 1e-2
# Up to this angle to the gradient itself, no kink is looked for.
_ALIGNED = 0.1
_REWEIGHTED, _SWEEPS = 5, 20
# Lanczos steps for the largest curvature, and its relative accuracy.
_STEPS = 20
_ACCURACY = 0.05
# A ray has levelled off when doubling a long way changes φ by less than this share; that takes so many values.
_FLAT, LOOKS = 1e-3, 2
_FAR = 1e3


@dataclass(frozen=True)
class PointEvidence:
    """What is known of one point for each of B origins."""

    level_error: Tensor  # (B,) |φ − c|
    gradient_norm: Tensor  # (B,) dual norm of ∇φ with respect to v
    angle: Tensor  # (B,) between displacement and gradient
    kink_angle: Tensor  # (B,) to the nearest non-negative combination of gradients around the point
    curvature: Tensor  # (B,) λ λ_max(P H P); below 1 at a local minimum; NaN if not looked at
    num_gradients: int  # in rows
    num_hvp: int  # in rows


def point_evidence(
    phi: Objective, gauge: Gauge, v: Tensor, level: Tensor, second_order: bool, generator: Generator
) -> PointEvidence:
    """Evidence for displacements ``v``, ``(B, n)``, as nearest points of {φ = level}."""
    points = phi.origin + gauge.stretched(v).to(phi.origin.dtype)
    value, gradient = phi.value_and_grad(points)
    gradient = gauge.stretched(gradient)
    free = _free(gauge, v, gradient)
    moving, steepest = (x if free is None else x * free for x in (v, gradient))
    angle = _angle(gauge, moving, steepest)
    kinked = torch.nonzero(angle > _ALIGNED)[:, 0]
    kink_angle = angle.clone()
    if len(kinked):
        some = gauge.take(kinked)
        around = _gradients_around(phi.take(kinked), some, v[kinked], gradient[kinked], generator)
        if free is not None:
            around *= free[kinked]
        kink_angle[kinked] = torch.minimum(angle[kinked], _cone_angle(some, moving[kinked], around))
    curvature, products = torch.full_like(angle, torch.nan), 0
    if second_order and gauge.round:
        curvature, products = _curvature(phi, gauge, points, v, gradient)
    size = dual_norm(steepest, gauge.norm)
    spent = len(v) + _AROUND * len(kinked)
    return PointEvidence((value - level).abs(), size, angle, kink_angle, curvature, spent, len(v) * products)


def no_evidence(v: Tensor) -> PointEvidence:
    """What is known of displacements ``(B, n)`` that nobody looked at."""
    nothing = torch.full((len(v),), torch.nan, dtype=torch.float64, device=v.device)
    return PointEvidence(nothing, nothing, nothing, nothing, nothing, 0, 0)


def _free(gauge: Gauge, v: Tensor, gradient: Tensor) -> Tensor | None:
    """1 where a coordinate may move, 0 where a bound holds it against the gradient; None without bounds."""
    if gauge.lower is None or gauge.upper is None:
        return None
    room = torch.where(gradient > 0, gauge.upper - v, v - gauge.lower)
    return (room > 1e-6 * (gauge.upper - gauge.lower)).to(v.dtype)


def _gradients_around(phi: Objective, gauge: Gauge, v: Tensor, gradient: Tensor, generator: Generator) -> Tensor:
    """The gradient at ``v``, and those at random points nearby, ``(m, B, n)``."""
    spread = (_NEARBY * norm_of(v, 2) / math.sqrt(v.shape[1])).to(v.dtype)[:, None]
    found = gradient.new_empty((1 + _AROUND, *gradient.shape))
    found[0] = gradient
    for place in found[1:]:
        noise = torch.randn(v.shape, generator=generator, dtype=torch.float32).to(v)
        near = gauge.clip(v + spread * noise)
        there = phi.value_and_grad(phi.origin + (near * gauge.scale).to(phi.origin.dtype))[1]
        place.copy_(torch.nan_to_num(there * gauge.scale))
    return found


def _angle(gauge: Gauge, v: Tensor, gradient: Tensor) -> Tensor:
    """Angle between displacement and gradient, ``(B, n), (B, n) -> (B,)``.

    In the 2-norm the usual one, accurate for small angles, where arccos is not. In the others arccos of
    g·v / (‖v‖ ‖g‖_*), which is 1 just where v is a steepest displacement of its length.
    """
    if gauge.norm != 2:
        return torch.arccos((dot(gradient, v) / (gauge.length(v) * dual_norm(gradient, gauge.norm))).clamp(-1, 1))
    lengths = norm_of(v, 2)[:, None], norm_of(gradient, 2)[:, None]
    apart, along = [], []
    for v_, gradient_ in zip(blocks(v), blocks(gradient), strict=True):
        a, b = v_.double() / lengths[0], gradient_.double() / lengths[1]
        apart.append(norm_of(a - b, 2))
        along.append(norm_of(a + b, 2))
    return 2 * torch.atan2(norm_of(torch.stack(apart, -1), 2), norm_of(torch.stack(along, -1), 2))


def _cone_angle(gauge: Gauge, v: Tensor, gradients: Tensor) -> Tensor:
    """Angle between displacement and the cone of gradients, ``(B, n), (m, B, n) -> (B,)``."""
    return _angle(gauge, v, _nearest_in_cone(gauge, v, gradients))


def _nearest_in_cone(gauge: Gauge, v: Tensor, gradients: Tensor) -> Tensor:
    """The non-negative combination of gradients nearest in direction to ``v``, ``(B, n), (m, B, n) -> (B, n)``.

    At a kink, stationarity asks for the displacement to be steepest for a gradient in the cone of all pieces that
    meet there (Clarke 1975), not for one of them. In the ∞-norm the dual norm is ‖g‖₁, minimised by reweighting.
    """
    if gauge.norm == math.inf:
        return _nearest_in_reweighted_cone(v, gradients)
    length, lengths = norm_of(v, 2)[:, None], norm_of(gradients, 2)[..., None]
    pieces = list(zip(blocks(v), blocks(gradients), strict=True))
    gram, target = torch.zeros(()), torch.zeros(())
    for v_, gradients_ in pieces:
        normal = _unit(gradients_, lengths)
        gram = gram + torch.einsum("bmn,bkn->bmk", normal, normal)
        target = target + torch.einsum("bmn,bn->bm", normal, v_.double() / length)
    weights = nonnegative_least_squares(gram, target)
    return torch.cat(
        [torch.einsum("bm,bmn->bn", weights, _unit(gradients_, lengths)).to(v) for _, gradients_ in pieces], -1
    )


def _nearest_in_reweighted_cone(v: Tensor, gradients: Tensor) -> Tensor:
    unit, normal = v.double() / norm_of(v, 2)[:, None], _unit(gradients, norm_of(gradients, 2)[..., None])
    scale, nearest = torch.ones_like(unit), unit
    for _ in range(_REWEIGHTED):
        gram = torch.einsum("bmn,bkn->bmk", normal * scale[:, None], normal)
        weights = nonnegative_least_squares(gram, torch.einsum("bmn,bn->bm", normal, unit), _SWEEPS)
        nearest = torch.einsum("bm,bmn->bn", weights, normal)
        size = nearest.abs()
        scale = 1 / torch.maximum(size / size.mean(1, keepdim=True), torch.full_like(size, _NEARBY))
    return nearest


def _unit(gradients: Tensor, lengths: Tensor) -> Tensor:
    """Gradients of length 1 in float64, ``(m, B, n), (m, B, 1) -> (B, m, n)``; zero stays zero."""
    return torch.where(lengths > 0, gradients.double() / lengths, 0.0).transpose(0, 1)


@dataclass(frozen=True)
class _Tangent:
    """φ within the planes tangent to its level sets, as far as curvature goes."""

    phi: Objective
    gauge: Gauge
    origin: Tensor
    normal: Tensor  # (B, n) unit

    def linearize(self, z: Tensor) -> HessianVectorProduct:
        """P D H D P at ``z``."""
        product, scale = self.phi.linearize(z), self.gauge.scale

        def project(vectors: Tensor) -> Tensor:
            return vectors - dot(vectors, self.normal)[..., None].to(vectors.dtype) * self.normal

        return lambda vectors: project(scale * product(scale * project(vectors)))


def _curvature(phi: Objective, gauge: Gauge, points: Tensor, v: Tensor, gradient: Tensor) -> tuple[Tensor, int]:
    """λ λ_max(P H P) with the multiplier λ = ‖v‖ / ‖g‖, and products a row; what has not converged is enlarged."""
    usable = finite(points) & (dot(v, v) > 0)
    result = torch.full(v.shape[:1], torch.nan, dtype=torch.float64, device=v.device)
    rows = torch.nonzero(usable)[:, 0]
    if v.shape[1] < 2 or not len(rows):
        return torch.where(usable, -torch.inf, result), 0
    unit = v[rows] / norm_of(v[rows], 2)[:, None].to(v.dtype)
    tangent = _Tangent(phi.take(rows), gauge.take(rows), points[rows], unit)
    try:
        pairs = top_eigenpairs(tangent, 1, "LA", _ACCURACY, max_steps=_STEPS)  # type: ignore[arg-type]
    except ObjectiveError:  # not twice differentiable there
        return result, 0
    largest = pairs.eigenvalues[:, 0] + (pairs.residuals * pairs.eigenvalues.abs())[:, 0].nan_to_num(0.0)
    result[rows] = largest * norm_of(v[rows], 2) / norm_of(gradient[rows], 2)
    return result, pairs.num_hvp


def levels_off(phi: Objective, gauge: Gauge, starts: Starts, rows: Tensor) -> Tensor:
    """Whether φ stops growing on all rays from some of the origins, ``(R,) -> (R,)``.

    Looked at a long way out; within a box a ray ends at its border and has then stopped.
    """
    some, part = phi.take(rows), gauge.take(rows)
    reach = _FAR * norm_of(some.origin, 2).clamp_min(1)
    flat = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    for start in starts:
        unit, _ = part.polar(start[rows])
        here, there = (
            some.value(some.origin + (part.clip((r * reach)[:, None].to(unit) * unit) * part.scale))
            for r in range(1, 1 + LOOKS)
        )
        flat &= ~((there - here).abs() > _FLAT * here.abs()) & ~torch.isinf(there)
    return flat
