"""Data of the user's own: a file of arrays, a folder of images, or a function, as the built-in datasets are."""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import torch

from landscape.errors import DatasetError, SnapshotError
from landscape.problem.code import call
from landscape.problem.datasets import DATASETS, SPLITS, Dataset, load_dataset
from landscape.problem.image_folders import FolderSpec, folder_spec, read_folder
from landscape.snapshots.hdf5 import check_regular, checked_dataset, damage_reported, native, open_hdf5
from landscape.snapshots.npz import read_archive
from landscape.snapshots.walk import dataset_names

Array = npt.NDArray[Any]
Pair = tuple[Array, Array]

SUFFIXES = (".h5", ".hdf5", ".npz")
# Images of one split as float32; more would not fit beside what is computed from them.
MOST_BYTES = 2**33
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
# Places of images and labels, by split; the first that is there is taken. The last one serves both splits.
_PLACES = {split: ((f"{split}/x", f"{split}/y"), (f"x_{split}", f"y_{split}"), ("x", "y")) for split in SPLITS}
_KNOWN = frozenset(name for places in _PLACES.values() for pair in places for name in pair)
_ADVICE = "Write train/x, train/y, test/x and test/y, or x_train, y_train, x_test and y_test, or x and y."


def is_own(name: str) -> bool:
    """Whether a name is one that only the user may open: of a file, a folder or a function."""
    return name not in DATASETS and (name.endswith(SUFFIXES) or "/" in name or bool(_FACTORY.fullmatch(name)))


def absolute(name: str) -> str:
    """The same data named from any folder: files and folders by their whole path."""
    if name in DATASETS or (_FACTORY.fullmatch(name) and not os.path.lexists(name)):
        return name
    return os.path.abspath(name)


def open_dataset(name: str, split: str = "train") -> Dataset:
    """A built-in dataset, or the user's own; reads files and runs code, so never call it with a stored name.

    ``name`` is a built-in one, an HDF5 or npz file, a folder laid out as torchvision's ImageFolder (``FOLDER@32``
    makes its images 32×32), or ``package.module:factory``, called with ``"train"`` and ``"test"``.

    Raises:
        DatasetError: If there is nothing of this name, or it holds no images in [0, 1] with labels 0 … K − 1.
    """
    if name in DATASETS:
        return load_dataset(name, split)
    if split not in SPLITS:
        raise DatasetError(f"unknown split {split!r} of {name}; choose one of {', '.join(SPLITS)}.")
    try:
        return _open(name)[split]
    except SnapshotError as error:
        raise DatasetError(" ".join(str(error).split())) from error


def _open(name: str) -> Mapping[str, Dataset]:
    path = Path(name)
    if name.endswith(SUFFIXES):
        status = check_regular(path), os.stat(path).st_mtime_ns
        return _from_file(path.resolve(), status)
    if (folder := folder_spec(name)) is not None:
        return _from_folder(folder)
    if _FACTORY.fullmatch(name):
        return _from_factory(name)
    raise DatasetError(
        f"unknown dataset {name!r}; name {', '.join(DATASETS)}, a file {', '.join(SUFFIXES)}, a folder of images, "
        "or package.module:factory."
    )


@functools.lru_cache(maxsize=2)
def _from_file(path: Path, status: tuple[int, int]) -> Mapping[str, Dataset]:
    read = _read_npz if path.suffix == ".npz" else _read_hdf5
    return _datasets(path.name, read(path, status[0]))


@functools.lru_cache(maxsize=2)
def _from_folder(folder: FolderSpec) -> Mapping[str, Dataset]:
    return _datasets(folder.name, read_folder(folder, MOST_BYTES))


@functools.lru_cache(maxsize=2)
def _from_factory(name: str) -> Mapping[str, Dataset]:
    return _datasets(name, {split: _made(name, split) for split in SPLITS})


def _made(name: str, split: str) -> Pair:
    try:
        images, labels = call(name, split)
        return _as_array(images), _as_array(labels)
    except Exception as error:  # whatever foreign code raises
        raise DatasetError(
            f"{name} cannot be imported, or failed ({split!r}: {type(error).__name__}: {_line(error)}); name "
            "package.module:function of a module that lies in this folder or is installed, which returns images "
            "and labels."
        ) from error


def _as_array(values: Any) -> Array:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _chosen(path: Path, split: str, names: frozenset[str]) -> tuple[str, str]:
    for pair in _PLACES[split]:
        if names.issuperset(pair):
            return pair
    there = ", ".join(sorted(names)[:6]) or "nothing"
    raise DatasetError(f"{path} holds no {split} images and labels, only {there}. {_ADVICE}")


