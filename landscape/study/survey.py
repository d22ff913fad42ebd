"""Measure many runs: what the ledger holds is read from it, the rest goes to worker processes."""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from landscape.engine import MakeExecutor, Outcome, run_tasks
from landscape.errors import CorruptSnapshotError, DatasetError, LandscapeError, ModelError, SnapshotError
from landscape.problem.datasets import DATASETS, load_dataset
from landscape.problem.own_data import is_own
from landscape.snapshots import Run, check_selection, find_runs, open_run, positions, select_index, snapshot_of
from landscape.study.columns import FAILED, OK, PLAIN, Row
from landscape.study.given import NOTHING, Given
from landscape.study.ledger import Ledger, canonical, content_key, kind_of
from landscape.study.measure import VERSION, Measured, measure_samples
from landscape.study.measure_config import MeasureConfig
from landscape.study.problems import data_subject
from landscape.traces import Traces
from landscape.training.config import TrainingConfig
from landscape.training.methods import arguments_text

# Snapshots of one run that a worker measures in one go: few, so that little is under way when all is killed and
# no worker waits long for the others; and none that take longer than so many seconds together.
CHUNK, CHUNK_SECONDS = 8, 4.0
# Chunks for each worker that there must be before they grow.
_SHARE = 4


@dataclass(frozen=True)
class Task:
    """One snapshot to measure: where it is, what it is, and how."""

    identity: Row
    subject: dict[str, Any]
    index: int
    config: MeasureConfig
    device: str
    given: Given = NOTHING
    place: str = ""  # of the run, also for workers that were started in another folder

    @cached_property
    def key(self) -> str:
        """Its key in the ledger."""
        return content_key(self.subject)


Chunk = tuple[Task, ...]

# Networks whose traces a worker keeps.
_NETWORKS = 4

# Settings of a training that have no column of their own, and their usual values.
_OTHERS = {name: getattr(TrainingConfig(), name) for name in ("dataset", "epochs", "loss", "momentum")}


@dataclass(frozen=True)
class Plan:
    """What is known about the runs of a study, and what has to be measured."""

    known: tuple[Row, ...]
    unreadable: tuple[Row, ...]
    tasks: tuple[Task, ...]
    seconds: tuple[float, ...] = ()  # that each task is likely to take; NaN if nothing like it was measured

    @property
    def forecast(self) -> float:
        """Seconds that one worker needs for what is left; NaN if unknown."""
        return sum(self.seconds)


def make_plan(
    paths: Sequence[str | Path],
    select: str,
    config: MeasureConfig,
    ledger: Ledger,
    device: str = "auto",
    given: Given = NOTHING,
) -> Plan:
    """Find the snapshots that ``select`` names (see `positions`) in each run, and look each of them up.

    What cannot be read becomes a failed row: a run, or a position that it lacks.

    Raises:
        MissingSnapshotError: If there is no run at all.
        ConfigurationError: If there is no such selection.
        DatasetError: If the dataset that is given cannot be had.
    """
    check_selection(select)
    request = _Request(select, config, device, given.located(), config.as_settings())
    found = [entry for path in find_runs(paths) for entry in _tasks_of(path, request)]
    tasks = [entry for entry in found if isinstance(entry, Task)]
    unreadable = [entry for entry in found if not isinstance(entry, Task)]
    rows = ledger.find(task.key for task in tasks)
    known = tuple(task.identity | rows[task.key] for task in tasks if task.key in rows)
    missing = tuple(task for task in tasks if task.key not in rows)
    return Plan(known, tuple(unreadable), missing, _expected_seconds(missing, ledger))


def check_given(plan: Plan) -> None:
    """Refuse a study of which nothing is known and every snapshot would fail for want of the same name.

    Raises:
        ModelError: If all networks need code that is not permitted.
        DatasetError: If all data are of the user's own, and none is given.
    """
    if plan.known or not plan.tasks:
        return
    given = plan.tasks[0].given
    models, datasets = ({str(task.subject[name]) for task in plan.tasks} for name in ("model", "dataset"))
    if all(":" in name and name != given.model for name in models):
        raise ModelError(
            f"the snapshots' networks are made by the code {', '.join(sorted(models))}. Code is loaded for the "
            f"caller only: if you trust it, say --model {min(models)}."
        )
    if given.dataset is None and all(name == "None" or is_own(name) for name in datasets):
        raise DatasetError(
            f"the snapshots were trained on {', '.join(sorted(datasets))[:200]}, which is not built in; name that "
            "data by --dataset."
        )


def check_parts(plan: Plan) -> None:
    """Refuse snapshots whose data have not so many disjoint parts, before any is measured; ConfigurationError."""
    for name, given, config in {(task.subject["dataset"], task.given, task.config) for task in plan.tasks}:
        data = given.open()
        if data is None and name in DATASETS:
            data = load_dataset(name, "train"), load_dataset(name, "test")
        if data is not None:
            for count, part in zip(
                (config.theta_samples, config.x_samples, config.attack_samples), (0, 1, 1), strict=True
            ):
                data[part].subset(count, config.seed, config.repeat)


