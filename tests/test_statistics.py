"""Within-cell association: enumeration, scipy, slow references, and error rates on simulated grids."""

import itertools
import math
from collections.abc import Hashable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom, rankdata, spearmanr

from landscape.errors import ConfigurationError
from landscape.statistics import resampling
from landscape.statistics.association import (
    Association,
    as_columns,
    associate,
    leave_one_cell_out,
    resample,
    within_correlation,
)
from landscape.statistics.cells import rank_columns
from landscape.statistics.power import detectable_correlation
from landscape.statistics.resampling import correlation_of

Table: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]
FEW: dict[str, Any] = {"permutations": 99, "bootstrap": 50}


def grid(
    num_cells: int,
    num_seeds: int,
    rng: np.random.Generator,
    *,
    link: float = 0.0,
    settings_effect: float = 1.0,
    common: float = 1.0,
) -> Table:
    """Runs whose two quantities depend on their cell, and on a common latent of the run times ``link``.

    Within cells the population correlation of the values is link² / (1 + link²), with the sign of ``link``.
    """
    cells = np.repeat(np.arange(num_cells), num_seeds)
    # With common = 1 both quantities follow the setting alike, with 0 each in its own way.
    own = rng.normal(size=(2, num_cells))
    effect = 2 * settings_effect * np.stack([own[0], common * own[0] + (1 - common) * own[1]])
    latent, noise = rng.normal(size=len(cells)), rng.normal(size=(2, len(cells)))
    x = effect[0][cells] + abs(link) * latent + noise[0]
    y = effect[1][cells] + link * latent + noise[1]
    return x, y, cells


def slow_within(x: NDArray[Any], y: NDArray[Any], cells: NDArray[Any]) -> float:
    residuals = []
    for values in (x, y):
        ranks = rankdata(values)
        residuals.append(
            [
                r - np.mean([s for s, d in zip(ranks, cells, strict=True) if d == c])
                for r, c in zip(ranks, cells, strict=True)
            ]
        )
    return float(np.corrcoef(residuals)[0, 1])


def same(a: Association, b: Association) -> bool:
    return repr(a) == repr(b)


# --- estimates ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
def test_total_is_spearman(ties: bool) -> None:
    x, y, cells = grid(6, 4, np.random.default_rng(1), link=0.5)
    if ties:
        x, y = x.round(), y.round()
    assert associate(x, y, cells, **FEW).total_rho == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


def test_within_and_between_match_slow_references() -> None:
    rng = np.random.default_rng(2)
    x, y, cells = grid(7, 5, rng, link=1.0)
    keep = rng.random(len(x)) < 0.7  # unequal cells
    x, y, cells = x[keep].round(1), y[keep].round(1), cells[keep]
    result = associate(x, y, cells, **FEW)
    means = [[rankdata(v)[cells == c].mean() for c in np.unique(cells)] for v in (x, y)]
    assert result.within_rho == pytest.approx(slow_within(x, y, cells), abs=1e-12)
    assert result.between_rho == pytest.approx(spearmanr(means[0], means[1]).statistic, abs=1e-12)
    assert result.within_rho == within_correlation(x, y, cells)


def test_one_cell_is_plain_spearman_without_interval() -> None:
    x, y, cells = grid(1, 12, np.random.default_rng(3), link=1.0)
    result = associate(x, y, cells, permutations=999)
    assert result.within_rho == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)
    assert 0 < result.p_within <= 1
    assert math.isnan(result.within_low) and math.isnan(result.total_high) and "one cell" in result.note


