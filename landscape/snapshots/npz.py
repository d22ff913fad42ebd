"""Reading numpy's archives, which may be hostile: no pickles, and sizes are known before anything is allocated."""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from landscape.errors import CorruptSnapshotError, LandscapeError, UnsafeFileError, UnsupportedFormatError

Array = npt.NDArray[Any]
_LARGEST_COMPRESSION = 1000
_MOST_ARRAYS = 10_000
# Signature and number of entries in the record that ends a zip archive.
_END = struct.Struct("<4s6xH10x")


def read_archive(
    path: Path, size: int, wanted: Callable[[str], bool] = lambda name: True, most_bytes: int | None = None
) -> dict[str, Array]:
    """The arrays of an npz file of ``size`` bytes whose names are ``wanted``; ``most_bytes`` for each, if given.

    Raises UnsafeFileError, CorruptSnapshotError or UnsupportedFormatError.
    """
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
                name = entry.filename.removesuffix(".npy")
                if wanted(name):
                    if most_bytes is not None and entry.file_size > most_bytes:
                        raise UnsafeFileError(
                            f"{path}: {name} takes {entry.file_size} bytes; {most_bytes} are read at most."
                        )
                    with archive.open(entry) as file:
                        arrays[name] = read_array(path, file, entry.file_size, entry.filename)
    except LandscapeError:
        raise
    except Exception as error:
        raise CorruptSnapshotError(f"{path} cannot be read: {error}. Restore it from a copy.") from error
    if not entries:
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


def read_array(path: Path, file: IO[bytes], size: int, name: str) -> Array:
    """One array of ``size`` bytes with its header, whose shape is known before anything is allocated."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if dtype.kind not in "fiu" or dtype.hasobject:
            raise UnsafeFileError(f"{path}: {name!r} holds {dtype}, no plain numbers. Write an array of numbers.")
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
