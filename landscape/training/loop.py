"""One training run: the paper's protocol, stored as sealed segments, resumed to the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from landscape.errors import RunConflictError
from landscape.problem.datasets import Dataset, load_dataset
from landscape.problem.losses import loss_by_name
from landscape.problem.models import build_model, check_fit, initialise
from landscape.problem.network import channels_last
from landscape.snapshots import Role, RunDescription, RunWriter, flatten, layout_of, unflatten
from landscape.training.conditions import changed_conditions, run_provenance, torch_threads
from landscape.training.config import TrainingConfig, generator
from landscape.training.evaluate import evaluate
from landscape.training.optimizers import build_optimizer, optimizer_state, restore_optimizer_state
from landscape.training.recording import Rows

Array = np.ndarray
Metrics = dict[str, float]

# A segment is sealed at the end of an epoch, or earlier once it holds this many snapshots.
SEGMENT_SNAPSHOTS = 128
# A run has diverged when its accuracy stays within half of chance level for this many epochs.
CHANCE_EPOCHS = 3
CHANCE_FACTOR = 1.5
# Marks, in place of an optimizer's state, a segment after which there is nothing to resume; holds the reason.
DIVERGED = "diverged"


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended."""

    path: Path
    outcome: str  # "completed" or "diverged"
    reason: str
    epochs: int
    samples_seen: int


@dataclass
class _State:
    """Where a run stands; everything that the next step depends on."""

    model: nn.Module
    optimizer: Optimizer
    step: int = 0
    samples_seen: int = 0


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
    with torch_threads(threads):
        return _train(config, Path(directory), allow_inexact, advance, report)


def _train(
    config: TrainingConfig,
    directory: Path,
    allow_inexact: bool,
    advance: Callable[[int], None],
    report: Callable[[Metrics], None],
) -> TrainingResult:
    data, test = load_dataset(config.dataset, "train"), load_dataset(config.dataset, "test")
    model = build_model(config.model, config.model_args)
    check_fit(model, data.images, data.num_classes)
    description = describe(config, model, data)
    with RunWriter(directory, description, run_provenance()) as writer:
        if writer.outcome is not None:
            advance(config.epochs * len(data))
            return _stored_result(directory, writer.outcome)
        changed = changed_conditions(writer.provenance)
        if changed and not allow_inexact:
            raise RunConflictError(
                f"the run was begun under other conditions ({'; '.join(changed)}), so it would not end in the "
                f"same bytes; restore them, or allow an inexact resume."
            )
        run = _Run(config, writer, data, test, description, model)
        run.restore()
        writer.log("began" if not run.state.step else "resumed", step=run.state.step, inexact=changed)
        advance(run.state.samples_seen)
        outcome, reason = run.to_the_end(advance, report)
        epochs = run.state.samples_seen // len(data)
        writer.finish(outcome, reason, epochs, run.state.step, run.state.samples_seen)
        return TrainingResult(directory, outcome, reason, epochs, run.state.samples_seen)


