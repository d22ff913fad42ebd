"""What a study says beside its main test: adjusted, over levels, over settings, and measured again."""

import json
import math
from typing import Any

import numpy as np
import pytest
from confounded_rows import DISTANCES, FAST, make_rows

from landscape.statistics.association import associate
from landscape.statistics.granulated import granulate
from landscape.statistics.partial import partial_associate
from landscape.statistics.reliability import disattenuate, intraclass_correlation
from landscape.study.associations import Correlations, to_json
from landscape.study.columns import LEVELS, Row, numbers
from landscape.study.correlate import correlate
from landscape.study.selection import cells_of
from landscape.study.terminal import format_table


@pytest.fixture(scope="module")
def found() -> Correlations:
    return correlate(make_rows(), FAST)


# --- given covariates ---------------------------------------------------------------------------------------


def test_questions_are_the_links_given_each_covariate_and_all(found: Correlations) -> None:
    pairs = {(a.x, a.y) for a in found.adjusted.found}
    assert pairs == {
        *found.columns.links,
        ("d_theta[ln2]", "worst_case[0.3]"),
        ("w_theta[ln2]", "w_x_median[ln2]"),
    }
    given = [a.given for a in found.adjusted.found if (a.x, a.y) == DISTANCES]
    every = ("train_loss", "margin_median", "theta_norm")
    assert given == [(name,) for name in every] + [every] and found.adjusted.left_out == {}
    of_widths = [a.given for a in found.adjusted.found if a.x == "w_theta[ln2]"]
    assert of_widths == [("train_loss",)]  # the trap: c − φ* divides both


def test_numbers_are_those_of_the_statistics(found: Correlations) -> None:
    rows = make_rows()
    given = [numbers(rows, name) for name in ("train_loss", "margin_median", "theta_norm")]
    x, y = (numbers(rows, name) for name in DISTANCES)
    alone = partial_associate(x, y, given, cells_of(rows), permutations=199, bootstrap=100)
    a = found.adjusted.given_all(*DISTANCES)
    assert a is not None and a.direct.value == pytest.approx(alone.direct.value)
    assert a.total.value == pytest.approx(found.primary.within_rho)


def test_a_confounder_is_seen_and_said(found: Correlations) -> None:
    a = found.adjusted.given_all(*DISTANCES)
    assert a is not None
    assert found.primary.p_within < 0.05 < a.p and a.direct.value < found.primary.within_rho - 0.2
    assert f"At equal training loss, median margin and ‖θ‖, ρ = {a.direct.value:.2f} (95 %" in found.verdict
    linked = correlate(make_rows(by_loss=0.0, link=2.0), FAST).adjusted.given_all(*DISTANCES)
    assert linked is not None and linked.p < 0.05


def test_logarithms_of_covariates_change_nothing() -> None:
    rows = make_rows()
    logs: list[Row] = [row | {"train_loss": math.log(0.6931 - float(row["train_loss"] or 0))} for row in rows]
    first, second = (correlate(r, FAST).adjusted.given_all(*DISTANCES) for r in (rows, logs))
    assert first is not None and second is not None
    assert second.direct.value == pytest.approx(first.direct.value) and second.p == first.p


def test_covariates_that_tell_nothing_are_left_out_and_said() -> None:
    rows: list[Row] = [row | {"margin_median": None, "theta_norm": 3.0} for row in make_rows()]
    c = correlate(rows, FAST)
    assert c.adjusted.left_out == {"margin_median": "known for 0 of 45 runs", "theta_norm": "constant"}
    assert {a.given for a in c.adjusted.found} == {("train_loss",)}
    assert "margin_median is left out: known for 0 of 45 runs" in format_table(c)
    assert "At equal training loss, ρ" in c.verdict
    none = correlate([row | {"train_loss": None} for row in rows], FAST)
    assert none.adjusted.found == () and "At equal" not in none.verdict


# --- over levels --------------------------------------------------------------------------------------------


def test_levels_are_tested_together() -> None:
    c = correlate(make_rows(link=1.0), FAST)
    assert c.levels.pairs == tuple((f"d_theta[{level}]", f"d_x_median[{level}]") for level in LEVELS)
    assert c.levels.tests.n == 45
    assert c.levels.tests.rho[c.levels.pairs.index(DISTANCES)] == pytest.approx(c.primary.within_rho)
    assert all(p <= adjusted for p, adjusted in zip(c.levels.tests.p, c.levels.tests.p_adjusted, strict=True))
    assert "Of 4 pairs of distances at all levels" in c.verdict and "the test rejects for 4 (" in c.verdict


