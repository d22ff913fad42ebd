"""The report's tables against counts and means of their own, and labels as HTML, SVG and text."""

import json
import math
import re
from statistics import fmean
from typing import Any

import pytest
from report_rows import FAST, study_rows, with_unusable

import landscape
from landscape.geometry import level_sets
from landscape.report import masking, report_tables
from landscape.report.contents import correlation_table
from landscape.report.evidence import AGREEING, FAIR_ANGLE, GRADES, STRONG_ANGLE, grade_of
from landscape.report.masking import masking_table
from landscape.report.symbols import column_label, escape, set_symbols, to_html, to_plain, to_svg
from landscape.report.tables import Field, Table, show
from landscape.study.columns import COLUMNS, Row, axis_label
from landscape.study.correlate import correlate
from landscape.study.table import read_rows_csv, write_rows_csv


def tables_of(rows: list[Row]) -> dict[str, Table]:
    return {table.name: table for table in report_tables(rows, correlate(rows, FAST))}


@pytest.fixture(scope="module")
def tables() -> dict[str, Table]:
    return tables_of(with_unusable(study_rows()))


def test_correlations_are_those_of_the_study_with_the_primary_pair_first() -> None:
    rows = study_rows()
    found = correlate(rows, FAST)
    records = correlation_table(found).records()
    assert len(records) == 28
    assert [record["role"] for record in records[:3]] == ["primary", "link", "link"]
    assert all(record["role"] is None for record in records[3:])
    for record in records:
        a = found.pair(str(record["x"]), str(record["y"]))
        assert (record["within_rho"], record["within_rho_low"]) == (a.within_rho, a.within_low)
        assert (record["total_rho"], record["total_rho_high"]) == (a.total_rho, a.total_high)
        assert (record["n"], record["num_cells"], record["p_within"]) == (a.n, a.num_cells, a.p_within)
        assert record["p_holm"] == found.p_holm.get((a.x, a.y))


def test_pairs_that_no_run_has_are_counted_not_shown() -> None:
    older: list[Row] = [{k: v for k, v in row.items() if k != "worst_case[0.3]"} for row in study_rows()]
    table = correlation_table(correlate(older, FAST))
    assert len(table.rows) == 21 and "7 pairs" in table.caption


def test_masking_counts_and_means_by_cell() -> None:
    rows = study_rows()
    records = masking_table(rows, correlate(rows, FAST)).records()
    assert len(records) == 12
    for record in records:
        keys = ("optimizer", "learning_rate", "batch_size")
        members = [row for row in rows if all(row[key] == record[key] for key in keys)]
        assert record["n"] == len(members) == 3
        assert (record["sound"], record["arithmetic_masking"], record["gradient_masking"]) == (1, 1, 1)
        assert record["not_audited"] == 0
        published, exact = ([float(r[f"fgsm_{k}[0.3]"] or 0) for r in members] for k in ("published", "exact"))
        assert record["fgsm_published[0.3]"] == pytest.approx(fmean(published))
        assert record["gap"] == pytest.approx(fmean(published) - fmean(exact))
        assert record["rounded_share"] == 0.25


def test_gap_is_over_runs_that_have_both_readings() -> None:
    rows = [row | ({"fgsm_exact[0.3]": math.nan} if row["seed"] == 0 else {}) for row in study_rows()]
    both = [r for r in rows[:3] if r["seed"] != 0]
    gap = fmean(float(r["fgsm_published[0.3]"] or 0) - float(r["fgsm_exact[0.3]"] or 0) for r in both)
    assert masking_table(rows, correlate(rows, FAST)).records()[0]["gap"] == pytest.approx(gap)


@pytest.mark.parametrize("name", ["masking[0.3]", "worst_case[0.3]", "fgsm_exact[0.3]", "rounded_share"])
def test_columns_that_no_row_has_are_left_out(name: str) -> None:
    rows: list[Row] = [{k: v for k, v in row.items() if k != name} for row in study_rows()]
    table = masking_table(rows, correlate(rows, FAST))
    fields = {field.name for field in table.fields}
    assert name not in fields and "fgsm_published[0.3]" in fields
    assert ("gap" in fields) == (name != "fgsm_exact[0.3]")
    assert ("sound" in fields) == (name != "masking[0.3]")
    assert ("no verdict" in table.caption) == (name == "masking[0.3]")


