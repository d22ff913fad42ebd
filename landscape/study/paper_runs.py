"""Trained runs as the paper's tables and figures need them: settings, metrics of each epoch, and the end."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from landscape.errors import CorruptSnapshotError
from landscape.problem.models import MODELS
from landscape.snapshots import Role, Run, open_run, run_history
from landscape.snapshots.description import RunDescription, canonical_json
from landscape.study.paper import Subject

# What cells of the paper's tables differ in; all other settings are the protocol.
CELL = ("optimizer", "learning_rate", "batch_size", "seed")
_METRICS = frozenset(
    {"epoch", "clean_accuracy", "train_loss", "step_norm", "fgsm_accuracy_published", "fgsm_accuracy_exact"}
)
_KINDS = {"optimizer": str, "learning_rate": int | float, "batch_size": int, "seed": int, "epochs": int}


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A run that has ended: its settings, and its metrics ``(m,)`` by name at the ends of m epochs."""

    path: str
    model: str
    model_args: Mapping[str, Any]
    settings: Mapping[str, Any]
    outcome: str  # "completed" or "diverged"; "" while it is trained
    metrics: Mapping[str, np.ndarray]

    @property
    def name(self) -> str:
        """Name of its directory or file."""
        return Path(self.path).name.removesuffix(".h5")

    @property
    def optimizer(self) -> str:
        """Name of its optimizer."""
        return str(self.settings["optimizer"])

    @property
    def learning_rate(self) -> float:
        """Learning rate."""
        return float(self.settings["learning_rate"])

    @property
    def batch_size(self) -> int:
        """Samples in a step."""
        return int(self.settings["batch_size"])

    @property
    def seed(self) -> int:
        """Seed of the first weights and of the order of samples."""
        return int(self.settings["seed"])

    @property
    def subject(self) -> Subject:
        """What a figure says of it."""
        return Subject(self.name, self.optimizer, self.learning_rate, self.batch_size, self.seed)

    @property
    def arguments(self) -> dict[str, Any]:
        """All arguments of the model, defaults included."""
        known = inspect.signature(MODELS[self.model]).parameters if self.model in MODELS else {}
        defaults = {name: parameter.default for name, parameter in known.items()}
        # Values as they are stored: a tuple is a list there.
        return {k: list(v) if isinstance(v, tuple) else v for k, v in (defaults | dict(self.model_args)).items()}

    def protocol(self, without: Sequence[str] = ()) -> str:
        """All settings but those of a cell, and but these arguments of the model, as a text."""
        arguments = {name: value for name, value in self.arguments.items() if name not in without}
        settings = {name: value for name, value in self.settings.items() if name not in CELL}
        return canonical_json({"model": self.model, "model_args": arguments} | settings)


def read_trained_run(path: Path | str) -> TrainedRun:
    """The run at a path; SnapshotError if it cannot be read or lacks a setting by which runs are compared."""
    description, outcome, metrics = run_history(path)
    _check(description, path)
    if metrics and (missing := _METRICS - set(metrics)):
        raise CorruptSnapshotError(f"{path} stores no metrics {', '.join(sorted(missing))}; leave it out.")
    ended = str(outcome["outcome"]) if outcome else ""
    return TrainedRun(
        str(path), description.model, description.model_args, description.config, ended, dict(metrics)
    )


def _check(description: RunDescription, path: Path | str) -> None:
    wrong = [name for name, kind in _KINDS.items() if not isinstance(description.config.get(name), kind)]
    if wrong:
        raise CorruptSnapshotError(f"{path}: its settings {', '.join(wrong)} are missing or of a wrong kind.")


def main_protocol(runs: Sequence[TrainedRun]) -> tuple[list[TrainedRun], list[TrainedRun]]:
    """The runs of the protocol that most runs share, and the others; of equal ones the longest training."""
    counts = Counter(run.protocol() for run in runs)
    epochs = {run.protocol(): int(run.settings["epochs"]) for run in runs}
    chosen = max(counts, key=lambda protocol: (counts[protocol], epochs[protocol], protocol), default=None)
    return [r for r in runs if r.protocol() == chosen], [r for r in runs if r.protocol() != chosen]


def nearest_run(
    runs: Sequence[TrainedRun], optimizer: str, learning_rate: float, batch_size: int
) -> TrainedRun | None:
    """The completed run of an optimizer whose settings are nearest, in logarithms; the lowest seed of them."""

    def distance(run: TrainedRun) -> tuple[float, int]:
        ratios = run.learning_rate / learning_rate, run.batch_size / batch_size
        return sum(abs(math.log(ratio)) for ratio in ratios), run.seed

    usable = [run for run in runs if run.optimizer == optimizer and run.outcome == "completed"]
    return min(usable, key=distance, default=None)


def open_trained_run(run: TrainedRun) -> tuple[Run, float]:
    """The stored run, and how many samples an epoch has; NaN if no end of an epoch is stored."""
    opened = open_run(run.path)
    ends = np.flatnonzero(opened.role & int(Role.EPOCH_END))
    count = opened.samples_seen[ends[0]] / opened.epoch[ends[0]] if ends.size else math.nan
    return opened, float(count)
