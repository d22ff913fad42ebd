"""The study's table as Parquet, for those who have the extra ``parquet``."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from landscape.errors import ConfigurationError
from landscape.study.columns import Cell, Rows, find_column, ordered_columns
from landscape.study.table import write_atomically


def check_parquet() -> None:
    """ConfigurationError if Parquet cannot be written here."""
    _pyarrow()


def write_rows_parquet(rows: Rows, path: str | os.PathLike[str]) -> None:
    """Write a table: columns in the order of ``COLUMNS`` and of their kinds; NaN and None as null.

    Raises:
        ConfigurationError: If pyarrow is not installed.
    """
    arrow, parquet = _pyarrow()
    types = {"text": arrow.string(), "integer": arrow.int64(), "number": arrow.float64()}
    columns = {
        name: arrow.array([_value(row.get(name), kind) for row in rows], types[kind])
        for name in ordered_columns(rows)
        for kind in [_kind(rows, name)]
    }
    file = io.BytesIO()
    parquet.write_table(arrow.table(columns), file, compression="zstd")
    write_atomically(Path(path), file.getvalue())


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow  # noqa: PLC0415  (an extra)
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            f"Parquet cannot be written here ({error}); install it with: pip install 'landscape-torch[parquet]', "
            "or write CSV."
        ) from error
    return pyarrow, pyarrow.parquet


def _kind(rows: Rows, name: str) -> str:
    """The kind of a column; text where a value is no number, such as a setting of another kind of run."""
    column = find_column(name)
    values = [row.get(name) for row in rows]
    if any(isinstance(value, str) for value in values):
        return "text"
    if column is not None:
        return column.kind
    return "integer" if all(value is None or isinstance(value, int) for value in values) else "number"


def _value(value: Cell, kind: str) -> object:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    convert: Mapping[str, type] = {"text": str, "integer": int, "number": float}
    return convert[kind](value)
