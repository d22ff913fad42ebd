"""The paper's tables and figures as plain data: what is drawn of them, and how its numbers are set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Array = np.ndarray

# Tables of the paper by optimizer, what they say of a cell, and the readings of FGSM.
TABLES = {"adam": 1, "sgd": 2}
QUANTITIES = ("epoch", "acc", "adv_acc")
READINGS = ("published", "exact")
# How the paper sets its means. It does not say so; all legible cells but those in docs/paper.md agree.
BOLD_ACCURACY, BOLD_ROBUST, UNDERLINED_ROBUST = 0.98, 0.85, 0.80


@dataclass(frozen=True)
class Statistic:
    """Mean and sample standard deviation (divisor n − 1) over seeds; NaN where there are too few."""

    mean: float
    std: float


@dataclass(frozen=True)
class Best:
    """A run at its best epoch, counted from 1: clean accuracy, and accuracy under FGSM."""

    epoch: int
    accuracy: float
    robust: float


@dataclass(frozen=True)
class TableCell:
    """Runs of one optimizer, batch size and learning rate, each at its best epoch."""

    batch_size: int
    learning_rate: float
    num_runs: int
    num_diverged: int
    num_unmeasured: int  # that diverged before the end of their first epoch, and are in no mean
    epoch: Statistic
    acc: Statistic
    adv_acc: Statistic


@dataclass(frozen=True)
class Table:
    """One of the paper's tables, in one reading of FGSM."""

    number: int
    optimizer: str
    reading: str
    tolerance: float  # of clean accuracy, in the choice of the best epoch
    cells: tuple[TableCell, ...]

    @property
    def batch_sizes(self) -> list[int]:
        """Batch sizes, ascending."""
        return sorted({cell.batch_size for cell in self.cells})

    @property
    def learning_rates(self) -> list[float]:
        """Learning rates, ascending."""
        return sorted({cell.learning_rate for cell in self.cells})

    def find(self, batch_size: int, learning_rate: float) -> TableCell | None:
        """The cell of these settings."""
        wanted = (batch_size, learning_rate)
        return next((cell for cell in self.cells if (cell.batch_size, cell.learning_rate) == wanted), None)


@dataclass(frozen=True)
class Printed:
    """One number of the paper's tables: mean and standard deviation over five runs, and how it is set."""

    mean: float  # an epoch, counted from 0, or an accuracy as a share
    std: float
    emphasis: str  # "bold", "underlined" or ""
    relabelled: bool  # whether its row bears another label than the one it is read by


# By optimizer, batch size, learning rate and quantity.
Reference = Mapping[tuple[str, int, float, str], Printed]


@dataclass(frozen=True)
class Subject:
    """The run that a figure shows."""

    run: str
    optimizer: str
    learning_rate: float
    batch_size: int
    seed: int


@dataclass(frozen=True)
class WidthPoint:
    """Runs with one width of the first dense layer: at their best epochs by reading, in order of seed."""

    hidden: int
    best: Mapping[str, tuple[Best, ...]]


@dataclass(frozen=True)
class LayerWidths:
    """Figure 3: runs that differ in nothing but seed and first dense layer."""

    subject: Subject
    epochs: int
    points: tuple[WidthPoint, ...]


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Figure 1 or 2: what is stored along one run; positions are in epochs."""

    figure: int
    subject: Subject
    positions: Array  # (n,) of stored pairs of iterates
    batch_loss: Array  # (n,) before the step between them, nats
    step_norm: Array  # (n,) ‖θ^k − θ^(k−1)‖₂
    metrics: Mapping[str, Array]  # (m,) each, at the ends of epochs


@dataclass(frozen=True)
class AttackedModel:
    """A network of Figure 4, after few epochs or many: accuracy under FGSM by reading, at all radii."""

    role: str  # "early" or "late"
    subject: Subject
    epoch: int
    radii: tuple[float, ...]
    accuracy: Mapping[str, tuple[float, ...]]
    num_samples: int


@dataclass(frozen=True, eq=False)
class AttackedImages:
    """Images ``(k, H, W)`` under attack on one network, with its decisions ``(k,)``."""

    role: str
    subject: Subject
    epoch: int
    reading: str
    images: Array
    decisions: Array


@dataclass(frozen=True, eq=False)
class Examples:
    """Figure 5: the same images, which all networks see rightly, under attack on each of them."""

    eps: float
    originals: Array
    labels: Array
    attacked: tuple[AttackedImages, ...]


def emphasis(acc: float, adv_acc: float, quantity: str) -> str:
    """How the paper would set a mean (a share): "bold", "underlined" or "".

    Accuracy under attack is bold from 85 % on and underlined from 80 %. Clean accuracy is bold from 98 % on, and
    underlined below that where the accuracy under attack of the same cell stands out.
    """
    robust = "bold" if adv_acc >= BOLD_ROBUST else "underlined" if adv_acc >= UNDERLINED_ROBUST else ""
    if quantity == "adv_acc":
        return robust
    if quantity == "acc":
        return "bold" if acc >= BOLD_ACCURACY else "underlined" if robust else ""
    return ""
