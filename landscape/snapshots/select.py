"""Choosing one snapshot of a run by words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from landscape.errors import ConfigurationError, MissingSnapshotError
from landscape.snapshots.reader import Run, check_index
from landscape.snapshots.segment import Array, Role

ACCURACY = "clean_accuracy"
READINGS = ("published", "exact")
# Accuracies are multiples of 1e-4 or so; without it their rounding would decide at the very edge.
_ROUNDING = 1e-9
FORMS = "last, first, best, best=READING, best=READING,TOLERANCE, equal-loss=LOSS, epoch=N, samples=N or index=N"
# How far a stored loss may lie from the one that is asked for.
LOSS_FACTOR = 2.0


@dataclass(frozen=True)
class BestRule:
    """Which epoch is best: the most robust of those with clean accuracy near the run's best.

    Written ``best``, ``best=exact`` or ``best=exact,0.01``; with a tolerance of 1 all epochs are near enough.
    """

    reading: str = READINGS[0]  # of accuracy under FGSM
    tolerance: float = 0.005  # by how much clean accuracy may lie below the best one

    def __post_init__(self) -> None:
        if self.reading not in READINGS:
            raise ConfigurationError(f"the reading {self.reading!r} is unknown; choose {' or '.join(READINGS)}.")
        if not 0 <= self.tolerance <= 1:
            raise ConfigurationError(
                f"the tolerance {self.tolerance} cannot be; pass a share from 0 to 1, such as 0.005."
            )

    @property
    def robustness(self) -> str:
        """The metric that decides."""
        return f"fgsm_accuracy_{self.reading}"

    @classmethod
    def parse(cls, text: str) -> BestRule:
        """The rule from ``READING`` or ``READING,TOLERANCE``."""
        reading, comma, tolerance = text.partition(",")
        if not comma:
            return cls(reading)
        try:
            share = float(tolerance)
        except ValueError as error:
            raise ConfigurationError(f"the tolerance {tolerance!r} is no number; write {FORMS}.") from error
        return cls(reading, share)


def epoch_end_rows(run: Run) -> dict[int, int]:
    """Row of the end of each epoch whose snapshot is stored."""
    rows = np.flatnonzero(run.role & int(Role.EPOCH_END))
    return {int(run.epoch[row]): int(row) for row in rows}


def nearest(values: Array, wanted: int, count: int = 4) -> list[int]:
    """Up to ``count`` distinct values that lie nearest to ``wanted``, ascending."""
    # Python integers: what was asked for may not fit into 64 bits.
    distinct = {int(value) for value in values}
    return sorted(sorted(distinct, key=lambda value: abs(value - wanted))[:count])


def best_of(metrics: Mapping[str, Array], rule: BestRule) -> list[int]:
    """Epochs with clean accuracy near the best, the most robust first, earlier ones before equal ones.

    Args:
        metrics: Columns ``(m,)`` at the ends of m epochs.
        rule: What is best. Epochs whose clean accuracy or robustness is not a number are none of them.
    """
    accuracy, robustness = metrics[ACCURACY], metrics[rule.robustness]
    usable = np.flatnonzero(np.isfinite(accuracy) & np.isfinite(robustness))
    if not usable.size:
        return []
    near = accuracy[usable] >= np.nanmax(accuracy) - rule.tolerance - _ROUNDING
    order = sorted(usable[near], key=lambda place: (-robustness[place], metrics["epoch"][place]))
    return [int(metrics["epoch"][place]) for place in order]


def best_epochs(run: Run, rule: BestRule = BestRule()) -> list[int]:
    """Epochs of a run as in `best_of`; MissingSnapshotError if it stores no such metrics."""
    for name in (ACCURACY, rule.robustness):
        if name not in run.metrics or not np.isfinite(run.metrics[name]).any():
            raise MissingSnapshotError(
                f"{run.path} stores no values of the metric {name!r}, which 'best' needs (it has "
                f"{sorted(run.metrics)}). Use 'last' or 'epoch=N'."
            )
    return best_of(run.metrics, rule)


def _best(run: Run, rule: BestRule = BestRule()) -> int:
    rows, epochs = epoch_end_rows(run), best_epochs(run, rule)
    stored = [epoch for epoch in epochs if epoch in rows]
    if not stored:
        raise MissingSnapshotError(
            f"{run.path} stores no snapshot of any of its best epochs {epochs[:4]}; the ends of these epochs are "
            f"stored: {sorted(rows)[:20]}. Use 'last' or 'epoch=N'."
        )
    return rows[stored[0]]


def _equal_loss(run: Run, wanted: float) -> int:
    """The end of an epoch whose training loss is nearest to ``wanted`` in log, the first of equal ones."""
    losses = run.metrics.get("train_loss", np.empty(0))
    rows = epoch_end_rows(run)
    pairs = zip(run.metrics.get("epoch", ()), losses, strict=False)
    stored = [(int(epoch), float(loss)) for epoch, loss in pairs if int(epoch) in rows]
    apart = {epoch: abs(math.log(loss / wanted)) for epoch, loss in stored if loss > 0 and math.isfinite(loss)}
    if not apart:
        raise MissingSnapshotError(
            f"{run.path} stores no snapshot with a training loss, which 'equal-loss' needs. "
            "Use 'last' or 'epoch=N'."
        )
    epoch = min(apart, key=lambda e: (apart[e], e))
    if apart[epoch] > math.log(LOSS_FACTOR) + _ROUNDING:
        raise MissingSnapshotError(
            f"{run.path} stores no snapshot with a training loss within a factor {LOSS_FACTOR:g} of {wanted:g}; "
            f"the nearest is {dict(stored)[epoch]:.4g}, after epoch {epoch}."
        )
    return rows[epoch]


def _epoch(run: Run, wanted: int) -> int:
    rows = epoch_end_rows(run)
    if wanted not in rows:
        close = nearest(np.array(list(rows)), wanted)
        there = f"Nearest: {close}." if close else "It knows the end of no epoch; use index=N, first or last."
        raise MissingSnapshotError(f"{run.path} stores no snapshot of epoch {wanted}'s end. {there}")
    return rows[wanted]


def _samples(run: Run, wanted: int) -> int:
    close = nearest(run.samples_seen, wanted)
    if wanted not in close:
        raise MissingSnapshotError(f"{run.path} stores no snapshot after {wanted} samples. Nearest: {close}.")
    return int(np.flatnonzero(run.samples_seen == wanted)[0])


_WORDS: dict[str, Callable[[Run], int]] = {"last": lambda run: len(run) - 1, "first": lambda run: 0, "best": _best}
_NUMBERS: dict[str, Callable[[Run, int], int]] = {"epoch": _epoch, "samples": _samples, "index": check_index}


def parse_position(at: str) -> Callable[[Run], int]:
    """What finds the snapshot of a run that ``at`` names; ConfigurationError for other words."""
    if at in _WORDS:
        return _WORDS[at]
    name, _, number = at.partition("=")
    if name == "best":
        return partial(_best, rule=BestRule.parse(number))
    if name == "equal-loss":
        return partial(_equal_loss, wanted=parse_loss(number))
    if name not in _NUMBERS or not is_count(number):
        raise ConfigurationError(f"Got the position {at!r}; it must be {FORMS}.")
    return partial(_NUMBERS[name], **{"index" if name == "index" else "wanted": int(number)})


def parse_loss(text: str) -> float:
    """A finite loss above zero; ConfigurationError."""
    try:
        loss = float(text)
    except ValueError:
        loss = math.nan
    if not (math.isfinite(loss) and loss > 0):
        raise ConfigurationError(f"Got the loss {text!r}; it must be a finite number above zero, in nats.")
    return loss


def is_count(text: str) -> bool:
    """Whether a text is a whole number of at most 18 digits."""
    return text.isascii() and text.isdigit() and len(text) <= 18


def select_index(run: Run, at: str) -> int:
    """Index of the snapshot that ``at`` names; ConfigurationError for other words, MissingSnapshotError."""
    return parse_position(at)(run)
