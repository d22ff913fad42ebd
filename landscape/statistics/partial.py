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
    """Freedman and Lane's p of each question; NaN where ρ is.

    With e = M r(y) and v = [r(x), r(z)]ᵀ P e: r(x)ᵀ M P e = v_x − β_xᵀ v_z and
    |M P e|² = |e|² − v_zᵀ G_zz⁺ v_z.
    """
    columns = table.residuals
    gram = _gram(table)
    observed = np.array([float(partial_correlation(gram, question)) for question in questions])
    if not np.isfinite(observed).any():
        return [math.nan] * len(questions)
    left = np.stack([_residual(columns, question[1], question[2:]) for question in questions], axis=1)
    fits = [_Fit.of(gram, question, left[:, k]) for k, question in enumerate(questions)]
    extreme = np.zeros(len(questions), np.intp)
    for products in permuted_products(columns, left, table.cells, draws, rng):
        for k, fit in enumerate(fits):
            extreme[k] += int((np.abs(fit.correlations(products[..., k])) >= abs(observed[k]) - TIE).sum())
    return [
        math.nan if math.isnan(rho) else permutation_p(int(n), draws)
        for n, rho in zip(extreme, observed, strict=True)
    ]


@dataclass(frozen=True)
class _Fit:
    """What turns products with a permuted residual into a partial correlation."""

    x: int
    given: Question
    inverse: Array  # (q, q)
    slopes: Array  # (q,) of x on what is given
    scale: float  # |M r(x)|
    square: float  # |e|²

    @classmethod
    def of(cls, gram: Array, question: Question, left: Array) -> _Fit:
        x, _, *z = question
        inverse = _inverse(gram[np.ix_(z, z)]) if z else np.empty((0, 0))
        slopes = inverse @ gram[z, x]
        scale = math.sqrt(max(float(gram[x, x] - slopes @ gram[z, x]), 0.0))
        return cls(x, tuple(z), inverse, slopes, scale, float(left @ left))

    def correlations(self, products: Array) -> Array:
        """corr(M r(x), M P e) from products ``(draws, k)`` of all columns with P e."""
        z = products[:, list(self.given)]
        rest = self.square - np.einsum("bi,ij,bj->b", z, self.inverse, z)
        norm = self.scale * np.sqrt(np.maximum(rest, EXPLAINED * self.square))
        return np.asarray((products[:, self.x] - z @ self.slopes) / np.where(norm > 0, norm, math.inf))


def _residual(columns: Array, y: int, given: Question) -> Array:
    """A column minus its projection on the given ones."""
    z = columns[:, list(given)]
    return np.asarray(columns[:, y] - z @ (_inverse(z.T @ z) @ (z.T @ columns[:, y])) if given else columns[:, y])
