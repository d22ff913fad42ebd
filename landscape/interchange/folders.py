"""Folders of checkpoints: of Model Zoos (one a model, a folder an epoch), or with the files themselves."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from landscape.errors import CorruptSnapshotError, MissingSnapshotError, SnapshotError, UnsupportedFormatError
from landscape.snapshots.hdf5 import check_regular

_ZOO_FOLDER = re.compile(r"checkpoint_(\d+)")
_ZOO_FILE = "checkpoints"
_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".h5", ".hdf5", ".npy", ".npz"})
_LARGEST_SETTINGS = 2**24
# Names of settings in the Model Zoos, and here.
_ZOO_SETTINGS = {
    "optim::optimizer": "optimizer",
    "optim::lr": "learning_rate",
    "training::batchsize": "batch_size",
    "seed": "seed",
}


@dataclass(frozen=True)
class Source:
    """Files to read, the epoch that a folder's name gives to each, and the settings that lie beside them."""

    files: tuple[Path, ...]
    epochs: tuple[int | None, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def expand(paths: Sequence[Path]) -> Source:
    """Files as they are, folders by their checkpoints; MissingSnapshotError, UnsupportedFormatError."""
    if not paths:
        raise MissingSnapshotError("No file to import was given.")
    parts = [_folder(path) if path.is_dir() else Source((path,), (None,)) for path in paths]
    settings = [part.settings for part in parts if part.settings]
    if any(other != settings[0] for other in settings[1:]):
        raise UnsupportedFormatError(
            "The folders hold checkpoints of runs with different settings. Import each alone."
        )
    files = tuple(file for part in parts for file in part.files)
    if len(set(files)) != len(files):
        raise UnsupportedFormatError("A file was given twice. Leave one out.")
    return Source(
        files,
        tuple(epoch for part in parts for epoch in part.epochs),
        settings[0] if settings else {},
        tuple(note for part in parts for note in part.notes),
    )


def _folder(path: Path) -> Source:
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise SnapshotError(f"{path} cannot be listed: {error}. Check its permissions.") from error
    zoo = [(int(match[1]), path / name / _ZOO_FILE) for name in names if (match := _ZOO_FOLDER.fullmatch(name))]
    found = sorted((epoch, file) for epoch, file in zoo if file.exists())
    if found:
        settings = _settings(path / "params.json")
        ignored = (
            [f"{path}: ignored optimizer files"]
            if any((f.parent / "optimizer").exists() for _, f in found)
            else []
        )
        known = [f"{path}: settings {', '.join(settings)} taken from params.json"] if settings else []
        return Source(tuple(f for _, f in found), tuple(e for e, _ in found), settings, tuple(ignored + known))
    files = tuple(path / name for name in names if Path(name).suffix.lower() in _SUFFIXES)
    if not files:
        raise UnsupportedFormatError(
            f"{path} holds no checkpoint ({', '.join(sorted(_SUFFIXES))}). Give the files."
        )
    return Source(files, (None,) * len(files))


def _settings(file: Path) -> dict[str, Any]:
    """Settings of a Model Zoo's model under the names that are used here; {} if there are none."""
    if not file.exists():
        return {}
    if check_regular(file) > _LARGEST_SETTINGS:
        raise CorruptSnapshotError(f"{file} is too large for settings. Remove it, and use --settings.")
    try:
        value = json.loads(file.read_text())
    except (ValueError, RecursionError, OSError) as error:
        raise CorruptSnapshotError(f"{file} is not JSON: {error}. Remove it, and use --settings.") from error
    entries = value if isinstance(value, dict) else {}
    return {
        new: entries[old] for old, new in _ZOO_SETTINGS.items() if isinstance(entries.get(old), str | int | float)
    }
