"""Adjusted p-values against statsmodels, and against step-down max-T written out slowly."""

import math
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from landscape.statistics.association import as_columns, associate
from landscape.statistics.cells import rank_columns
from landscape.statistics.multiplicity import holm, max_t
from landscape.statistics.resampling import generators, shuffles

CELLS = np.repeat(np.arange(8), 5)
PAIRS = [(0, 3), (1, 4), (2, 5)]


def columns(seed: int, link: float) -> Any:
    """Three alike first columns, and three alike second ones that follow them within cells by ``link``."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 40))
    first, second = (v[:, None] + 0.3 * rng.normal(size=(40, 3)) for v in (x, y + link * x))
    return np.hstack([first, second])


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    with patch("gc.collect"):  # by which statsmodels takes half a second each time, where much is loaded
        expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(expected)


def test_holm_of_nan_and_nothing() -> None:
    assert repr(holm([math.nan, 0.02])) == "[nan, 0.02]"
    assert holm([]) == []


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_max_t_is_step_down(seed: int) -> None:
    data, draws = columns(seed, 0.3), 300
    found = max_t(data, CELLS, PAIRS, permutations=draws)
    table = rank_columns(data, CELLS)
    e = table.residuals / np.linalg.norm(table.residuals, axis=0)
    observed = np.array([abs(e[:, i] @ e[:, j]) for i, j in PAIRS])
    assert np.abs(found.rho) == pytest.approx(observed)
    order = np.argsort(-observed)
    null = np.concatenate(
        [
            [[abs(e[:, i] @ e[s][:, j]) for i, j in PAIRS] for s in block]
            for block in shuffles(table.cells, draws, generators(0)[0])
        ]
    )
    wanted, largest = np.empty(3), 0.0
    for step, k in enumerate(order):
        remaining = null[:, order[step:]].max(axis=1)
        largest = max(largest, (1 + (remaining >= observed[k] - 1e-9).sum()) / (1 + draws))
        wanted[k] = largest
    assert found.p_adjusted == pytest.approx(wanted)


def test_between_the_unadjusted_and_bonferronis() -> None:
    found = max_t(columns(3, 0.3), CELLS, PAIRS, permutations=1999)
    for p, adjusted, bonferroni in zip(found.p, found.p_adjusted, 3 * np.array(found.p), strict=True):
        assert p <= adjusted <= min(1, bonferroni) + 0.01
    # Tests this much alike cost little: adjusted p stay far below Bonferroni's.
    assert max(found.p_adjusted) < 2.2 * max(found.p)


def test_one_pair_alone_is_the_association() -> None:
    data = columns(4, 0.5)
    found = max_t(data, CELLS, [(0, 3)], permutations=499)
    a = associate(data[:, 0], data[:, 3], CELLS, permutations=499, bootstrap=1)
    assert found.rho[0] == pytest.approx(a.within_rho) and found.p[0] == a.p_within
    assert found.p_adjusted == found.p and (found.n, found.num_cells) == (40, 8)


def test_what_cannot_be_tested_is_no_test() -> None:
    data = columns(5, 0.5)
    constant = np.hstack([data, np.ones((40, 1))])
    found = max_t(constant, CELLS, [*PAIRS, (0, 6)], permutations=199)
    assert math.isnan(found.rho[3]) and math.isnan(found.p_adjusted[3])
    assert found.p_adjusted[:3] == max_t(data, CELLS, PAIRS, permutations=199).p_adjusted
    nothing = max_t(np.full((40, 2), math.nan), CELLS, [(0, 1)])
    assert nothing.n == 0 and nothing.dropped == 40 and math.isnan(nothing.p[0])
    assert max_t(data, CELLS, []).p == ()


def test_order_of_rows_does_not_matter() -> None:
    data = as_columns(*columns(6, 0.4).T)
    order = np.random.default_rng(0).permutation(40)
    assert max_t(data[order], CELLS[order], PAIRS, permutations=99) == max_t(data, CELLS, PAIRS, permutations=99)
