"""Rows in cells of equal settings, and ranks of columns over such rows."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from landscape.errors import ConfigurationError

Array: TypeAlias = NDArray[np.float64]
Codes: TypeAlias = NDArray[np.intp]
Labels: TypeAlias = Sequence[Hashable] | NDArray[np.generic]

ROUNDING = 1e-13  # a sum of squares below this share of what it was taken from is zero


@dataclass(frozen=True)
class Cells:
    """Cells of ``n`` rows, those of a cell side by side, cells by size: ``codes`` ``(n,)`` ascend without gaps."""

    codes: Codes

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.codes)

    @property
    def num_cells(self) -> int:
        """Number of cells."""
        return len(self.starts)

    @cached_property
    def starts(self) -> Codes:
        """First row of each cell, ``(num_cells,)``."""
        return np.flatnonzero(np.diff(self.codes, prepend=-1))

    @cached_property
    def sizes(self) -> Codes:
        """Number of rows of each cell, ``(num_cells,)``."""
        return np.bincount(self.codes)

    @cached_property
    def blocks(self) -> tuple[tuple[slice, int], ...]:
        """Rows of the cells that have several, cells of equal size together, and that size."""
        sizes, firsts, counts = np.unique(self.sizes, return_index=True, return_counts=True)
        begins = self.starts[firsts]
        spans = zip(begins.tolist(), sizes.tolist(), counts.tolist(), strict=True)
        return tuple((slice(begin, begin + size * count), size) for begin, size, count in spans if size > 1)


@dataclass(frozen=True)
class RankTable:
    """Ranks ``(n, k)`` of k columns over the n complete rows, ties averaged; ``dropped`` rows had a NaN."""

    ranks: Array
    cells: Cells
    dropped: int

    @cached_property
    def residuals(self) -> Array:
        """Ranks minus their means over cells, ``(n, k)``; exactly 0 where a column does not vary within cells."""
        left = within_cells(self.ranks, self.cells)
        varies = np.sum(left**2, axis=0) > ROUNDING * np.sum(self.ranks**2, axis=0)
        return np.where(varies, left, 0.0)


def rank_columns(columns: Array, labels: Labels) -> RankTable:
    """Rank ``columns`` ``(n, k)`` over the rows without NaN; ``labels`` ``(n,)`` name their cells.

    Raises:
        ConfigurationError: If there is not one label for each row.
    """
    codes = number_cells(labels)
    if columns.ndim != 2 or len(columns) != len(codes):
        raise ConfigurationError(
            f"columns {columns.shape} and cells {codes.shape} do not fit: pass one entry per row of each"
        )
    keep = np.flatnonzero(~np.isnan(columns).any(axis=1))
    ranks = rankdata(columns[keep], axis=0)
    order, cells = canonical_order(ranks, codes[keep])
    return RankTable(ranks[order], cells, len(columns) - len(keep))


def canonical_order(columns: Array, labels: Labels) -> tuple[Codes, Cells]:
    """An order of the rows that puts those of a cell side by side, and the cells of the rows in that order.

    Rows come in the order in which workers end. Sorted by their values, and cells by size and first row, the same
    table gives the same draws, and so the same p, in whatever order it was written.
    """
    order = np.lexsort(columns.T[::-1]) if columns.size else np.arange(len(columns))
    by_first_row = number_cells(number_cells(labels)[order])
    size_of = np.bincount(by_first_row)[by_first_row] if len(order) else by_first_row
    by_cell = np.lexsort((by_first_row, size_of))
    return order[by_cell], Cells(number_cells(by_first_row[by_cell]))


def number_cells(labels: Labels) -> Codes:
    """Number labels by first appearance; unlike ``np.unique`` this takes tuples, too."""
    values = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in values], np.intp)


def within_cells(values: Array, cells: Cells) -> Array:
    """``values`` ``(n, k)`` minus their means over cells."""
    if not len(values):
        return values
    means = np.add.reduceat(values, cells.starts, axis=0) / cells.sizes[:, None]
    return np.asarray(values - np.repeat(means, cells.sizes, axis=0))