# --- permutation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(3, 2, 2), (4, 1, 2), (3, 3), (5,)])
@pytest.mark.parametrize("seed", [0, 1])
def test_p_matches_all_permutations(sizes: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    cells = np.repeat(np.arange(len(sizes)), sizes)
    x, y = rng.integers(0, 5, (2, len(cells))) + 2.0 * cells  # ties, too
    blocks = [np.flatnonzero(cells == c) for c in range(len(sizes))]
    orders = [np.concatenate(p) for p in itertools.product(*(itertools.permutations(b) for b in blocks))]
    null = np.array([slow_within(x, y[order], cells) for order in orders])
    exact = np.mean(np.abs(null) >= abs(slow_within(x, y, cells)) - 1e-9)
    draws = 20_000
    p = associate(x, y, cells, permutations=draws, bootstrap=1).p_within
    assert abs(p - exact) <= 4 * math.sqrt(exact * (1 - exact) / draws) + 1 / draws


def test_p_is_never_zero_and_its_smallest_value_is_known() -> None:
    x = np.arange(60.0)
    result = associate(x, x, np.repeat(np.arange(12), 5), permutations=99, bootstrap=10)
    assert result.within_rho == pytest.approx(1.0) and result.p_within == 1 / 100


def test_permutations_stay_within_cells() -> None:
    # Across cells x and y agree perfectly, within cells one swap is all there is: p cannot be small.
    x = np.array([1.0, 2, 11, 12, 21, 22])
    p = associate(x, x, [0, 0, 1, 1, 2, 2], permutations=4000, bootstrap=10).p_within
    assert p == pytest.approx(2 / 8, abs=0.03)


def test_blocks_of_draws_do_not_change_p_beyond_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, cells = grid(5, 4, np.random.default_rng(4), link=0.7)
    whole = associate(x, y, cells, permutations=4000, bootstrap=200)
    monkeypatch.setattr(resampling, "BLOCK", 333)
    parts = associate(x, y, cells, permutations=4000, bootstrap=200)
    # Permutation noise is filled row by row and cell counts draw by draw: blocks see the same stream.
    assert same(whole, parts)


# --- bootstrap ----------------------------------------------------------------------------------------------


def test_bootstrap_matches_explicit_resampling() -> None:
    rng = np.random.default_rng(5)
    x, y, cells = grid(5, 4, rng, link=0.7)
    keep = rng.random(len(x)) < 0.8
    x, y, cells = x[keep].round(1), y[keep].round(1), cells[keep]
    table = rank_columns(as_columns(x, y), cells)
    total, within = (correlation_of(g, 0, 1) for g in resample(table, 40, np.random.default_rng(6)))
    counts = np.concatenate(list(resampling.resampled_weights(table.cells, 40, np.random.default_rng(6))))
    assert (counts.sum(axis=1) == table.cells.num_cells).all() and counts.std() > 0.5
    for draw in range(40):
        codes = table.cells.codes
        rows = np.concatenate([np.tile(np.flatnonzero(codes == k), m) for k, m in enumerate(counts[draw])])
        a, b, codes = table.ranks[rows, 0], table.ranks[rows, 1], codes[rows]
        assert total[draw] == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)
        assert within[draw] == pytest.approx(slow_within(a, b, codes), abs=1e-12)


def test_interval_is_the_percentile_interval_of_the_draws() -> None:
    x, y, cells = grid(8, 4, np.random.default_rng(7), link=0.7)
    result = associate(x, y, cells, permutations=9, bootstrap=500, seed=3)
    rng = np.random.default_rng(np.random.SeedSequence(3).spawn(2)[1])
    table = rank_columns(as_columns(x, y), cells)
    total, within = (correlation_of(g, 0, 1) for g in resample(table, 500, rng))
    assert [result.total_low, result.total_high] == pytest.approx(np.quantile(total, [0.025, 0.975]))
    assert [result.within_low, result.within_high] == pytest.approx(np.quantile(within, [0.025, 0.975]))


# --- invariances --------------------------------------------------------------------------------------------

