"""Arrays of numpy: flat parameter vectors, one row a snapshot, or one array a parameter."""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch

from landscape.errors import CorruptSnapshotError, LandscapeError, UnsafeFileError, UnsupportedFormatError
from landscape.interchange.state import FLAT, State, check_names

Array = npt.NDArray[Any]
# The array of an archive that holds one snapshot a row, and the columns beside it.
MATRIX = "theta"
COLUMNS = ("step", "epoch")
_LARGEST_COMPRESSION = 1000
_MOST_ARRAYS = 10_000
# Signature and number of entries in the record that ends a zip archive.
_END = struct.Struct("<4s6xH10x")


def read_npy(path: Path, size: int) -> Iterator[State]:
    """Each row of a matrix ``(n, P)``, or the one vector ``(P,)``; UnsafeFileError or CorruptSnapshotError."""
    with path.open("rb") as file:
        array = _read_array(path, file, size, path.name)
    yield from _rows(path, array, {})


def read_npz(path: Path, size: int) -> Iterator[State]:
    """Each row of the matrix ``theta`` with ``step`` and ``epoch``; or one state of one array a parameter.

    Raises UnsafeFileError, CorruptSnapshotError or UnsupportedFormatError.
    """
    arrays = _read_archive(path, size)
    if MATRIX in arrays or len(set(arrays) - set(COLUMNS)) == 1:
        columns = {name: arrays.pop(name) for name in COLUMNS if name in arrays}
        yield from _rows(path, arrays.get(MATRIX, next(iter(arrays.values()))), columns)
        return
    check_names(path, arrays)
    for name, array in arrays.items():
        _check_float(path, name, array)
    yield State({name: torch.from_numpy(array) for name, array in arrays.items()})


def read_arrays(path: Path, size: int, kind: str) -> dict[str, Array]:
    """All arrays of an ``npz``, or the one of an ``npy``, by name; UnsafeFileError or CorruptSnapshotError."""
    if kind == "npz":
        arrays = _read_archive(path, size)
    else:
        with path.open("rb") as file:
            arrays = {path.stem: _read_array(path, file, size, path.name)}
    check_names(path, arrays)
    return arrays


def _read_archive(path: Path, size: int) -> dict[str, Array]:
    arrays, total = {}, 0
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_count(path, len(entries), size - _END.size - len(archive.comment))
            if len(entries) > _MOST_ARRAYS or len({entry.filename for entry in entries}) != len(entries):
                raise UnsafeFileError(
                    f"{path} holds more than {_MOST_ARRAYS} arrays, or one twice. Split the file."
                )
            for entry in entries:
                total += entry.file_size
                _check_entry(path, entry, total, size)
                with archive.open(entry) as file:
                    arrays[entry.filename.removesuffix(".npy")] = _read_array(
                        path, file, entry.file_size, entry.filename
                    )
    except LandscapeError:
        raise
    except Exception as error:
        raise CorruptSnapshotError(f"{path} cannot be read: {error}. Restore it from a copy.") from error
    if not arrays:
        raise UnsupportedFormatError(f"{path} holds no array. Write it by numpy.savez(FILE, theta=...).")
    return arrays


def _check_count(path: Path, found: int, place: int) -> None:
    """Compare the list of entries with the number at the end of an archive, which zipfile does not look at."""
    with path.open("rb") as file:
        file.seek(place)
        signature, declared = _END.unpack(file.read(_END.size))
    if signature != b"PK\x05\x06" or found != declared:
        raise CorruptSnapshotError(
            f"{path} declares {declared} arrays, {found} are listed. Restore it from a copy."
        )


def _check_entry(path: Path, entry: zipfile.ZipInfo, total: int, size: int) -> None:
    plain = entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    allowed = size if entry.compress_type == zipfile.ZIP_STORED else _LARGEST_COMPRESSION * size
    if not plain or entry.flag_bits & 1 or total > allowed:
        raise UnsafeFileError(
            f"{path}: {entry.filename!r} is encrypted, or declares {entry.file_size} bytes in a file of {size}. "
            "It is not read further; write it by numpy.savez."
        )


def _read_array(path: Path, file: IO[bytes], size: int, name: str) -> Array:
    """One array of ``size`` bytes with its header, whose shape is known before anything is allocated."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if dtype.kind not in "fiu" or dtype.hasobject:
            raise UnsafeFileError(f"{path}: {name!r} holds {dtype}, no plain numbers. Write an array of floats.")
        expected = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or expected > size:
            raise CorruptSnapshotError(
                f"{path}: {name!r} declares {expected} bytes, {size} are there. Restore it."
            )
        data = file.read(expected + 1)
        if len(data) != expected:
            raise CorruptSnapshotError(f"{path}: {name!r} has not the {expected} bytes it declares. Restore it.")
        values = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    except LandscapeError:
        raise
    except Exception as error:
        raise CorruptSnapshotError(f"{path}: {name!r} cannot be read: {error}. Restore it from a copy.") from error
    return np.array(values, dtype.newbyteorder("="), order="C")


def _check_float(path: Path, name: str, array: Array) -> None:
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise UnsupportedFormatError(f"{path}: {name!r} holds {array.dtype}; weights are floats of up to 64 bits.")


def _rows(path: Path, matrix: Array, columns: dict[str, Array]) -> Iterator[State]:
    _check_float(path, MATRIX, matrix)
    rows = matrix[None] if matrix.ndim == 1 else matrix
    if rows.ndim != 2 or not rows.size:
        raise UnsupportedFormatError(
            f"{path} holds an array of shape {matrix.shape}; it must be (n, P), one snapshot a row."
        )
    for name, values in columns.items():
        if values.shape != (len(rows),) or values.dtype.kind not in "iu" or (values.astype(np.int64) < 0).any():
            raise CorruptSnapshotError(
                f"{path}: {name!r} must hold an integer from 0 for each of {len(rows)} rows."
            )
    for place, row in enumerate(rows):
        position = {name: int(values[place]) for name, values in columns.items()}
        yield State({FLAT: torch.from_numpy(row)}, position)
