"""The study's table on disk (CSV)."""

from __future__ import annotations

import csv
import io
import math
import os
import uuid
from pathlib import Path

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