TABLES = st.integers(3, 14).flatmap(
    lambda n: st.tuples(
        hnp.arrays(float, n, elements=st.floats(-5, 5).map(lambda v: round(v, 1))),
        hnp.arrays(float, n, elements=st.floats(-5, 5).map(lambda v: round(v, 1))),
        hnp.arrays(int, n, elements=st.integers(0, 4)),
        st.permutations(range(n)),
    )
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(TABLES)
def test_invariances_and_ranges(table: tuple[Any, ...]) -> None:
    x, y, cells, order = table
    result = associate(x, y, cells, **FEW)
    assert same(result, associate(np.exp(x), y**3, cells, **FEW))
    assert same(result, associate(x, y, [f"cell {9 - c}" for c in cells], **FEW))
    for value in (result.total_rho, result.between_rho, result.within_rho, result.within_low, result.total_high):
        assert math.isnan(value) or abs(value) <= 1 + 1e-12
    assert math.isnan(result.p_within) == math.isnan(result.within_rho)
    if math.isnan(result.within_rho):
        assert result.note
    turned = associate(x, -y, cells, **FEW)
    assert turned.within_rho == pytest.approx(-result.within_rho, nan_ok=True)
    shuffled = associate(x[order], y[order], cells[order], **FEW)
    assert shuffled.within_rho == pytest.approx(result.within_rho, nan_ok=True)


def test_order_of_rows_does_not_change_a_digit() -> None:
    rng = np.random.default_rng(8)
    x, y, cells = grid(6, 5, rng, link=0.5)
    order = rng.permutation(len(x))
    assert same(associate(x, y, cells, **FEW), associate(x[order], y[order], cells[order], **FEW))


def test_seed_decides() -> None:
    x, y, cells = grid(6, 5, np.random.default_rng(9), link=0.5)
    assert same(associate(x, y, cells, seed=1, **FEW), associate(x, y, cells, seed=1, **FEW))
    assert not same(associate(x, y, cells, seed=1, **FEW), associate(x, y, cells, seed=2, **FEW))


# --- degenerate tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "y", "cells", "note"),
    [
        ([], [], [], "complete rows: 0"),
        ([1, 2], [2, 1], [0, 0], "complete rows: 2"),
        ([1, math.nan, 3, math.nan], [1, 2, math.nan, 4], [0, 0, 1, 1], "complete rows: 1"),
        ([math.nan] * 6, range(6), [0, 0, 0, 1, 1, 1], "complete rows: 0"),
        ([1, 1, 1, 1], [1, 2, 3, 4], [0, 0, 1, 1], "x constant"),
        ([1, 2, 3, 4], [7, 7, 7, 7], [0, 0, 1, 1], "y constant"),
        ([1, 2, 3, 4], [1, 2, 4, 3], [0, 1, 2, 3], "no replicates"),
        ([1, 1, 2, 2], [1, 2, 3, 4], [0, 0, 1, 1], "no variation within cells"),
    ],
)
def test_degenerate_tables_give_nan_and_say_why(
    x: ArrayLike, y: Sequence[float], cells: Sequence[Hashable], note: str
) -> None:
    result = associate(x, list(y), cells, **FEW)
    assert note in result.note
    assert all(map(math.isnan, (result.within_rho, result.within_low, result.within_high, result.p_within)))


def test_columns_of_unequal_length_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="one entry per row"):
        associate([1, 2, 3], [1, 2, 3], [0, 0])


def test_nan_rows_are_dropped_and_counted() -> None:
    x, y, cells = grid(4, 4, np.random.default_rng(10), link=1.0)
    x[3], y[3], y[7] = math.nan, math.nan, math.nan
    keep = np.isfinite(x) & np.isfinite(y)
    result, clean = associate(x, y, cells, **FEW), associate(x[keep], y[keep], cells[keep], **FEW)
    assert (result.dropped, result.n) == (2, 14) and result.within_rho == clean.within_rho


