"""What a run has been through, even where it holds no snapshot: description, outcome and metrics."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from landscape.snapshots.description import RunDescription
from landscape.snapshots.directory import RUN_FILE, list_segments, read_outcome, read_run_info
from landscape.snapshots.locate import resolve
from landscape.snapshots.reader import open_run
from landscape.snapshots.segment import Array


class History(NamedTuple):
    """Description, outcome (None while it is trained), and metrics ``(m,)`` by name at the ends of m epochs."""

    description: RunDescription
    outcome: dict[str, Any] | None
    metrics: dict[str, Array]


def run_history(path: str | Path) -> History:
    """History of a run; unlike `open_run` also of one that diverged before its first snapshot.

    Raises MissingSnapshotError, CorruptSnapshotError, UnsafeFileError or UnsupportedSchemaError.
    """
    place = resolve(path)
    if os.path.lexists(place / RUN_FILE) and not list_segments(place):
        outcome = read_outcome(place)
        if outcome and outcome["outcome"] == "diverged":
            return History(read_run_info(place).description, outcome, {})
    run = open_run(place)
    return History(run.description, run.outcome, run.metrics)