def test_metrics_and_norms_join_the_levels() -> None:
    rows: list[Row] = [
        row | {"d_theta_layer[ln2]": float(i), "d_x_linf_median[ln2]": float(i), "d_theta_layer_angle[ln2]": 0.1}
        for i, row in enumerate(make_rows())
    ]
    pairs = correlate(rows, FAST).levels.pairs
    assert len(pairs) == 4 + 3
    assert pairs[4:] == (
        ("d_theta[ln2]", "d_x_linf_median[ln2]"),
        ("d_theta_layer[ln2]", "d_x_median[ln2]"),
        ("d_theta_layer[ln2]", "d_x_linf_median[ln2]"),
    )


def test_a_level_that_few_runs_reach_is_left_out_and_said() -> None:
    rows: list[Row] = [row | ({"d_theta[0.5]": None} if i > 5 else {}) for i, row in enumerate(make_rows())]
    c = correlate(rows, FAST)
    assert [x for x, _ in c.levels.pairs] == ["d_theta[ln2]", "d_theta[1]", "d_theta[ln10]"]
    assert c.levels.left_out == {"d_theta[0.5]": "known for 6 of 45 runs"}
    assert c.levels.tests.n == 45 and "d_theta[0.5] is left out: known for 6" in format_table(c)
    one = correlate([{k: v for k, v in row.items() if "[ln2]" in k or "[" not in k} for row in make_rows()], FAST)
    assert one.levels.pairs == (DISTANCES,) and "pairs of distances" not in one.verdict


# --- over settings ------------------------------------------------------------------------------------------


def test_settings_are_compared_one_at_a_time(found: Correlations) -> None:
    rows = make_rows()
    assert [g.y for g in found.granulated] == [DISTANCES[1], *found.columns.robustness.values()]
    axes = {name: [row[name] for row in rows] for name in ("learning_rate", "batch_size")}
    x, y = (numbers(rows, name) for name in DISTANCES)
    alone = granulate(x, y, axes, bootstrap=100)
    g = found.granulated[0]
    assert [(a.axis, a.pairs) for a in g.axes] == [
        ("learning_rate", 225), ("batch_size", 225), ("optimizer", 0), ("method", 0)
    ]  # fmt: skip
    assert g.tau.value == pytest.approx(alone.tau.value) and g.worst_axis == alone.worst_axis
    assert (
        f"granulated τ of d_θ and d_X is {g.tau.value:.2f}; along {g.worst_axis.replace('_', ' ')}"
        in found.verdict
    )


def test_a_method_and_its_arguments_are_one_setting() -> None:
    rows = make_rows()
    other: list[Row] = [
        row | {"run_id": f"{row['run_id']}-sam", "method": "sam", "method_args": "rho=0.1"} for row in rows
    ]
    axes = {a.axis: a for a in correlate([*rows, *other], FAST).granulated[0].axes}
    assert (axes["method"].groups, axes["method"].pairs) == (9, 225)


# --- measured again -----------------------------------------------------------------------------------------


def test_repeats_tell_how_far_measurements_agree() -> None:
    options = {"by_loss": 0.0, "link": 1.0, "error": 1.0}
    first, second, third = (make_rows(seed, **options) for seed in range(3))
    c = correlate(first, FAST, [second, third])
    assert c.reliability is not None and c.reliability.measurements == 3 and c.reliability.unmatched == 0
    table = [np.stack([numbers(rows, name) for rows in (first, second, third)], axis=1) for name in DISTANCES]
    assert c.reliability.columns[DISTANCES[0]] == intraclass_correlation(np.log(table[0]))
    link = c.reliability.links[DISTANCES]
    assert link == disattenuate(table[0], table[1], cells_of(first), bootstrap=100)
    assert link.rho.value == pytest.approx(c.primary.within_rho) and link.corrected.value > link.rho.value
    assert c.reliability.columns["fgsm_exact[0.3]"].agreement.value == 1.0
    assert "Measured 3 times on disjoint data, the reliability within cells is" in c.verdict
    assert "corrected ρ" in format_table(c)
    # What is said of the first measurement does not depend on the others.
    assert c.primary == correlate(first, FAST).primary and correlate(first, FAST).reliability is None


