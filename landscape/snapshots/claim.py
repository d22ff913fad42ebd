"""Taking a directory for one writer of one run, and refusing all others before anything is changed."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from landscape.errors import RunBusyError, RunConflictError, SnapshotError
from landscape.snapshots.description import RunDescription, differences
from landscape.snapshots.directory import (
    LOCK_FILE,
    LOG_FILE,
    OUTCOME_FILE,
    RUN_FILE,
    SEGMENTS,
    RunInfo,
    list_segments,
    read_run_info,
)

_OWN_NAMES = frozenset({RUN_FILE, OUTCOME_FILE, LOCK_FILE, LOG_FILE, SEGMENTS})


def check_writable(path: Path) -> None:
    """Raise RunConflictError or SnapshotError unless ``path`` is, or can become, a writable directory."""
    place = path
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise RunConflictError(f"{place} is not a directory; no run can be stored at {path}. Choose another path.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise SnapshotError(
            f"{place} is not writable, so no run can be stored at {path}. Nothing was written; "
            "change its permissions or choose another path."
        )


def _check_same_run(path: Path, info: RunInfo, description: RunDescription) -> None:
    if info.thinned_from is not None:
        raise RunConflictError(f"{path} is a thinned run, which cannot be resumed. Choose another directory.")
    if info.description.run_id != description.run_id:
        lines = "; ".join(differences(info.description, description))
        raise RunConflictError(
            f"{path} already holds a run with other settings: {lines}. Use those settings, or another directory."
        )


def _check_empty(path: Path) -> None:
    foreign = sorted(name for name in os.listdir(path) if name not in _OWN_NAMES and not name.startswith("."))
    if foreign or list_segments(path):
        raise RunConflictError(
            f"{path} is not empty and not a run: it has no {RUN_FILE}, but {foreign or SEGMENTS}. "
            "Choose another directory."
        )


def stored_run(path: Path, description: RunDescription) -> RunInfo | None:
    """run.json of a directory that holds this very run, None if it holds nothing yet; RunConflictError."""
    if not os.path.lexists(path / RUN_FILE):
        if path.exists():
            _check_empty(path)
        return None
    info = read_run_info(path)
    _check_same_run(path, info, description)
    list_segments(path)
    return info


def take_lock(path: Path) -> int:
    """Open descriptor that holds the lock of a run until it is closed; RunBusyError, OSError."""
    # Never a file with a process number: the kernel lets go of this lock even after a SIGKILL.
    descriptor = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise RunBusyError(f"{path} is being written by another process. Wait for it, or stop it.") from error
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
