"""Data of the user's own: files, folders of images and functions, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import small_mnist

from landscape.errors import DatasetError
from landscape.problem.datasets import load_dataset
from landscape.problem.own_data import absolute, is_own, open_dataset

RNG = np.random.default_rng(0)
Arrays = dict[str, Any]


def small(count: int = 12, shape: tuple[int, ...] = (6, 7)) -> Arrays:
    """Images and labels of both splits, by the names of HDF5."""
    arrays: Arrays = {}
    for split in ("train", "test"):
        arrays[f"{split}/x"] = RNG.integers(0, 256, (count, *shape), dtype=np.uint8)
        arrays[f"{split}/y"] = np.arange(count) % 3
    return arrays


def write_hdf5(path: Path, arrays: Arrays) -> str:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values)
    return str(path)


def write_npz(path: Path, arrays: Arrays) -> str:
    renamed = {"_".join(reversed(name.split("/"))): values for name, values in arrays.items()}
    np.savez_compressed(path, allow_pickle=True, **renamed)
    return str(path)


def write_folder(path: Path, arrays: Arrays) -> str:
    for split in ("train", "test"):
        for place, (pixels, label) in enumerate(zip(arrays[f"{split}/x"], arrays[f"{split}/y"], strict=True)):
            folder = path / split / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{place:03}.png")
    return str(path)


def test_mnist_from_a_file_is_mnist(tmp_path: Path) -> None:
    """The same arrays have the same digest, wherever they come from: that proves which data a run belongs to."""
    (x, y), (test_x, test_y) = small_mnist("train"), small_mnist("test")
    arrays = {"train/x": x, "train/y": y, "test/x": test_x, "test/y": test_y}
    whole = load_dataset("mnist")
    found = [
        open_dataset(write_hdf5(tmp_path / "d.h5", arrays)),
        open_dataset(write_npz(tmp_path / "d.npz", arrays)),
        open_dataset(write_npz(tmp_path / "f.npz", arrays | {"train/x": x.astype(np.float32) / 255})),
    ]
    assert len({data.sha256 for data in found}) == 1
    assert torch.equal(found[0].images, whole.images[: len(x)])
    assert [data.name for data in found] == ["d.h5", "d.npz", "f.npz"]
    assert len(open_dataset(str(tmp_path / "d.h5"), "test")) == len(test_y)


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 3), (3, 6, 7)])
def test_channels_come_first(tmp_path: Path, shape: tuple[int, ...]) -> None:
    arrays = small(shape=shape)
    data = open_dataset(write_hdf5(tmp_path / "d.hdf5", arrays))
    assert data.images.shape == (12, 1 if len(shape) == 2 else 3, 6, 7)
    pixel = arrays["train/x"][5][(2, 1, 4) if shape[0] == 3 else (1, 4, 2)[: len(shape)]]
    assert float(data.images[5, -1, 1, 4] * 255) == pytest.approx(pixel)
    assert data.num_classes == 3


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    first = open_dataset(write_hdf5(tmp_path / "d.h5", small()))
    assert open_dataset(str(tmp_path / "d.h5")) is first
    assert open_dataset(write_hdf5(tmp_path / "d.h5", small(24))).sha256 != first.sha256


def test_x_and_y_alone_serve_both_splits(tmp_path: Path) -> None:
    arrays = {"x": small()["train/x"], "y": small()["train/y"][:, None]}  # Keras's labels have a second axis
    path = write_hdf5(tmp_path / "d.h5", arrays)
    assert open_dataset(path, "train") is open_dataset(path, "test")


def test_a_folder_of_images(tmp_path: Path) -> None:
    arrays = small(shape=(6, 7, 3))
    name = write_folder(tmp_path / "photos", arrays)
    data = open_dataset(name)
    assert (data.name, data.num_classes, len(data)) == ("photos/", 3, 12)
    # By class, then by name; PNG keeps every pixel.
    order = np.argsort(arrays["train/y"], kind="stable")
    assert data.labels.tolist() == sorted(arrays["train/y"].tolist())
    expected = torch.from_numpy(arrays["train/x"][order]).permute(0, 3, 1, 2).float() / 255
    assert torch.equal(data.images, expected)
    assert open_dataset(f"{name}/train").sha256 == data.sha256
    Image.fromarray(arrays["train/x"][0][:5, :5]).save(tmp_path / "photos/train/class0/other.png")
    with pytest.raises(DatasetError, match="2 sizes"):
        open_dataset(f"{name}/../photos")
    resized = open_dataset(f"{name}@8")
    assert (resized.images.shape[1:], resized.name) == ((3, 8, 8), "photos@8/")


def test_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    code = "import torch\ndef make(split):\n    n = {'train': 6, 'test': 3}[split]\n    "
    code += "return torch.rand(n, 1, 4, 4 + 1), torch.arange(n) % 3\ndef wrong(split): raise KeyError(split)\n"
    (tmp_path / "own_module_for_test.py").write_text(code)
    data = open_dataset("own_module_for_test:make", "test")
    assert (len(data), data.num_classes, data.name) == (3, 3, "own_module_for_test:make")
    with pytest.raises(DatasetError, match="KeyError"):
        open_dataset("own_module_for_test:wrong")
    with pytest.raises(DatasetError, match="cannot be imported"):
        open_dataset("own_module_for_test:missing")


def replaced(**changes: Any) -> Arrays:
    return small() | {name.replace("_", "/"): values for name, values in changes.items()}


@pytest.mark.parametrize("write", [write_hdf5, write_npz])
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (replaced(train_x=np.full((12, 6, 7), 1.5)), "from 1.5 to 1.5"),
        (replaced(test_x=np.full((12, 6, 7), np.nan)), "NaN"),
        (replaced(train_x=np.full((12, 6, 7), -0.1, np.float32)), "values go from -0.1"),
        (replaced(train_x=np.zeros((12, 6, 7), np.int64)), "images are int64"),
        (replaced(train_x=np.zeros((12, 3, 7, 3), np.uint8)), "does not tell its channels"),
        (replaced(train_x=np.zeros((12, 7, 7, 7), np.uint8)), "does not tell its channels"),
        (replaced(train_x=np.zeros((12, 42), np.uint8)), r"shape \(12, 42\)"),
        (replaced(train_x=np.zeros((0, 6, 7), np.uint8)), r"shape \(0, 6, 7\)"),
        (replaced(train_x=np.zeros((11, 6, 7), np.uint8)), "11 images have 12 labels"),
        (replaced(train_y=np.arange(12) % 3 * 2), "no image has label 1"),
        (replaced(train_y=np.arange(12) % 3 - 1), "label -1 is negative"),
        (replaced(test_y=np.arange(12) % 4), "label 3 is none of the 3 classes"),
        (replaced(train_y=np.zeros(12)), "labels are float64"),
        (replaced(train_y=np.zeros((12, 2), int)), "labels are int64"),
        (replaced(test_x=np.zeros((12, 6, 8), np.uint8)), "differ in shape"),
        ({"train/x": small()["train/x"]}, "no train images and labels"),
    ],
)
def test_bad_arrays_are_refused_in_one_line(
    tmp_path: Path, write: Callable[[Path, Arrays], str], arrays: Arrays, message: str
) -> None:
    path = write(tmp_path / ("d.npz" if write is write_npz else "d.h5"), arrays)
    with pytest.raises(DatasetError, match=message) as caught:
        open_dataset(path)
    assert "\n" not in str(caught.value)


def test_hostile_files_are_refused(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "secret.h5", small())
    with h5py.File(tmp_path / "link.h5", "w") as file:
        for name in small():
            file[name] = h5py.ExternalLink("secret.h5", name)
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.create_dataset("x", (10**9, 28, 28), "u1", chunks=(1000, 28, 28), compression="gzip")
        file["y"] = np.zeros(4, np.int64)
    with h5py.File(tmp_path / "large.h5", "w") as file:
        file.create_dataset("x", (3 * 10**4, 300, 300), "u1", chunks=(100, 300, 300), compression="gzip")
        file["x"][:100] = RNG.integers(0, 256, (100, 300, 300))  # so that the file could hold it
        file["y"] = np.zeros(4, np.int64)
    (tmp_path / "link2.h5").symlink_to(tmp_path / "secret.h5")
    np.savez(tmp_path / "pickle.npz", allow_pickle=True, x=np.array([{"a": 1}], object), y=np.zeros(1, int))
    (tmp_path / "noise.npz").write_bytes(RNG.bytes(1000))
    (tmp_path / "image").mkdir()
    (tmp_path / "image/class").mkdir()
    (tmp_path / "image/class/a.png").write_bytes(b"GIF89a" + RNG.bytes(100))
    for name, message in {
        "link.h5": "soft or external link",
        "bomb.h5": "more than the file can hold",
        "large.h5": "are read at most",
        "link2.h5": "symbolic link",
        "pickle.npz": "holds object",
        "noise.npz": "cannot be read",
        "image": "no image that can be read",
        "absent.h5": "does not exist",
        "absent": "unknown dataset",
    }.items():
        with pytest.raises(DatasetError, match=message) as caught:
            open_dataset(str(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [is_own(name) for name in ("mnist", "nist", "a.h5", "a/b", "a.b:c")] == [False, False, True, True, True]
    assert absolute("mnist") == "mnist"
    assert absolute("a.b:c") == "a.b:c"
    assert absolute("a.npz") == str(tmp_path / "a.npz")