def _expected_seconds(tasks: Sequence[Task], ledger: Ledger) -> tuple[float, ...]:
    seconds = ledger.seconds() if tasks else {}
    return tuple(seconds.get(kind_of(canonical(task.subject)), math.nan) for task in tasks)


def chunks_of(plan: Plan, workers: int) -> list[Chunk]:
    """What a plan lacks, in chunks of neighbouring snapshots of one run; how they are cut changes no row."""
    fair = len(plan.tasks) // (_SHARE * workers)
    known = [seconds for seconds in plan.seconds if not math.isnan(seconds)]
    fast = int(CHUNK_SECONDS / max(*known, CHUNK_SECONDS / CHUNK)) if known else CHUNK // 2
    size = max(1, min(CHUNK, fair, fast))
    chunks: list[Chunk] = []
    for _, group in groupby(plan.tasks, key=lambda task: task.identity["path"]):
        of_run = tuple(group)
        chunks += [of_run[start : start + size] for start in range(0, len(of_run), size)]
    return chunks


def execute(
    plan: Plan, ledger: Ledger, make_executor: MakeExecutor, *, workers: int, window: int | None = None
) -> Iterator[Row]:
    """Measure what a plan lacks; yields each row, failures included, when the ledger has it to write.

    What was yielded is committed with the ledger's next batch, or when no row has come for a second. ``window``
    is the number of chunks in flight, two a worker unless given.

    Raises:
        LedgerError: If the ledger cannot be written.
        EngineError: If the workers cannot be reached any more.
    """
    chunks = chunks_of(plan, workers)
    try:
        for outcome in run_tasks(
            make_executor, measure_chunk, chunks, window=window or 2 * workers, split=_singles, idle=ledger.commit
        ):
            for task, (measured, seconds) in zip(outcome.task, _results_of(outcome), strict=True):
                yield task.identity | ledger.write(task.key, task.subject, measured.row, seconds, measured.arrays)
    finally:
        ledger.commit()


def measure_chunk(chunk: Chunk) -> list[tuple[Measured, float]]:
    """Measure snapshots of one run, a failure as a row, each with its seconds; what workers execute."""
    opened: list[Run] = []
    network = canonical({name: chunk[0].subject[name] for name in ("model", "model_args")})
    traces = _traces_of(network, threading.get_ident())
    return [_measure_timed(task, opened, traces) for task in chunk]


@functools.lru_cache(maxsize=_NETWORKS)
def _traces_of(network: str, thread: int) -> Traces:
    """Traces that all snapshots of one network share in a thread; to trace takes as long as 30 gradients."""
    return Traces()


def _measure_timed(task: Task, opened: list[Run], traces: Traces) -> tuple[Measured, float]:
    begin = time.perf_counter()
    try:
        if not opened:
            opened.append(open_run(task.place))
        snapshot = snapshot_of(opened[0], task.index)
        measured = measure_samples(snapshot, task.config, task.device, task.given, traces)
    except Exception as error:  # whatever ends one snapshot must not end its neighbours
        measured = Measured(_failed({}, error), {})
    return measured, time.perf_counter() - begin


def _singles(chunk: Chunk) -> list[Chunk]:
    return [(task,) for task in chunk]


def _results_of(outcome: Outcome[Chunk, list[tuple[Measured, float]]]) -> list[tuple[Measured, float]]:
    if outcome.result is not None:
        return outcome.result
    error = outcome.error or RuntimeError("the worker returned nothing")
    return [(Measured(_failed({}, error), {}), 0.0)] * len(outcome.task)


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


def _other_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a training without a column of their own, as far as they are not the usual ones."""
    told = {name: config[name] for name in _OTHERS if config.get(name) is not None}
    further = config.get("further_settings")
    unusual = {name: value for name, value in told.items() if value != _OTHERS[name]}
    return unusual | (further if isinstance(further, dict) else {})


@dataclass(frozen=True)
class _Request:
    """What is asked for of each run."""

    select: str
    config: MeasureConfig
    device: str
    given: Given
    settings: dict[str, object]  # the same for all


def _tasks_of(path: Path, request: _Request) -> Iterator[Task | Row]:
    """A task for each selected snapshot of a run, or the failed row that stands for it."""
    identity: Row = {"run": path.name, "path": str(path)}
    try:
        run = open_run(path)
        _check_settings(run)
    except SnapshotError as error:
        yield _failed(identity | {"at": request.select}, error)
        return
    for at in positions(request.select, len(run)):
        try:
            yield _task(run, at, request)
        except SnapshotError as error:
            yield _failed(identity | {"at": at}, error)


def _task(run: Run, at: str, request: _Request) -> Task:
    index = select_index(run, at)
    settings = run.description.config
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
    identity["other_settings"] = arguments_text(_other_settings(settings)) or None
    subject = {
        "measurement": "row",
        "version": VERSION,
        "config": request.settings,
        "theta_sha256": run.digest(index),
        "model": run.description.model,
        "model_args": run.description.model_args,
    }
    subject |= data_subject(run.description, request.given)
    if "normalisation" in settings:
        subject["normalisation"] = settings["normalisation"]
    place = str(run.path.absolute())
    return Task(identity, subject, index, request.config, request.device, request.given, place)
