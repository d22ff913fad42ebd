"""Datasets by name; no test here uses the network."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.datasets

from landscape.errors import ConfigurationError, DatasetError
from landscape.problem.datasets import Dataset, cache_directory, load_dataset
from landscape.problem.device import resolve_device

# Published counts of the digits 0 … 9.
MNIST_COUNTS = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}


def tiny(count: int = 6) -> Dataset:
    images = torch.arange(count * 4, dtype=torch.float32).reshape(count, 1, 2, 2) / (4 * count)
    return Dataset("tiny", images, torch.arange(count) % 3, 3)


@pytest.mark.parametrize("split", MNIST_COUNTS)
def test_embedded_mnist(split: str) -> None:
    data = load_dataset("mnist", split)
    assert data.images.shape == (sum(MNIST_COUNTS[split]), 1, 28, 28)
    assert data.images.dtype == torch.float32
    assert (float(data.images.min()), float(data.images.max())) == (0.0, 1.0)
    assert torch.bincount(data.labels).tolist() == MNIST_COUNTS[split]
    assert (len(data), data.num_classes) == (len(data.labels), 10)
    # The mean and standard deviation by which everybody normalises the training images.
    if split == "train":
        assert float(data.images.mean()) == pytest.approx(0.1307, abs=1e-4)
        assert float(data.images.std()) == pytest.approx(0.3081, abs=1e-4)
    assert load_dataset("mnist", split) is data


def test_digest_knows_order_labels_and_shape() -> None:
    data = tiny()
    backwards = torch.arange(5, -1, -1)
    others = [
        Dataset("tiny", data.images[backwards], data.labels[backwards], 3),
        Dataset("tiny", data.images, data.labels.roll(1), 3),
        Dataset("tiny", data.images.reshape(6, 1, 1, 4), data.labels, 3),
        Dataset("tiny", data.images + 1e-6, data.labels, 3),
    ]
    digests = {d.sha256 for d in [data, *others]}
    assert len(digests) == 5
    assert all(len(d) == 64 for d in digests)
    assert Dataset("renamed", data.images.clone(), data.labels.clone(), 3).sha256 == data.sha256


def test_subset_is_a_sample_without_repetition() -> None:
    data = tiny(50)
    first, again, other = data.subset(20, 1), data.subset(20, 1), data.subset(20, 2)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    chosen = (first.images[:, 0, 0, 0] * 50).round().long()
    assert len(set(chosen.tolist())) == 20
    assert torch.equal(first.labels, data.labels[chosen])
    assert torch.equal(data.subset(30, 1).images[:20], first.images)
    parts = [data.subset(20, 1, part) for part in range(2)]
    assert torch.equal(parts[0].images, first.images)
    assert torch.equal(torch.cat([part.images for part in parts]), data.subset(40, 1).images)
    with pytest.raises(ConfigurationError, match="no 3 disjoint parts of 20"):
        data.subset(20, 1, 2)
    assert data.subset(50, 3) is data
    assert data.subset(51, 3) is data
    with pytest.raises(ConfigurationError, match="at least 1"):
        data.subset(0, 0)


def test_balanced_subsets_take_from_all_classes_in_turn() -> None:
    images = torch.arange(40.0).reshape(40, 1, 1, 1) / 40
    data = Dataset("skewed", images, torch.tensor([0] * 25 + [1] * 10 + [2] * 5), 3)
    parts = [data.subset(6, 1, part, balanced=True) for part in range(3)]
    assert [torch.bincount(part.labels, minlength=3).tolist() for part in parts] == [
        [2, 2, 2],
        [2, 2, 2],
        [3, 2, 1],
    ]
    chosen = torch.cat([part.images.flatten() for part in parts]).tolist()
    assert len(set(chosen)) == 18
    assert chosen == data.subset(18, 1, balanced=True).images.flatten().tolist()
    assert data.subset(6, 2, balanced=True).images.tolist() != parts[0].images.tolist()


@pytest.mark.parametrize(("name", "split"), [("imagenet", "train"), ("mnist", "validation")])
def test_unknown_names_are_refused(name: str, split: str) -> None:
    with pytest.raises(DatasetError, match=r"unknown .* choose one of (mnist|train), "):
        load_dataset(name, split)


@pytest.mark.parametrize("error", [URLError("no route to host"), RuntimeError("File not found or corrupted.")])
def test_failed_download_says_what_to_do(
    error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setenv("LANDSCAPE_CACHE", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets, "KMNIST", fail)
    with pytest.raises(DatasetError, match="Connect to the network") as caught:
        load_dataset("kmnist")
    assert str(tmp_path / "datasets") in str(caught.value)
    assert caught.value.__cause__ is error


def test_colour_images_become_channels_first(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)

    class Fake:
        def __init__(self, root: Path, train: bool, download: bool) -> None:
            assert download
            assert not train
            self.data, self.targets = pixels, [0, 2, 1, 0, 2]

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Fake)
    data = load_dataset("cifar10", "test")
    assert data.images.shape == (5, 3, 8, 8)
    assert torch.equal((data.images[3, 2, 5, 6] * 255).round(), torch.tensor(float(pixels[3, 5, 6, 2])))
    assert (data.labels.tolist(), data.num_classes) == ([0, 2, 1, 0, 2], 3)


def test_cache_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LANDSCAPE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "landscape"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == Path.home() / ".cache" / "landscape"
    monkeypatch.setenv("LANDSCAPE_CACHE", str(tmp_path / "here"))
    assert cache_directory() == tmp_path / "here"


@pytest.mark.parametrize("name", ["tpu", "cpu:x", "", "CPU"])
def test_unknown_devices_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="choose auto, cpu, cuda"):
        resolve_device(name)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigurationError, match="torch sees 2 GPUs"):
        resolve_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    data = tiny()
    assert data.to(torch.device("cpu")) is data
