"""One run in progress: where it stands, snapshots that wait, and the writer that seals them."""

from __future__ import annotations

import numpy as np

from landscape.errors import LandscapeError
from landscape.problem.models import build_model, initialise
from landscape.snapshots import Layout, Role, RunWriter, flatten
from landscape.training.averaging import RunningMean, split_state, state_with
from landscape.training.config import TrainingConfig, generator
from landscape.training.engines import Engine, Standpoint
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
# What is stored after each epoch.
METRICS = (
    "epoch",
    "step_norm",
    "train_loss",
    "clean_accuracy",
    "fgsm_accuracy_published",
    "fgsm_accuracy_exact",
)


def beginning(config: TrainingConfig, layout: Layout) -> Standpoint:
    """Where a run begins: parameters drawn from its seed."""
    model = build_model(config.model, config.model_args)
    initialise(model, generator(config.seed, "parameters"))
    return Standpoint(flatten(layout, dict(model.named_parameters())))


class RunInProgress:
    """A run that is trained: it counts steps, keeps snapshots, and seals them."""

    def __init__(self, config: TrainingConfig, writer: RunWriter, layout: Layout, engine: str) -> None:
        self.config, self.writer, self.engine = config, writer, engine
        self.step = self.samples_seen = 0
        self.diverged: str | None = None
        self.error: LandscapeError | None = None
        self._rows = Rows()
        self._step_norm = float("nan")
        self._method = config.make_method()
        self._mean: RunningMean | None = None  # of the weights at the ends of epochs, for a run that averages
        self.standpoint = beginning(config, layout)
        self._restore()

    def _restore(self) -> None:
        """Go to the last sealed state, if there is one."""
        segment = self.writer.last_segment
        if segment is None:
            return
        self.step, self.samples_seen = int(segment.step[-1]), int(segment.samples_seen[-1])
        state, self._mean, iterate = split_state(segment.resume, segment.theta[-1])
        self.standpoint = Standpoint(iterate, state)
        if DIVERGED in segment.resume:
            self.diverged = segment.resume[DIVERGED].tobytes().decode()

    @property
    def active(self) -> bool:
        """Whether it still takes steps."""
        return self.diverged is None and self.error is None

    def finished(self, count: int, num_classes: int) -> bool:
        """Whether nothing is left to train, with ``count`` samples in an epoch; stores that it is so."""
        if self.error is not None or self.writer.outcome is not None:
            return True
        if ended := self._end(count, num_classes):
            try:
                self.writer.finish(*ended, self.samples_seen // count, self.step, self.samples_seen)
            except LandscapeError as error:
                self.error = error
        return ended is not None

    def _end(self, count: int, num_classes: int) -> tuple[str, str] | None:
        """How training ended, and why; None while it goes on."""
        if reason := self.diverged or self._chance_accuracy(num_classes):
            return "diverged", reason
        if self.samples_seen // count >= self.config.epochs:
            return "completed", f"all {self.config.epochs} epochs"
        return None

    def _chance_accuracy(self, num_classes: int) -> str | None:
        recent = self.writer.metrics.get("clean_accuracy", np.empty(0))[-CHANCE_EPOCHS:]
        chance = CHANCE_FACTOR / num_classes
        if len(recent) < CHANCE_EPOCHS or not (recent <= chance).all():
            return None
        return f"test accuracy stayed at chance level (≤ {chance:.0%}) for {CHANCE_EPOCHS} epochs"

    def count(self, size: int) -> None:
        """Count a step that was taken with ``size`` samples."""
        self.step += 1
        self.samples_seen += size

    def keep(self, before: Array, after: Array, loss: float, size: int, epoch: int, roles: Role) -> None:
        """Keep the iterates around the step that was just taken, with ``size`` samples, in this epoch (from 0)."""
        if Role.AFTER in roles:
            self._rows.add(before, self.step, self.samples_seen, epoch, Role.BEFORE, float("nan"))
        self.count(size)
        self._step_norm = float(np.linalg.norm(after.astype(np.float64) - before))
        epoch += Role.EPOCH_END in roles
        if Role.EPOCH_END in roles and self._method.averages(epoch, self.config.epochs):
            self._keep_mean(after, loss, epoch, roles)
        else:
            self._rows.add(after, self.step, self.samples_seen, epoch, roles, loss)

    def _keep_mean(self, iterate: Array, loss: float, epoch: int, roles: Role) -> None:
        """Keep the mean as the end of the epoch, and the iterate apart if it is one of a pair."""
        self._mean = (self._mean or RunningMean(np.zeros(iterate.shape))).include(iterate)
        if Role.AFTER in roles:
            self._rows.add(iterate, self.step, self.samples_seen, epoch, Role.AFTER, loss)
        self._rows.append(self._mean.theta, self.step, self.samples_seen, epoch, Role.EPOCH_END, float("nan"))

    def seal_full(self, engine: Engine, member: int) -> None:
        """Seal what waits, once it is enough."""
        if len(self._rows.facts) >= SEGMENT_SNAPSHOTS:
            self._seal({}, state_with(engine.optimizer_state(member), self._mean, None))

    def end_epoch(self, epoch: int, engine: Engine, member: int) -> Metrics:
        """Measure, and seal the epoch with its metrics."""
        metrics = {"epoch": float(epoch), "step_norm": self._step_norm}
        metrics |= engine.metrics(self._rows.theta[-1], self.config.epsilon)
        self._seal(metrics, state_with(engine.optimizer_state(member), self._mean, self.standpoint.theta))
        return metrics

    def diverge(self, what: str, epoch: int) -> None:
        """Seal the finite snapshots of the unfinished epoch, with the reason why nothing follows them."""
        self.diverged = f"{what} after {self.samples_seen} samples (epoch {epoch + 1})"
        if self._rows.facts:
            self.samples_seen, self.step = self._rows.facts[-1][:2]
            self._seal({}, {DIVERGED: np.frombuffer(self.diverged.encode(), np.uint8)})

    def _seal(self, metrics: Metrics, resume: dict[str, Array]) -> None:
        arrays = {name: np.array([value], np.float64) for name, value in metrics.items()}
        try:
            self.writer.append(self._rows.seal(arrays, resume))
        except LandscapeError as error:
            self.error = error
        self._rows = Rows()
