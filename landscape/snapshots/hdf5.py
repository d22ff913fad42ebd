"""Reading HDF5 files that may be damaged or hostile: each check comes before the read that it guards."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from landscape.errors import (
    CorruptSnapshotError,
    LandscapeError,
    MissingSnapshotError,
    SnapshotError,
    UnsafeFileError,
)
from landscape.snapshots.plugins import plugins_off

_COMPRESSORS = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_LZF})
_FILTERS = _COMPRESSORS | {h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_LARGEST_COMPRESSION = 1000
_LARGEST_ATTRIBUTE = 64_000
_LARGEST_GROUP = 1000
# All that h5py raises on damaged files; MemoryError comes from absurd declared sizes.
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError, OverflowError)

_REFUSED = "The file is not read further; ask its author for a plain one, or restore it from a copy."
_RESTORE = "Restore it from a copy, or remove it and train that part again."


@contextmanager
def damage_reported(path: str | Path, what: str) -> Iterator[None]:
    """Turn whatever h5py raises on a damaged file into CorruptSnapshotError naming file and object."""
    try:
        yield
    except LandscapeError:
        raise
    except _DAMAGE as error:
        raise CorruptSnapshotError(f"{path}: {what} cannot be read: {error}. {_RESTORE}") from error


def check_regular(path: Path) -> int:
    """Size of the plain file ``path``; MissingSnapshotError, or UnsafeFileError for links, pipes and such."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingSnapshotError(f"{path} does not exist. Check the path.") from error
    except (OSError, ValueError) as error:
        raise SnapshotError(f"{path} cannot be examined: {error}. Check the path and its permissions.") from error
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeFileError(f"{path} is a {_kind(status.st_mode)}, not a plain file. Give the file itself.")
    return status.st_size


def _kind(mode: int) -> str:
    kinds = {stat.S_IFLNK: "symbolic link", stat.S_IFDIR: "directory", stat.S_IFIFO: "pipe"}
    return kinds.get(stat.S_IFMT(mode), "special file")


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """The HDF5 file at ``path`` for reading; MissingSnapshotError, UnsafeFileError or CorruptSnapshotError."""
    check_regular(path)
    if not os.access(path, os.R_OK):
        raise SnapshotError(f"{path} may not be read by this user. Change its permissions.")
    with plugins_off():
        with damage_reported(path, "the HDF5 file"):
            # Sealed files never change, so a lock would only fail on file systems that have none.
            file = h5py.File(path, "r", driver="sec2", locking=False)
        try:
            yield file
        finally:
            with damage_reported(path, "the HDF5 file"):
                file.close()


def _unsafe(file: h5py.File, name: str, problem: str) -> UnsafeFileError:
    return UnsafeFileError(f"{file.filename}: /{name} {problem}. {_REFUSED}")


def corrupt(file: h5py.File, name: str, problem: str) -> CorruptSnapshotError:
    """The error for an object of ``file`` that is not what the format says."""
    return CorruptSnapshotError(f"{file.filename}: {name} {problem}. {_RESTORE}")


def _child(file: h5py.File, parent: Any, component: str, name: str) -> Any:
    key = component.encode()
    if not isinstance(parent, h5py.h5g.GroupID) or not parent.links.exists(key):
        raise corrupt(file, f"/{name}", "is missing")
    if parent.links.get_info(key).type != h5py.h5l.TYPE_HARD:
        raise _unsafe(file, name, f"is reached over the soft or external link {component!r}")
    return h5py.h5o.open(parent, key)


def _find(file: h5py.File, name: str) -> Any:
    # One component at a time: asked for the whole path, HDF5 would walk through links on the way.
    place = h5py.h5g.open(file.id, b"/")
    for component in name.split("/"):
        place = _child(file, place, component, name)
    return place


def has_object(file: h5py.File, name: str) -> bool:
    """Whether the root of ``file`` has an entry ``name`` (of any kind)."""
    with damage_reported(file.filename, f"/{name}"):
        # The variable keeps the group alive: its links alone do not.
        root = h5py.h5g.open(file.id, b"/")
        return bool(root.links.exists(name.encode()))


def child_names(file: h5py.File, group: str) -> list[str]:
    """Sorted names in a group, [] if it is absent; CorruptSnapshotError when there are absurdly many."""
    if not has_object(file, group):
        return []
    with damage_reported(file.filename, f"/{group}"):
        found = _find(file, group)
        if not isinstance(found, h5py.h5g.GroupID):
            raise corrupt(file, f"/{group}", "is not a group")
        if found.get_num_objs() > _LARGEST_GROUP:
            raise corrupt(file, f"/{group}", f"has more than {_LARGEST_GROUP} entries")
        return sorted(name.decode() for name in found)


def _check_filters(file: h5py.File, name: str, plist: Any) -> bool:
    filters = {plist.get_filter(position)[0] for position in range(plist.get_nfilters())}
    if filters - _FILTERS:
        raise _unsafe(file, name, f"uses the filters {sorted(filters - _FILTERS)}; only gzip, lzf, shuffle and "
                      "fletcher32 are read")  # fmt: skip
    return bool(filters & _COMPRESSORS)


