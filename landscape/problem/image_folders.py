"""Images in folders by class, as torchvision's ImageFolder: FOLDER/train/CLASS/*.png."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from landscape.errors import DatasetError
from landscape.snapshots.hdf5 import check_regular

Array = npt.NDArray[Any]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
_FORMATS = ("PNG", "JPEG", "BMP")
# Bands by mode of Pillow; palettes are written out as colours.
_BANDS = {"L": 1, "RGB": 3, "P": 3}
_MOST_PIXELS = 10**8
_MOST_FILES = 10**6


@dataclass(frozen=True)
class FolderSpec:
    """A folder, and the side to which its images are resized, if they are."""

    path: Path
    side: int | None

    @property
    def name(self) -> str:
        """What the data are called, wherever the folder lies."""
        return f"{self.path.resolve().name}{'' if self.side is None else f'@{self.side}'}/"


@dataclass(frozen=True)
class _Images:
    """Files of one split with their labels, and what their headers say."""

    files: Sequence[Path]
    labels: Sequence[int]
    sizes: frozenset[tuple[int, int]]
    bands: int


def folder_spec(name: str) -> FolderSpec | None:
    """The folder that ``FOLDER`` or ``FOLDER@SIDE`` names, None if there is none."""
    if Path(name).is_dir():
        return FolderSpec(Path(name), None)
    path, _, side = name.rpartition("@")
    if path and Path(path).is_dir() and side.isdecimal() and 1 <= int(side) <= 4096:
        return FolderSpec(Path(path), int(side))
    return None


def read_folder(folder: FolderSpec, most_bytes: int) -> dict[str, tuple[Array, Array]]:
    """Images ``(N, H, W)`` or ``(N, H, W, 3)`` uint8 and labels of both splits, the same if there is only one.

    Raises:
        DatasetError: If images are missing, damaged, of unequal sizes, or more than ``most_bytes`` as float32.
    """
    train, test = _splits(folder.path)
    classes = _folders(train)
    places = dict.fromkeys((train, test))
    found = {place: _look(place, classes) for place in places}
    sizes = frozenset[tuple[int, int]]().union(*(images.sizes for images in found.values()))
    if folder.side is None and len(sizes) > 1:
        some = ", ".join(f"{width}×{height}" for width, height in sorted(sizes)[:3])
        raise DatasetError(
            f"{folder.path}: images have {len(sizes)} sizes ({some} …); name it {folder.path}@32 for 32×32."
        )
    size = next(iter(sizes)) if folder.side is None else (folder.side, folder.side)
    bands = max(images.bands for images in found.values())
    arrays = {
        place: (_read(images, size, bands, most_bytes), np.array(images.labels)) for place, images in found.items()
    }
    return {"train": arrays[train], "test": arrays[test]}


def _splits(path: Path) -> tuple[Path, Path]:
    """Folders of training and test images; the same where there is one."""
    train = path / "train" if (path / "train").is_dir() else path
    tests = [path / name for name in ("test", "val") if (path / name).is_dir()]
    return train, tests[0] if tests and train != path else train


def _folders(path: Path) -> list[str]:
    names = sorted(entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))
    if not names:
        raise DatasetError(f"{path} has no folders of classes; lay images out as train/CLASS/*.png.")
    return names


def _look(path: Path, classes: Sequence[str]) -> _Images:
    """What the headers say; no image is decoded."""
    unknown = set(_folders(path)) - set(classes)
    if unknown:
        raise DatasetError(
            f"{path} has the classes {', '.join(sorted(unknown)[:3])}, which have no images for training."
        )
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        here = sorted(p for p in (path / name).glob("*") if p.suffix.lower() in SUFFIXES)
        files += here
        labels += [label] * len(here)
    if not 0 < len(files) <= _MOST_FILES:
        raise DatasetError(
            f"{path} holds {len(files)} images ({', '.join(SUFFIXES)}); from 1 to {_MOST_FILES} are read."
        )
    headers = [_header(file) for file in files]
    return _Images(files, labels, frozenset(size for size, _ in headers), max(bands for _, bands in headers))


def _header(file: Path) -> tuple[tuple[int, int], int]:
    from PIL import Image  # noqa: PLC0415  (not needed for any other data)

    check_regular(file)
    try:
        with Image.open(file, formats=_FORMATS) as image:
            size, mode = image.size, image.mode
    except Exception as error:
        raise _damaged(file, error) from error
    if mode not in _BANDS:
        raise DatasetError(f"{file} has pixels of the kind {mode}; save it as grey or RGB with 8 bits.")
    if size[0] * size[1] > _MOST_PIXELS:
        raise DatasetError(f"{file} declares {size[0]}×{size[1]} pixels; {_MOST_PIXELS} are read at most.")
    return size, _BANDS[mode]


def _read(images: _Images, size: tuple[int, int], bands: int, most_bytes: int) -> Array:
    from PIL import Image  # noqa: PLC0415

    shape = (len(images.files), size[1], size[0], bands)
    if int(np.prod(shape, dtype=object)) * 4 > most_bytes:
        raise DatasetError(
            f"{len(images.files)} images of {size[0]}×{size[1]} take more than {most_bytes} bytes. Take a part."
        )
    pixels = np.empty(shape, np.uint8)
    for place, file in enumerate(images.files):
        try:
            with Image.open(file, formats=_FORMATS) as image:
                whole = image.convert("L" if bands == 1 else "RGB")
                if whole.size != size:
                    whole = whole.resize(size, Image.Resampling.BILINEAR)
                pixels[place] = np.asarray(whole).reshape(shape[1:])
        except Exception as error:
            raise _damaged(file, error) from error
    return pixels[..., 0] if bands == 1 else pixels


def _damaged(file: Path, error: Exception) -> DatasetError:
    return DatasetError(f"{file} is no image that can be read ({' '.join(str(error).split())[:200]}); remove it.")
