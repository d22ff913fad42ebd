"""The mean of a run's weights at the ends of epochs, and how a segment holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from landscape.errors import CorruptSnapshotError

Array = np.ndarray

# Names in a segment's resume state. The iterate is there where the segment's last row is the average.
_MEAN, _COUNT, _ITERATE = "swa_mean", "swa_count", "swa_iterate"


@dataclass(frozen=True, eq=False)
class RunningMean:
    """Mean of some iterates in float64, ``(P,)``, and how many they are."""

    mean: Array
    count: int = 0

    @property
    def theta(self) -> Array:
        """The mean as a snapshot holds it, float32 ``(P,)``."""
        return self.mean.astype(np.float32)

    def include(self, theta: Array) -> RunningMean:
        """The mean of these iterates and one more, m + (θ − m)/(n + 1) (Izmailov et al. 2018, algorithm 1)."""
        count = self.count + 1
        return RunningMean(self.mean + (theta - self.mean) / count, count)


def state_with(state: Mapping[str, Array], mean: RunningMean | None, iterate: Array | None) -> dict[str, Array]:
    """Resume state with a mean, if there is one, and with the iterate where the last row is not that."""
    if mean is None:
        return dict(state)
    added = {_MEAN: mean.mean, _COUNT: np.array([mean.count], np.int64)}
    return {**state, **added} | ({} if iterate is None else {_ITERATE: iterate})


def split_state(state: Mapping[str, Array], last: Array) -> tuple[dict[str, Array], RunningMean | None, Array]:
    """State of the optimizer, mean, and iterate ``(P,)`` that `state_with` has put together.

    Args:
        state: Resume state of a segment.
        last: Its last row, ``(P,)``.

    Raises:
        CorruptSnapshotError: If the arrays do not belong to a mean of such vectors.
    """
    rest, iterate = dict(state), state.get(_ITERATE, last)
    mean, count = (rest.pop(name, None) for name in (_MEAN, _COUNT))
    if iterate.shape != last.shape or iterate.dtype != np.float32:
        raise CorruptSnapshotError(
            f"the stored iterate is {iterate.dtype} {iterate.shape}, not as the weights are."
        )
    rest.pop(_ITERATE, None)
    if mean is None and count is None and _ITERATE not in state:
        return rest, None, iterate
    if mean is None or mean.shape != last.shape or count is None or count.shape != (1,) or count[0] < 1:
        raise CorruptSnapshotError(
            f"the stored mean of weights is not one of {last.size} numbers with a count; restore the run."
        )
    return rest, RunningMean(mean, int(count[0])), iterate
