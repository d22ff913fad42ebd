"""The tables of the report, from rows and their correlations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from landscape.report.evidence import GRADES, grade_of
from landscape.report.further_tables import (
    granulated_table,
    levels_table,
    partial_table,
    reliability_table,
    repeats_table,
)
from landscape.report.masking import masking_table
from landscape.report.tables import Field, Table, TableCell, median, number_of
from landscape.report.words import CORRELATIONS, EVIDENCE, JUDGED, LEFT_OUT, say
from landscape.study.associations import Correlations
from landscape.study.columns import Cell, Rows, level_column, numbers, text, text_values
from landscape.study.selection import REASONS, exclusion_reasons


def report_tables(rows: Rows, correlations: Correlations) -> list[Table]:
    """All tables of the report, in its order; those that would be empty are left out."""
    makers: tuple[Callable[[Rows, Correlations], Table], ...] = (
        lambda _, found: correlation_table(found),
        lambda _, found: partial_table(found),
        lambda _, found: levels_table(found),
        lambda _, found: granulated_table(found),
        lambda _, found: reliability_table(found),
        lambda _, found: repeats_table(found),
        masking_table,
        evidence_table,
        left_out_table,
        unused_table,
        failures_table,
    )
    return [table for make in makers if (table := make(rows, correlations)).rows]


def correlation_table(correlations: Correlations) -> Table:
    """All pairs of columns: the primary pair first, then the other links of the claim."""
    c = correlations
    found = [a for a in c.pairs if a.n]
    ordered = sorted(found, key=lambda a: (a is not c.primary, (a.x, a.y) not in c.p_holm))
    roles = {True: "primary", False: "link"}
    rows = tuple(
        (
            (a.x, a.y),
            roles[a is c.primary] if (a.x, a.y) in c.p_holm else None,
            a.n,
            a.num_cells,
            (a.total_rho, a.total_low, a.total_high),
            a.between_rho,
            (a.within_rho, a.within_low, a.within_high),
            a.p_within,
            c.p_holm.get((a.x, a.y)),
            a.note or None,
        )
        for a in ordered
    )
    fields = (
        Field("pair", "pair", "pair"),
        Field("role", "role"),
        Field("n", "n", "count"),
        Field("num_cells", "cells", "count"),
        Field("total_rho", "total ρ", "estimate"),
        Field("between_rho", "between ρ", "correlation"),
        Field("within_rho", "within-cell ρ", "estimate"),
        Field("p_within", "p", "p"),
        Field("p_holm", "p, Holm", "p"),
        Field("note", "note"),
    )
    caption = say(CORRELATIONS, bootstrap=c.config.bootstrap, permutations=c.config.permutations)
    if len(found) < len(c.pairs):
        caption += (
            f" Left out, because no run has both quantities: {number_of(len(c.pairs) - len(found), 'pair')}."
        )
    return Table("correlations", "Correlations", caption, fields, rows)


def evidence_table(rows: Rows, correlations: Correlations) -> Table:
    """Grades of d_θ at the tested level, and medians of what they rest on, for each optimizer."""
    level = correlations.config.level
    used = [rows[i] for i in correlations.used]
    graded = [(text(row.get("optimizer")), grade_of(row, level)) for row in used]
    found = {grade for _, grade in graded}
    grades = [grade for grade in dict.fromkeys((*GRADES, *sorted(found))) if grade in found]
    medians = (
        Field(level_column("d_theta_angle", level), "median angle (rad)", "number"),
        Field(level_column("d_theta_spread", level), "median spread", "number"),
        Field(level_column("d_theta_level_error", level), "median level error (nat)", "number"),
        Field(level_column("d_x_reached", level), "images reaching the level (%)", "share"),
        Field("gradient_norm", "median gradient norm", "number"),
        Field("lambda_1_residual", "median residual of λ₁", "number"),
    )
    counts = Counter(graded)
    body: list[tuple[TableCell, ...]] = []
    for optimizer in text_values(used, "optimizer"):
        members = [row for row in used if text(row.get("optimizer")) == optimizer]
        numbers_of = [median(numbers(members, field.name)) for field in medians]
        body.append((optimizer, len(members), *(counts[optimizer, grade] for grade in grades), *numbers_of))
    fields = (
        Field("optimizer", "optimizer"),
        Field("n", "runs", "count"),
        *(Field(grade, grade.replace("_", " "), "count") for grade in grades),
        *medians,
    )
    caption = say(EVIDENCE, level=level)
    if not any(level_column("d_theta_grade", level) in row for row in used):
        caption += f" {JUDGED}"
    return Table("evidence", "Evidence for the distances", caption, fields, tuple(body))


def left_out_table(rows: Rows, correlations: Correlations) -> Table:
    """How many rows were not used, by reason."""
    excluded = correlations.num_excluded
    body = tuple((r.replace("_", " "), excluded[r], LEFT_OUT[r]) for r in REASONS if excluded[r])
    fields = (Field("reason", "reason"), Field("n", "rows", "count"), Field("meaning", "meaning"))
    caption = (
        f"{len(correlations.used):,} of {number_of(len(rows), 'row')} are used. A row counts by the first reason."
    )
    return Table("left_out", "Left out", caption, fields, body)


def unused_table(rows: Rows, correlations: Correlations) -> Table:
    """Each row that was measured and not used, but for repeated ones, which are only counted."""
    reasons = exclusion_reasons(rows, correlations.config.level)
    body = tuple(
        (
            run_name(row),
            row.get("optimizer"),
            row.get("learning_rate"),
            row.get("batch_size"),
            numbers([row], "train_loss")[0],
            reason.replace("_", " "),
        )
        for row, reason in zip(rows, reasons, strict=True)
        if reason not in ("", "failed", "repeated")
    )
    fields = (
        Field("run", "run"),
        Field("optimizer", "optimizer"),
        Field("learning_rate", "learning rate", "number"),
        Field("batch_size", "batch size", "number"),
        Field("train_loss", "training loss (nat)", "number"),
        Field("reason", "reason"),
    )
    return Table("unused", "Measured, but not used", "Repeated rows are counted above, not listed.", fields, body)


def failures_table(rows: Rows, correlations: Correlations) -> Table:
    """Each row that failed, with its error."""
    reasons = exclusion_reasons(rows, correlations.config.level)
    body = tuple(
        (run_name(row), text(row.get("path")), text(row.get("error")))
        for row, reason in zip(rows, reasons, strict=True)
        if reason == "failed"
    )
    fields = (Field("run", "run"), Field("path", "path"), Field("error", "error"))
    return Table("failures", "Failures", "Runs that could not be read or measured.", fields, body)


def run_name(row: Mapping[str, Cell]) -> str:
    """What a row is called: its run, or else where it lies."""
    return text(row.get("run") or row.get("path"))
