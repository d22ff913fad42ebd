"""What an unknown file or run holds: its format, its tensors, a few facts. Run in the process with limits."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
from torch import Tensor

from landscape.errors import CorruptSnapshotError, SnapshotError, UnsafeFileError
from landscape.interchange.formats import checked_size, detect
from landscape.interchange.matrices import read_arrays
from landscape.interchange.safetensors_files import metadata_of, read_safetensors
from landscape.interchange.state import check_names, check_tensors
from landscape.interchange.torch_files import check_storages, load_torch
from landscape.snapshots import Run, open_run
from landscape.snapshots.hdf5 import checked_dataset, damage_reported, open_hdf5, read_attribute
from landscape.snapshots.image import PACKED_FORMAT, SEGMENT_FORMAT
from landscape.snapshots.walk import dataset_names

Facts = dict[str, str | int | float | bool]

_DATABASE = b"SQLite format 3\0"
_LEDGER = 0x6C616E64  # application_id of a ledger of measurements
_NATIVE = {SEGMENT_FORMAT: "segment of a run", PACKED_FORMAT: "packed run"}
_MOST_ENTRIES = 10_000
_LONGEST_FACT = 200


@dataclass(frozen=True)
class Entry:
    """A tensor, a dataset, or a table with its number of rows: name, shape, type, and the bytes of its numbers."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int


@dataclass(frozen=True)
class Inspection:
    """Format of a file or run, its entries, and what else it says of itself."""

    format: str
    entries: tuple[Entry, ...]
    facts: Facts


def describe(path: Path) -> Inspection:
    """Look at a run directory or at a file of any known format; follows no link, loads no code.

    Raises:
        SnapshotError: The family of it, for what is missing, damaged, made to do harm, or of no known format.
    """
    if path.is_dir() and not path.is_symlink():
        return _run("run", open_run(path))
    size = checked_size(path)
    if _head(path) == _DATABASE:
        return _database(path)
    kind = detect(path, size)
    if kind == "hdf5":
        return _hdf5(path)
    if kind == "torch":
        return _torch(path, size)
    if kind == "safetensors":
        tensors = read_safetensors(path, size).tensors
        return Inspection("safetensors", _tensors(tensors.items()), _facts(metadata_of(path, size)))
    arrays = read_arrays(path, size, kind)
    entries = tuple(Entry(name, array.shape, str(array.dtype), array.nbytes) for name, array in arrays.items())
    return Inspection(kind, entries, {})


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(_DATABASE))
    except OSError as error:
        raise SnapshotError(f"{path} cannot be read: {error}. Check its permissions.") from error


def _run(kind: str, run: Run) -> Inspection:
    description = run.description
    facts: Facts = {
        "model": description.model,
        "run_id": run.run_id,
        "snapshots": len(run),
        "last_epoch": int(run.epoch[-1]),
        "outcome": str((run.outcome or {}).get("outcome", "unfinished" if kind == "run" else "not told")),
    }
    weights = [Entry(slot.name, slot.shape, "float32", 4 * slot.numel) for slot in description.layout]
    buffers = [Entry(slot.name, slot.shape, slot.dtype, slot.length) for slot in description.buffers]
    return Inspection(kind, (*weights, *buffers), facts)


def _hdf5(path: Path) -> Inspection:
    with open_hdf5(path) as file:
        native = _native(file)
        if native is None:
            return Inspection("HDF5", tuple(_datasets(file)), {})
    return _run(native, open_run(path))


def _native(file: h5py.File) -> str | None:
    try:
        return _NATIVE.get(str(read_attribute(file, "format")))
    except SnapshotError:
        return None


def _datasets(file: h5py.File) -> Iterator[Entry]:
    total = 0
    for name in dataset_names(file):
        dataset, total = checked_dataset(file, name, total, text=True)
        with damage_reported(file.filename, f"/{name}"):
            kind = "text" if dataset.dtype.kind == "S" else str(dataset.dtype)
            yield Entry(name, dataset.shape, kind, dataset.nbytes)


def _torch(path: Path, size: int) -> Inspection:
    found = list(_leaves(path, load_torch(path, size)))
    tensors = {name: value for name, value in found if isinstance(value, Tensor)}
    check_names(path, tensors)
    check_tensors(path, tensors, size)
    check_storages(path, tensors)
    return Inspection("torch checkpoint", _tensors(tensors.items()), _facts(dict(found)))


def _leaves(path: Path, value: Any) -> Iterator[tuple[str, Any]]:
    """Everything in nested dictionaries and lists that is neither, with where it is; in their order."""
    todo: list[tuple[str, Any]] = [("", value)]
    for _ in range(_MOST_ENTRIES):
        if not todo:
            return
        name, value = todo.pop()
        if isinstance(value, Mapping):
            inside = [(str(key), entry) for key, entry in value.items()]
        elif isinstance(value, list | tuple):
            inside = [(str(place), entry) for place, entry in enumerate(value)]
        else:
            yield name or "(the whole file)", value
            continue
        todo += [(f"{name}.{key}" if name else key, entry) for key, entry in reversed(inside)]
    raise UnsafeFileError(
        f"{path} holds more than {_MOST_ENTRIES} values. Where it was written, save the weights alone."
    )


def _tensors(named: Iterable[tuple[str, Tensor]]) -> tuple[Entry, ...]:
    return tuple(
        Entry(name, tuple(t.shape), str(t.dtype).removeprefix("torch."), math.prod(t.shape) * t.itemsize)
        for name, t in named
    )


def _facts(values: Mapping[str, Any]) -> Facts:
    """Plain numbers and short texts that a terminal shows as they are."""
    return {
        name: value
        for name, value in values.items()
        if (isinstance(value, bool | int | float) and abs(value) < 2**62)
        or (isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST_FACT)
    }


def _database(path: Path) -> Inspection:
    """The tables of a SQLite file; immutable, so that no log beside it is opened."""
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as database:
            database.execute("PRAGMA trusted_schema=OFF")
            (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise CorruptSnapshotError(
                    f"{path} is damaged: {' '.join(str(verdict).split())[:200]}. Restore it."
                )
            (application,) = database.execute("PRAGMA application_id").fetchone()
            (version,) = database.execute("PRAGMA user_version").fetchone()
            entries = tuple(_tables(database))
    except (sqlite3.Error, UnicodeError) as error:
        raise CorruptSnapshotError(f"{path} cannot be read: {error}. Restore it from a copy.") from error
    facts: Facts = {"schema": int(version)}
    if Path(f"{path}-wal").exists():
        facts["log"] = "lies beside it; rows in it are not counted"
    return Inspection("ledger of measurements" if application == _LEDGER else "SQLite database", entries, facts)


def _tables(database: sqlite3.Connection) -> Iterator[Entry]:
    names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0 LIMIT 1000")
    for (name,) in names.fetchall():
        quoted = str(name).replace('"', '""')
        (rows,) = database.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()
        yield Entry(str(name), (int(rows),), "rows", 0)
