"""Arrays of numpy: flat parameter vectors, one row a snapshot, or one array a parameter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from landscape.errors import CorruptSnapshotError, UnsupportedFormatError
from landscape.interchange.state import FLAT, State, check_names
from landscape.snapshots.npz import read_archive, read_array

Array = npt.NDArray[Any]
# The array of an archive that holds one snapshot a row, and the columns beside it.
MATRIX = "theta"
COLUMNS = ("step", "epoch")


def read_npy(path: Path, size: int) -> Iterator[State]:
    """Each row of a matrix ``(n, P)``, or the one vector ``(P,)``; UnsafeFileError or CorruptSnapshotError."""
    with path.open("rb") as file:
        array = read_array(path, file, size, path.name)
    yield from _rows(path, array, {})


def read_npz(path: Path, size: int) -> Iterator[State]:
    """Each row of the matrix ``theta`` with ``step`` and ``epoch``; or one state of one array a parameter.

    Raises UnsafeFileError, CorruptSnapshotError or UnsupportedFormatError.
    """
    arrays = read_archive(path, size)
    if MATRIX in arrays or len(set(arrays) - set(COLUMNS)) == 1:
        columns = {name: arrays.pop(name) for name in COLUMNS if name in arrays}
        yield from _rows(path, arrays.get(MATRIX, next(iter(arrays.values()))), columns)
        return
    check_names(path, arrays)
    for name, array in arrays.items():
        _check_plain(path, name, array)
    yield State({name: torch.from_numpy(array) for name, array in arrays.items()})


def read_arrays(path: Path, size: int, kind: str) -> dict[str, Array]:
    """All arrays of an ``npz``, or the one of an ``npy``, by name; UnsafeFileError or CorruptSnapshotError."""
    if kind == "npz":
        arrays = read_archive(path, size)
    else:
        with path.open("rb") as file:
            arrays = {path.stem: read_array(path, file, size, path.name)}
    check_names(path, arrays)
    return arrays


def _check_plain(path: Path, name: str, array: Array) -> None:
    """Floats, or integers as buffers hold them; UnsupportedFormatError for what torch has no type for."""
    if array.dtype != np.uint8 and array.dtype.kind != "i":
        _check_float(path, name, array)


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
