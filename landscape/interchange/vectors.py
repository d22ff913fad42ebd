"""Named tensors as one flat float32 vector: types told, infinities refused, names and shapes fitted."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from landscape.errors import ConfigurationError, NotFiniteError, UnsupportedFormatError
from landscape.snapshots import Layout, flatten, num_parameters, unflatten
from landscape.snapshots.buffers import BufferLayout, pack_buffers

# Buffers by the names that PyTorch's layers give them.
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_COUNTER = "num_batches_tracked"


def is_buffer(name: str) -> bool:
    """Whether PyTorch's own layers call a buffer so."""
    return name.rpartition(".")[2] in _BUFFERS


def named(layout: Layout, vector: Tensor) -> dict[str, Tensor]:
    """The tensors in a flat vector ``(P,)``; UnsupportedFormatError for another length."""
    if vector.shape != (num_parameters(layout),):
        raise UnsupportedFormatError(
            f"a row has {vector.numel()} numbers, the model {num_parameters(layout)}. Give their model."
        )
    return unflatten(layout, vector.numpy())


def parameters_of(tensors: dict[str, Tensor], buffers: frozenset[str]) -> tuple[dict[str, Tensor], list[str]]:
    """All but the buffers, as float32; notes say what was rounded.

    Raises:
        UnsupportedFormatError: For integers.
        NotFiniteError: For NaN and infinity.
    """
    chosen = {name: tensor for name, tensor in tensors.items() if name not in buffers}
    wrong = [f"{name} ({tensor.dtype})" for name, tensor in chosen.items() if not tensor.is_floating_point()]
    if wrong:
        raise UnsupportedFormatError(f"{', '.join(wrong[:8])}: parameters are floats. Leave them out of the file.")
    bad = {name: int((~tensor.isfinite()).sum()) for name, tensor in chosen.items() if not tensor.isfinite().all()}
    if bad:
        counts = ", ".join(f"{name} ({count})" for name, count in list(bad.items())[:8])
        raise NotFiniteError(f"NaN or infinite weights in {counts}. Use an earlier checkpoint.")
    return {name: tensor.float() for name, tensor in chosen.items()}, _casts(chosen)


def _casts(tensors: dict[str, Tensor]) -> list[str]:
    notes = []
    for dtype in (torch.float16, torch.bfloat16):
        if any(tensor.dtype == dtype for tensor in tensors.values()):
            notes.append(f"{str(dtype).removeprefix('torch.')} is stored as float32, exactly")
    doubles = [tensor for tensor in tensors.values() if tensor.dtype == torch.float64]
    if doubles:
        rounded = sum(int((tensor.float().double() != tensor).sum()) for tensor in doubles)
        how = f"rounded in {rounded} of {sum(map(torch.numel, doubles))} weights" if rounded else "exactly"
        notes.append(f"float64 is stored as float32, {how}")
    if any(not tensor.float().isfinite().all() for tensor in doubles):
        raise NotFiniteError("float64 weights beyond float32's range would become infinite. Rescale them.")
    return notes


def vector_of(layout: Layout, parameters: dict[str, Tensor]) -> npt.NDArray[np.float32]:
    """Flat vector ``(P,)``; UnsupportedFormatError tells how names and shapes differ from the first snapshot's."""
    problems = differences({slot.name: slot.shape for slot in layout}, parameters)
    if problems:
        raise UnsupportedFormatError(f"does not fit the first snapshot: {'; '.join(problems)}. Import it alone.")
    return flatten(layout, parameters)


def buffers_of(layout: BufferLayout, buffers: dict[str, Tensor]) -> npt.NDArray[np.uint8]:
    """Bytes ``(B,)``; UnsupportedFormatError for other buffers than the first snapshot's."""
    try:
        return pack_buffers(layout, buffers)
    except ConfigurationError as error:
        raise UnsupportedFormatError(f"does not fit the first snapshot. {error}") from error


def differences(expected: dict[str, tuple[int, ...]], found: dict[str, Tensor]) -> list[str]:
    """One line per name that is missing, unexpected or of another shape."""
    missing = [f"missing {name} {expected[name]}" for name in expected if name not in found]
    surplus = [f"unexpected {name} {tuple(found[name].shape)}" for name in found if name not in expected]
    reshaped = [
        f"{name} has shape {tuple(found[name].shape)} instead of {shape}"
        for name, shape in expected.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    return missing + surplus + reshaped


def counters(names: Iterable[str]) -> frozenset[str]:
    """Those of the names that count batches, which no output depends on in eval mode."""
    return frozenset(name for name in names if name.rpartition(".")[2] == _COUNTER)