def _check_storage(file: h5py.File, name: str, dataset: Any, text: bool) -> bool:
    plist = dataset.get_create_plist()
    if plist.get_layout() == h5py.h5d.VIRTUAL:
        raise _unsafe(file, name, "is a virtual dataset, whose contents lie in other files")
    if plist.get_external_count():
        raise _unsafe(file, name, "keeps its contents in another file (external storage)")
    kind = dataset.get_type()
    fixed_text = text and kind.get_class() == h5py.h5t.STRING and not kind.is_variable_str()
    if not (fixed_text or kind.get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT)) or kind.committed():
        raise _unsafe(file, name, "does not hold plain numbers")
    return _check_filters(file, name, plist)


def _check_size(file: h5py.File, name: str, dataset: Any, compressed: bool, already: int) -> int:
    plist = dataset.get_create_plist()
    chunk = plist.get_chunk() if plist.get_layout() == h5py.h5d.CHUNKED else ()
    itemsize = dataset.dtype.itemsize
    declared = already + math.prod(dataset.shape) * itemsize
    largest = os.stat(file.filename).st_size * (_LARGEST_COMPRESSION if compressed else 1)
    if max(declared, math.prod(chunk) * itemsize) > largest:
        raise corrupt(file, f"/{name}", f"declares {declared} bytes, more than the file can hold ({largest})")
    return int(declared)


def checked_dataset(file: h5py.File, name: str, already: int = 0, text: bool = False) -> tuple[h5py.Dataset, int]:
    """Dataset ``name``, fit to be read, and its bytes plus ``already``; UnsafeFileError, CorruptSnapshotError.

    It holds plain numbers, or with ``text`` perhaps text of fixed length.
    """
    with damage_reported(file.filename, f"/{name}"):
        found = _find(file, name)
        if not isinstance(found, h5py.h5d.DatasetID):
            raise corrupt(file, f"/{name}", "is not a dataset")
        if found.shape is None:
            raise corrupt(file, f"/{name}", "has no shape")
        compressed = _check_storage(file, name, found, text)
        return h5py.Dataset(found), _check_size(file, name, found, compressed, already)


def expect(file: h5py.File, dataset: h5py.Dataset, dtype: str, shape: tuple[int | None, ...]) -> None:
    """Raise CorruptSnapshotError unless the dataset has this type and shape (None: any length)."""
    pairs = zip(dataset.shape, shape, strict=False)
    fits = len(dataset.shape) == len(shape) and all(want in (None, have) for have, want in pairs)
    if dataset.dtype != np.dtype(dtype) or not fits:
        text = f"is {dataset.dtype} {dataset.shape} instead of {np.dtype(dtype)} {shape}"
        raise corrupt(file, dataset.name, text)


def read_array(file: h5py.File, name: str, dtype: str, shape: tuple[int | None, ...]) -> npt.NDArray[Any]:
    """Whole dataset of known type and shape (None: any length); UnsafeFileError or CorruptSnapshotError."""
    dataset, _ = checked_dataset(file, name)
    with damage_reported(file.filename, f"/{name}"):
        expect(file, dataset, dtype, shape)
        return native(dataset[()])


def read_group(file: h5py.File, group: str) -> dict[str, npt.NDArray[Any]]:
    """All arrays of a group by name; UnsafeFileError or CorruptSnapshotError, also for too much in total."""
    datasets: dict[str, h5py.Dataset] = {}
    total = 0
    for name in child_names(file, group):
        datasets[name], total = checked_dataset(file, f"{group}/{name}", total)
    with damage_reported(file.filename, f"/{group}"):
        return {name: native(dataset[()]) for name, dataset in datasets.items()}


def native(array: Any) -> npt.NDArray[Any]:
    """Copy of an array, or of a scalar, in this machine's byte order."""
    values = np.asarray(array)
    return values.astype(values.dtype.newbyteorder("="))


def read_attribute(file: h5py.File, name: str) -> int | str:
    """Root attribute: an integer or a short text of fixed length; CorruptSnapshotError on all else."""
    with damage_reported(file.filename, f"attribute {name!r}"):
        key = name.encode()
        if not h5py.h5a.exists(file.id, key):
            raise corrupt(file, f"attribute {name!r}", "is missing")
        attribute = h5py.h5a.open(file.id, key)
        kind = attribute.get_type()
        text = kind.get_class() == h5py.h5t.STRING and not kind.is_variable_str()
        whole = kind.get_class() == h5py.h5t.INTEGER
        if attribute.shape != () or not (text or whole) or kind.get_size() > _LARGEST_ATTRIBUTE:
            raise corrupt(file, f"attribute {name!r}", "is neither an integer nor a short text")
        value = file.attrs[name]
        return value.decode("ascii") if isinstance(value, bytes) else int(value)
