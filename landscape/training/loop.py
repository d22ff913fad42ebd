"""Training by the paper's protocol, runs alone or together: sealed segments, resumed to the same bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from landscape.errors import ConfigurationError, LandscapeError, RunConflictError
from landscape.problem.datasets import DATASETS, Dataset
from landscape.problem.models import build_model, check_fit
from landscape.problem.own_data import open_dataset
from landscape.snapshots import Role, RunDescription, RunWriter, layout_of
from landscape.training.conditions import changed_conditions, run_provenance, torch_threads
from landscape.training.config import OWN_SETTINGS, TrainingConfig, generator
from landscape.training.engines import MODULE, STACKED, Bench, Standpoint, make_engine
from landscape.training.progress import Metrics, RunInProgress

Run = tuple[TrainingConfig, Path]


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended."""

    path: Path
    outcome: str  # "completed" or "diverged"
    reason: str
    epochs: int
    samples_seen: int


def train(
    config: TrainingConfig,
    directory: Path | str,
    *,
    threads: int = 1,
    allow_inexact: bool = False,
    advance: Callable[[int], None] = lambda samples: None,
    report: Callable[[Metrics], None] = lambda metrics: None,
) -> TrainingResult:
    """Train, or go on where a stored run stands, until the last epoch or divergence.

    Args:
        config: What defines the run; a directory that holds another run is refused.
        directory: Where the run is stored.
        threads: torch threads; a resumed run needs as many as it began with to end in the same bytes.
        allow_inexact: Resume even though torch's version or the number of threads changed.
        advance: Called with the number of samples after every step, and once with what was stored already.
        report: Called with an epoch's metrics after its segment is on disk for good.

    Raises:
        SnapshotError: If the directory is in use, holds another run, or cannot be written.
    """
    (result,) = train_together(
        [(config, Path(directory))],
        threads=threads,
        allow_inexact=allow_inexact,
        advance=advance,
        report=lambda path, metrics: report(metrics),
    )
    if isinstance(result, LandscapeError):
        raise result
    return result


def train_together(
    runs: Sequence[Run],
    *,
    threads: int = 1,
    allow_inexact: bool = False,
    advance: Callable[[int], None] = lambda samples: None,
    report: Callable[[Path, Metrics], None] = lambda path, metrics: None,
) -> list[TrainingResult | LandscapeError]:
    """Train several runs as one stack, each into its own directory; what `train` would have stored, sooner.

    Args:
        runs: Configurations that differ in `OWN_SETTINGS` only, each with its directory.
        threads: As in `train`.
        allow_inexact: As in `train`.
        advance: As in `train`, with the samples of all runs.
        report: Called with a run's directory and an epoch's metrics.

    Returns:
        For each run its result, or the error that ended it; the others go on.

    Raises:
        ConfigurationError: If the runs differ in other settings.
    """
    _check_alike([config for config, _ in runs])
    with torch_threads(threads), ExitStack() as stack:
        bench = make_bench(runs[0][0])
        opened = [_open(config, directory, bench, allow_inexact, stack) for config, directory in runs]
        for (config, _), run in zip(runs, opened, strict=True):
            advance(_samples_stored(config, run, bench))
        _train([run for run in opened if isinstance(run, RunInProgress)], bench, advance, report)
        return [_result_of(run) for run in opened]


def _check_alike(configs: Sequence[TrainingConfig]) -> None:
    shared = [{f.name: getattr(c, f.name) for f in fields(c) if f.name not in OWN_SETTINGS} for c in configs]
    differing = [name for name in shared[0] if any(other[name] != shared[0][name] for other in shared)]
    if differing:
        raise ConfigurationError(
            f"the runs differ in {', '.join(differing)}; those trained together may differ in "
            f"{', '.join(sorted(OWN_SETTINGS))} only."
        )


def make_bench(config: TrainingConfig) -> Bench:
    """Model and data of a run; LandscapeError if there are none, or they do not fit."""
    data, test = open_dataset(config.dataset, "train"), open_dataset(config.dataset, "test")
    model = build_model(config.model, config.model_args)
    check_fit(model, data.images, data.num_classes)
    return Bench(model, data, test)


def _open(
    config: TrainingConfig, directory: Path, bench: Bench, allow_inexact: bool, stack: ExitStack
) -> RunInProgress | TrainingResult | LandscapeError:
    """The run where it stands, with its lock held until the end of ``stack``."""
    try:
        begun_with = run_provenance() | {"engine": bench.best_engine()}
        description = describe(config, bench.model, bench.data, bench.test)
        writer = stack.enter_context(RunWriter(directory, description, begun_with))
        if writer.outcome is not None:
            return _stored_result(directory, writer.outcome)
        changed = changed_conditions(writer.provenance)
        if changed and not allow_inexact:
            raise RunConflictError(
                f"the run was begun under other conditions ({'; '.join(changed)}), so it would not end in the "
                f"same bytes; restore them, or allow an inexact resume."
            )
        run = RunInProgress(config, writer, bench.layout, (writer.provenance or {}).get("engine", MODULE))
        writer.log("began" if not run.step else "resumed", step=run.step, inexact=changed)
        return run
    except LandscapeError as error:
        return error


