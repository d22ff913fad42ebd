"""Granulated τ and sign errors against loops over all pairs of runs, and Kendall's τ of scipy."""

import itertools
import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

from landscape.errors import ConfigurationError
from landscape.statistics import granulated
from landscape.statistics.granulated import granulate

RATES, BATCHES, SEEDS = (0.1, 0.2, 0.4), (16, 64, 256, 512), 3
GRID = [(rate, batch, seed) for rate in RATES for batch in BATCHES for seed in range(SEEDS)]


def table(seed: int, ragged: bool = False) -> tuple[Any, Any, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    runs = [run for run in GRID if not ragged or rng.random() < 0.7]
    x, y = rng.normal(size=(2, len(runs)))
    y += 0.5 * x
    if ragged:
        x, y = x.round(), y.round()
    return x, y, {"rate": [r for r, _, _ in runs], "batch": [b for _, b, _ in runs]}


def by_loops(x: Any, y: Any, axes: dict[str, Any], axis: str) -> tuple[float, float, int]:
    groups: dict[Any, list[float]] = defaultdict(list)
    for i, j in itertools.combinations(range(len(x)), 2):
        others = [name for name in axes if name != axis]
        if axes[axis][i] != axes[axis][j] and all(axes[name][i] == axes[name][j] for name in others):
            groups[tuple(axes[name][i] for name in others)].append(np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]))
    pairs = [sign for signs in groups.values() for sign in signs]
    wrong = [1.0 if sign < 0 else 0.5 if sign == 0 else 0.0 for sign in pairs]
    return float(np.mean([np.mean(signs) for signs in groups.values()])), float(np.mean(wrong)), len(pairs)


@pytest.mark.parametrize("ragged", [False, True])
def test_it_is_that_of_loops_over_pairs(ragged: bool) -> None:
    x, y, axes = table(1, ragged)
    found = granulate(x, y, axes, bootstrap=10)
    for agreement in found.axes:
        tau, wrong, pairs = by_loops(x, y, axes, agreement.axis)
        assert agreement.tau.value == pytest.approx(tau) and agreement.sign_error.value == pytest.approx(wrong)
        assert agreement.pairs == pairs and agreement.groups == {"rate": 4, "batch": 3}[agreement.axis]
    assert found.tau.value == pytest.approx(np.mean([a.tau.value for a in found.axes]))
    assert found.sign_error.value == max(a.sign_error.value for a in found.axes)
    assert found.worst_axis == max(found.axes, key=lambda a: a.sign_error.value).axis


def test_with_one_run_a_cell_a_group_is_kendalls() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 9))
    found = granulate(x, y, {"rate": list(range(9))}, bootstrap=10)
    assert found.axes[0].tau.value == pytest.approx(kendalltau(x, y).statistic)
    assert found.sign_error.value == pytest.approx((1 - found.tau.value) / 2)


def test_perfect_orders() -> None:
    x, _, axes = table(3)
    for y, tau in ((np.exp(x), 1.0), (-x, -1.0)):
        found = granulate(x, y, axes, bootstrap=50)
        assert (found.tau.value, found.tau.low, found.tau.high) == pytest.approx((tau, tau, tau))
        assert found.sign_error.value == pytest.approx((1 - tau) / 2)


def test_the_worst_axis_is_not_hidden_by_the_mean() -> None:
    _, _, axes = table(4)
    rate, batch = np.array(axes["rate"]), np.array(axes["batch"])
    found = granulate(rate + batch, 2 * batch - rate, axes, bootstrap=50)
    assert found.tau.value == pytest.approx(0.0) and found.worst_axis == "rate"
    assert found.sign_error.value == 1.0


def test_interval_is_that_of_resampled_cells() -> None:
    x, y, axes = table(5)
    found = granulate(x, y, axes, bootstrap=4000)
    cells = list(zip(axes["rate"], axes["batch"], strict=True))
    distinct, rng, taus = sorted(set(cells)), np.random.default_rng(0), []
    for _ in range(300):
        chosen = rng.integers(0, len(distinct), len(distinct))
        rows = [(r, k) for k, c in enumerate(chosen) for r, cell in enumerate(cells) if cell == distinct[c]]
        picked = [r for r, _ in rows]
        # Copies of a cell have its settings, and so are never compared with it.
        resampled = {name: [values[r] for r in picked] for name, values in axes.items()}
        taus.append(np.mean([by_loops(x[picked], y[picked], resampled, axis)[0] for axis in axes]))
    assert [found.tau.low, found.tau.high] == pytest.approx(np.quantile(taus, [0.025, 0.975]), abs=0.06)


def test_settings_held_fixed_are_no_axis() -> None:
    x, y, axes = table(6)
    fixed = granulate(x, y, {"rate": axes["rate"]}, axes["batch"], bootstrap=10)
    assert fixed.axes[0] == granulate(x, y, axes, bootstrap=10).axes[0]
    assert fixed.num_cells == 12


def test_an_axis_without_pairs_is_not_counted() -> None:
    x, y, axes = table(7)
    found = granulate(x, y, axes | {"model": ["cnn"] * len(x)}, bootstrap=10)
    assert found.axes[-1].pairs == 0 and math.isnan(found.axes[-1].tau.value)
    assert found.tau == granulate(x, y, axes, bootstrap=10).tau
    alone = granulate(x, y, {"model": ["cnn"] * len(x)}, bootstrap=10)
    assert math.isnan(alone.tau.value) and "no two runs" in alone.note and alone.worst_axis == ""
    assert granulate([], [], {"rate": []}).n == 0


def test_nan_is_dropped_and_order_does_not_matter() -> None:
    x, y, axes = table(8)
    x[3] = math.nan
    found = granulate(x, y, axes, bootstrap=20)
    order = np.random.default_rng(0).permutation(len(x))
    shuffled = {name: [values[i] for i in order] for name, values in axes.items()}
    assert granulate(x[order], y[order], shuffled, bootstrap=20) == found
    assert (found.n, found.dropped) == (35, 1)


def test_too_many_pairs_of_settings_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, axes = table(9)
    monkeypatch.setattr(granulated, "MAX_LINKS", 15)
    found = granulate(x, y, axes, bootstrap=10)  # 12 pairs of cells along the rate, 18 along the batch size
    assert found.note == "too many settings along batch" and found.tau.value == found.axes[0].tau.value


def test_settings_of_other_rows_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="one value per row"):
        granulate([1, 2], [1, 2], {"rate": [1]})
