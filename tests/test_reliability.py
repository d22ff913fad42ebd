"""Intraclass correlations against pingouin and planted variances; corrected ρ against a planted correlation."""

import math
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pingouin
import pytest
from numpy.typing import NDArray
from scipy.stats import rankdata

from landscape.errors import ConfigurationError
from landscape.statistics.association import within_correlation
from landscape.statistics.reliability import disattenuate, intraclass_correlation

CELLS = np.repeat(np.arange(40), 10)


def repeats(seed: int, n: int, k: int, error: float, shift: float = 0.0) -> NDArray[np.float64]:
    """n true values of variance 1, measured k times with errors of size ``error``; repeats differ by shifts."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 1)) + error * rng.normal(size=(n, k)) + shift * rng.normal(size=k)


@pytest.mark.parametrize("shift", [0.0, 1.0])
@pytest.mark.parametrize(("n", "k", "error"), [(12, 2, 0.5), (30, 3, 2.0), (5, 4, 1.0)])
def test_it_is_pingouins(n: int, k: int, error: float, shift: float) -> None:
    values = repeats(n + k, n, k, error, shift)
    frame = pd.DataFrame(values).melt(ignore_index=False, var_name="rater", value_name="score").reset_index()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses what newer releases of pandas deprecate
        want = pingouin.intraclass_corr(frame, "index", "rater", "score").set_index("Type")
    found = intraclass_correlation(values)
    for kind, icc in (("ICC(A,1)", found.agreement), ("ICC(C,1)", found.consistency)):
        assert icc.value == pytest.approx(want.loc[kind, "ICC"], abs=1e-9)
        assert [icc.low, icc.high] == pytest.approx(want.loc[kind, "CI95"], abs=0.006)  # pingouin rounds to 0.01


def test_planted_variances() -> None:
    found = intraclass_correlation(repeats(0, 4000, 2, 1.0, shift=2.0))
    assert found.consistency.value == pytest.approx(0.5, abs=0.03)
    assert found.agreement.value < found.consistency.value  # a shift between repeats is no agreement
    assert found.consistency.low < 0.5 < found.consistency.high


def test_perfect_repeats_and_none() -> None:
    x = np.arange(6.0)
    same = intraclass_correlation(np.stack([x, x], axis=1))
    assert (same.agreement.value, same.consistency.value, same.consistency.low) == (1.0, 1.0, 1.0)
    shifted = intraclass_correlation(np.stack([x, x + 1], axis=1))
    assert shifted.consistency.value == 1.0 and shifted.agreement.value < 1.0
    for values in (np.ones((5, 2)), np.full((3, 2), math.nan), np.ones((1, 2))):
        assert math.isnan(intraclass_correlation(values).agreement.value)


def test_rows_with_nan_are_dropped() -> None:
    values = repeats(1, 9, 2, 0.5)
    damaged = np.vstack([values, [math.nan, 1.0]])
    assert intraclass_correlation(damaged).consistency == intraclass_correlation(values).consistency
    assert intraclass_correlation(damaged).dropped == 1


@pytest.mark.parametrize("values", [np.ones((4, 1)), np.ones(4)])
def test_one_measurement_has_no_reliability(values: Any) -> None:
    with pytest.raises(ConfigurationError, match="k of at least 2"):
        intraclass_correlation(values)


def measured(seed: int, rho: float, error: float, k: int = 2) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two quantities that go together by ``rho`` within cells; settings move both, errors add to each repeat."""
    rng = np.random.default_rng(seed)
    truth = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], len(CELLS)) + 2 * rng.normal(size=(40, 1))[CELLS]
    x, y = (truth[:, [j]] + error * rng.normal(size=(len(CELLS), k)) for j in (0, 1))
    return x, y


def test_correction_finds_the_correlation_without_errors() -> None:
    found = [disattenuate(*measured(seed, 0.6, 1.0), CELLS, bootstrap=1) for seed in range(20)]
    exact = [disattenuate(*measured(seed, 0.6, 1e-6), CELLS, bootstrap=1) for seed in range(20)]
    raw, corrected, want = (
        np.mean([v.value for v in values])
        for values in ([f.rho for f in found], [f.corrected for f in found], [f.rho for f in exact])
    )
    assert raw < 0.4 and corrected == pytest.approx(want, abs=0.04)
    assert np.mean([f.reliability_x.value for f in found]) == pytest.approx(0.5, abs=0.05)


def test_reliability_is_within_cells_by_the_definition() -> None:
    x, y = measured(3, 0.6, 1.0, k=3)
    found = disattenuate(x, y, CELLS, bootstrap=200)
    ranks = np.apply_along_axis(rankdata, 0, x)
    e = ranks - np.stack([ranks[c == CELLS].mean(axis=0) for c in range(40)])[CELLS]
    subjects, rest = 3 * (e.mean(axis=1) ** 2).sum(), ((e - e.mean(axis=1, keepdims=True)) ** 2).sum()
    free = len(CELLS) - 40
    rows, error = subjects / free, rest / (2 * free)
    assert found.reliability_x.value == pytest.approx((rows - error) / (rows + 2 * error), abs=1e-12)
    assert found.rho.value == pytest.approx(within_correlation(x[:, 0], y[:, 0], CELLS), abs=1e-12)
    want = found.rho.value / math.sqrt(found.reliability_x.value * found.reliability_y.value)
    assert found.corrected.value == pytest.approx(want)
    assert found.corrected.low < found.corrected.value < found.corrected.high
    # What settings do to x makes repeats agree over all runs, and has no part in this.
    assert intraclass_correlation(ranks).consistency.value > found.reliability_x.value + 0.1


def test_no_reliability_is_said_not_repaired() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(2, 400, 1)) * [1, -1], rng.normal(size=(400, 2))
    found = disattenuate(x[0], y, CELLS, bootstrap=50)
    assert found.reliability_x.value < 0 and math.isnan(found.corrected.value) and math.isnan(found.corrected.low)
    assert "of x" in found.note and "not positive" in found.note
    empty = disattenuate(np.full((4, 2), math.nan), np.ones((4, 2)), [0] * 4)
    assert (empty.n, empty.note) == (0, "no variation within cells") and math.isnan(empty.corrected.value)


def test_repeats_of_other_runs_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="the same runs"):
        disattenuate(np.ones((3, 2)), np.ones((4, 2)), [0] * 3)
