"""A small dataset of real images, small runs on it, and processes of their own that know it."""

from __future__ import annotations

import functools
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from landscape import engine
from landscape.problem import datasets
from landscape.problem.model_sources import model_with
from landscape.snapshots import load_snapshot
from landscape.study.measure_config import MeasureConfig
from landscape.training.config import TrainingConfig
from landscape.training.loop import train

HERE = Path(__file__).resolve().parent
SMALL = "small"
COUNTS = {"train": 512, "test": 256}

_embedded = datasets.DATASETS["mnist"]


@functools.cache
def small_mnist(split: str) -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = _embedded(split)
    return pixels[: COUNTS[split]], labels[: COUNTS[split]]


def register() -> None:
    """Make the small dataset known for the rest of this process; tests use monkeypatch instead."""
    datasets.DATASETS[SMALL] = small_mnist


def register_worker() -> None:
    """Initialise a worker of the local engine that knows the small dataset."""
    engine._initialise_worker(1)
    register()


def small_workers(count: int) -> engine.MakeExecutor:
    """The local engine, with workers that know the small dataset."""
    context = multiprocessing.get_context("spawn")
    return functools.partial(engine._LocalExecutor, count, mp_context=context, initializer=register_worker)


TINY = MeasureConfig(
    levels=(1.7,), theta_samples=20, x_samples=2, attack_samples=40, ladder_samples=10, eigen_tol=0.1, tol=0.1
)


def small_config(**changes: Any) -> TrainingConfig:
    """Three epochs of logistic regression: 32 steps and four pairs each, a tenth of a second in all."""
    settings: dict[str, Any] = {"model": "logistic", "dataset": SMALL, "epochs": 3, "snapshot_every": 128}
    return TrainingConfig(**(settings | changes))


class StopHereError(Exception):
    """Raised by a test in the middle of a run."""


def interrupt(config: TrainingConfig, path: Path, after: int) -> None:
    """Train until so many samples were seen."""
    seen = 0

    def advance(samples: int) -> None:
        nonlocal seen
        seen += samples
        if seen >= after:
            raise StopHereError

    with pytest.raises(StopHereError):
        train(config, path, advance=advance)


def segment_names(path: Path | str) -> list[str]:
    """Names of the sealed segments, which carry the digests of their contents."""
    return sorted(file.name for file in (Path(path) / "segments").iterdir())


def stored_files(path: Path | str) -> dict[str, bytes]:
    """Contents of all segments and of the outcome."""
    files = [*sorted((Path(path) / "segments").iterdir()), Path(path) / "outcome.json"]
    return {file.name: file.read_bytes() for file in files}


def run_driver(source: str, *arguments: object, timeout: float = 240) -> str:
    """Run a script in a process of its own; what it printed."""
    command = [sys.executable, "-c", source, *map(str, arguments)]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        raise RuntimeError(f"the driver ended with {done.returncode}: {done.stderr}")
    return done.stdout


def trained_cnn(folder: Path) -> nn.Module:
    """A small convolutional network after 320 steps of real training."""
    settings = small_config(model="cnn", optimizer="adam", learning_rate=0.005, epochs=10, snapshot_every=10**6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(datasets.DATASETS, SMALL, small_mnist)
        train(settings, folder)
    snapshot = load_snapshot(folder)
    return model_with(snapshot.model, snapshot.model_args, snapshot.parameters)
