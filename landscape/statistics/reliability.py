"""How much of what differs between runs is not error of the measurement, from repeated measurements."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import f as f_distribution

from landscape.errors import ConfigurationError
from landscape.statistics.association import resample
from landscape.statistics.cells import ROUNDING, Array, Labels, RankTable, rank_columns
from landscape.statistics.resampling import CONFIDENCE, Estimate, correlation_of, estimate, generators


@dataclass(frozen=True)
class IntraclassCorrelation:
    """ICC(A,1), absolute agreement, and ICC(C,1), consistency, of ``repeats`` measurements of ``n`` runs.

    Intervals suppose normal errors. What the data cannot give is NaN.
    """

    n: int
    repeats: int
    dropped: int
    agreement: Estimate
    consistency: Estimate


@dataclass(frozen=True)
class Disattenuated:
    """Within-cell ρ of two quantities as measured once, and what it would be without errors of measurement.

    ``reliability_x`` and ``reliability_y``: ICC(C,1) of ranks within cells. ``note`` says why there is no
    ``corrected``.
    """

    n: int
    num_cells: int
    dropped: int
    rho: Estimate
    reliability_x: Estimate
    reliability_y: Estimate
    corrected: Estimate
    note: str = ""


def intraclass_correlation(values: ArrayLike) -> IntraclassCorrelation:
    """ICC of ``values`` ``(n, k)``, one column for each of k >= 2 repeats; rows with NaN are dropped.

    With mean squares R of rows, C of columns and E of the rest: ICC(C,1) = (R − E) / (R + (k−1) E) and
    ICC(A,1) = (R − E) / (R + (k−1) E + k (C − E) / n); intervals from F (McGraw & Wong 1996, tables 4 and 7).

    Raises:
        ConfigurationError: If there are not at least two columns.
    """
    table = _repeated(values)
    complete = table[~np.isnan(table).any(axis=1)]
    n, k = complete.shape
    dropped = len(table) - n
    if n < 2 or np.ptp(complete) == 0:
        return IntraclassCorrelation(n, k, dropped, Estimate(math.nan), Estimate(math.nan))
    rows, columns, rest = _mean_squares(complete)
    agreement = _ratio(rows - rest, rows + (k - 1) * rest + k * (columns - rest) / n)
    consistency = _ratio(rows - rest, rows + (k - 1) * rest)
    return IntraclassCorrelation(
        n,
        k,
        dropped,
        Estimate(agreement, *_agreement_interval(agreement, rows, columns, rest, n, k)),
        Estimate(consistency, *_consistency_interval(rows, rest, n, k)),
    )


def disattenuate(
    x: ArrayLike, y: ArrayLike, cells: Labels, *, bootstrap: int = 2000, seed: int = 0
) -> Disattenuated:
    """ρ / sqrt(rel_x rel_y) within cells (Spearman 1904), from repeats ``x`` ``(n, k)`` and ``y`` ``(n, l)``.

    ρ is that of the first repeat. Reliabilities are ICC(C,1) of ranks within cells, each repeat ranked over all
    rows: what settings do to a quantity is no part of them. A reliability that is not positive leaves nothing to
    correct. Rows with NaN in any repeat are dropped. Intervals resample whole cells.

    Raises:
        ConfigurationError: If there are not at least two columns of each.
    """
    first, second = _repeated(x), _repeated(y)
    if len(first) != len(second):
        raise ConfigurationError(f"x has {len(first)} rows, y {len(second)}: pass the repeats of the same runs")
    table = rank_columns(np.concatenate([first, second], axis=1), cells)
    k = first.shape[1]
    gram = _observed(table)
    _, resampled = resample(table, bootstrap, generators(seed)[1])
    rel_x, rel_y = (
        estimate(_reliability(gram[part, part]), _reliability(resampled[:, part, part]))
        for part in (slice(k), slice(k, None))
    )
    return Disattenuated(
        table.cells.num_rows,
        table.cells.num_cells,
        table.dropped,
        estimate(correlation_of(gram, 0, k), correlation_of(resampled, 0, k)),
        rel_x,
        rel_y,
        estimate(_corrected(gram, k), _corrected(resampled, k)),
        _note(rel_x.value, rel_y.value),
    )


def _repeated(values: ArrayLike) -> Array:
    table = np.asarray(values, float)
    if table.ndim != 2 or table.shape[1] < 2:
        raise ConfigurationError(f"repeats of shape {table.shape} do not do: pass (n, k) with k of at least 2")
    return table


def _mean_squares(values: Array) -> tuple[float, float, float]:
    """Mean squares of rows, of columns and of the rest in a two-way layout ``(n, k)``."""
    n, k = values.shape
    centred = values - values.mean()
    rows = k * float(np.sum(centred.mean(axis=1) ** 2))
    columns = n * float(np.sum(centred.mean(axis=0) ** 2))
    whole = float(np.sum(centred**2))
    rest = whole - rows - columns
    rest = rest if rest > ROUNDING * whole else 0.0
    return rows / (n - 1), columns / (k - 1), rest / ((n - 1) * (k - 1))


def _consistency_interval(rows: float, rest: float, n: int, k: int) -> tuple[float, float]:
    if rest == 0:
        return 1.0, 1.0
    ratio, free, tail = rows / rest, (n - 1) * (k - 1), (1 - CONFIDENCE) / 2
    low = ratio / float(f_distribution.ppf(1 - tail, n - 1, free))
    high = ratio * float(f_distribution.ppf(1 - tail, free, n - 1))
    return (low - 1) / (low + k - 1), (high - 1) / (high + k - 1)


def _agreement_interval(
    icc: float, rows: float, columns: float, rest: float, n: int, k: int
) -> tuple[float, float]:
    if math.isnan(icc) or icc == 1:
        return icc, icc
    a, b = k * icc / (n * (1 - icc)), 1 + k * icc * (n - 1) / (n * (1 - icc))
    denominator = (a * columns) ** 2 / (k - 1) + (b * rest) ** 2 / ((n - 1) * (k - 1))
    if denominator == 0:
        return math.nan, math.nan
    free, tail = (a * columns + b * rest) ** 2 / denominator, (1 - CONFIDENCE) / 2
    mixed = k * columns + (k * n - k - n) * rest
    low, high = (float(f_distribution.ppf(1 - tail, *df)) for df in ((n - 1, free), (free, n - 1)))
    return (
        n * (rows - low * rest) / (low * mixed + n * rows),
        n * (high * rows - rest) / (mixed + n * high * rows),
    )


def _observed(table: RankTable) -> Array:
    gram = table.residuals.T @ table.residuals
    return gram if table.cells.num_rows >= 3 else np.zeros_like(gram)


def _reliability(gram: Array) -> Array:
    """ICC(C,1) of k centred columns from their products ``(..., k, k)``; degrees of freedom cancel."""
    k = gram.shape[-1]
    rows = gram.sum(axis=(-1, -2)) / k
    rest = (np.einsum("...ii->...", gram) - rows) / (k - 1)
    scale = rows + (k - 1) * rest
    return np.asarray(np.divide(rows - rest, scale, out=np.full(scale.shape, math.nan), where=scale > 0))


def _corrected(gram: Array, k: int) -> Array:
    rel_x, rel_y = _reliability(gram[..., :k, :k]), _reliability(gram[..., k:, k:])
    scale = np.sqrt(np.where((rel_x > 0) & (rel_y > 0), rel_x * rel_y, math.nan))
    return np.asarray(correlation_of(gram, 0, k) / scale)


def _note(rel_x: float, rel_y: float) -> str:
    if math.isnan(rel_x) or math.isnan(rel_y):
        return "no variation within cells"
    bad = [name for name, value in (("x", rel_x), ("y", rel_y)) if value <= 0]
    return f"reliability of {' and '.join(bad)} within cells is not positive: nothing to correct" if bad else ""


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else math.nan