def test_runs_without_a_verdict_are_counted() -> None:
    rows = [row | ({"masking[0.3]": None} if row["seed"] == 1 else {}) for row in study_rows()]
    assert all(r["not_audited"] == 1 for r in masking_table(rows, correlate(rows, FAST)).records())


def test_settings_that_differ_are_columns_and_numbers_from_csv_are_the_same_cells(tmp_path: Any) -> None:
    rows = [row | {"method": ("plain", "sam")[i % 2]} for i, row in enumerate(study_rows(seeds=4))]
    write_rows_csv(rows, tmp_path / "rows.csv")
    again = read_rows_csv(tmp_path / "rows.csv")
    first, second = (masking_table(r, correlate(r, FAST)) for r in (rows, again))
    assert first.header[:4] == ("optimizer", "method", "learning rate", "batch size")
    assert first.records() == second.records() and len(first.rows) == 24
    batches = [record["batch_size"] for record in first.records() if record["learning_rate"] == 0.1]
    assert batches == [16, 128] * 4  # by number, not by letter


def test_runs_that_differ_in_another_setting_are_in_other_cells() -> None:
    """Such as momentum, which has no column of its own."""
    rows = [
        row | ({"other_settings": "epochs=9,momentum=0.9"} if row["seed"] == 0 else {}) for row in study_rows()
    ]
    found = correlate(rows, FAST)
    assert found.primary.num_cells == 24
    records = masking_table(rows, found).records()
    assert {(r["other_settings"], r["n"]) for r in records} == {("epochs=9, momentum=0.9", 1), (None, 2)}


def test_too_many_cells_are_put_together_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row | {"learning_rate": 0.001 * (1 + i)} for i, row in enumerate(study_rows())]
    whole = masking_table(rows, correlate(rows, FAST))
    monkeypatch.setattr(masking, "MAX_CELLS", 35)
    merged = masking_table(rows, correlate(rows, FAST))
    assert (len(whole.rows), len(merged.rows)) == (36, 4)
    assert "learning rate" not in merged.header and "put together" in merged.caption
    assert [record["n"] for record in merged.records()] == [9] * 4


def test_evidence_counts_grades(tables: dict[str, Table]) -> None:
    for record in tables["evidence"].records():
        assert (record["n"], record["strong"], record["fair"], record["weak"]) == (18, 6, 6, 6)
        assert record["d_theta_angle[ln2]"] == 0.2
    assert "judged by angle and spread" in tables["evidence"].caption


def test_what_was_not_used_is_listed(tables: dict[str, Table]) -> None:
    assert tables["failures"].records() == [
        {"run": "damaged", "path": "runs/damaged", "error": "segment 3 is cut off"}
    ]
    counts = {record["reason"]: record["n"] for record in tables["left_out"].records()}
    assert counts == {"failed": 1, "repeated": 1, "diverged": 1, "not reached": 1}
    assert [(r["run"], r["reason"]) for r in tables["unused"].records()] == [
        ("diverged", "diverged"),
        ("far", "not reached"),
    ]
    assert "36 of 40 rows" in tables["left_out"].caption


def test_a_table_of_failures_alone_has_no_other_tables() -> None:
    failed: list[Row] = [{"run": "a", "status": "failed", "error": "no"}]
    assert set(tables_of(failed)) == {"left_out", "failures"}


def test_tables_are_plain_values(tables: dict[str, Table]) -> None:
    for table in tables.values():
        assert all(len(row) == len(table.fields) == len(table.header) for row in table.rows)
        json.dumps(table.records())
    assert landscape.report_tables is report_tables


@pytest.mark.parametrize(
    ("changes", "grade"),
    [
        ({"d_theta_angle[ln2]": 0.09, "d_theta_spread[ln2]": 0.01}, "strong"),
        ({"d_theta_angle[ln2]": 0.09, "d_theta_spread[ln2]": 0.0}, "fair"),  # one search agrees with itself
        ({"d_theta_angle[ln2]": 0.09, "d_theta_spread[ln2]": 0.02}, "fair"),
        ({"d_theta_angle[ln2]": 0.11, "d_theta_spread[ln2]": 0.005}, "fair"),
        ({"d_theta_angle[ln2]": 0.36, "d_theta_spread[ln2]": 0.005}, "weak"),
        ({"d_theta_angle[ln2]": None}, "unknown"),
        ({"d_theta_flag[ln2]": "below_minimum", "d_theta_angle[ln2]": 0.01}, "below_minimum"),
        ({"d_theta_grade[ln2]": "saturated", "d_theta_flag[ln2]": "not_reached"}, "saturated"),
        ({"d_theta_grade[ln2]": "weak"}, "weak"),
        ({"d_theta_grade[1]": "weak", "d_theta_angle[ln2]": 0.2}, "fair"),
    ],
)
def test_grade(changes: Row, grade: str) -> None:
    assert grade_of(study_rows()[0] | changes, "ln2") == grade and grade in GRADES


