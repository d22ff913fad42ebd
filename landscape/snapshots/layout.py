"""Which tensor lies where in the flat parameter vector."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from landscape.errors import ConfigurationError

# Types that become float32 without rounding.
_EXACT_TYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class ParameterSlot:
    """One tensor's place in the flat vector: entries ``offset`` to ``offset + numel``."""

    name: str
    shape: tuple[int, ...]
    offset: int
    numel: int


Layout = tuple[ParameterSlot, ...]


def layout_of(named: Iterable[tuple[str, Tensor]]) -> Layout:
    """Slots in the order of ``named``; ConfigurationError when empty or when a name comes twice."""
    slots: list[ParameterSlot] = []
    offset = 0
    for name, tensor in named:
        slots.append(ParameterSlot(name, tuple(tensor.shape), offset, tensor.numel()))
        offset += tensor.numel()
    layout = tuple(slots)
    check_layout(layout)
    return layout


def num_parameters(layout: Layout) -> int:
    """Length P of the flat vector."""
    return sum(slot.numel for slot in layout)


def check_layout(layout: Layout) -> None:
    """Raise ConfigurationError unless names are unique and the slots fill a vector without gaps."""
    names = [slot.name for slot in layout]
    if len(set(names)) != len(names) or "" in names:
        raise ConfigurationError(f"Got parameter names {names}; each must be non-empty and unique. Rename them.")
    offset = 0
    for slot in layout:
        if slot.offset != offset or slot.numel != math.prod(slot.shape) or min(slot.shape, default=0) < 0:
            raise ConfigurationError(
                f"Got the slot {slot}; it must begin at {offset} and hold the product of its shape. "
                "Build layouts with layout_of()."
            )
        offset += slot.numel
    if offset == 0:
        raise ConfigurationError("Got a layout without any parameter; a run needs at least one. Check the model.")


def _check_names(layout: Layout, names: Iterable[str]) -> None:
    expected, present = {slot.name for slot in layout}, set(names)
    if expected != present:
        raise ConfigurationError(
            f"Got tensors that do not fit the layout: missing {sorted(expected - present)}, "
            f"unexpected {sorted(present - expected)}. Pass exactly the layout's tensors."
        )


def _flat(slot: ParameterSlot, tensor: Tensor) -> Tensor:
    if tuple(tensor.shape) != slot.shape:
        raise ConfigurationError(
            f"Got {slot.name!r} of shape {tuple(tensor.shape)}; the layout says {slot.shape}. "
            "Use the model that the layout was made from."
        )
    if tensor.dtype not in _EXACT_TYPES:
        raise ConfigurationError(
            f"Got {slot.name!r} of type {tensor.dtype}; stored weights are float32 and would be rounded. "
            "Convert it with .float() first."
        )
    return tensor.detach().to("cpu", torch.float32).reshape(-1)


def flatten(layout: Layout, tensors: Mapping[str, Tensor]) -> npt.NDArray[np.float32]:
    """Flat vector, float32 (P,); ConfigurationError on wrong names, shapes or types that would be rounded."""
    _check_names(layout, tensors)
    vector = np.empty(num_parameters(layout), np.float32)
    for slot in layout:
        vector[slot.offset : slot.offset + slot.numel] = _flat(slot, tensors[slot.name]).numpy()
    return vector


def unflatten(layout: Layout, vector: npt.NDArray[Any]) -> dict[str, Tensor]:
    """Fresh tensors in the layout's shapes, of the type of ``vector`` (P,); ConfigurationError on another size."""
    total = num_parameters(layout)
    if vector.shape != (total,) or vector.dtype.kind != "f":
        raise ConfigurationError(
            f"Got a vector of shape {vector.shape} and type {vector.dtype}; the layout needs floats ({total},). "
            "Pass one row of a run with the same layout."
        )
    native = vector.astype(vector.dtype.newbyteorder("="))
    return {
        slot.name: torch.from_numpy(native[slot.offset : slot.offset + slot.numel].copy()).reshape(slot.shape)
        for slot in layout
    }
