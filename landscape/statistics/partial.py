"""Within-cell rank association of two columns given others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from landscape.statistics.association import TIE, as_columns, resample, tables_of
from landscape.statistics.cells import Array, Labels, RankTable
from landscape.statistics.resampling import (
    Estimate,
    correlation_of,
    estimate,
    generators,
    permutation_p,
    permuted_products,
)

EXPLAINED = 1e-9  # what is left of a column below this share of its sum of squares is nothing
Question = tuple[int, ...]  # x, y, and the columns that are given


@dataclass(frozen=True)
class PartialAssociation:
    """Within-cell rank association of ``x`` and ``y`` given columns, and without them, over the same ``n`` rows.

    ``total`` is ρ without the given columns, ``direct`` with them, each with its cluster bootstrap interval; ``p``
    tests the latter. What the data cannot give is NaN.
    """

    x: str
    y: str
    given: tuple[str, ...]
    n: int
    num_cells: int
    dropped: int
    total: Estimate
    direct: Estimate
    p: float

    @property
    def degrees_of_freedom(self) -> int:
        """N - cells - 1 - given columns."""
        return self.n - self.num_cells - 1 - len(self.given)


def partial_associate(
    x: ArrayLike,
    y: ArrayLike,
    given: Sequence[ArrayLike],
    cells: Labels,
    *,
    permutations: int = 9999,
    bootstrap: int = 2000,
    seed: int = 0,
) -> PartialAssociation:
    """Within-cell rank association of ``x`` and ``y``, ``(n,)`` each, given q columns of the same shape.

    ρ = corr(M r(x), M r(y)), M the residual from cells and the ranks of ``given``. p permutes the residuals
    M r(y) within cells and fits anew: ρ_b = corr(M r(x), M P_b M r(y)) (Freedman & Lane 1983; Winkler et al.
    2014).
    Intervals resample whole cells and rank anew. Rows with NaN are dropped and counted.

    Raises:
        ConfigurationError: If the columns are not of equal length.
    """
    columns = as_columns(x, y, *given)
    names = ("x", "y", *(f"given {k + 1}" for k in range(len(given))))
    question = tuple(range(columns.shape[1]))
    (found,) = partial_associate_all(
        columns, cells, [question], names, permutations=permutations, bootstrap=bootstrap, seed=seed
    )
    return found


def partial_associate_all(
    columns: Array,
    cells: Labels,
    questions: Sequence[Question],
    names: Sequence[str],
    *,
    permutations: int = 9999,
    bootstrap: int = 2000,
    seed: int = 0,
) -> tuple[PartialAssociation, ...]:
    """``partial_associate`` for each of ``questions`` (x, y, given ...) on ``columns`` ``(n, k)``.

    Questions that use the same rows are ranked and drawn together.
    """
    found: dict[int, PartialAssociation] = {}
    for table, members, together in tables_of(columns, cells, questions):
        local = [tuple(members.index(i) for i in question) for question in together.values()]
        permuting, resampling = generators(seed)
        p_values = _permutation_p_values(table, local, permutations, permuting)
        _, resampled = resample(table, bootstrap, resampling)
        gram = _gram(table)
        for (number, (i, j, *given)), question, p in zip(together.items(), local, p_values, strict=True):
            a, b = question[:2]
            found[number] = PartialAssociation(
                names[i],
                names[j],
                tuple(names[k] for k in given),
                table.cells.num_rows,
                table.cells.num_cells,
                table.dropped,
                estimate(correlation_of(gram, a, b), correlation_of(resampled, a, b)),
                estimate(partial_correlation(gram, question), partial_correlation(resampled, question)),
                p,
            )
    return tuple(found[number] for number in range(len(questions)))


def partial_correlation(gram: Array, question: Question) -> Array:
    """Correlations of x and y given columns, from products ``(..., k, k)`` of centred columns.

    What is left of x and y is the Schur complement G_xy − G_xz G_zz⁺ G_zy; NaN where nothing is left of one.
    """
    x, y, *z = question
    if not z:
        return correlation_of(gram, x, y)
    pair = gram[..., [[x], [y]], [x, y]]
    link = gram[..., np.array(z)[:, None], [x, y]]
    left = pair - np.swapaxes(link, -1, -2) @ _inverse(gram[..., np.array(z)[:, None], z]) @ link
    diagonal = np.einsum("...ii->...i", left)
    diagonal[diagonal <= EXPLAINED * np.einsum("...ii->...i", pair)] = 0.0
    return correlation_of(left, 0, 1)


def _inverse(gram: Array) -> Array:
    """Pseudo-inverse of products, of columns scaled to one; directions that do not vary are left out."""
    scale = np.sqrt(np.einsum("...ii->...i", gram))
    scale = np.where(scale > 0, scale, 1.0)[..., None]
    unit = gram / scale / np.swapaxes(scale, -1, -2)
    return np.asarray(np.linalg.pinv(unit, rcond=EXPLAINED, hermitian=True) / scale / np.swapaxes(scale, -1, -2))


def _gram(table: RankTable) -> Array:
    """Products of residual ranks, ``(k, k)``; fewer than three rows have none."""
    gram = table.residuals.T @ table.residuals
    return gram if len(table.residuals) >= 3 else np.zeros_like(gram)


def _permutation_p_values(
    table: RankTable, questions: Sequence[Question], draws: int, rng: np.random.Generator
) -> list[float]:
    """Freedman and Lane's p of each question; NaN where ρ is."""
    gram = _gram(table)
    observed = np.array([float(partial_correlation(gram, question)) for question in questions])
    if not np.isfinite(observed).any():
        return [math.nan] * len(questions)
    fits = [_Fit.of(gram, question) for question in questions]
    extreme = np.zeros(len(questions), np.intp)
    for products in permuted_products(table.residuals, table.residuals, table.cells, draws, rng):
        for k, fit in enumerate(fits):
            extreme[k] += int((np.abs(fit.correlations(products)) >= abs(observed[k]) - TIE).sum())
    return [
        math.nan if math.isnan(rho) else permutation_p(int(n), draws)
        for n, rho in zip(extreme, observed, strict=True)
    ]


