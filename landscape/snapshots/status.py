"""How far the run in a directory has come, at the price of one small file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from landscape.errors import SnapshotError
from landscape.snapshots.contents import read_header, read_index
from landscape.snapshots.directory import list_segments, read_outcome
from landscape.snapshots.hdf5 import open_hdf5

ABSENT, BEGUN, DAMAGED = "absent", "begun", "damaged"


@dataclass(frozen=True)
class RunStatus:
    """State of a run: absent, begun, completed, diverged, or damaged; epochs that are stored; and why it ended."""

    state: str
    epochs: int = 0
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing is left to train."""
        return self.state not in (ABSENT, BEGUN, DAMAGED)


def run_status(path: str | Path) -> RunStatus:
    """Status of the run in a directory: its outcome, or else its last segment, is read; no digest is checked."""
    place = Path(path)
    try:
        if outcome := read_outcome(place):
            return RunStatus(outcome["outcome"], outcome["epochs"], outcome["reason"])
        segments = list_segments(place)
        if not segments:
            return RunStatus(BEGUN if place.is_dir() else ABSENT)
        with open_hdf5(segments[-1].path) as file:
            return RunStatus(BEGUN, int(read_index(file, read_header(file)).epoch[-1]))
    except (SnapshotError, OSError) as error:
        return RunStatus(DAMAGED, reason=str(error))