def test_repeats_are_matched_by_run_in_any_order_and_the_rest_is_counted() -> None:
    first, second = make_rows(0, error=1.0), make_rows(1, error=1.0)
    whole = correlate(first, FAST, [second]).reliability
    assert correlate(first, FAST, [second[::-1]]).reliability == whole
    by_path: list[list[Row]] = [[row | {"run_id": None} for row in rows] for rows in (first, second)]
    assert correlate(by_path[0], FAST, by_path[1:]).reliability == whole
    damaged: list[Row] = [row | ({"status": "failed"} if i < 2 else {}) for i, row in enumerate(second)]
    part = correlate(first, FAST, [damaged[:-1]]).reliability
    assert part is not None and part.unmatched == 3 and part.links[DISTANCES].n == 42
    earlier: list[Row] = [row | {"step": 1} for row in second]
    none = correlate(first, FAST, [earlier])
    assert none.reliability is not None and none.reliability.unmatched == 45
    assert "No run was measured again" in none.verdict


def test_rows_that_are_not_used_are_not_compared() -> None:
    first, second = make_rows(0, error=1.0), make_rows(1, error=1.0)
    first[0]["status"] = "failed"
    c = correlate(first, FAST, [second])
    assert c.reliability is not None and c.reliability.links[DISTANCES].n == 44 and c.reliability.unmatched == 0


def test_reliability_that_is_not_positive_is_said() -> None:
    rng = np.random.default_rng(0)
    again: list[Row] = [row | {DISTANCES[0]: float(rng.uniform(0.1, 1))} for row in make_rows()]
    first: list[Row] = [
        row | {DISTANCES[0]: 1 / float(r[DISTANCES[0]] or 1)} for row, r in zip(make_rows(), again, strict=True)
    ]
    c = correlate(first, FAST, [again])
    assert "ρ cannot be corrected for it (reliability of x within cells is not positive" in c.verdict


# --- all together -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repeats", [0, 1])
def test_json_carries_it_all(repeats: int) -> None:
    c = correlate(make_rows(error=0.5), FAST, [make_rows(1, error=0.5)] * repeats)
    plain: Any = json.loads(json.dumps(to_json(c), allow_nan=False))
    assert plain["adjusted"]["found"][0]["direct"].keys() == {"value", "low", "high"}
    assert len(plain["levels"]["tests"]["p_adjusted"]) == 4
    assert plain["granulated"][0]["axes"][2]["tau"]["value"] is None  # no two optimizers
    link = "|".join(DISTANCES)
    assert (plain["reliability"] is None) if not repeats else plain["reliability"]["links"][link]["n"] == 45


@pytest.mark.parametrize("rows", [[], make_rows()[:1], [{**row, "status": "failed"} for row in make_rows()]])
def test_tables_without_runs_break_nothing(rows: list[Row]) -> None:
    c = correlate(rows, FAST, [rows])
    assert "nan" not in c.verdict + format_table(c)
    json.dumps(to_json(c), allow_nan=False)


def test_order_of_rows_changes_nothing() -> None:
    rows = make_rows(error=0.5)
    order = np.random.default_rng(0).permutation(len(rows))
    first, second = correlate(rows, FAST), correlate([rows[i] for i in order], FAST)
    assert repr((first.adjusted, first.levels, first.granulated)) == repr(
        (second.adjusted, second.levels, second.granulated)
    )


def test_the_verdict_stays_a_paragraph() -> None:
    c = correlate(make_rows(error=0.5), FAST, [make_rows(1, error=0.5)])
    assert "\n" not in c.verdict and len(c.verdict.split()) < 450


def test_simpson() -> None:
    rng = np.random.default_rng(0)
    cells = np.repeat(np.arange(10), 8)
    x = rng.normal(size=80)
    a = associate(x + 5 * cells, -x + 0.3 * rng.normal(size=80) + 5 * cells, cells, permutations=99, bootstrap=200)
    assert a.is_simpson and a.total_rho > 0 > a.within_rho
    assert not associate(x, x, cells, permutations=99, bootstrap=200).is_simpson