def _read_hdf5(path: Path, size: int) -> dict[str, Pair]:
    with open_hdf5(path) as file:
        names = frozenset(dataset_names(file))
        pairs = {split: _chosen(path, split, names) for split in SPLITS}
        arrays: dict[str, Array] = {}
        found: dict[str, h5py.Dataset] = {}
        # The shapes of all are checked before a byte of one is read.
        for name in dict.fromkeys(name for pair in pairs.values() for name in pair):
            found[name], _ = checked_dataset(file, name)
            check_size(f"{path}: {name}", found[name].shape, found[name].dtype)
        for name, dataset in found.items():
            with damage_reported(path, f"/{name}"):
                arrays[name] = native(dataset[()])
    return {split: (arrays[x], arrays[y]) for split, (x, y) in pairs.items()}


def _read_npz(path: Path, size: int) -> dict[str, Pair]:
    arrays = read_archive(path, size, lambda name: name in _KNOWN, MOST_BYTES)
    pairs = {split: _chosen(path, split, frozenset(arrays)) for split in SPLITS}
    return {split: (arrays[x], arrays[y]) for split, (x, y) in pairs.items()}


def check_size(what: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse arrays that would take more than `MOST_BYTES` as they are, or as float32."""
    count = int(np.prod([1, *shape], dtype=object)) * max(4, dtype.itemsize)
    if count > MOST_BYTES:
        raise DatasetError(
            f"{what} has shape {shape}, {count} bytes in use; {MOST_BYTES} are read at most. Take a part."
        )


def _datasets(name: str, pairs: Mapping[str, Pair]) -> Mapping[str, Dataset]:
    train = _dataset(f"{name}, train", name, *pairs["train"], None)
    if pairs["test"][0] is pairs["train"][0]:
        return {"train": train, "test": train}
    test = _dataset(f"{name}, test", name, *pairs["test"], train.num_classes)
    if test.images.shape[1:] != train.images.shape[1:]:
        shapes = " and ".join(str(tuple(data.images.shape[1:])) for data in (train, test))
        raise DatasetError(f"{name}: images for training and testing differ in shape, {shapes}. Make them alike.")
    return {"train": train, "test": test}


def _dataset(what: str, name: str, images: Array, labels: Array, num_classes: int | None) -> Dataset:
    pixels, classes = _checked_images(what, images), _checked_labels(what, labels, num_classes)
    if len(pixels) != len(classes):
        raise DatasetError(f"{what}: {len(pixels)} images have {len(classes)} labels. Give one label an image.")
    return Dataset(name, pixels, torch.from_numpy(classes), num_classes or int(classes.max()) + 1)


def _checked_images(what: str, images: Array) -> torch.Tensor:
    """``(N, C, H, W)`` float32 in [0, 1]."""
    check_size(what, images.shape, images.dtype)
    if images.dtype != np.uint8 and images.dtype not in (np.float16, np.float32, np.float64):
        raise DatasetError(f"{what}: images are {images.dtype}; write uint8, or floats in [0, 1].")
    pixels = torch.from_numpy(np.ascontiguousarray(_channels_first(what, images))).to(torch.float32)
    if images.dtype == np.uint8:
        return pixels / 255
    least, most = pixels.min().item(), pixels.max().item()
    if not (least >= 0 and most <= 1):  # NaN is neither
        cure = "Undo a normalisation, or divide by the largest value."
        if math.isnan(least):
            cure = "Find where the values that are not numbers come from."
        raise DatasetError(
            f"{what}: values go from {least:g} to {most:g}; images are uint8, or floats in [0, 1] without NaN. "
            f"{cure}"
        )
    return pixels


def _channels_first(what: str, images: Array) -> Array:
    if 0 in images.shape or images.ndim not in (3, 4):
        raise DatasetError(
            f"{what}: images have shape {images.shape}; write (N, H, W), (N, H, W, C) or (N, C, H, W)."
        )
    if images.ndim == 3:
        return images[:, None]
    first, last = images.shape[1] <= 4, images.shape[3] <= 4
    if first == last:
        why = "both its second and its last axis" if first else "neither its second nor its last axis"
        raise DatasetError(f"{what}: shape {images.shape} does not tell its channels: {why} may be 1 to 4.")
    return images if first else images.transpose(0, 3, 1, 2)


def _checked_labels(what: str, labels: Array, num_classes: int | None) -> npt.NDArray[np.int64]:
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.ndim != 1 or not flat.size or flat.dtype.kind not in "iu":
        raise DatasetError(f"{what}: labels are {labels.dtype} {labels.shape}; write integers (N,).")
    if int(flat.min()) < 0:
        raise DatasetError(f"{what}: the label {int(flat.min())} is negative; classes count from 0.")
    if num_classes is not None and int(flat.max()) >= num_classes:
        raise DatasetError(
            f"{what}: the label {int(flat.max())} is none of the {num_classes} classes of training."
        )
    if num_classes is None and (gaps := _gaps(flat)):
        raise DatasetError(f"{what}: no image has label {gaps[0]}; classes count from 0 without gaps. Renumber.")
    return flat.astype(np.int64)


def _gaps(labels: Array) -> list[int]:
    """The first class below the largest that has no image, if there is one."""
    present = np.unique(labels)
    missing = np.flatnonzero(present != np.arange(len(present), dtype=present.dtype))
    return [int(missing[0])] if len(missing) else []
