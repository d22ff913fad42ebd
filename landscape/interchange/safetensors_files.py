"""Files of safetensors: named tensors and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from landscape.errors import ConfigurationError, CorruptSnapshotError, LandscapeError
from landscape.interchange.digests import KEY, check_digest
from landscape.interchange.state import State, check_names, check_tensors, positions_in

_LARGEST_HEADER = 100_000_000
_LONGEST_TEXT = 200


def library() -> ModuleType:
    """The package ``safetensors``; ConfigurationError says how to get it."""
    try:
        import safetensors.torch  # noqa: PLC0415  (an optional extra)
    except ImportError as error:
        raise ConfigurationError(
            "safetensors files need the package safetensors: pip install 'landscape-torch[import]'."
        ) from error
    return safetensors


def looks_like_safetensors(head: bytes, size: int) -> bool:
    """Whether the first bytes of a file are the length of a JSON header and its beginning."""
    length = int.from_bytes(head[:8], "little")
    return len(head) > 8 and head[8:9] == b"{" and length <= size - 8


def read_safetensors(path: Path, size: int) -> State:
    """All tensors of a safetensors file of ``size`` bytes; step and epoch from its metadata.

    Raises CorruptSnapshotError for headers whose offsets, shapes and types do not fit each other and the file, and
    for other contents than those of the digest that exported files have.
    """
    package = library()
    metadata = _metadata(path, size)
    try:
        with package.safe_open(path, framework="pt") as file:
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise CorruptSnapshotError(f"{path} cannot be read: {error}. Restore it from a copy.") from error
    check_names(path, tensors)
    check_tensors(path, tensors, size)
    if KEY in metadata:
        check_digest(path, metadata.pop(KEY), tensors, metadata)
    numbers = {
        name: int(text) for name, text in metadata.items() if len(text) < 20 and text.isascii() and text.isdigit()
    }
    return State(tensors, positions_in(numbers))


def metadata_of(path: Path, size: int) -> dict[str, str]:
    """The short strings under ``__metadata__``; CorruptSnapshotError for headers that name something twice."""
    return {name: value for name, value in _metadata(path, size).items() if len(value) <= _LONGEST_TEXT}


def _metadata(path: Path, size: int) -> dict[str, str]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _LARGEST_HEADER):
            raise CorruptSnapshotError(
                f"{path}: its header says {length} bytes of {size}. Restore it from a copy."
            )
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except LandscapeError as error:
        raise CorruptSnapshotError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise CorruptSnapshotError(f"{path}: its header is no JSON: {error}. Restore it from a copy.") from error
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else {}
    entries = metadata.items() if isinstance(metadata, dict) else ()
    return {name: value for name, value in entries if isinstance(value, str)}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise CorruptSnapshotError("its header names something twice. Ask its author for a plain file.")
    return value
