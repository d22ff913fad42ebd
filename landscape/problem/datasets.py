"""Datasets by name, as tensors in [0, 1]."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Generator, Tensor

from landscape.errors import ConfigurationError, DatasetError

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Dataset:
    """Images in [0, 1] and their labels."""

    name: str
    images: Tensor  # (N, C, H, W) float32
    labels: Tensor  # (N,) int64
    num_classes: int

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def sha256(self) -> str:
        """Digest of the very arrays in use, labels and order included."""
        digest = hashlib.sha256()
        for tensor in (self.images, self.labels):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
        return digest.hexdigest()

    def to(self, device: torch.device) -> Dataset:
        """The same dataset on a device."""
        if self.images.device == device:
            return self
        return Dataset(self.name, self.images.to(device), self.labels.to(device), self.num_classes)

    def double(self) -> Dataset:
        """The same dataset in float64."""
        return Dataset(self.name, self.images.double(), self.labels, self.num_classes)

    def subset(self, count: int, seed: int, part: int = 0, balanced: bool = False) -> Dataset:
        """``count`` samples of a permutation drawn from ``seed``, from the ``part``-th on; parts are disjoint.

        All samples, in order, if there are no more than ``count``. ``balanced`` takes from all classes in turn, so
        that their counts differ by one at most, as long as each class has samples left.

        Raises:
            ConfigurationError: If ``count`` is below 1, or there are not so many parts.
        """
        if count < 1:
            raise ConfigurationError(f"a subset of {count} samples was asked for; take at least 1.")
        if part and (part + 1) * count > len(self):
            raise ConfigurationError(
                f"{len(self)} samples of {self.name} have no {part + 1} disjoint parts of {count}; take fewer "
                f"samples, or fewer repeats."
            )
        if count >= len(self):
            return self
        order = torch.randperm(len(self), generator=Generator().manual_seed(seed))
        order = self._by_turns(order) if balanced else order
        chosen = order[part * count : (part + 1) * count].to(self.labels.device)
        return Dataset(self.name, self.images[chosen], self.labels[chosen], self.num_classes)

    def _by_turns(self, order: Tensor) -> Tensor:
        """The same samples, first the first one of each class, then the second ones, and so on."""
        labels = self.labels.cpu()[order]
        by_class = torch.argsort(labels, stable=True)
        counts = torch.bincount(labels)
        starts = (counts.cumsum(0) - counts)[labels[by_class]]
        turn = torch.empty_like(order)
        turn[by_class] = torch.arange(len(order)) - starts
        return order[torch.argsort(turn, stable=True)]


def load_dataset(name: str, split: str = "train") -> Dataset:
    """Load a dataset by name: ``mnist`` ships with the package, the others are downloaded once.

    Raises:
        DatasetError: If the name is unknown, a file is damaged, or a download fails.

    """
    if name not in DATASETS:
        raise DatasetError(f"unknown dataset {name!r}; choose one of {', '.join(DATASETS)}.")
    if split not in SPLITS:
        raise DatasetError(f"unknown split {split!r} of {name}; choose one of {', '.join(SPLITS)}.")
    return _load(name, split)


@functools.cache
def _load(name: str, split: str) -> Dataset:
    pixels, labels = DATASETS[name](split)
    images = torch.from_numpy(np.ascontiguousarray(pixels)).to(torch.float32) / 255
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return Dataset(name, images, torch.from_numpy(np.asarray(labels, dtype=np.int64)), int(max(labels)) + 1)


def cache_directory() -> Path:
    """Where downloaded datasets are kept: ``$LANDSCAPE_CACHE``, else the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("LANDSCAPE_CACHE") or Path(base) / "landscape")


def _embedded_mnist(split: str) -> tuple[np.ndarray, np.ndarray]:
    file = resources.files("landscape_data") / "mnist.h5"
    try:
        with resources.as_file(file) as path, h5py.File(path, "r", locking=False) as store:
            return store[f"{split}/x"][()], store[f"{split}/y"][()]
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise DatasetError(
            f"the embedded MNIST file {file} cannot be read ({error}); reinstall the package."
        ) from error


def _from_torchvision(class_name: str) -> Callable[[str], tuple[np.ndarray, np.ndarray]]:
    def load(split: str) -> tuple[np.ndarray, np.ndarray]:
        from torchvision import datasets  # noqa: PLC0415  (takes seconds to import)

        root = cache_directory() / "datasets"
        try:
            with contextlib.redirect_stdout(sys.stderr):  # torchvision prints; stdout belongs to results
                dataset = getattr(datasets, class_name)(root, train=split == "train", download=True)
        except (OSError, RuntimeError) as error:
            raise DatasetError(
                f"{class_name} is not in {root} and could not be downloaded ({error}). Connect to the network "
                f"once, or put torchvision's files there; LANDSCAPE_CACHE names another cache directory."
            ) from error
        return np.asarray(dataset.data), np.asarray(dataset.targets)

    return load


DATASETS: dict[str, Callable[[str], tuple[np.ndarray, np.ndarray]]] = {
    "mnist": _embedded_mnist,
    "fashion-mnist": _from_torchvision("FashionMNIST"),
    "kmnist": _from_torchvision("KMNIST"),
    "cifar10": _from_torchvision("CIFAR10"),
}
