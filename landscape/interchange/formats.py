"""Which format a file is of, told by its contents, and what is in it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from landscape.errors import CorruptSnapshotError, SnapshotError, UnsupportedFormatError
from landscape.interchange.hdf5_files import SIGNATURE, read_hdf5
from landscape.interchange.matrices import read_npy, read_npz
from landscape.interchange.safetensors_files import looks_like_safetensors, read_safetensors
from landscape.interchange.state import State
from landscape.interchange.torch_files import read_torch
from landscape.snapshots.hdf5 import check_regular

LARGEST_FILE = 64 * 2**30
_TORCH_SUFFIXES = frozenset({".pt", ".pth", ".bin", ".ckpt", ".t7", ".tar", ""})
KNOWN = "torch (.pt, .pth, .ckpt), safetensors, HDF5 (.h5), npy and npz"


def checked_size(path: Path) -> int:
    """Size of a plain file; MissingSnapshotError, UnsafeFileError, UnsupportedFormatError if too large."""
    size = check_regular(path)
    if size > LARGEST_FILE:
        raise UnsupportedFormatError(f"{path} has {size} bytes, more than {LARGEST_FILE}. Split it.")
    return size


def detect(path: Path, size: int) -> str:
    """``torch``, ``safetensors``, ``hdf5``, ``npy`` or ``npz``; UnsupportedFormatError for all else."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise SnapshotError(f"{path} cannot be read: {error}. Check its permissions.") from error
    suffix = path.suffix.lower()
    if head.startswith(SIGNATURE):
        return "hdf5"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"PK\x03\x04"):
        return _archive(path, suffix)
    if suffix == ".safetensors" or looks_like_safetensors(head, size):
        return "safetensors"
    if head.startswith(b"\x80") and (suffix in _TORCH_SUFFIXES or suffix[1:].isdigit()):
        return "torch"
    raise UnsupportedFormatError(
        f"{path} is of no format that is read here: {KNOWN}. Convert it, or check the path."
    )


def _archive(path: Path, suffix: str) -> str:
    if suffix == ".npz":
        return "npz"
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:
        raise CorruptSnapshotError(f"{path} cannot be read: {error}. Restore it from a copy.") from error
    return "npz" if names and all(name.endswith(".npy") for name in names) else "torch"


def read_file(path: Path, key: str | None = None, mapped: Sequence[str] = ()) -> Iterator[State]:
    """The states in a file, one or (matrices) several; the SnapshotError family and nothing else.

    Args:
        path: A plain file; links, pipes and directories are refused.
        key: Entry of a torch checkpoint that holds the weights.
        mapped: Names that the user maps; a Keras file gives nothing else.
    """
    size = checked_size(path)
    kind = detect(path, size)
    if kind == "npy":
        yield from read_npy(path, size)
    elif kind == "npz":
        yield from read_npz(path, size)
    elif kind == "hdf5":
        yield read_hdf5(path, size, mapped)
    elif kind == "safetensors":
        yield read_safetensors(path, size)
    else:
        yield read_torch(path, size, key)
