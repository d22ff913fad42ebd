"""What a grid will take before it is trained: time by a short measurement, and the very bytes on the disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Generator

from landscape.errors import LandscapeError
from landscape.problem.datasets import load_dataset
from landscape.problem.models import build_model
from landscape.snapshots import Layout, Segment, num_parameters, run_status, segment_size
from landscape.training.averaging import RunningMean, state_with
from landscape.training.conditions import torch_threads
from landscape.training.config import TrainingConfig, shared_settings
from landscape.training.engines import STACKED, Bench, Engine, make_engine
from landscape.training.loop import describe, make_bench
from landscape.training.progress import METRICS, SEGMENT_SNAPSHOTS, beginning
from landscape.training.sweep import Cell

# Stacks that are tried; of two that are about as fast the smaller one is taken: it ends, and is stored, sooner.
STACKS = (1, 2, 5, 10, 20, 40)
_NOTICEABLE = 1.03
# Samples that a measurement uses, and its least seconds and steps for each stack.
_SAMPLES = 2000
_SECONDS = 0.15
_STEPS = 6


@dataclass(frozen=True)
class Storage:
    """What a run of full length leaves on the disk."""

    snapshots: int
    num_bytes: int


@dataclass(frozen=True)
class Speed:
    """Seconds of one step of one run in a stack of each size, and of what is measured after an epoch."""

    step: dict[int, float]
    epoch_end: float

    def best(self, most: int) -> int:
        """The stack, of at most so many runs, in which a step takes least."""
        sizes = [size for size in self.step if size <= max(most, 1)]
        least = min(self.step[size] for size in sizes)
        return next(size for size in sizes if self.step[size] <= _NOTICEABLE * least)

    def of_run(self, config: TrainingConfig, size: int, count: int) -> float:
        """Seconds of a whole run with ``count`` samples an epoch, in a stack of this size."""
        steps = -(-count // config.batch_size)
        return config.epochs * (steps * self.step[self.best(size)] + self.epoch_end)


@dataclass(frozen=True)
class Forecast:
    """What is left to train of a grid: seconds on all workers together, and bytes when all of it is stored."""

    seconds: float
    num_bytes: int
    snapshots: int


class Forecaster:
    """Measurements of the runs of a grid, each made once for all that are alike."""

    def __init__(self) -> None:
        self._speeds: dict[str, Speed] = {}
        self._most: dict[str, int] = {}  # runs that there were when a speed was measured
        self._storage: dict[str, Storage] = {}

    def speed(self, configs: Sequence[TrainingConfig]) -> Speed:
        """Speed of some alike runs."""
        key, most = shared_settings(configs[0]), len(configs)
        if key not in self._speeds or most > self._most[key]:
            self._speeds[key], self._most[key] = measure_speed(configs[0], most), most
        return self._speeds[key]

    def stack_size(self, configs: Sequence[TrainingConfig]) -> int:
        """How many of some alike runs are best trained as one stack."""
        if len(configs) == 1:
            return 1
        try:
            return self.speed(configs).best(len(configs))
        except LandscapeError:  # which each run will meet, and report, by itself
            return 1

    def storage(self, config: TrainingConfig) -> Storage:
        """Storage of a run."""
        key = f"{shared_settings(config)} {config.epochs} {bool(config.momentum)}"
        if key not in self._storage:
            self._storage[key] = storage_of(config)
        return self._storage[key]

    def forecast(self, stacks: Sequence[Sequence[Cell]], workers: int) -> Forecast:
        """Forecast for stacks of runs, without what is stored of them already."""
        seconds, stored = 0.0, Storage(0, 0)
        for cells in stacks:
            configs = [cell.config for cell in cells]
            count = len(load_dataset(configs[0].dataset, "train"))
            for cell in cells:
                if left := _share_left(cell):
                    seconds += left * self.speed(configs).of_run(cell.config, len(cells), count)
                of_run = self.storage(cell.config)
                stored = Storage(stored.snapshots + of_run.snapshots, stored.num_bytes + of_run.num_bytes)
        return Forecast(seconds / min(workers, max(len(stacks), 1)), stored.num_bytes, stored.snapshots)


def _share_left(cell: Cell) -> float:
    """What share of a run is not trained yet."""
    status = run_status(cell.directory)
    return 0.0 if status.ended else max(0.0, 1 - status.epochs / cell.config.epochs)


def storage_of(config: TrainingConfig) -> Storage:
    """Snapshots and bytes of a run that does not diverge, from segments like those that it will seal."""
    data, model = load_dataset(config.dataset, "train"), build_model(config.model, config.model_args)
    description = describe(config, model, data)
    sizes: dict[tuple[int, bool, bool], int] = {}
    snapshots = total = 0
    for epoch in range(config.epochs):
        parts = rows_of_segments(config, epoch, len(data))
        for number, rows in enumerate(parts):
            last = number == len(parts) - 1
            kind = (rows, last, _has_mean(config, epoch, last))
            if kind not in sizes:
                sizes[kind] = segment_size(description, _segment_like(config, *kind, description.layout))
            total += sizes[kind]
        snapshots += sum(parts)
    return Storage(snapshots, total)


def rows_of_segments(config: TrainingConfig, epoch: int, count: int) -> list[int]:
    """Snapshots in each segment of an epoch of ``count`` samples, as `RunInProgress` keeps and seals them."""
    seen = np.arange(epoch * count, (epoch + 1) * count, config.batch_size)
    after = np.append(seen[1:], (epoch + 1) * count)
    interval = after // config.snapshot_every > seen // config.snapshot_every
    kept = np.flatnonzero(interval | (after == after[-1]))
    parts, rows, last = [], 0, -1
    for step in kept.tolist():
        # Where a mean stands for the end of an epoch, the iterate keeps a row of its own only in a pair.
        apart = interval[step] and step == len(seen) - 1 and _has_mean(config, epoch, last=True)
        rows += 1 + bool(interval[step] and last != step) + bool(apart)
        last = step + 1
        if rows >= SEGMENT_SNAPSHOTS or step == len(seen) - 1:
            parts.append(rows)
            rows, last = 0, -1
    return parts


def _has_mean(config: TrainingConfig, epoch: int, last: bool) -> bool:
    """Whether a mean of weights is stored with a segment of this epoch (from 0), its last or an earlier one."""
    return config.make_method().averages(epoch + last, config.epochs)


def _resume_like(config: TrainingConfig, layout: Layout, last: bool, has_mean: bool) -> dict[str, np.ndarray]:
    vector = np.zeros(num_parameters(layout), np.float32)
    state = {"momentum_buffer": vector} if config.momentum else {}
    if config.optimizer == "adam":
        state = {"exp_avg": vector, "exp_avg_sq": vector, "step": np.zeros(len(layout), np.float32)}
    mean = RunningMean(vector.astype(np.float64)) if has_mean else None
    return state_with(state, mean, vector if last else None)


def _segment_like(config: TrainingConfig, rows: int, last: bool, has_mean: bool, layout: Layout) -> Segment:
    resume = _resume_like(config, layout, last, has_mean)
    metrics = {name: np.zeros(1) for name in METRICS} if last else {}
    theta = np.zeros((rows, num_parameters(layout)), np.float32)
    zeros = np.zeros(rows, np.int64)
    role, loss = np.zeros(rows, np.uint8), np.zeros(rows, np.float32)
    return Segment(theta, zeros, zeros, zeros, role, loss, metrics, resume)


def measure_speed(config: TrainingConfig, most: int) -> Speed:
    """Time steps of stacks of up to so many runs like this one, and an evaluation, on a part of the data."""
    bench = make_bench(config)
    share = min(1.0, _SAMPLES / len(bench.data))
    data, test = (part.subset(max(1, round(share * len(part))), seed=0) for part in (bench.data, bench.test))
    bench = Bench(bench.model, data, test)
    name = bench.best_engine()
    sizes = [size for size in STACKS if size == 1 or (size <= most and name == STACKED)]
    with torch_threads(1):
        engines = {size: _engine(name, config, bench, size) for size in sizes}
        step = {size: _seconds_of_step(engine, config, size, len(data)) for size, engine in engines.items()}
        begin = time.perf_counter()
        engines[1].metrics(beginning(config, bench.layout).theta, config.epsilon)
        return Speed(step, (time.perf_counter() - begin) / share)


def _engine(name: str, config: TrainingConfig, bench: Bench, size: int) -> Engine:
    configs = [replace(config, seed=seed) for seed in range(size)]
    return make_engine(name, configs, bench, [beginning(each, bench.layout) for each in configs])


def _seconds_of_step(engine: Engine, config: TrainingConfig, size: int, count: int) -> float:
    """Least seconds of a step of a stack, by the run."""
    batch = torch.randint(count, (size, config.batch_size), generator=Generator().manual_seed(0))
    times: list[float] = []
    while sum(times) < _SECONDS or len(times) < _STEPS:
        begin = time.perf_counter()
        engine.step(batch, seen=0)
        times.append(time.perf_counter() - begin)
    return min(times) / size
