"""States as bytes between two processes: the length of a JSON header, the header, the tensors. No pickles."""

from __future__ import annotations

import json
import math
from typing import IO, Any

import torch
from torch import Tensor

from landscape import errors
from landscape.errors import CorruptSnapshotError, LandscapeError
from landscape.interchange.state import DTYPES, State, positions_in


class BrokenOffError(CorruptSnapshotError):
    """The other process ended in the middle of a frame."""


_LARGEST_HEADER = 2**27
_LARGEST_TENSOR = 2**40


def write_frame(stream: IO[bytes], header: dict[str, Any], tensors: tuple[Tensor, ...] = ()) -> None:
    """One header and the bytes of the tensors that it names."""
    text = json.dumps(header).encode()
    stream.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors:
        if tensor.numel():
            stream.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def write_state(stream: IO[bytes], number: int, state: State) -> None:
    """A state of file ``number``."""
    described = [[k, str(v.dtype).removeprefix("torch."), list(v.shape)] for k, v in state.tensors.items()]
    header = {"file": number, "tensors": described, "position": state.position, "notes": list(state.notes)}
    write_frame(stream, header, tuple(state.tensors.values()))


def write_error(stream: IO[bytes], error: LandscapeError) -> None:
    """What went wrong, as the name of its class and its message."""
    write_frame(stream, {"error": type(error).__name__, "message": str(error)})


def write_end(stream: IO[bytes]) -> None:
    """That all files were read."""
    write_frame(stream, {"end": True})


def is_end(header: dict[str, Any]) -> bool:
    """Whether a header is the last one."""
    return "end" in header


def read_header(stream: IO[bytes]) -> dict[str, Any]:
    """The next header; BrokenOffError for anything that `write_frame` does not write."""
    length = stream.read(8)
    size = int.from_bytes(length, "little")
    if len(length) != 8 or size > _LARGEST_HEADER:
        raise BrokenOffError("The process that reads the files broke off. Try again.")
    try:
        value = json.loads(_exactly(stream, size))
    except (ValueError, RecursionError) as error:
        raise BrokenOffError("The process that reads the files broke off. Try again.") from error
    if not isinstance(value, dict):
        raise BrokenOffError("The process that reads the files broke off. Try again.")
    return value


def raise_error(header: dict[str, Any]) -> None:
    """Raise the error of a header that holds one, as a class of our family."""
    if "error" in header:
        kind = getattr(errors, str(header["error"]), CorruptSnapshotError)
        known = isinstance(kind, type) and issubclass(kind, LandscapeError)
        raise (kind if known else CorruptSnapshotError)(str(header.get("message")))


def read_state(stream: IO[bytes], header: dict[str, Any], num_files: int) -> tuple[int, State]:
    """Number of the file and the state that a header begins; BrokenOffError for a header that is none.

    The other process has read a file that may have taken it over: what it says is not trusted either.
    """
    try:
        number = int(header["file"])
        tensors = {str(name): _read_tensor(stream, dtype, shape) for name, dtype, shape in header["tensors"]}
        position = positions_in(header["position"])
        notes = tuple(map(str, header["notes"]))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        raise BrokenOffError("The process that reads the files wrote no state. Try again.") from error
    if not 0 <= number < num_files:
        raise BrokenOffError("The process that reads the files named another one. Try again.")
    return number, State(tensors, position, notes)


def _read_tensor(stream: IO[bytes], dtype: str, shape: list[int]) -> Tensor:
    kind = DTYPES[dtype]
    length = math.prod(shape) * kind.itemsize
    if not 0 <= length <= _LARGEST_TENSOR:
        raise BrokenOffError(f"The process that reads the files declares {length} bytes. Try again.")
    if not length:
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(bytearray(_exactly(stream, length)), dtype=kind).reshape(shape)


def _exactly(stream: IO[bytes], length: int) -> bytes:
    data = stream.read(length)
    if len(data) != length:
        raise BrokenOffError("The process that reads the files broke off. Try again.")
    return data
