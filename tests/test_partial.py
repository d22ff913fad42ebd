"""Association given covariates: pingouin, least squares by hand, all permutations, and invariances."""

import itertools
import math
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pingouin
import pytest
from scipy.stats import rankdata

from landscape.errors import ConfigurationError
from landscape.statistics.association import associate
from landscape.statistics.cells import rank_columns
from landscape.statistics.partial import partial_associate, partial_associate_all
from landscape.statistics.resampling import correlation_of, generators, shuffles

FEW: dict[str, Any] = {"permutations": 99, "bootstrap": 50}
Columns: TypeAlias = Any


def table(seed: int, sizes: tuple[int, ...] = (5, 3, 6, 4, 2, 7), ties: bool = False) -> tuple[Columns, Columns]:
    """Four columns that go together in part, of cells of unequal size; and the cells."""
    rng = np.random.default_rng(seed)
    cells = np.repeat(np.arange(len(sizes)), sizes)
    columns = rng.standard_t(3, (len(cells), 4)) + 3 * rng.normal(size=(len(sizes), 4))[cells]
    columns[:, 0] += columns[:, 2]
    columns[:, 1] += columns[:, 2] - columns[:, 3]
    return (columns.round() if ties else columns), cells


def design(given: Columns, cells: Columns) -> Columns:
    dummies = (cells[:, None] == np.unique(cells)).astype(float)
    return np.hstack([dummies, np.apply_along_axis(rankdata, 0, given)])


def left_over(values: Columns, x: Columns) -> Columns:
    return values - x @ np.linalg.lstsq(x, values, rcond=None)[0]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("given", [[2], [2, 3]])
def test_rho_is_the_correlation_of_residuals_of_ranks(given: list[int], ties: bool) -> None:
    columns, cells = table(1, ties=ties)
    found = partial_associate(columns[:, 0], columns[:, 1], list(columns[:, given].T), cells, **FEW)
    x = design(columns[:, given], cells)
    e, f = (left_over(rankdata(columns[:, k]), x) for k in (0, 1))
    assert found.direct.value == pytest.approx(np.corrcoef(e, f)[0, 1], abs=1e-12)
    assert found.degrees_of_freedom == len(cells) - 6 - 1 - len(given)


def test_in_one_cell_it_is_pingouins_partial_spearman() -> None:
    columns, _ = table(2)
    frame = pd.DataFrame(columns, columns=list("xyzw"))
    want = pingouin.partial_corr(frame, "x", "y", ["z", "w"], method="spearman").loc["spearman", "r"]
    found = partial_associate(columns[:, 0], columns[:, 1], list(columns[:, 2:].T), [0] * len(columns), **FEW)
    assert found.direct.value == pytest.approx(want, abs=1e-6)
    assert math.isnan(found.direct.low)  # one cell: nothing to resample


def test_without_covariates_it_is_the_association() -> None:
    columns, cells = table(3)
    found = partial_associate(columns[:, 0], columns[:, 1], [], cells, **FEW)
    a = associate(columns[:, 0], columns[:, 1], cells, **FEW)
    assert found.direct.value == pytest.approx(a.within_rho, abs=1e-12) and found.p == a.p_within
    assert (found.direct.low, found.direct.high) == (a.within_low, a.within_high)
    assert found.total == found.direct


@pytest.mark.parametrize("sizes", [(3, 2, 2), (3, 3)])
def test_p_is_that_of_freedman_and_lane_over_all_permutations(sizes: tuple[int, ...]) -> None:
    columns, cells = table(4, sizes)
    x = design(columns[:, [2]], cells)
    r, s = rankdata(columns[:, 0]), rankdata(columns[:, 1])
    fitted, error = s - left_over(s, x), left_over(s, x)
    blocks = [np.flatnonzero(cells == c) for c in range(len(sizes))]

    def statistic(y: Columns) -> float:
        e, f = left_over(r, x), left_over(y, x)
        return abs(float(e @ f / np.sqrt((e @ e) * (f @ f))))

    orders = [np.concatenate(p) for p in itertools.product(*(itertools.permutations(b) for b in blocks))]
    exact = np.mean([statistic(fitted + error[order]) >= statistic(s) - 1e-9 for order in orders])
    draws = 20_000
    p = partial_associate(columns[:, 0], columns[:, 1], [columns[:, 2]], cells, permutations=draws, bootstrap=1).p
    assert abs(p - exact) <= 4 * math.sqrt(exact * (1 - exact) / draws) + 1 / draws