def test_singletons_contribute_nothing_within() -> None:
    x, y, cells = grid(6, 4, np.random.default_rng(11), link=1.0)
    x, y = (
        np.concatenate([x, [99.0, -99.0]]),
        np.concatenate([y, [99.0, -99.0]]),
    )  # rank as extremes: shift the rest alike
    result = associate(x, y, np.concatenate([cells, [100, 101]]), **FEW)
    assert result.within_rho == pytest.approx(within_correlation(x[:-2], y[:-2], cells), abs=1e-12)
    assert result.degrees_of_freedom == 26 - 8 - 1


def test_leave_one_cell_out() -> None:
    x, y, cells = grid(5, 4, np.random.default_rng(12), link=1.0)
    each = [slow_within(x[cells != c], y[cells != c], cells[cells != c]) for c in range(5)]
    assert leave_one_cell_out(x, y, cells) == pytest.approx((min(each), max(each)))
    assert all(map(math.isnan, leave_one_cell_out([1, 2, 3], [1, 3, 2], [0, 0, 0])))
    assert all(map(math.isnan, leave_one_cell_out([], [], [])))


def test_detectable_correlation() -> None:
    assert detectable_correlation(125 - 25 - 1) == pytest.approx(0.276, abs=0.001)  # by the formula, by hand
    assert math.isnan(detectable_correlation(1))
    assert detectable_correlation(20) > detectable_correlation(40)


# --- error rates --------------------------------------------------------------------------------------------


def rejections(num_cells: int, replications: int, seed: int, **options: float) -> tuple[float, float]:
    """Shares in which the within-cell test and the pooled Spearman test reject at 5 %."""
    rng = np.random.default_rng(seed)
    tables = [grid(num_cells, 5, rng, **options) for _ in range(replications)]
    within = [associate(*table, permutations=199, bootstrap=1, seed=i).p_within for i, table in enumerate(tables)]
    pooled = [spearmanr(x, y).pvalue for x, y, _ in tables]
    return float(np.mean(np.array(within) <= 0.05)), float(np.mean(np.array(pooled) <= 0.05))


@pytest.mark.parametrize("common", [0.0, 1.0])
@pytest.mark.parametrize("num_cells", [12, 25])
def test_null_with_strong_settings_is_rejected_as_often_as_promised(num_cells: int, common: float) -> None:
    # 400 replications: the standard error of a rate of 5 % is 1.1 %, so [2 %, 9 %] is -2.8 to +3.7 errors.
    # Settings that move both quantities, if in unrelated ways, already suffice to fool the pooled test: the
    # seeds of a cell are counted as if they were settings of their own.
    within, pooled = rejections(num_cells, 400, seed=num_cells, settings_effect=2.0, common=common)
    assert 0.02 <= within <= 0.09
    assert pooled > 0.3 if common == 0 else pooled > 0.5


@pytest.mark.parametrize("num_cells", [12, 25])
def test_planted_link_is_found_with_the_power_that_is_stated(num_cells: int) -> None:
    rho = detectable_correlation(4 * num_cells - 1)
    link = math.sqrt(rho / (1 - rho))
    within, _ = rejections(num_cells, 300, seed=num_cells, link=link, settings_effect=0.0)
    # Ranks instead of values cost some power (the efficiency of Spearman's test is 91 %), chance the rest.
    assert binom.ppf(0.001, 300, 0.70) / 300 <= within <= binom.ppf(0.999, 300, 0.80) / 300
    strong, _ = rejections(num_cells, 100, seed=num_cells, link=1.5)
    assert strong > 0.95


def test_interval_covers_about_as_often_as_promised() -> None:
    rng = np.random.default_rng(13)
    results = [associate(*grid(12, 5, rng, link=1.0), permutations=1, bootstrap=300, seed=i) for i in range(300)]
    centre = np.mean([r.within_rho for r in results])  # of the estimator: its own expectation is what it covers
    covered = np.mean([r.within_low <= centre <= r.within_high for r in results])
    assert 0.89 <= covered <= 0.99  # standard error 1.3 %
