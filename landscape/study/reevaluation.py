"""Loss and accuracy of a stored run, found again: whether weights, network and data belong together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from landscape.problem.parameter_objective import parameter_objective
from landscape.robustness.accuracy import accuracy
from landscape.snapshots import Role, Run, open_run, snapshot_of
from landscape.study.given import NOTHING, Given
from landscape.study.problems import load_problem

# Other processors sum in another order; a sample at a decision boundary may fall to the other side.
_LOSS_TOLERANCE, _ACCURACY_TOLERANCE = 2e-3, 2e-3


@dataclass(frozen=True)
class Reevaluation:
    """Mean training loss and test accuracy of one snapshot as stored and as found; NaN where nothing is stored."""

    epoch: int
    stored_loss: float
    loss: float
    stored_accuracy: float
    accuracy: float

    @property
    def agrees(self) -> bool | None:
        """Whether found and stored are the same up to rounding; None if nothing was stored to compare with."""
        if math.isnan(self.stored_loss) and math.isnan(self.stored_accuracy):
            return None
        same_loss = math.isclose(self.loss, self.stored_loss, rel_tol=_LOSS_TOLERANCE, abs_tol=1e-5)
        return same_loss and abs(self.accuracy - self.stored_accuracy) <= _ACCURACY_TOLERANCE


def reevaluate(path: str | Path, device: str = "auto", given: Given = NOTHING) -> Reevaluation:
    """Evaluate the last end of an epoch of a run on all of its data, or its last snapshot if none ended.

    Raises:
        LandscapeError: If the run, its network or its data cannot be used.
    """
    run = open_run(path)
    snapshot = snapshot_of(run, _last_epoch_end(run))
    problem = load_problem(snapshot, device, given)
    phi = parameter_objective(problem.model, problem.train.images, problem.train.labels)
    return Reevaluation(
        snapshot.position.epoch,
        snapshot.metrics.get("train_loss", math.nan),
        phi.value(phi.origin).item(),
        snapshot.metrics.get("clean_accuracy", math.nan),
        accuracy(problem.model, problem.test.images, problem.test.labels),
    )


def _last_epoch_end(run: Run) -> int:
    ends = np.flatnonzero(run.role & int(Role.EPOCH_END))
    return int(ends[-1]) if ends.size else len(run) - 1
