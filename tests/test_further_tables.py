"""The report's tables of adjusted, repeated and split associations against the study that they show."""

import json
import math

import pytest
from confounded_rows import DISTANCES, FAST, make_rows

from landscape.report import html_report, report_tables
from landscape.report.further_tables import (
    granulated_table,
    levels_table,
    partial_table,
    reliability_table,
    repeats_table,
)
from landscape.study.associations import Correlations
from landscape.study.columns import Row
from landscape.study.correlate import correlate

NAMES = ["partial", "levels", "granulated", "reliability", "repeats"]


@pytest.fixture(scope="module")
def found() -> Correlations:
    return correlate(make_rows(error=0.5), FAST, [make_rows(1, error=0.5)[1:]])


def test_all_are_listed_and_shown(found: Correlations) -> None:
    rows = make_rows(error=0.5)
    tables = report_tables(rows, found)
    assert [table.name for table in tables if table.name in NAMES] == NAMES
    page = html_report(rows, found)
    assert all(f'<section id="{name}"' in page and f'href="#{name}"' in page for name in NAMES)
    json.dumps([table.records() for table in tables])
    assert all(len(row) == len(table.fields) for table in tables for row in table.rows)


def test_without_repeats_or_covariates_nothing_is_shown() -> None:
    rows: list[Row] = [row | dict.fromkeys(("train_loss", "margin_median", "theta_norm")) for row in make_rows()]
    c = correlate(rows, FAST)
    assert not (partial_table(c).rows or reliability_table(c).rows or repeats_table(c).rows)
    one = correlate([{k: v for k, v in r.items() if "[" not in k or "[ln2]" in k} for r in rows], FAST)
    assert not levels_table(one).rows
    assert not granulated_table(correlate(rows[:1], FAST)).rows


def test_partial(found: Correlations) -> None:
    records = partial_table(found).records()
    assert len(records) == len(found.adjusted.found) == 17
    for record, a in zip(records, found.adjusted.found, strict=True):
        assert (record["x"], record["y"], record["p"]) == (a.x, a.y, a.p)
        assert (record["direct_rho"], record["direct_rho_low"]) == (a.direct.value, a.direct.low)
        assert (record["total_rho"], record["total_rho_high"]) == (a.total.value, a.total.high)
    assert records[3]["given"] == "training loss φ*, median margin, ‖θ‖"
    without: list[Row] = [row | {"margin_median": 3.0} for row in make_rows()]
    assert "Left out: median margin, constant." in partial_table(correlate(without, FAST)).caption


def test_levels(found: Correlations) -> None:
    records = levels_table(found).records()
    assert [(record["x"], record["y"]) for record in records] == list(found.levels.pairs) and len(records) == 4
    assert tuple(record["p_max_t"] for record in records) == found.levels.tests.p_adjusted
    few: list[Row] = [row | ({"d_theta[1]": math.nan} if i else {}) for i, row in enumerate(make_rows())]
    assert "Left out: distance d_θ (c = 1), known for 1 of 45 runs." in levels_table(correlate(few, FAST)).caption


def test_granulated(found: Correlations) -> None:
    records = granulated_table(found).records()
    assert len(records) == 4 * 3  # d_X and three readings; two settings differ, and all of them
    first, g = records[:3], found.granulated[0]
    assert [record["setting"] for record in first] == [
        "learning rate",
        "batch size",
        "all: mean τ, largest sign error",
    ]
    assert (first[2]["tau"], first[2]["sign_error"]) == (g.tau.value, g.sign_error.value)
    assert first[2]["worst"] == g.worst_axis.replace("_", " ") and first[0]["pairs"] == 225


def test_reliability(found: Correlations) -> None:
    assert found.reliability is not None
    table = reliability_table(found)
    link = found.reliability.links[DISTANCES]
    record = table.records()[0]
    assert (record["x"], record["y"], record["n"]) == (*DISTANCES, 44)
    assert (record["corrected_rho"], record["reliability_y_low"]) == (link.corrected.value, link.reliability_y.low)
    assert "measured 2 times" in table.caption and "Not measured every time: 1 run." in table.caption
    again = repeats_table(found).records()
    assert [record["quantity"] for record in again] == list(found.reliability.columns)
    assert again[0]["agreement"] == found.reliability.columns[DISTANCES[0]].agreement.value
