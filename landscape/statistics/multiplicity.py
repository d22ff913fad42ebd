"""Many tests at once: Holm's adjustment, and the largest of many statistics under the same permutations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landscape.statistics.association import TIE, IndexPair
from landscape.statistics.cells import Array, Codes, Labels, RankTable, rank_columns
from landscape.statistics.resampling import generators, permutation_p, permuted_products


@dataclass(frozen=True)
class MaxT:
    """Within-cell ρ of ``m`` pairs, p of each alone, and p adjusted for all of them; NaN where there is no ρ.

    All are over the ``n`` rows without NaN in any column of a pair.
    """

    rho: tuple[float, ...]
    p: tuple[float, ...]
    p_adjusted: tuple[float, ...]
    n: int
    num_cells: int
    dropped: int
    permutations: int


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values: max over j <= i of min(1, (m - j + 1) p_(j)); NaN stays NaN and is not counted.

    Source: Holm 1979, Scandinavian Journal of Statistics 6:65.
    """
    adjusted, largest = [math.nan] * len(p_values), 0.0
    order = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[i] = largest
    return adjusted


def max_t(
    columns: Array, cells: Labels, pairs: Sequence[IndexPair], *, permutations: int = 9999, seed: int = 0
) -> MaxT:
    """Step-down max-T over within-cell rank associations of ``pairs`` of ``columns`` ``(n, k)``.

    With |ρ|_(1) >= … >= |ρ|_(m), p_(i) is the largest over j <= i of
    (1 + #{max over l >= j of |ρ_b,(l)| >= |ρ|_(j)}) / (1 + B).
    All second columns are moved by the same B permutations within cells, so that what ties the tests together
    is in the null distribution as it is in the data (Westfall & Young 1993; algorithm 4.1 of Ge, Dudoit & Speed
    2003). A column should be first or second in all its pairs.

    Raises:
        ConfigurationError: If there is not one cell for each row.
    """
    used = sorted({i for pair in pairs for i in pair})
    table = rank_columns(columns[:, used], cells)
    first, second = (np.array([used.index(pair[k]) for pair in pairs], np.intp) for k in (0, 1))
    rho = _within(table, first, second)
    tested = np.flatnonzero(np.isfinite(rho))
    p, adjusted = np.full(len(pairs), math.nan), np.full(len(pairs), math.nan)
    if tested.size:
        order = tested[np.argsort(-np.abs(rho[tested]), kind="stable")]
        alone, together = _count(table, first[order], second[order], np.abs(rho[order]), permutations, seed)
        p[order] = [permutation_p(int(n), permutations) for n in alone]
        adjusted[order] = np.maximum.accumulate([permutation_p(int(n), permutations) for n in together])
    return MaxT(
        tuple(rho.tolist()),
        tuple(p.tolist()),
        tuple(adjusted.tolist()),
        table.cells.num_rows,
        table.cells.num_cells,
        table.dropped,
        permutations,
    )


def _within(table: RankTable, first: Codes, second: Codes) -> Array:
    unit, varies = _unit(table)
    rho = (unit.T @ unit)[first, second]
    return np.where(varies[first] & varies[second] & (len(unit) >= 3), rho, math.nan)


def _unit(table: RankTable) -> tuple[Array, NDArray[np.bool_]]:
    """Residuals of length one, and which columns vary within cells."""
    e = table.residuals
    norms = np.linalg.norm(e, axis=0)
    varies = norms > 0
    return e / np.where(varies, norms, 1.0), varies


def _count(
    table: RankTable, first: Codes, second: Codes, observed: Array, draws: int, seed: int
) -> tuple[Codes, Codes]:
    """Draws in which each |ρ_b|, and the largest of it and all that follow, is at least the observed one."""
    unit, _ = _unit(table)
    alone, together = np.zeros(len(observed), np.intp), np.zeros(len(observed), np.intp)
    for products in permuted_products(unit, unit, table.cells, draws, generators(seed)[0]):
        drawn = np.abs(products[:, first, second])
        largest = np.maximum.accumulate(drawn[:, ::-1], axis=1)[:, ::-1]
        alone += (drawn >= observed - TIE).sum(axis=0)
        together += (largest >= observed - TIE).sum(axis=0)
    return alone, together
