"""Going through foreign files once: each state fitted to the model and written down as a vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from landscape.errors import LandscapeError, ModelError, UnsupportedFormatError
from landscape.interchange.folders import Source
from landscape.interchange.naming import Mapping, renamed
from landscape.interchange.reading import read_states
from landscape.interchange.state import FLAT, State
from landscape.interchange.vectors import buffers_of, counters, is_buffer, named, parameters_of, vector_of
from landscape.problem.models import differences
from landscape.snapshots import Layout, layout_of
from landscape.snapshots.buffers import BufferLayout, buffer_layout_of
from landscape.snapshots.segment import theta_digest

# Differences from a model that an error lists.
_LISTED = 8


@dataclass(frozen=True, eq=False)
class Expected:
    """Name of the model and its parameters and buffers, for their names, shapes and order."""

    model: str
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    aliases: dict[str, str] = field(default_factory=dict)  # of shared parameters: further names, to the first

    @property
    def names(self) -> frozenset[str]:
        """All names that a state of the model may have."""
        return frozenset((*self.parameters, *self.buffers, *self.aliases))


@dataclass(eq=False)
class Collected:
    """What was found so far: one entry a snapshot; notes by what they say, with the files they are about."""

    layout: Layout = ()
    buffers: BufferLayout = ()
    files: list[Path] = field(default_factory=list)
    positions: list[dict[str, int]] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    said: dict[str, dict[Path, None]] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """Each note once, with the file or the number of files that it is about."""
        return [
            f"{next(iter(files)) if len(files) == 1 else f'{len(files)} files'}: {note}"
            for note, files in self.said.items()
        ]


def collect(
    source: Source,
    mappings: Sequence[Mapping],
    strip: Sequence[str],
    key: str | None,
    expected: Expected | None,
    rows: IO[bytes],
) -> Collected:
    """Read all files, and write the vector of each snapshot, float32 (P,), and its buffers into ``rows``.

    Raises the SnapshotError family, ModelError or ConfigurationError, each with the name of the file.
    """
    found = Collected(layout=layout_of(expected.parameters.items()) if expected else ())
    for number, state in read_states(source.files, key, [mapping.old for mapping in mappings]):
        file, epoch = source.files[number], source.epochs[number]
        try:
            parameters, buffers, notes = _fitted(state, mappings, strip, expected, found.layout)
            found.layout = found.layout or layout_of(parameters.items())
            if not found.files:
                found.buffers = buffer_layout_of(buffers.items())
            vector, stored = vector_of(found.layout, parameters), buffers_of(found.buffers, buffers)
        except LandscapeError as error:
            raise type(error)(f"{file}: {error}") from error
        rows.write(vector.tobytes() + stored.tobytes())
        found.files.append(file)
        found.positions.append(state.position if epoch is None else {"epoch": epoch})
        found.digests.append(theta_digest(vector, stored))
        for note in (*state.notes, *notes):
            found.said.setdefault(note, {})[file] = None
    if not found.files:
        raise UnsupportedFormatError(f"{source.files[0]} holds no snapshot. Check the file.")
    return found


def _fitted(
    state: State, mappings: Sequence[Mapping], strip: Sequence[str], expected: Expected | None, layout: Layout
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
    """Parameters, float32, and buffers of a state by their names in the model, and notes."""
    if FLAT in state.tensors:
        return _of_flat(state, expected, layout)
    tensors, notes = renamed(state.tensors, mappings, strip, expected.names if expected else None)
    tensors, tied = _untied(tensors, expected)
    names = _buffer_names(tensors, expected)
    buffers, filled = _with_counters({name: tensors[name] for name in tensors if name in names}, expected)
    if expected:
        _check_fit(expected, tensors | buffers)
    parameters, casts = parameters_of(tensors, names)
    if not parameters:
        raise UnsupportedFormatError("holds no parameters. Check the file.")
    return parameters, buffers, [*notes, *tied, *filled, *casts]


def _of_flat(
    state: State, expected: Expected | None, layout: Layout
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
    if not layout:
        raise UnsupportedFormatError("a flat vector does not say which weight is which. Give --model.")
    if expected and expected.buffers:
        raise UnsupportedFormatError(
            f"a flat vector holds no buffers, but the model has {', '.join(list(expected.buffers)[:8])}. Give a "
            "state dict."
        )
    flat, casts = parameters_of(state.tensors, frozenset())
    return named(layout, flat[FLAT]), {}, casts


def _untied(tensors: dict[str, Tensor], expected: Expected | None) -> tuple[dict[str, Tensor], list[str]]:
    """Parameters that the model shares among layers once, by their first name; ModelError if they differ."""
    single, notes = dict(tensors), []
    for alias, name in expected.aliases.items() if expected else ():
        if alias in single:
            tensor = single.pop(alias)
            if not torch.equal(single.setdefault(name, tensor), tensor):
                raise ModelError(f"{alias} and {name} are one parameter in the model, but differ here.")
            notes.append(f"{alias} is the same parameter as {name}, and stored once")
    return single, notes


def _buffer_names(tensors: dict[str, Tensor], expected: Expected | None) -> frozenset[str]:
    """The model's buffers; without a model those that PyTorch's layers have, and all that are no floats."""
    if expected:
        return frozenset(expected.buffers)
    return frozenset(name for name, tensor in tensors.items() if is_buffer(name) or not tensor.is_floating_point())


def _with_counters(buffers: dict[str, Tensor], expected: Expected | None) -> tuple[dict[str, Tensor], list[str]]:
    """Buffers in the order of the model, with counters of batches that old files lack as 0."""
    if expected is None:
        return buffers, []
    lacking = [name for name in counters(expected.buffers) if name not in buffers]
    filled = buffers | {name: torch.zeros_like(expected.buffers[name]) for name in lacking}
    note = "num_batches_tracked, which changes no output, is not in the file, and stored as 0"
    return {name: filled[name] for name in expected.buffers if name in filled}, [note] if lacking else []


def _check_fit(expected: Expected, found: dict[str, Tensor]) -> None:
    """Raise ModelError unless all names and shapes are those of the model."""
    problems = differences(expected.parameters | expected.buffers, found)
    if problems:
        more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise ModelError(
            f"the parameters do not fit model {expected.model!r}: {'; '.join(problems[:_LISTED])}{more}. Check "
            "--model and --model-args."
        )
