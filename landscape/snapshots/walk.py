"""Going through all objects of an HDF5 file: hard links only, each object once, within limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h5py
import numpy.typing as npt

from landscape.errors import CorruptSnapshotError, UnsafeFileError
from landscape.snapshots.hdf5 import checked_dataset, damage_reported, native

MOST_OBJECTS = 10_000
DEEPEST = 8
_SEPARATE = "Split the file, or write the weights alone."


def dataset_names(file: h5py.File) -> list[str]:
    """Sorted paths of all datasets; none is read, no link but a hard one is followed.

    Raises UnsafeFileError for other links, other kinds of objects, more than 10,000 objects or 8 levels of groups.
    """
    with damage_reported(file.filename, "the tree of groups"):
        root = h5py.h5g.open(file.id, b"/")
        return sorted(_walk(file, root, "", 0, {_address(root)}))


def _address(place: Any) -> tuple[int, int]:
    info = h5py.h5o.get_info(place)
    return info.fileno, info.addr


def _walk(file: h5py.File, group: Any, above: str, depth: int, seen: set[tuple[int, int]]) -> Iterator[str]:
    if depth >= DEEPEST:
        raise UnsafeFileError(f"{file.filename} nests groups more than {DEEPEST} deep. {_SEPARATE}")
    for key in group:
        name = _text(file, above, key)
        place = _open(file, group, key, name)
        if _address(place) in seen:
            continue
        seen.add(_address(place))
        if len(seen) > MOST_OBJECTS:
            raise UnsafeFileError(f"{file.filename} holds more than {MOST_OBJECTS} objects. {_SEPARATE}")
        if isinstance(place, h5py.h5g.GroupID):
            yield from _walk(file, place, name, depth + 1, seen)
        elif isinstance(place, h5py.h5d.DatasetID):
            yield name
        else:
            raise UnsafeFileError(f"{file.filename}: /{name} is neither a group nor a dataset. {_SEPARATE}")


def _text(file: h5py.File, above: str, key: bytes) -> str:
    name = key.decode("utf-8", "backslashreplace")
    if not name.isprintable() or len(key) > 1000:
        raise CorruptSnapshotError(f"{file.filename}: {name[:80]!r} is no name of a parameter. Check the file.")
    return f"{above}/{name}" if above else name


def _open(file: h5py.File, group: Any, key: bytes, name: str) -> Any:
    if group.links.get_info(key).type != h5py.h5l.TYPE_HARD:
        raise UnsafeFileError(
            f"{file.filename}: /{name} is a soft or external link. It is not read further; ask its author for a "
            "plain one."
        )
    return h5py.h5o.open(group, key)


def read_all(file: h5py.File) -> dict[str, npt.NDArray[Any]]:
    """Every dataset by its path, all checked before the first is read; UnsafeFileError or CorruptSnapshotError."""
    datasets: dict[str, h5py.Dataset] = {}
    total = 0
    for name in dataset_names(file):
        datasets[name], total = checked_dataset(file, name, total)
    with damage_reported(file.filename, "a dataset"):
        return {name: native(dataset[()]) for name, dataset in datasets.items()}