@dataclass(frozen=True)
class _Fit:
    """What turns products of columns with permuted ones into a partial correlation.

    With the residual e = y − z b of y, and v = zᵀ P e: xᵀ M P e = xᵀ P e − aᵀ v with the slopes a of x on z, and
    |M P e|² = |e|² − vᵀ (zᵀ z)⁺ v. P e = P y − P z b takes no more than products of columns.
    """

    question: Question
    inverse: Array  # (q, q) (zᵀ z)⁺
    x_slopes: Array  # (q,)
    y_slopes: Array  # (q,)
    scale: float  # |M x|
    square: float  # |e|²

    @classmethod
    def of(cls, gram: Array, question: Question) -> _Fit:
        x, y, *z = question
        inverse = _inverse(gram[np.ix_(z, z)]) if z else np.empty((0, 0))
        x_slopes, y_slopes = inverse @ gram[z, x], inverse @ gram[z, y]
        left = [max(float(gram[i, i] - slopes @ gram[z, i]), 0.0) for i, slopes in ((x, x_slopes), (y, y_slopes))]
        return cls(question, inverse, x_slopes, y_slopes, math.sqrt(left[0]), left[1])

    def correlations(self, products: Array) -> Array:
        """corr(M x, M P e) from the products ``(draws, k, k)`` of columns with permuted columns."""
        x, y, *z = self.question
        moved = products[:, [x, *z], y] - products[:, [x, *z]][:, :, z] @ self.y_slopes
        v = moved[:, 1:]
        rest = self.square - np.sum((v @ self.inverse) * v, axis=1)
        norm = self.scale * np.sqrt(np.maximum(rest, EXPLAINED * self.square))
        return np.asarray((moved[:, 0] - v @ self.x_slopes) / np.where(norm > 0, norm, math.inf))
