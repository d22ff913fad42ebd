"""Which buffer, such as a running mean, lies where among the bytes that are stored beside a flat vector."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from landscape.errors import ConfigurationError

# Types whose bytes mean the same on all machines; stored little-endian.
BUFFER_TYPES: dict[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16,
        torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    )
}  # fmt: skip


@dataclass(frozen=True)
class BufferSlot:
    """One buffer's place: bytes ``offset`` to ``offset + length``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


BufferLayout = tuple[BufferSlot, ...]


def buffer_layout_of(named: Iterable[tuple[str, Tensor]]) -> BufferLayout:
    """Slots in the order of ``named``; ConfigurationError for types that are no plain numbers."""
    slots: list[BufferSlot] = []
    offset = 0
    for name, tensor in named:
        dtype = str(tensor.dtype).removeprefix("torch.")
        slots.append(BufferSlot(name, dtype, tuple(tensor.shape), offset, tensor.numel() * tensor.itemsize))
        offset += slots[-1].length
    layout = tuple(slots)
    check_buffer_layout(layout)
    return layout


def num_bytes(layout: BufferLayout) -> int:
    """Bytes of all buffers together."""
    return sum(slot.length for slot in layout)


def check_buffer_layout(layout: BufferLayout) -> None:
    """Raise ConfigurationError unless names are unique, types are known and the slots leave no gaps."""
    names = [slot.name for slot in layout]
    if len(set(names)) != len(names) or "" in names:
        raise ConfigurationError(f"Got buffer names {names}; each must be non-empty and unique. Rename them.")
    offset = 0
    for slot in layout:
        if slot.dtype not in BUFFER_TYPES:
            raise ConfigurationError(
                f"Got the buffer {slot.name!r} of type {slot.dtype}; only {', '.join(BUFFER_TYPES)} are stored."
            )
        length = math.prod(slot.shape) * BUFFER_TYPES[slot.dtype].itemsize
        if slot.offset != offset or slot.length != length or min(slot.shape, default=0) < 0:
            raise ConfigurationError(
                f"Got the slot {slot}; it must begin at {offset} and hold the product of its shape. "
                "Build layouts with buffer_layout_of()."
            )
        offset += slot.length


def pack_buffers(layout: BufferLayout, tensors: Mapping[str, Tensor]) -> npt.NDArray[np.uint8]:
    """Bytes of all buffers, uint8 (B,); ConfigurationError on other names, shapes or types than the layout's."""
    found = {slot.name: slot for slot in buffer_layout_of(tensors.items())}
    for slot in layout:
        other = found.pop(slot.name, None)
        if other is None or (other.dtype, other.shape) != (slot.dtype, slot.shape):
            said = "none" if other is None else f"{other.dtype} {other.shape}"
            raise ConfigurationError(
                f"Got {said} for the buffer {slot.name!r}; the layout says {slot.dtype} {slot.shape}. "
                "Use the model that the layout was made from."
            )
    if found:
        raise ConfigurationError(f"Got the buffers {', '.join(found)}, which the layout lacks. Leave them out.")
    return np.concatenate([np.empty(0, np.uint8), *(_bytes(tensors[slot.name]) for slot in layout)])


def _bytes(tensor: Tensor) -> npt.NDArray[np.uint8]:
    flat: npt.NDArray[np.uint8] = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return flat


def unpack_buffers(layout: BufferLayout, row: npt.NDArray[np.uint8]) -> dict[str, Tensor]:
    """Fresh tensors from the bytes (B,) of all buffers; ConfigurationError on another length."""
    if row.shape != (num_bytes(layout),) or row.dtype != np.uint8:
        raise ConfigurationError(
            f"Got {row.dtype} {row.shape}; the buffers have {num_bytes(layout)} bytes. "
            "Pass one row of a run with the same layout."
        )
    return {slot.name: _tensor(slot, row[slot.offset : slot.offset + slot.length]) for slot in layout}


def _tensor(slot: BufferSlot, data: npt.NDArray[np.uint8]) -> Tensor:
    kind = BUFFER_TYPES[slot.dtype]
    if not slot.length:
        return torch.empty(slot.shape, dtype=kind)  # torch cannot view empty arrays as another type
    return torch.from_numpy(data.copy()).view(kind).reshape(slot.shape)
