"""HDF5 files with a dataset a parameter: written by hand, by h5py, or by Keras."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy.typing as npt
import torch

from landscape.errors import SnapshotError, UnsupportedFormatError
from landscape.interchange.digests import KEY, check_digest
from landscape.interchange.state import State, check_names, check_tensors, positions_in
from landscape.snapshots.hdf5 import open_hdf5, read_attribute
from landscape.snapshots.walk import read_all

Arrays = dict[str, npt.NDArray[Any]]
T = TypeVar("T")

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_KERAS_ATTRIBUTES = ("layer_names", "keras_version", "backend")
_KERAS_NAME = re.compile(r"(^|/)(vars/\d+|(kernel|bias|gamma|beta):0)$")


def read_hdf5(path: Path, size: int, mapped: Sequence[str] = ()) -> State:
    """All datasets by name, ``/`` written as ``.``; of a Keras file the ``mapped`` ones, by their paths.

    Raises UnsafeFileError or CorruptSnapshotError, also for other contents than those of the digest that exported
    files have; UnsupportedFormatError for Keras files that are not mapped.
    """
    with open_hdf5(path) as file:
        arrays = read_all(file)
        position = positions_in({name: _number(file, name) for name in ("step", "epoch")})
        digest = str(read_attribute(file, KEY)) if h5py.h5a.exists(file.id, KEY.encode()) else None
        keras = any(h5py.h5a.exists(file.id, name.encode()) for name in _KERAS_ATTRIBUTES)
    if keras or any(_KERAS_NAME.search(name) for name in arrays):
        return _keras(path, size, arrays, mapped, position)
    named = as_read(arrays)
    if len(named) != len(arrays):
        raise UnsupportedFormatError(f"{path}: two datasets have the same name but for '/' and '.'. Rename one.")
    state = _state(path, size, named, position)
    if digest is not None:
        check_digest(path, digest, state.tensors, {name: str(number) for name, number in position.items()})
    return state


def as_read(named: Mapping[str, T]) -> dict[str, T]:
    """Names of datasets as names of parameters."""
    return {name.replace("/", "."): value for name, value in named.items()}


def _keras(path: Path, size: int, arrays: Arrays, mapped: Sequence[str], position: dict[str, int]) -> State:
    if not mapped:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in list(arrays.items())[:20])
        raise UnsupportedFormatError(
            f"{path} is a Keras file, whose kernels are stored in another order. Map each parameter, as in --map "
            f"conv/vars/0=0.weight@3,2,0,1 --map dense/vars/0=7.weight@1,0. It holds {shapes}."
        )
    chosen = {name: arrays[name] for name in mapped if name in arrays}
    left = len(arrays) - len(chosen)
    return _state(path, size, chosen, position, (f"left out {left} datasets that are not mapped",) if left else ())


def _state(path: Path, size: int, arrays: Arrays, position: dict[str, int], notes: tuple[str, ...] = ()) -> State:
    check_names(path, arrays)
    unsigned = [name for name, array in arrays.items() if array.dtype.kind == "u" and array.dtype.itemsize > 1]
    if unsigned:
        raise UnsupportedFormatError(f"{path}: {unsigned[0]} is unsigned; weights are floats. Convert it.")
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    check_tensors(path, tensors, max(size, sum(array.nbytes for array in arrays.values())))
    return State(tensors, position, notes)


def _number(file: h5py.File, name: str) -> int | None:
    """A root attribute if it is there and an integer."""
    try:
        value = read_attribute(file, name)
    except SnapshotError:
        return None
    return value if isinstance(value, int) else None