def test_grades_are_judged_by_the_limits_of_the_search() -> None:
    known = (level_sets._STRONG_ANGLE, level_sets._FAIR_ANGLE, level_sets._AGREEING - 1)
    assert pytest.approx(known) == (STRONG_ANGLE, FAIR_ANGLE, AGREEING)


@pytest.mark.parametrize(
    ("value", "kind", "shown"),
    [
        (None, "p", ""),
        (math.nan, "share", "n/a"),
        (0.1234, "share", "12.3"),
        (-0.05, "points", "−5.0"),
        (1234567, "count", "1,234,567"),
        (-1.5e-7, "number", "−1.5e−07"),
        (0.00123, "p", "0.0012"),
        (-0.456, "correlation", "−0.46"),
        ((0.5, -0.1, 0.75), "estimate", "0.50 [−0.10, 0.75]"),
        ((0.5, math.nan, math.nan), "estimate", "0.50"),
        ((math.nan, 0.0, 0.0), "estimate", "n/a"),
        ("d_theta[ln2]", "column", "distance d_θ (c = ln 2)"),
        (("lambda_1", "fgsm_exact[0.3]"), "pair", "largest eigenvalue λ₁ and FGSM accuracy, exact (ε = 0.3)"),
        ("d_theta[ln2]", "text", "d_theta[ln2]"),
    ],
)
def test_cells_as_text(value: Any, kind: Any, shown: str) -> None:
    assert show(value, kind) == shown


def test_records_expand_estimates_and_pairs() -> None:
    fields = (Field("pair", "pair", "pair"), Field("rho", "ρ", "estimate"))
    table = Table("t", "t", "", fields, ((("a", "b"), (0.1, 0.0, 0.2)),))
    assert table.records() == [{"x": "a", "y": "b", "rho": 0.1, "rho_low": 0.0, "rho_high": 0.2}]


def test_every_label_of_the_study_becomes_plain_text_and_markup() -> None:
    arguments = {"level": "[ln2]", "eps": "[0.3]", "": ""}
    for column in COLUMNS:
        name = column.name + arguments[column.argument]
        for label in (axis_label(name), column_label(name)):
            assert not set("$\\{}") & set(to_plain(label))
            assert not set("$\\{}") & set(to_html(label) + to_svg(label))
            spoken = re.sub(r"<[^>]*>|&#8203;|[_^]", "", to_html(label))
            assert spoken.replace("1", "₁") == to_plain(label).replace("_", "").replace("1", "₁")


def test_labels_by_hand() -> None:
    assert to_html(r"distance $d_\theta$ at $c=\ln 2$") == "distance <i>d</i><sub>θ</sub> at <i>c</i> = ln 2"
    assert to_plain(r"$\lambda_{\min}$ and $\varphi^*$") == "λ_min and φ*"
    assert to_html("5 $ a <b>") == "5 $ a &lt;b&gt;"  # one dollar sign is no mathematics
    assert "<tspan" in to_svg("$w_X$")
    assert set_symbols("d_θ, w_X, bad_X, d_θx, φ* at ln2") == (
        "<i>d</i><sub>θ</sub>, <i>w</i><sub>X</sub>, bad_X, d_θx, <i>φ</i>* at ln\N{NO-BREAK SPACE}2"
    )


def test_escape_leaves_no_markup_no_controls_and_what_utf8_can_hold() -> None:
    assert escape('<a href="x">\'&') == "&lt;a href=&quot;x&quot;&gt;&#x27;&amp;"
    assert escape("a\x00b\x1b[31m\u202e") == "a\ufffdb\ufffd[31m\ufffd"
    assert escape("lone \udcff surrogate").encode()
