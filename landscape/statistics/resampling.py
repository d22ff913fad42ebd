"""What all tests and intervals share: shuffles within cells, and resampled cells."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from landscape.statistics.cells import ROUNDING, Array, Cells, Codes, RankTable

CONFIDENCE = 0.95
BLOCK = 200_000  # numbers held at once by a block of draws: what a core's own cache takes
MIN_FINITE_SHARE = 0.95  # an interval from fewer finite draws than this would be selective


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its 95 % interval; NaN is what the data cannot give."""

    value: float
    low: float = math.nan
    high: float = math.nan


def generators(seed: int) -> tuple[np.random.Generator, np.random.Generator]:
    """One generator for permutations and one for resampling; each draws the same for equal cells and seed."""
    permuting, resampling = np.random.SeedSequence(seed).spawn(2)
    return np.random.default_rng(permuting), np.random.default_rng(resampling)


def shuffles(cells: Cells, draws: int, rng: np.random.Generator) -> Iterator[Codes]:
    """Orders of the rows, shuffled within cells and never across, in blocks ``(size, n)`` of all ``draws``."""
    for size in _blocks(draws, cells.num_rows):
        keys = rng.random((size, cells.num_rows))
        order = np.tile(np.arange(cells.num_rows), (size, 1))
        for rows, length in cells.blocks:
            first = order[:, rows].reshape(size, -1, length)[:, :, :1]
            order[:, rows] = (first + keys[:, rows].reshape(size, -1, length).argsort(axis=-1)).reshape(size, -1)
        yield order


def permuted_products(
    fixed: Array, moved: Array, cells: Cells, draws: int, rng: np.random.Generator
) -> Iterator[Array]:
    """fixedᵀ P moved for ``draws`` permutations P within cells: ``(n, a), (n, b)`` -> blocks ``(size, a, b)``."""
    transposed = np.ascontiguousarray(fixed.T)
    for orders in shuffles(cells, draws, rng):
        per_draw = max(1, BLOCK // max(moved.size, 1))
        for begin in range(0, len(orders), per_draw):
            yield transposed @ moved[orders[begin : begin + per_draw]]


def permutation_p(extreme: int, draws: int) -> float:
    """(1 + extreme) / (1 + draws): the observed table is one of the permutations (Phipson & Smyth 2010)."""
    return (1 + extreme) / (1 + draws)


def resampled_weights(cells: Cells, draws: int, rng: np.random.Generator) -> Iterator[Codes]:
    """How often each cell occurs among as many drawn with replacement, in blocks ``(size, num_cells)``."""
    n = cells.num_cells
    for size in _blocks(draws, cells.num_rows):
        chosen = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(chosen.ravel(), minlength=size * n).reshape(size, n)


def leave_one_out_weights(cells: Cells) -> Iterator[Codes]:
    """Each cell once, but for one that is left out, in blocks ``(size, num_cells)``."""
    begin = 0
    for size in _blocks(cells.num_cells, cells.num_rows):
        yield 1 - np.eye(size, cells.num_cells, begin, dtype=np.intp)
        begin += size


def gram_matrices(table: RankTable, weights: Iterator[Codes]) -> tuple[Array, Array]:
    """Products of centred ranks, overall and within cells, of tables whose cells occur ``weights`` times.

    Both are ``(draws, k, k)``. A table in which a cell occurs m times equals one whose rows weigh m: counts stand
    in for copies, and ranks are those of the table with its copies.
    """
    positions = [_positions(column) for column in table.ranks.T]
    total, within = [], []
    for counts in weights:
        ranks = _weighted_ranks(positions, counts[:, table.cells.codes].astype(np.int32))
        overall, inside = _grams(ranks, counts, table.cells)
        total.append(overall)
        within.append(inside)
    if not total:
        empty = np.empty((0, len(positions), len(positions)))
        return empty, empty
    return np.concatenate(total), np.concatenate(within)


def correlation_of(gram: Array, i: int, j: int) -> Array:
    """Correlations of columns i and j from products ``(..., k, k)``; NaN where one does not vary."""
    scale = np.sqrt(gram[..., i, i] * gram[..., j, j])
    return np.asarray(np.divide(gram[..., i, j], scale, out=np.full(scale.shape, math.nan), where=scale > 0))


def interval(draws: Array) -> tuple[float, float]:
    """Percentile interval of the finite draws; NaN where more than a few are not finite."""
    finite = draws[np.isfinite(draws)]
    if finite.size == 0 or finite.size < MIN_FINITE_SHARE * draws.size:
        return math.nan, math.nan
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)


def estimate(value: Array | float, draws: Array) -> Estimate:
    """A number with the percentile interval of its draws."""
    return Estimate(float(value), *interval(draws))


def _blocks(draws: int, numbers_each: int) -> Iterator[int]:
    """Numbers of draws that are held together, adding up to ``draws``."""
    size = max(1, BLOCK // max(numbers_each, 1))
    for begin in range(0, draws, size):
        yield min(size, draws - begin)


def _positions(values: Array) -> tuple[Codes, Codes, Codes]:
    """Ascending order of values, and for each how many are smaller, and how many are not larger."""
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    return order, np.searchsorted(ascending, values), np.searchsorted(ascending, values, "right")


def _weighted_ranks(
    positions: list[tuple[Codes, Codes, Codes]], weights: np.ndarray[tuple[int, ...], np.dtype[np.int32]]
) -> Array:
    """Twice the average ranks, less 1, of values that occur ``weights`` ``(size, n)`` times: ``(size, k, n)``."""
    size, n = weights.shape
    ranks = np.empty((size, len(positions), n))
    below = np.zeros((size, n + 1), np.int32)
    for column, (order, smaller, not_larger) in enumerate(positions):
        np.cumsum(weights.take(order, axis=1), axis=1, out=below[:, 1:])
        np.add(below.take(smaller, axis=1), below.take(not_larger, axis=1), out=ranks[:, column])
    return ranks


def _grams(ranks: Array, counts: Codes, cells: Cells) -> tuple[Array, Array]:
    """Products about the mean, and about the means of cells: Σ wxy − (Σ wx)(Σ wy)/Σ w, over all and each cell.

    The mean is taken off first; what is then smaller than rounding of the whole sum counts as nothing.
    """
    weights = counts[:, None, :].astype(float)
    size = np.sum(counts * cells.sizes, axis=1)
    # Ranks with copies have the mean (number of rows) / 2, and are doubled here.
    ranks = ranks - size[:, None, None]
    sums = np.add.reduceat(ranks, cells.starts, axis=-1)
    total = (ranks * np.repeat(weights, cells.sizes, axis=-1)) @ ranks.transpose(0, 2, 1)
    within = total - (sums * (weights / cells.sizes)) @ sums.transpose(0, 2, 1)
    largest = np.einsum("bii->bi", total)
    diagonal = np.einsum("bii->bi", within)  # a view: what is written here is written there
    diagonal[diagonal <= ROUNDING * largest] = 0.0
    return total, within
