"""One training run: the paper's protocol, stored as sealed segments, resumed to the same bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from landscape.errors import RunConflictError
from landscape.problem.datasets import Dataset, load_dataset
from landscape.problem.losses import loss_by_name
from landscape.problem.models import build_model, initialise
from landscape.problem.network import channels_last
from landscape.provenance import provenance
from landscape.snapshots import Role, RunDescription, RunWriter, Segment, flatten, layout_of, unflatten
from landscape.training.config import TrainingConfig, generator
from landscape.training.evaluate import evaluate
from landscape.training.optimizers import build_optimizer, optimizer_state, restore_optimizer_state

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


@dataclass
class _Rows:
    """Snapshots that wait for their segment to be sealed."""

    theta: list[Array] = field(default_factory=list)
    facts: list[tuple[int, int, int, int, float]] = field(default_factory=list)

    def add(self, theta: Array, state: _State, epoch: int, role: Role, loss: float) -> None:
        """Append a snapshot; one that equals the last keeps a single row with both roles."""
        if self.facts and self.facts[-1][1] == state.step:
            # What comes second is the row before a step: it has no batch loss of its own.
            samples, step, _, previous, batch_loss = self.facts[-1]
            self.facts[-1] = (samples, step, epoch, int(Role(previous) | role), batch_loss)
            return
        self.theta.append(theta)
        self.facts.append((state.samples_seen, state.step, epoch, int(role), loss))

    def seal(self, metrics: dict[str, Array], resume: dict[str, Array]) -> Segment:
        """The rows as an immutable segment."""
        samples, step, epoch, role, loss = zip(*self.facts, strict=True)
        return Segment(
            theta=np.stack(self.theta),
            samples_seen=np.array(samples, np.int64),
            step=np.array(step, np.int64),
            epoch=np.array(epoch, np.int64),
            role=np.array(role, np.uint8),
            batch_loss=np.array(loss, np.float32),
            metrics=metrics,
            resume=resume,
        )


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
    description = describe(config, model, data)
    with RunWriter(directory, description, _run_provenance()) as writer:
        if writer.outcome is not None:
            advance(config.epochs * len(data))
            return _stored_result(directory, writer.outcome)
        if not allow_inexact:
            _refuse_inexact(writer.provenance)
        run = _Run(config, writer, data, test, description, model)
        run.restore()
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
        self.rows = _Rows()
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
            self.rows.add(before, self.state, epoch, Role.BEFORE, float("nan"))
        self.state.step += 1
        self.state.samples_seen += len(batch)
        if before is None:
            return
        after = self.theta()
        self.step_norm = float(np.linalg.norm(after.astype(np.float64) - before))
        role = (Role.AFTER if interval else Role(0)) | (Role.EPOCH_END if last else Role(0))
        self.rows.add(after, self.state, self.epoch, role, loss)
        if len(self.rows.facts) >= SEGMENT_SNAPSHOTS and not last:
            self._seal({})

    def _end_epoch(self) -> Metrics:
        metrics = {"epoch": float(self.epoch), "step_norm": self.step_norm}
        metrics |= evaluate(self.state.model, self.data, self.test, self.config.epsilon)
        self._seal(metrics)
        return metrics

    def _seal(self, metrics: Metrics) -> None:
        arrays = {name: np.array([value], np.float64) for name, value in metrics.items()}
        self.writer.append(self.rows.seal(arrays, optimizer_state(self.state.optimizer)))
        self.rows = _Rows()

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


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Run with a number of torch threads, and put the caller's number back."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run_provenance() -> dict[str, object]:
    return provenance() | {"threads": torch.get_num_threads(), "cpu": torch.backends.cpu.get_cpu_capability()}


def _refuse_inexact(stored: dict[str, object] | None) -> None:
    """Refuse to resume where the same bytes cannot be promised."""
    facts = ("threads", "cpu")
    now = _run_provenance()
    then = stored or now
    changed = [f"{name} was {then.get(name)}, is {now[name]}" for name in facts if then.get(name) != now[name]]
    before, after = then["versions"], now["versions"]
    if isinstance(before, dict) and isinstance(after, dict) and before.get("torch") != after["torch"]:
        changed.append(f"torch was {before.get('torch')}, is {after['torch']}")
    if changed:
        raise RunConflictError(
            f"the run was begun under other conditions ({'; '.join(changed)}), so it would not end in the same "
            f"bytes; restore them, or allow an inexact resume."
        )


def _stored_result(directory: Path, outcome: dict[str, Any]) -> TrainingResult:
    facts = {name: outcome[name] for name in ("outcome", "reason", "epochs", "samples_seen")}
    return TrainingResult(directory, **facts)
