"""Finding runs: in folders, and among the files that are installed with the package."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path, PurePosixPath

from landscape.errors import MissingSnapshotError, SnapshotError
from landscape.snapshots.contents import read_header
from landscape.snapshots.directory import RUN_FILE, SEGMENTS
from landscape.snapshots.hdf5 import open_hdf5

EMBEDDED = "embedded:"
DATA_PACKAGE = "landscape_data"
_DEEPEST = 4
_FILE_SUFFIX = ".h5"


def _embedded(name: str) -> Path:
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or parts[0] == "/":
        raise MissingSnapshotError(f"Got {EMBEDDED}{name}; it must name a file or folder of the package's data.")
    try:
        root = resources.files(DATA_PACKAGE)
    except ModuleNotFoundError as error:
        raise MissingSnapshotError(
            f"Got {EMBEDDED}{name}, but the package {DATA_PACKAGE} is not installed. Install landscape-torch."
        ) from error
    place = root.joinpath(*parts)
    # Packages imported from a zip have no real files that HDF5 could open.
    if not isinstance(place, Path) or not place.exists():
        raise MissingSnapshotError(f"Got {EMBEDDED}{name}; there is no such file in {root}. Check the name.")
    return place


def resolve(path: str | Path) -> Path:
    """Plain paths as they are, ``embedded:NAME`` inside the installed data; MissingSnapshotError if absent."""
    text = str(path)
    if not text:
        raise MissingSnapshotError("Got an empty path; give a run, a folder of runs, or a .h5 file.")
    return _embedded(text.removeprefix(EMBEDDED)) if text.startswith(EMBEDDED) else Path(text)


def is_run(path: str | Path) -> bool:
    """Whether ``path`` is the directory of a run, a segment or a packed file; never raises."""
    place = Path(path)
    try:
        if place.is_dir():
            # A directory of segments that lost its description is a damaged run, not a folder of segments.
            return (place / RUN_FILE).is_file() or (place / SEGMENTS).is_dir()
        with open_hdf5(place) as file:
            read_header(file)
    except (SnapshotError, OSError, ValueError):
        return False
    return True


def _search(folder: Path, depth: int) -> Iterator[Path]:
    if is_run(folder):
        yield folder
    elif depth < _DEEPEST:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            # Links could lead round in circles or far away.
            if entry.name.startswith("."):  # what an interrupted copy left, or what somebody hides
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _search(Path(entry.path), depth + 1)
            elif entry.name.endswith(_FILE_SUFFIX) and is_run(entry.path):
                yield Path(entry.path)


def _runs_at(path: str | Path) -> list[Path]:
    place = resolve(path)
    if not place.exists():
        raise MissingSnapshotError(f"{place} does not exist. Check the path.")
    if not place.is_dir():
        with open_hdf5(place) as file:
            read_header(file)
        return [place]
    try:
        found = list(_search(place, 0))
    except OSError as error:
        raise SnapshotError(f"{place} cannot be searched: {error}. Check its permissions.") from error
    if not found:
        raise MissingSnapshotError(f"{place} holds no runs (searched {_DEEPEST} folders deep). Check the path.")
    return found


def find_runs(paths: Sequence[str | Path]) -> list[Path]:
    """Runs at the paths, or in folders up to 4 deep, sorted and unique; MissingSnapshotError, SnapshotError."""
    return sorted({run for path in paths for run in _runs_at(path)})