def _samples_stored(
    config: TrainingConfig, run: RunInProgress | TrainingResult | LandscapeError, bench: Bench
) -> int:
    if isinstance(run, TrainingResult):
        return config.epochs * len(bench.data)
    return 0 if isinstance(run, LandscapeError) else run.samples_seen


def _result_of(run: RunInProgress | TrainingResult | LandscapeError) -> TrainingResult | LandscapeError:
    if not isinstance(run, RunInProgress):
        return run
    return run.error or _stored_result(run.writer.path, run.writer.outcome or {})


def _train(
    runs: Sequence[RunInProgress],
    bench: Bench,
    advance: Callable[[int], None],
    report: Callable[[Path, Metrics], None],
) -> None:
    """Train all runs to the end, those that have seen the fewest samples first."""
    count = len(bench.data)
    while going := [run for run in runs if not run.finished(count, bench.data.num_classes)]:
        first = min(going, key=lambda run: run.samples_seen)
        alike = [run for run in going if (run.samples_seen, run.engine) == (first.samples_seen, first.engine)]
        others = [run.samples_seen for run in going if run.samples_seen > first.samples_seen]
        end = min([*others, (first.samples_seen // count + 1) * count])
        _Leg(alike if first.engine == STACKED else [first], bench).train(end, advance, report)


class _Leg:
    """Runs that stand at the same sample, on their way to the end of an epoch or to where others stand."""

    def __init__(self, runs: Sequence[RunInProgress], bench: Bench) -> None:
        self.runs, self.config, self.count = runs, runs[0].config, len(bench.data)
        configs, standpoints = [run.config for run in runs], [run.standpoint for run in runs]
        self.engine = make_engine(runs[0].engine, configs, bench, standpoints)
        self.seen = runs[0].samples_seen
        self.epoch = self.seen // self.count

    def train(self, end: int, advance: Callable[[int], None], report: Callable[[Path, Metrics], None]) -> None:
        """Train until so many samples were seen."""
        order = torch.stack([epoch_order(run.config, self.epoch, self.count) for run in self.runs])
        start = self.epoch * self.count
        for batch in order[:, self.seen - start : end - start].split(self.config.batch_size, dim=1):
            self._step(batch)
            going = sum(run.active for run in self.runs)
            advance(batch.shape[1] * going)
            if not going:
                return
        parameters = self.engine.parameters()
        for member, run in self._active():
            run.standpoint = Standpoint(parameters[member], self.engine.optimizer_state(member))
            if self.seen % self.count == 0:
                metrics = run.end_epoch(self.epoch + 1, self.engine, member)
                if run.error is None:
                    report(run.writer.path, metrics)

    def _active(self) -> Iterator[tuple[int, RunInProgress]]:
        return ((member, run) for member, run in enumerate(self.runs) if run.active)

    def _step(self, batch: Tensor) -> None:
        size = batch.shape[1]
        roles = self._roles(size)
        before = self.engine.parameters() if roles else None
        losses = self.engine.step(batch, self.seen)
        after = self.engine.parameters() if roles else None
        for member, run in self._active():
            if not math.isfinite(losses[member]):
                run.diverge(f"the batch loss became {losses[member]}", self.epoch)
            elif before is None or after is None:
                run.count(size)
            elif not np.isfinite(after[member]).all():
                run.diverge("the parameters are not finite", self.epoch)
            else:
                run.keep(before[member], after[member], losses[member], size, self.epoch, roles)
                if Role.EPOCH_END not in roles:
                    run.seal_full(self.engine, member)
        self.seen += size

    def _roles(self, size: int) -> Role:
        """Why the iterate after the next step is kept, if it is."""
        every, after = self.config.snapshot_every, self.seen + size
        interval = after // every > self.seen // every
        return (Role.AFTER if interval else Role(0)) | (Role.EPOCH_END if after % self.count == 0 else Role(0))


def describe(
    config: TrainingConfig, model: nn.Module, data: Dataset, test: Dataset | None = None
) -> RunDescription:
    """What a run is, without a fact of time or machine; of own data, not where they lie."""
    layout = layout_of(model.named_parameters())
    settings = config.as_settings()
    if test is not None and data.name not in DATASETS:
        settings |= {"dataset": data.name, "test_sha256": test.sha256}
    return RunDescription(config.model, dict(config.model_args), layout, settings, data.sha256)


def epoch_order(config: TrainingConfig, epoch: int, count: int) -> Tensor:
    """The order of samples in an epoch, a pure function of seed and epoch, ``(count,)``."""
    return torch.randperm(count, generator=generator(config.seed, "order", epoch))


def _stored_result(directory: Path, outcome: dict[str, Any]) -> TrainingResult:
    facts = {name: outcome[name] for name in ("outcome", "reason", "epochs", "samples_seen")}
    return TrainingResult(directory, **facts)