@pytest.mark.parametrize("seed", range(4))
def test_p_fits_anew_in_each_draw(seed: int) -> None:
    columns, cells = table(seed, (4, 3, 3))
    ranked = rank_columns(columns, cells)
    codes, draws = ranked.cells.codes, 400
    x = design(ranked.ranks[:, 2:], codes)
    e, f = (left_over(ranked.ranks[:, k], x) for k in (0, 1))
    null = [
        np.corrcoef(e, left_over(f[order], x))[0, 1]
        for block in shuffles(ranked.cells, draws, generators(0)[0])
        for order in block
    ]
    wanted = (1 + (np.abs(null) >= abs(np.corrcoef(e, f)[0, 1]) - 1e-9).sum()) / (1 + draws)
    given = list(columns[:, 2:].T)
    found = partial_associate(columns[:, 0], columns[:, 1], given, cells, permutations=draws, bootstrap=1)
    assert found.p == pytest.approx(wanted)


def test_interval_is_that_of_resampled_cells() -> None:
    columns, cells = table(5)
    found = partial_associate(columns[:, 0], columns[:, 1], [columns[:, 2]], cells, permutations=1, bootstrap=4000)
    rng, values = np.random.default_rng(0), []
    for _ in range(1000):
        chosen = rng.integers(0, 6, 6)
        rows = np.concatenate([np.flatnonzero(cells == c) for c in chosen])
        x = design(columns[rows][:, [2]], cells[rows])
        e, f = (left_over(rankdata(columns[rows, k]), x) for k in (0, 1))
        values.append(np.corrcoef(e, f)[0, 1])
    assert [found.direct.low, found.direct.high] == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.05)


def test_what_is_explained_wholly_has_no_association() -> None:
    columns, cells = table(6)
    found = partial_associate(columns[:, 0], columns[:, 1], [np.exp(columns[:, 0])], cells, **FEW)
    assert math.isnan(found.direct.value) and math.isnan(found.p) and math.isnan(found.direct.low)
    assert not math.isnan(found.total.value)


def test_covariates_given_twice_or_constant_change_nothing() -> None:
    columns, cells = table(7)
    x, y, z, _ = columns.T
    once = partial_associate(x, y, [z], cells, **FEW)
    for more in ([z, z**3], [z, np.ones(len(z))], [z, 1.0 * cells]):
        again = partial_associate(x, y, more, cells, **FEW)
        assert again.direct.value == pytest.approx(once.direct.value, abs=1e-9) and again.p == once.p


def test_order_of_rows_and_monotone_maps_do_not_matter() -> None:
    columns, cells = table(8)
    x, y, z, w = columns.T
    once = partial_associate(x, y, [z, w], cells, **FEW)
    order = np.random.default_rng(0).permutation(len(x))
    assert partial_associate(x[order], y[order], [z[order], w[order]], cells[order], **FEW) == once
    assert partial_associate(np.exp(x), y**3, [z * 2, np.arctan(w)], cells, **FEW) == once


def test_questions_together_are_as_alone_and_each_uses_its_own_rows() -> None:
    columns, cells = table(9)
    columns[4, 3] = math.nan
    questions = [(0, 1), (0, 1, 2), (0, 1, 2, 3), (0, 1, 3)]
    together = partial_associate_all(columns, cells, questions, "xyzw", **FEW)
    assert [found.n for found in together] == [27, 27, 26, 26]
    assert together[2].dropped == 1 and together[2].given == ("z", "w")
    for question, found in zip(questions, together, strict=True):
        x, y, *given = (columns[:, k] for k in question)
        alone = partial_associate(x, y, given, cells, **FEW)
        assert found.direct.value == pytest.approx(alone.direct.value, abs=1e-12) and found.p == alone.p


@pytest.mark.parametrize("n", [0, 2])
def test_too_few_rows_give_nan(n: int) -> None:
    found = partial_associate(np.arange(n), np.arange(n), [np.arange(n)], [0] * n, **FEW)
    assert math.isnan(found.p) and math.isnan(found.direct.value) and math.isnan(found.total.value)


def test_columns_of_unequal_length_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="one entry per row"):
        partial_associate([1, 2, 3], [1, 2, 3], [[1, 2]], [0, 0, 0])


def test_correlation_of_products_by_hand() -> None:
    assert correlation_of(np.array([[4.0, 3.0], [3.0, 9.0]]), 0, 1) == pytest.approx(0.5)
