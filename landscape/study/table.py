"""The study's table on disk (CSV) and its associations on the terminal."""

from __future__ import annotations

import csv
import io
import math
import os
import uuid
from pathlib import Path

from landscape.statistics.association import Association
from landscape.study.associations import Correlations
from landscape.study.columns import Cell, Row, Rows, find_column, ordered_columns


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` beside ``path`` and move it there, so that a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_rows_csv(rows: Rows, path: str | os.PathLike[str]) -> None:
    """Write a table: columns in the order of ``COLUMNS``, NaN and None empty, numbers to the last digit."""
    names = ordered_columns(rows)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_write(row.get(name)) for name in names] for row in rows)
    write_atomically(Path(path), text.getvalue().encode())


def read_rows_csv(path: str | os.PathLike[str]) -> list[Row]:
    """Read a table of ``write_rows_csv``; an empty field is None, text in a column of numbers stays text."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return [{name: _read(name, value) for name, value in row.items()} for row in csv.DictReader(file)]


def format_table(correlations: Correlations) -> str:
    """Aligned table of all pairs: n, cells, ρ total and within cells with intervals, p, Holm's p."""
    header = ("x", "y", "n", "cells", "total ρ", "within-cell ρ", "p within", "p Holm", "note")
    primary = correlations.primary
    others = [pair for pair in correlations.pairs if pair is not primary]
    body = [_cells(pair, correlations) for pair in (primary, *others)]
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    lines = [_align(line, widths) for line in (header, tuple("-" * width for width in widths), *body)]
    excluded = ", ".join(f"{n} {reason}" for reason, n in correlations.num_excluded.items() if n) or "none"
    summary = f"rows: {correlations.num_rows}, used: {len(correlations.used)}, excluded: {excluded}"
    return "\n".join([summary, "first line: the primary pair; intervals: 95 % cluster bootstrap", "", *lines])


def _cells(a: Association, correlations: Correlations) -> tuple[str, ...]:
    adjusted = correlations.p_holm.get((a.x, a.y), math.nan)
    total, within = (
        _estimate(a.total_rho, a.total_low, a.total_high),
        _estimate(a.within_rho, a.within_low, a.within_high),
    )
    return (a.x, a.y, str(a.n), str(a.num_cells), total, within, _p(a.p_within), _p(adjusted, ""), a.note)


def _estimate(rho: float, low: float, high: float) -> str:
    if math.isnan(rho):
        return "n/a"
    return f"{rho:+.2f}" + ("" if math.isnan(low) else f" [{low:+.2f}, {high:+.2f}]")


def _p(p: float, missing: str = "n/a") -> str:
    return missing if math.isnan(p) else f"{p:.4f}"


def _align(fields: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join(field.ljust(width) for field, width in zip(fields, widths, strict=True)).rstrip()


def _write(value: Cell) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, int) or hasattr(value, "__index__"):
        return str(int(value))
    number = float(value)
    return "" if math.isnan(number) else repr(number)  # float() first: numpy's own repr names its type


def _read(name: str, value: str) -> Cell:
    column = find_column(name)
    if value == "" or (column is not None and column.kind == "text"):
        return value or None
    for convert in (int, float) if column is None or column.kind == "integer" else (float,):
        try:
            return convert(value)
        except ValueError:
            continue
    return value