class _Run:
    """A training run in progress: state, waiting snapshots, and the writer that seals them."""

    def __init__(
        self,
        config: TrainingConfig,
        writer: RunWriter,
        data: Dataset,
        test: Dataset,
        description: RunDescription,
        model: nn.Module,
    ) -> None:
        initialise(model, generator(config.seed, "parameters"))
        model.to(memory_format=torch.channels_last)
        self.config, self.writer, self.data, self.test = config, writer, data, test
        self.layout = description.layout
        self.images = channels_last(data.images)
        self.loss = loss_by_name(config.loss)
        self.state = _State(model, build_optimizer(config, model))
        self.rows = Rows()
        self.diverged: str | None = None

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.state.samples_seen // len(self.data)

    def restore(self) -> None:
        """Go to the last sealed state, if there is one."""
        segment = self.writer.last_segment
        if segment is None:
            return
        parameters = unflatten(self.layout, segment.theta[-1])
        with torch.no_grad():
            for name, parameter in self.state.model.named_parameters():
                parameter.copy_(parameters[name])
        self.state.step = int(segment.step[-1])
        self.state.samples_seen = int(segment.samples_seen[-1])
        if DIVERGED in segment.resume:
            self.diverged = segment.resume[DIVERGED].tobytes().decode()
        else:
            restore_optimizer_state(self.state.optimizer, segment.resume)

    def to_the_end(self, advance: Callable[[int], None], report: Callable[[Metrics], None]) -> tuple[str, str]:
        """Train to the last epoch; return the outcome and its reason."""
        while True:
            if reason := self.diverged or self._chance_accuracy():
                return "diverged", reason
            if self.epoch >= self.config.epochs:
                return "completed", f"all {self.config.epochs} epochs"
            if reason := self._one_epoch(advance):
                return "diverged", reason
            report(self._end_epoch())

    def _one_epoch(self, advance: Callable[[int], None]) -> str | None:
        """Train to the end of the current epoch; return why it diverged, if it did."""
        offset = self.state.samples_seen % len(self.data)
        for batch in epoch_order(self.config, self.epoch, len(self.data))[offset:].split(self.config.batch_size):
            last = self._completes_epoch(len(batch))
            keep = last or self._completes_interval(len(batch))
            before = self.theta() if keep else None
            loss = self._step(batch)
            if not np.isfinite(loss):
                return self._seal_before_divergence(f"the batch loss became {loss}")
            if keep and not np.isfinite(self.theta()).all():
                return self._seal_before_divergence("the parameters are not finite")
            self._count(batch, before, loss, last)
            advance(len(batch))
        return None

    def _step(self, batch: Tensor) -> float:
        loss = self.loss(self.state.model(self.images[batch]), self.data.labels[batch]).mean()
        self.state.optimizer.zero_grad()
        loss.backward()
        if np.isfinite(value := loss.item()):
            self.state.optimizer.step()
        return value

    def _count(self, batch: Tensor, before: Array | None, loss: float, last: bool) -> None:
        """Count a step that was taken, and keep the iterates around it if they are wanted."""
        epoch, interval = self.epoch, self._completes_interval(len(batch))
        if before is not None and interval:
            self._keep(before, epoch, Role.BEFORE, float("nan"))
        self.state.step += 1
        self.state.samples_seen += len(batch)
        if before is None:
            return
        after = self.theta()
        self.step_norm = float(np.linalg.norm(after.astype(np.float64) - before))
        role = (Role.AFTER if interval else Role(0)) | (Role.EPOCH_END if last else Role(0))
        self._keep(after, self.epoch, role, loss)
        if len(self.rows.facts) >= SEGMENT_SNAPSHOTS and not last:
            self._seal({})

    def _keep(self, theta: Array, epoch: int, role: Role, loss: float) -> None:
        self.rows.add(theta, self.state.step, self.state.samples_seen, epoch, role, loss)

    def _end_epoch(self) -> Metrics:
        metrics = {"epoch": float(self.epoch), "step_norm": self.step_norm}
        metrics |= evaluate(self.state.model, self.data, self.test, self.config.epsilon)
        self._seal(metrics)
        return metrics

    def _seal(self, metrics: Metrics) -> None:
        arrays = {name: np.array([value], np.float64) for name, value in metrics.items()}
        self.writer.append(self.rows.seal(arrays, optimizer_state(self.state.optimizer)))
        self.rows = Rows()

    def _seal_before_divergence(self, what: str) -> str:
        """Seal the finite snapshots of the unfinished epoch, with the reason why nothing follows them."""
        reason = f"{what} after {self.state.samples_seen} samples (epoch {self.epoch + 1})"
        if self.rows.facts:
            self.state.samples_seen, self.state.step = self.rows.facts[-1][:2]
            self.writer.append(self.rows.seal({}, {DIVERGED: np.frombuffer(reason.encode(), np.uint8)}))
        return reason

    def _chance_accuracy(self) -> str | None:
        recent = self.writer.metrics.get("clean_accuracy", np.empty(0))[-CHANCE_EPOCHS:]
        chance = CHANCE_FACTOR / self.data.num_classes
        if len(recent) < CHANCE_EPOCHS or not (recent <= chance).all():
            return None
        return f"test accuracy stayed at chance level (≤ {chance:.0%}) for {CHANCE_EPOCHS} epochs"

    def _completes_epoch(self, batch: int) -> bool:
        return (self.state.samples_seen + batch) % len(self.data) == 0

    def _completes_interval(self, batch: int) -> bool:
        every, seen = self.config.snapshot_every, self.state.samples_seen
        return (seen + batch) // every > seen // every

    def theta(self) -> Array:
        """A copy of all parameters as one vector."""
        return flatten(self.layout, dict(self.state.model.named_parameters()))


def describe(config: TrainingConfig, model: nn.Module, data: Dataset) -> RunDescription:
    """What a run is, without a fact of time or machine."""
    layout = layout_of(model.named_parameters())
    return RunDescription(config.model, dict(config.model_args), layout, config.as_settings(), data.sha256)


def epoch_order(config: TrainingConfig, epoch: int, count: int) -> Tensor:
    """The order of samples in an epoch, a pure function of seed and epoch, ``(count,)``."""
    return torch.randperm(count, generator=generator(config.seed, "order", epoch))


def _stored_result(directory: Path, outcome: dict[str, Any]) -> TrainingResult:
    facts = {name: outcome[name] for name in ("outcome", "reason", "epochs", "samples_seen")}
    return TrainingResult(directory, **facts)
