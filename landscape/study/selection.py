"""Which rows a study uses, and the cells of equal settings that they form."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from landscape.study.columns import (
    BELOW_MINIMUM,
    LEVELS,
    NOT_REACHED,
    OK,
    PLAIN,
    Cell,
    Row,
    Rows,
    flag_column,
    numbers,
    text,
)

REASONS = ("failed", "repeated", "diverged", NOT_REACHED, BELOW_MINIMUM)
CELL = (
    *("model", "model_args", "optimizer", "method", "method_args"),
    *("learning_rate", "batch_size", "other_settings"),
)
# Tables that were written before there were methods hold plain runs.
_BEFORE_METHODS: Row = {"method": PLAIN}


def exclusion_reasons(rows: Rows, level: str) -> list[str]:
    """For each row the first of ``REASONS`` that applies, or ``""``.

    ``repeated``: a later snapshot of the same run, or the same weights, is in the table; counting both would
    make one run look like two. ``diverged``: the training loss is missing, not finite, or at least log 10,
    that of guessing among ten classes; not judged in a table without any training loss.
    """
    repeated = _earlier_rows(rows, _run_key) | _earlier_rows(rows, lambda row: row.get("theta_sha256"))
    losses = np.array(numbers(rows, "train_loss"))
    diverged = ~(losses < LEVELS["ln10"]) & np.isfinite(losses).any()
    flags = [row.get(flag_column(level)) for row in rows]
    candidates = zip(
        (not is_ok(row) for row in rows),
        (i in repeated for i in range(len(rows))),
        diverged,
        (flag == NOT_REACHED for flag in flags),
        (flag == BELOW_MINIMUM for flag in flags),
        strict=True,
    )
    return [next(itertools.compress(REASONS, applies), "") for applies in candidates]


def is_ok(row: Mapping[str, Cell]) -> bool:
    """Whether a row was measured."""
    return row.get("status", OK) == OK


def _run_key(row: Mapping[str, Cell]) -> Cell:
    return row.get("run_id") or row.get("run")


def _earlier_rows(rows: Rows, key: Callable[[Mapping[str, Cell]], Cell]) -> set[int]:
    """Indices of usable rows that a row with the same key follows in training (or else in the table)."""
    last: dict[Cell, int] = {}
    steps = numbers(rows, "step")
    earlier = set()
    for i, row in enumerate(rows):
        if not (is_ok(row) and key(row)):
            continue
        j = last.setdefault(key(row), i)
        if j != i:
            older, newer = (i, j) if steps[i] < steps[j] else (j, i)
            last[key(row)] = newer
            earlier.add(older)
    return earlier


def cells_of(rows: Rows) -> list[tuple[str, ...]]:
    """The settings of ``CELL`` of each row, as text; rows of equal settings are of one cell."""
    return [tuple(setting_text(row, name) for name in CELL) for row in rows]


def setting_text(row: Mapping[str, Cell], name: str) -> str:
    """A setting as text: a batch size read from CSV may be 32 in one row and 32.0 in another."""
    value = row.get(name)
    if value is None or value == "":
        value = _BEFORE_METHODS.get(name)
    return f"{value:g}" if isinstance(value, int | float) else text(value)


def matrix_of(rows: Rows, names: Sequence[str]) -> NDArray[np.float64]:
    """Values of columns ``names`` as ``(n, k)``; a missing or textual value is NaN."""
    return np.array([numbers(rows, name) for name in names], float).reshape(len(names), len(rows)).T
