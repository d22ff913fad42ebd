"""One snapshot as tensors, with everything needed to rebuild its model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from landscape.snapshots.buffers import unpack_buffers
from landscape.snapshots.layout import unflatten
from landscape.snapshots.reader import Run, open_run
from landscape.snapshots.segment import Role
from landscape.snapshots.select import select_index


@dataclass(frozen=True)
class Position:
    """Where in its run a snapshot lies; ``epoch`` counts the epochs that were complete."""

    index: int
    samples_seen: int
    step: int
    epoch: int
    role: Role


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Weights of one moment of training, verified, and what they belong to."""

    parameters: dict[str, Tensor] = field(repr=False)
    buffers: dict[str, Tensor] = field(repr=False)  # such as running means, part of the digest
    model: str  # its name; code is loaded only if the caller names it, too
    model_args: dict[str, Any]
    config: dict[str, Any]  # settings of the training
    position: Position  # in the run: index, samples seen, step, epoch, role
    run_id: str
    theta_sha256: str
    data_sha256: str  # of the training data
    path: str
    metrics: dict[str, float]  # of the epoch, where it was evaluated
    provenance: dict[str, Any] | None  # versions and commit, where stored


def position_of(run: Run, index: int) -> Position:
    """Position of one row of a run."""
    samples_seen, step, epoch = (int(column[index]) for column in (run.samples_seen, run.step, run.epoch))
    return Position(index, samples_seen, step, epoch, Role(int(run.role[index])))


def epoch_metrics(run: Run, position: Position) -> dict[str, float]:
    """The epoch's metrics (without the epoch number) at the end of an epoch, else {}."""
    places = np.flatnonzero(run.metrics["epoch"] == position.epoch)
    if not position.role & Role.EPOCH_END or not places.size:
        return {}
    return {name: float(values[places[-1]]) for name, values in run.metrics.items() if name != "epoch"}


def snapshot_of(run: Run, index: int) -> Snapshot:
    """Snapshot at one row of an open run; MissingSnapshotError, CorruptSnapshotError, NotFiniteError."""
    vector, stored = run.read_weights(index)
    position = position_of(run, index)
    return Snapshot(
        parameters=unflatten(run.description.layout, vector),
        buffers={} if stored is None else unpack_buffers(run.description.buffers, stored),
        model=run.description.model,
        model_args=run.description.model_args,
        config=run.description.config,
        position=position,
        run_id=run.run_id,
        theta_sha256=run.digest(index),
        data_sha256=run.description.data_sha256,
        path=str(run.path),
        metrics=epoch_metrics(run, position),
        provenance=run.provenance,
    )


def load_snapshot(path: str | Path, at: str = "last") -> Snapshot:
    """Snapshot of a stored run, its digest verified.

    Args:
        path: A run directory, a packed run, or one segment; ``embedded:runs/NAME`` is stored in the package.
        at: ``last``, ``first``, ``best``, ``epoch=5``, ``samples=102400`` or ``index=12``.

    Raises:
        SnapshotError: The family of it, where the run is missing, damaged or unsafe, or has no such snapshot.
        ConfigurationError: If ``at`` is no position.
    """
    run = open_run(path)
    return snapshot_of(run, select_index(run, at))
