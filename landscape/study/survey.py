"""Measure many runs: what the ledger holds is read from it, the rest goes to worker processes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landscape.engine import MakeExecutor, Outcome, run_tasks
from landscape.errors import CorruptSnapshotError, LandscapeError, SnapshotError
from landscape.snapshots import Run, find_runs, load_snapshot, open_run, select_index
from landscape.study.columns import FAILED, OK, PLAIN, Row
from landscape.study.ledger import Ledger, content_key
from landscape.study.measure import VERSION, Measured, measure_samples
from landscape.study.measure_config import MeasureConfig
from landscape.training.methods import arguments_text


@dataclass(frozen=True)
class Task:
    """One snapshot to measure: where it is, what it is, and how."""

    identity: Row
    subject: dict[str, Any]
    index: int
    config: MeasureConfig
    device: str

    @property
    def key(self) -> str:
        """Its key in the ledger."""
        return content_key(self.subject)


@dataclass(frozen=True)
class Plan:
    """What is known about the runs of a study, and what has to be measured."""

    known: tuple[Row, ...]
    unreadable: tuple[Row, ...]
    tasks: tuple[Task, ...]


def make_plan(
    paths: Sequence[str | Path], at: str, config: MeasureConfig, ledger: Ledger, device: str = "auto"
) -> Plan:
    """Find the runs, and look each of them up; a run that cannot be read becomes a failed row.

    Raises:
        MissingSnapshotError: If there is no run at all.
    """
    unreadable, tasks = [], []
    for path in find_runs(paths):
        try:
            tasks.append(_task(open_run(path), at, config, device))
        except SnapshotError as error:
            unreadable.append(_failed({"run": path.name, "path": str(path), "at": at}, error))
    found = ledger.find(task.key for task in tasks)
    known = tuple(task.identity | found[task.key] for task in tasks if task.key in found)
    return Plan(known, tuple(unreadable), tuple(task for task in tasks if task.key not in found))


def execute(plan: Plan, ledger: Ledger, make_executor: MakeExecutor, *, workers: int) -> Iterator[Row]:
    """Measure what a plan lacks; yields each row after the ledger holds it, failures included."""
    for outcome in run_tasks(make_executor, measure_task, plan.tasks, window=2 * workers):
        measured, seconds = _result_of(outcome)
        stored = ledger.write(outcome.task.key, outcome.task.subject, measured.row, seconds, measured.arrays)
        yield outcome.task.identity | stored


def measure_task(task: Task) -> tuple[Measured, float]:
    """Measure one snapshot; the function that worker processes execute. Also returns the seconds it took."""
    begin = time.perf_counter()
    snapshot = load_snapshot(str(task.identity["path"]), f"index={task.index}")
    return measure_samples(snapshot, task.config, task.device), time.perf_counter() - begin


def _result_of(outcome: Outcome[Task, tuple[Measured, float]]) -> tuple[Measured, float]:
    if outcome.result is not None:
        return outcome.result
    error = outcome.error or RuntimeError("the worker returned nothing")
    return Measured(_failed({}, error), {}), 0.0


def _failed(identity: Row, error: BaseException) -> Row:
    kind = "" if isinstance(error, LandscapeError) else f"{type(error).__name__}: "
    return identity | {"status": FAILED, "error": f"{kind}{' '.join(str(error).split())}"}


def _check_settings(run: Run) -> None:
    """Refuse settings by which runs could not be compared; CorruptSnapshotError."""
    kinds = {"learning_rate": int | float, "batch_size": int, "seed": int, "optimizer": str, "dataset": str}
    if "imported" in run.description.config:  # what its files did not tell is stored as null
        kinds = {name: kind for name, kind in kinds.items() if run.description.config.get(name) is not None}
    wrong = [name for name, kind in kinds.items() if not isinstance(run.description.config.get(name), kind)]
    optional: dict[str, type] = {"method": str, "method_args": dict}
    given = run.description.config
    wrong += [name for name, kind in optional.items() if name in given and not isinstance(given[name], kind)]
    if wrong:
        raise CorruptSnapshotError(f"{run.path}: its settings {', '.join(wrong)} are missing or of a wrong kind.")


def _task(run: Run, at: str, config: MeasureConfig, device: str) -> Task:
    index = select_index(run, at)
    settings = run.description.config
    _check_settings(run)
    identity: Row = {
        "run": run.path.name,
        "run_id": run.run_id,
        "theta_sha256": run.digest(index),
        "path": str(run.path),
        "at": at,
        "model": run.description.model,
        "model_args": arguments_text(run.description.model_args) or None,
        "epoch": int(run.epoch[index]),
        "step": int(run.step[index]),
        "samples_seen": int(run.samples_seen[index]),
        "status": OK,
        "error": None,
    }
    identity |= {
        "method": settings.get("method", PLAIN),
        "method_args": arguments_text(settings.get("method_args", {})) or None,
    }
    identity |= {name: settings.get(name) for name in ("optimizer", "learning_rate", "batch_size", "seed")}
    subject = {
        "measurement": "row",
        "version": VERSION,
        "config": config.as_settings(),
        "theta_sha256": run.digest(index),
        "model": run.description.model,
        "model_args": run.description.model_args,
        "dataset": settings.get("dataset"),
        "data_sha256": run.description.data_sha256,
    }
    return Task(identity, subject, index, config, device)
