"""Files of ``torch.save``: state dicts, bare or in a checkpoint. No code in them is ever run."""

from __future__ import annotations

import argparse
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from landscape.errors import CorruptSnapshotError, LandscapeError, UnsafeFileError, UnsupportedFormatError
from landscape.interchange.state import State, check_names, check_tensors, positions_in

# Where training programs put the weights; others are named by the user.
KEYS = ("state_dict", "model_state_dict", "model", "module", "net")
# Averages of the weights beside them (timm).
_AVERAGES = ("state_dict_ema", "model_ema")
_OPTIMIZERS = re.compile("optimi[sz]er|scheduler|scaler")
_LARGEST_PICKLE = 2**26
_ATTRIBUTE_DICTS = (
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)
# Plain containers of settings: timm's arguments, Lightning's hyper-parameters. They hold values and do nothing.
_CONTAINERS: list[Any] = [argparse.Namespace, *((OrderedDict, name) for name in _ATTRIBUTE_DICTS)]
_RESAVE = "Where it was written, save the weights alone: torch.save(model.state_dict(), FILE)."


def read_torch(path: Path, size: int, key: str | None = None) -> State:
    """The state dict in a file of ``torch.save``, of ``size`` bytes; ``key`` names the entry that holds it.

    Raises UnsafeFileError, CorruptSnapshotError or UnsupportedFormatError.
    """
    state = _state_of(path, load_torch(path, size), key)
    check_names(path, state.tensors)
    check_tensors(path, state.tensors, size)
    check_storages(path, state.tensors)
    return state


def check_storages(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise UnsafeFileError for tensors on more bytes than a record of the archive has.

    torch maps the file into memory and takes the length from the pickle: what lies behind would be weights.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        lengths = {entry.file_size for entry in archive.infolist()}
    for name, tensor in tensors.items():
        length = tensor.untyped_storage().nbytes()
        if length not in lengths:
            raise UnsafeFileError(f"{path}: {name!r} lies in {length} bytes, which no record of it has. {_RESAVE}")


def load_torch(path: Path, size: int) -> Any:
    """Whatever ``torch.save`` wrote, its checksums verified; its tensors are not checked yet."""
    archive = zipfile.is_zipfile(path)
    if archive:
        _check_archive(path, size)
    return _load(path, archive)


def _check_archive(path: Path, size: int) -> None:
    # torch checks no checksum when it loads: a flipped bit would become another weight.
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
                    raise UnsafeFileError(
                        f"{path}: {entry.filename!r} is compressed, as torch never does. {_RESAVE}"
                    )
                if entry.filename.endswith("data.pkl") and entry.file_size > _LARGEST_PICKLE:
                    raise UnsafeFileError(f"{path} holds {entry.file_size} bytes beside its tensors. {_RESAVE}")
            damaged = archive.testzip()
    except LandscapeError:
        raise
    except Exception as error:
        raise CorruptSnapshotError(f"{path} cannot be read: {error}. Restore it from a copy.") from error
    if damaged:
        raise CorruptSnapshotError(
            f"{path}: {damaged!r} does not match its checksum: it is damaged, or was written with "
            "set_crc32_options(False). Restore it from a copy, or save it again."
        )


def _load(path: Path, archive: bool) -> Any:
    try:
        with torch.serialization.safe_globals(_CONTAINERS), warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    # Damaged pickles raise whatever their opcodes stumble over.
    except Exception as error:
        raise _refusal(path, str(error)) from error


def _refusal(path: Path, message: str) -> LandscapeError:
    wanted = re.search(r"GLOBAL (\S+)|class (\S+) is not", message)
    if wanted or "Unsupported operand" in message or "Can only" in message or "Trying to call" in message:
        name = next((group for group in wanted.groups() if group), "code") if wanted else "code"
        return UnsafeFileError(f"{path} holds more than tensors: {name}. Loading it would run code. {_RESAVE}")
    reason = (message.splitlines() or ["it ends too early"])[0][:200]
    if "Weights only load failed" in reason:
        reason = "its pickle is broken"
    return CorruptSnapshotError(f"{path} cannot be read: {reason}. Restore it from a copy.")


def _state_of(path: Path, value: Any, key: str | None) -> State:
    if not isinstance(value, Mapping):
        raise UnsupportedFormatError(f"{path} holds a {type(value).__name__}, not a state dict. {_RESAVE}")
    name, weights, notes = _choose(path, value, key)
    tensors = {k: v.detach() for k, v in weights.items() if isinstance(v, Tensor)}
    left = [str(k)[:80] for k, v in weights.items() if not isinstance(v, Tensor)]
    if left:
        notes.append(f"ignored {', '.join(left[:8])}: no tensors")
    position = positions_in(value) if name is not None else {}
    return State(tensors, position, tuple(notes))


def _choose(
    path: Path, value: Mapping[Any, Any], key: str | None
) -> tuple[str | None, Mapping[Any, Any], list[str]]:
    """Name of the entry with the weights (None: the file itself), its value, and notes."""
    if key is None and _has_tensors(value):
        return None, value, []
    found = [name for name in ((key,) if key is not None else KEYS) if _has_tensors(value.get(name))]
    if len(found) != 1:
        have = ", ".join(str(name)[:80] for name in list(value)[:20]) or "nothing"
        problem = f"holds weights under {', '.join(found)}" if found else "holds no state dict"
        problem = "is an optimizer's state, not weights" if {"state", "param_groups"} <= value.keys() else problem
        raise UnsupportedFormatError(f"{path} {problem}; it has {have}. Name the entry with --key.")
    return found[0], value[found[0]], [f"took the weights under {found[0]!r}", *_left_out(value, found[0])]


def _left_out(value: Mapping[Any, Any], chosen: str) -> list[str]:
    states = [str(name) for name in value if _OPTIMIZERS.search(str(name))]
    averages = [name for name in _AVERAGES if name in value and name != chosen]
    notes = [f"ignored the optimizer's state: {', '.join(states)}"] if states else []
    return notes + [f"left out the averaged weights {name!r}; --key {name} takes them" for name in averages]


def _has_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(entry, Tensor) for entry in value.values())
