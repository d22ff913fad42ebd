"""What a foreign file holds: named tensors, where in training they were, and what was left out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from landscape.errors import CorruptSnapshotError, UnsafeFileError, UnsupportedFormatError

# The name of a vector that holds all parameters, one after the other.
FLAT = ""
# Where in training a file says that it is, by its own words for it.
POSITIONS = {"step": "step", "global_step": "step", "iteration": "step", "epoch": "epoch"}
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16,
        torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    )
}  # fmt: skip
_LARGEST_POSITION = 2**62


@dataclass(frozen=True, eq=False)
class State:
    """Tensors by name, ``step`` and ``epoch`` as far as they are known, and notes to the user."""

    tensors: dict[str, Tensor]
    position: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def positions_in(values: Mapping[str, object]) -> dict[str, int]:
    """Step and epoch among the entries of a file; only plain, non-negative integers count."""
    found: dict[str, int] = {}
    for name, meaning in POSITIONS.items():
        value = values.get(name)
        if isinstance(value, Tensor) and value.numel() == 1 and not value.is_floating_point():
            value = value.item()
        if type(value) is int and 0 <= value < _LARGEST_POSITION:
            found.setdefault(meaning, value)
    return found


def check_tensors(path: object, tensors: Mapping[str, Tensor], size: int) -> None:
    """Refuse tensors that are larger than the ``size`` bytes of their file, or of a kind that is not stored.

    Raises:
        UnsafeFileError: For strides, devices or sizes by which a small file would become a large tensor.
        UnsupportedFormatError: For types that are no plain numbers.
    """
    total = 0
    for name, tensor in tensors.items():
        _check_kind(path, name, tensor)
        length = math.prod(tensor.shape) * tensor.itemsize
        total += length
        if max(length, *tensor.shape, 0) > size or length > tensor.untyped_storage().nbytes():
            raise UnsafeFileError(
                f"{path}: {name!r} declares {length} bytes by its shape {tuple(tensor.shape)}, more than is "
                "stored. The file is not read further; ask its author for a plain one."
            )
    # Tied weights are stored once and named several times.
    if total > 4 * size:
        raise UnsafeFileError(
            f"{path} declares {total} bytes of tensors in a file of {size}. It is not read further; ask its "
            "author for a plain one."
        )


def _check_kind(path: object, name: str, tensor: Tensor) -> None:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise UnsupportedFormatError(
            f"{path}: {name!r} is sparse, quantized or on no device; give a file of dense tensors."
        )
    if tensor.dtype not in DTYPES.values():
        raise UnsupportedFormatError(f"{path}: {name!r} is of type {tensor.dtype}; give real numbers, as float32.")


def check_names(path: object, names: Iterable[object]) -> None:
    """Raise CorruptSnapshotError for names that are no text that can be stored."""
    for name in names:
        if not isinstance(name, str) or not name or len(name) > 1000 or not name.isprintable():
            raise CorruptSnapshotError(f"{path}: {str(name)[:80]!r} is no name of a parameter. Check the file.")
