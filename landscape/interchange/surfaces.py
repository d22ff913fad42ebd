"""Loss surfaces and their directions as HDF5 files in the layout of Li et al.'s program ``loss-landscape``.

Its plots read them as they are. A surface: ``xcoordinates`` ``(X,)``, ``ycoordinates`` ``(Y,)``, ``train_loss``
and ``train_acc`` (percent) ``(X, Y)``, −1 where nothing was computed yet, and ``dir_file``. Directions: groups
``xdirection`` and ``ydirection`` with a dataset for each parameter tensor, ``0``, ``1``, … in their order.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from landscape.snapshots.hdf5 import corrupt, open_hdf5, read_array, read_attribute, read_group

Array = npt.NDArray[Any]

_NAMES = ("xdirection", "ydirection")
# As in their files.
_MISSING = -1.0


@dataclass(frozen=True)
class StoredSurface:
    """A surface as its file holds it, complete or not."""

    x: Array  # (X,)
    y: Array  # (Y,)
    loss: Array  # (X, Y), −1 where it is not computed yet
    accuracy: Array  # (X, Y) percent, −1 where it is not computed yet
    settings: str  # what it is of, by which it is known again
    directions_sha256: str


def surface_image(surface: StoredSurface, directions: Path) -> bytes:
    """The bytes of a surface's file; ``directions`` is where its directions are."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["dir_file"] = np.bytes_(str(directions).encode())
        for name, values in (("xcoordinates", surface.x), ("ycoordinates", surface.y)):
            file.create_dataset(name, data=values, dtype="<f8")
        for name, values in (("train_loss", surface.loss), ("train_acc", surface.accuracy)):
            file.create_dataset(name, data=values, dtype="<f8", chunks=values.shape, fletcher32=True)
        for name in ("settings", "directions_sha256"):
            file.attrs[name] = np.bytes_(getattr(surface, name).encode("ascii"))
    return buffer.getvalue()


def read_surface(path: Path) -> StoredSurface:
    """A surface that `surface_image` made.

    Raises:
        SnapshotError: The family of it, for a file that is damaged, unsafe or something else.
    """
    with open_hdf5(path) as file:
        x, y = (read_array(file, name, "<f8", (None,)) for name in ("xcoordinates", "ycoordinates"))
        loss, accuracy = (read_array(file, name, "<f8", (len(x), len(y))) for name in ("train_loss", "train_acc"))
        settings, digest = (str(read_attribute(file, name)) for name in ("settings", "directions_sha256"))
    return StoredSurface(x, y, loss, accuracy, settings, digest)


def computed(surface: StoredSurface) -> Array:
    """Where a surface is computed, ``(X, Y)`` bool; NaN is a value, too."""
    return np.asarray(surface.loss != _MISSING)


def empty_surface(x: Array, y: Array, settings: str, directions_sha256: str) -> StoredSurface:
    """A surface of which nothing is computed yet."""
    nothing = np.full((len(x), len(y)), _MISSING)
    return StoredSurface(x, y, nothing, nothing.copy(), settings, directions_sha256)


def directions_image(directions: Array, shapes: Sequence[tuple[int, ...]]) -> bytes:
    """The bytes of a file of directions ``(2, n)``, cut into tensors of these shapes."""
    buffer, ends = io.BytesIO(), np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
    with h5py.File(buffer, "w") as file:
        for name, direction in zip(_NAMES, directions, strict=True):
            for number, (part, shape) in enumerate(zip(np.split(direction, ends), shapes, strict=True)):
                file.create_dataset(f"{name}/{number}", data=part.reshape(shape))
    return buffer.getvalue()


def read_directions(path: Path, shapes: Sequence[tuple[int, ...]]) -> Array:
    """Both directions of a file, ``(2, n)``.

    Raises:
        SnapshotError: The family of it, for a file that is damaged or unsafe, or has tensors of other shapes.
    """
    vectors = []
    with open_hdf5(path) as file:
        for name in _NAMES:
            parts = read_group(file, name)
            ordered = [parts.get(str(number), np.empty(0)) for number in range(len(shapes))]
            if [part.shape for part in ordered] != list(shapes) or len(parts) != len(shapes):
                found = ", ".join(f"{key} {part.shape}" for key, part in list(parts.items())[:20])
                raise corrupt(file, f"/{name}", f"holds tensors of other shapes than the network: {found}")
            vectors.append(np.concatenate([part.reshape(-1) for part in ordered]))
    return np.stack(vectors)


def directions_digest(directions: Array) -> str:
    """SHA-256 of the numbers, by which a surface knows its directions."""
    return sha256(np.ascontiguousarray(directions).tobytes()).hexdigest()
