"""Arithmetic on rows of vectors: inner products and norms, accumulated in float64.

Rows are selected by ``index_select`` where vectors are copied often: it is several times as fast as indexing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

# From so many variables on, memory is counted in vectors: starts are searched in turns, and less is remembered.
LARGE = 2**19
# Of large vectors, so many numbers at a time are looked at in float64.
_BLOCK = 2**16

# Within these bounds sums of squares lose nothing to the range of float32.
_SQUARES = (1e-20, 1e37)

_DUAL = {1.0: math.inf, 2.0: 2.0, math.inf: 1.0}


def is_large(vectors: Tensor) -> bool:
    """Whether vectors ``(…, n)`` are so long that only few should be held."""
    return vectors.shape[-1] >= LARGE


def blocks(vectors: Tensor) -> tuple[Tensor, ...]:
    """Large vectors ``(…, n)`` in pieces ``(…, m)``, so that a copy in float64 is small; others as they are."""
    return vectors.split(_BLOCK, -1) if is_large(vectors) else (vectors,)


def dot(first: Tensor, second: Tensor) -> Tensor:
    """Inner products of rows, ``(…, n), (…, n) -> (…)``, float64.

    Sums of float32 are pairwise, and lose no more than the rounding of the products does.
    """
    parts = [_total(a * b) for a, b in zip(blocks(first), blocks(second), strict=True)]
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def dots(vectors: Tensor, v: Tensor) -> Tensor:
    """Inner products of m vectors a row with one, ``(R, m, n), (R, n) -> (R, m)``."""
    return torch.stack([dot(vectors[:, i], v) for i in range(vectors.shape[1])], 1)


def _total(numbers: Tensor) -> Tensor:
    """Sums of rows in float64; numbers of half precision are widened first."""
    return numbers.sum(-1).double() if numbers.dtype == torch.float32 else numbers.sum(-1, dtype=torch.float64)


def where_equal(first: Tensor, second: Tensor) -> Tensor:
    """1 where two numbers are equal, else 0, in their own type: truth values take four times as long."""
    return torch.eq(first, second, out=torch.empty_like(first))


def finite(vectors: Tensor) -> Tensor:
    """Whether all numbers of a row are finite, ``(…, n) -> (…)`` bool; by their sum, which takes one pass."""
    return torch.isfinite(vectors.sum(-1, dtype=torch.float64))


def norm_of(vectors: Tensor, norm: float) -> Tensor:
    """‖v‖ of rows in the 1-, 2- or ∞-norm, float64, ``(…, n) -> (…)``; sums are those of `dot`, or in float64."""
    if norm == math.inf:
        largest: Tensor = vectors.abs().amax(-1).double()
        return largest
    if norm == 2 and vectors.dtype == torch.float32:
        square = dot(vectors, vectors)
        if not ((square < _SQUARES[0]) | (square > _SQUARES[1])).any():
            return square.sqrt()
    parts = [torch.linalg.vector_norm(v, ord=norm, dim=-1, dtype=torch.float64) for v in blocks(vectors)]
    length: Tensor = torch.stack(parts)
    return length[0] if len(parts) == 1 else torch.linalg.vector_norm(length, ord=norm, dim=0)


def dual_norm(vectors: Tensor, norm: float) -> Tensor:
    """The dual norm max {g·v : ‖v‖ = 1} of rows, ``(…, n) -> (…)``."""
    return norm_of(vectors, _DUAL[norm])


def steepest_direction(gradient: Tensor, norm: float) -> Tensor:
    """Where a linear function with this gradient grows fastest, argmax {g·v : ‖v‖ = 1}, up to length."""
    if norm == 2:
        return gradient
    if norm == 1:
        return gradient * functional.one_hot(gradient.abs().argmax(-1), gradient.shape[-1])
    return gradient.sign()
