"""Going through foreign files once: each state fitted to the model and written down as a vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from torch import Tensor

from landscape.errors import LandscapeError, ModelError, UnsupportedFormatError
from landscape.interchange.folders import Source
from landscape.interchange.naming import Mapping, renamed
from landscape.interchange.reading import read_states
from landscape.interchange.state import FLAT, State
from landscape.interchange.vectors import counters, is_buffer, named, parameters_of, vector_of
from landscape.problem.models import differences
from landscape.snapshots import Layout, layout_of
from landscape.snapshots.segment import theta_digest


@dataclass(frozen=True, eq=False)
class Expected:
    """Name of the model and its parameters and buffers, for their names, shapes and order."""

    model: str
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]


@dataclass(eq=False)
class Collected:
    """What was found so far: one entry a snapshot; notes by what they say, with the files they are about."""

    layout: Layout = ()
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
    """Read all files, and write the vector of each snapshot, float32 (P,), into ``rows``.

    Raises the SnapshotError family, ModelError or ConfigurationError, each with the name of the file.
    """
    found = Collected(layout=layout_of(expected.parameters.items()) if expected else ())
    for number, state in read_states(source.files, key, [mapping.old for mapping in mappings]):
        file, epoch = source.files[number], source.epochs[number]
        try:
            parameters, notes = _fitted(state, mappings, strip, expected, found.layout)
            found.layout = found.layout or layout_of(parameters.items())
            vector = vector_of(found.layout, parameters)
        except LandscapeError as error:
            raise type(error)(f"{file}: {error}") from error
        rows.write(vector.tobytes())
        found.files.append(file)
        found.positions.append(state.position if epoch is None else {"epoch": epoch})
        found.digests.append(theta_digest(vector))
        for note in (*state.notes, *notes):
            found.said.setdefault(note, {})[file] = None
    if not found.files:
        raise UnsupportedFormatError(f"{source.files[0]} holds no snapshot. Check the file.")
    return found


def _fitted(
    state: State, mappings: Sequence[Mapping], strip: Sequence[str], expected: Expected | None, layout: Layout
) -> tuple[dict[str, Tensor], list[str]]:
    """The parameters of a state by their names in the model, float32, and notes."""
    if FLAT in state.tensors:
        if not layout:
            raise UnsupportedFormatError("a flat vector does not say which weight is which. Give --model.")
        flat, casts = parameters_of(state.tensors, frozenset())
        return named(layout, flat[FLAT]), casts
    wanted = frozenset(expected.parameters) if expected else None
    tensors, notes = renamed(state.tensors, mappings, strip, wanted)
    ignored = _ignored(tensors, expected)
    parameters, casts = parameters_of(tensors, ignored)
    if expected and (problems := differences(expected.parameters, parameters)):
        raise ModelError(f"the parameters do not fit model {expected.model!r}: {'; '.join(problems)}.")
    if not parameters:
        raise UnsupportedFormatError("holds no parameters. Check the file.")
    notes += [f"ignored {', '.join(sorted(ignored))}: they change no output"] if ignored else []
    return parameters, notes + casts


def _ignored(tensors: dict[str, Tensor], expected: Expected | None) -> frozenset[str]:
    """The counters of batches; UnsupportedFormatError for buffers on which outputs depend."""
    counting = counters(tensors)
    buffers = {name for name in tensors if is_buffer(name) or (expected and name in expected.buffers)} - counting
    if buffers:
        raise UnsupportedFormatError(f"holds the buffers {', '.join(sorted(buffers)[:8])}, which are not stored.")
    return counting
