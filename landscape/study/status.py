"""How far a study has come: what is known, missing and failed of each run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from landscape.study.columns import Row
from landscape.study.ledger import Ledger
from landscape.study.survey import Plan


@dataclass(frozen=True)
class RunProgress:
    """Selected snapshots of one run: measured, not yet tried, and failed, with the reasons of the last."""

    path: Path
    known: int
    missing: int
    failed: int
    reasons: tuple[str, ...]


def study_progress(plan: Plan, ledger: Ledger) -> list[RunProgress]:
    """Progress of each run of a plan, by path; what failed is tried again by the next measurement.

    Raises:
        LedgerError: If the ledger is damaged.
    """
    failures = ledger.failures(task.key for task in plan.tasks)
    tried = (task.identity | failures[task.key] for task in plan.tasks if task.key in failures)
    known = _by_path(plan.known)
    missing = _by_path(task.identity for task in plan.tasks if task.key not in failures)
    failed = _by_path((*plan.unreadable, *tried))
    return [
        RunProgress(
            Path(path),
            len(known.get(path, ())),
            len(missing.get(path, ())),
            len(failed.get(path, ())),
            tuple(dict.fromkeys(str(row["error"]) for row in failed.get(path, ()))),
        )
        for path in sorted({*known, *missing, *failed})
    ]


def _by_path(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(row["path"]), []).append(row)
    return found
