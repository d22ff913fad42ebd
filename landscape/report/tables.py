"""Tables as values: what each column holds, how it is shown, and the same as plain records."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from landscape.report.symbols import column_label, to_plain

Kind = Literal["text", "column", "pair", "count", "number", "share", "points", "correlation", "estimate", "p"]
Estimate: TypeAlias = tuple[float, float, float]
Pair: TypeAlias = tuple[str, str]
TableCell: TypeAlias = str | int | float | Estimate | Pair | None
Record: TypeAlias = dict[str, str | int | float | None]


@dataclass(frozen=True)
class Field:
    """A column of a table; what its cells hold is told by ``kind``.

    ``text``; ``column``: the name of a column of the study, shown as its label; ``pair``: two of them; ``count``;
    ``number``; ``share``: in [0, 1], shown in percent; ``points``: a difference of shares, shown in percentage
    points; ``correlation``; ``estimate``: a correlation with the ends of its interval; ``p``.
    """

    name: str
    label: str
    kind: Kind = "text"


@dataclass(frozen=True)
class Table:
    """A table of the report; None is what there cannot be, NaN what is not known."""

    name: str
    title: str
    caption: str
    fields: tuple[Field, ...]
    rows: tuple[tuple[TableCell, ...], ...]

    @property
    def header(self) -> tuple[str, ...]:
        """Labels of the columns."""
        return tuple(field.label for field in self.fields)

    def records(self) -> list[Record]:
        """One record a row, by the names of the fields; an estimate also gives ``name_low`` and ``name_high``.

        A pair gives ``x`` and ``y``.
        """
        return [_record(self.fields, row) for row in self.rows]


def show(value: TableCell, kind: Kind) -> str:
    """A cell as text: ``n/a`` for NaN, nothing for None, a true minus sign."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return " and ".join(_show_column(name) for name in value) if len(value) == 2 else _show_estimate(value)
    if isinstance(value, str):
        return _show_column(value) if kind == "column" else value
    return "n/a" if math.isnan(value) else _show_number(value, kind).replace("-", "−")


def number_of(count: int, thing: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def mean(values: Sequence[float]) -> float:
    """Mean of what is finite, else NaN."""
    finite = [value for value in values if math.isfinite(value)]
    return statistics.fmean(finite) if finite else math.nan


def median(values: Sequence[float]) -> float:
    """Median of what is finite, else NaN."""
    finite = [value for value in values if math.isfinite(value)]
    return statistics.median(finite) if finite else math.nan


def _show_number(value: float, kind: Kind) -> str:
    if kind in ("p", "correlation"):
        return f"{value:z.{4 if kind == 'p' else 2}f}"
    if kind in ("share", "points"):
        return f"{100 * value:z.1f}"  # z: no minus before zero
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _show_column(name: str) -> str:
    return to_plain(column_label(name))


def _show_estimate(estimate: Estimate) -> str:
    value, low, high = estimate
    if math.isnan(value):
        return "n/a"
    interval = "" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]"
    return f"{value:.2f}{interval}".replace("-", "−")


def _record(fields: Sequence[Field], row: Sequence[TableCell]) -> Record:
    record: Record = {}
    for field, value in zip(fields, row, strict=True):
        if isinstance(value, tuple):
            estimated = (field.name, f"{field.name}_low", f"{field.name}_high")
            names = ("x", "y") if len(value) == 2 else estimated
            record |= dict(zip(names, value, strict=True))
        else:
            record[field.name] = value
    return record
