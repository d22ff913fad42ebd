"""How much of the accuracy under FGSM is real, for each cell of equal settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from landscape.report.tables import Field, Table, TableCell, mean
from landscape.report.words import AUDITED, MASKING, MERGED, NOT_AUDITED, say
from landscape.study.associations import Correlations
from landscape.study.columns import Cell, Rows, attack_column, method_of, numbers, text, text_values
from landscape.study.selection import CELL

_VERDICTS = ("sound", "arithmetic masking", "gradient masking")
MAX_CELLS = 500
_NUMERIC = ("learning_rate", "batch_size")
_ALWAYS = ("optimizer", *_NUMERIC)


def masking_table(rows: Rows, correlations: Correlations) -> Table:
    """Verdicts of the masking audit and accuracies under attack at ε, for each cell of equal settings.

    Columns that no row has are left out. Where there are more than ``MAX_CELLS`` cells, as in sweeps over random
    learning rates, those that differ in the learning rate alone are put together, and the caption says so.
    """
    used = [rows[i] for i in correlations.used]
    settings = [name for name in CELL if name in _ALWAYS or len(text_values(used, name)) > 1]
    many = len(_cells(used, settings)) > MAX_CELLS
    settings = [name for name in settings if not (many and name == "learning_rate")]
    judged = attack_column("masking", correlations.config.eps)
    verdicts = [v for v in dict.fromkeys((*_VERDICTS, *correlations.masking)) if correlations.masking.get(v)]
    measured = [f for f in _measured(correlations) if any(map(math.isfinite, _values(used, f, correlations)))]
    body = tuple(
        (
            *(_setting(members[0], name) for name in settings),
            len(members),
            *_counts(members, judged, verdicts),
            *(mean(_values(members, field, correlations)) for field in measured),
        )
        for members in _cells(used, settings)
    )
    counted = [Field(verdict.replace(" ", "_"), verdict, "count") for verdict in verdicts]
    fields = (
        *(Field(name, name.replace("_", " "), "number" if name in _NUMERIC else "text") for name in settings),
        Field("n", "runs", "count"),
        *(counted and [*counted, Field("not_audited", "not audited", "count")]),
        *measured,
    )
    return Table("masking", "Masking", _caption(correlations) + (f" {MERGED}" if many else ""), fields, body)


def _measured(correlations: Correlations) -> list[Field]:
    columns = correlations.columns
    return [
        Field("clean_accuracy", "clean (%)", "share"),
        Field(columns.published, "FGSM as published (%)", "share"),
        Field(columns.exact, "FGSM exact (%)", "share"),
        Field("gap", "published − exact (points)", "points"),
        Field(columns.worst, "worst case (%)", "share"),
        Field("rounded_share", "rounded gradients (%)", "share"),
    ]


def _values(rows: Rows, field: Field, correlations: Correlations) -> list[float]:
    if field.name != "gap":
        return numbers(rows, field.name)
    published, exact = (
        numbers(rows, name) for name in (correlations.columns.published, correlations.columns.exact)
    )
    return [p - e for p, e in zip(published, exact, strict=True)]


def _counts(rows: Rows, judged: str, verdicts: Sequence[str]) -> list[int]:
    """Rows by verdict, and those without one; nothing where there is no verdict at all."""
    if not verdicts:
        return []
    return [
        *(sum(row.get(judged) == v for row in rows) for v in verdicts),
        sum(not row.get(judged) for row in rows),
    ]


def _cells(rows: Rows, settings: Sequence[str]) -> list[list[Mapping[str, Cell]]]:
    """Rows of equal settings together, in the order of these."""
    cells: dict[tuple[tuple[float, str], ...], list[Mapping[str, Cell]]] = {}
    for row in rows:
        cells.setdefault(tuple(_order(row, name) for name in settings), []).append(row)
    return [cells[key] for key in sorted(cells)]


def _order(row: Mapping[str, Cell], name: str) -> tuple[float, str]:
    """Sorts numbers before text; equal numbers of other types, as from CSV, are equal."""
    (value,) = numbers([row], name)
    return (math.inf, text(row.get(name))) if math.isnan(value) else (value, "")


def _setting(row: Mapping[str, Cell], name: str) -> TableCell:
    (value,) = numbers([row], name)
    if not math.isnan(value):
        return value
    if name in ("method_args", "other_settings"):  # those without lack nothing
        return (str(row.get(name) or "")).replace(",", ", ") or None
    return method_of(row) if name == "method" else text(row.get(name))


def _caption(correlations: Correlations) -> str:
    eps = correlations.config.eps
    return f"{say(MASKING, eps=eps)} {AUDITED if correlations.masking else say(NOT_AUDITED, eps=eps)}"
