"""Opening a stored run: positions and metrics at once, weights one snapshot at a time."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from landscape.errors import CorruptSnapshotError, MissingSnapshotError, UnsupportedFormatError
from landscape.snapshots.buffers import num_bytes
from landscape.snapshots.contents import (
    Header,
    StoredRows,
    read_description,
    read_documents,
    read_header,
    read_index,
    read_row,
    stored_rows,
)
from landscape.snapshots.description import RunDescription, parse_json
from landscape.snapshots.directory import (
    RUN_FILE,
    SegmentFile,
    check_end,
    check_header,
    check_outcome,
    check_sequence,
    list_segments,
    no_segment,
    read_outcome,
    read_run_info,
)
from landscape.snapshots.hdf5 import check_regular, corrupt, damage_reported, open_hdf5
from landscape.snapshots.image import Weights
from landscape.snapshots.layout import num_parameters
from landscape.snapshots.locate import resolve
from landscape.snapshots.segment import Array, Index, join_indices

# How files of torch (zip archives and pickles) and of numpy begin.
_FOREIGN = (b"PK\x03\x04", b"\x80\x02", b"\x80\x04", b"\x93NUMPY")


@dataclass(frozen=True)
class _Part:
    path: Path
    start: int
    length: int


@dataclass(frozen=True, eq=False)
class Run:
    """A stored run of n snapshots: columns (n,), theta_sha256 uint8 (n, 32), metrics (m,) per ended epoch."""

    path: Path
    description: RunDescription
    provenance: dict[str, Any] | None
    samples_seen: Array
    step: Array
    epoch: Array
    role: Array
    batch_loss: Array
    theta_sha256: Array
    metrics: dict[str, Array]
    outcome: dict[str, Any] | None
    thinned_from: dict[str, Any] | None = None
    parts: tuple[_Part, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.step)

    @property
    def run_id(self) -> str:
        """Hex sha256 that names the run's settings."""
        return self.description.run_id

    def digest(self, index: int) -> str:
        """Hex sha256 of the weights at ``index``; MissingSnapshotError when out of range."""
        return bytes(self.theta_sha256[check_index(self, index)]).hex()

    def read(self, index: int) -> Array:
        """Weights at ``index``, float32 (P,), verified; the errors of ``open_run``, NotFiniteError."""
        return self.read_weights(index)[0]

    def read_weights(self, index: int) -> Weights:
        """Weights at ``index`` and its buffers, uint8 (B,) or None, verified; the errors of ``read``."""
        place = check_index(self, index)
        part = next(part for part in self.parts if place < part.start + part.length)
        with open_hdf5(part.path) as file:
            try:
                stored = self._stored(file, part)
                return read_row(stored, place - part.start, bytes(self.theta_sha256[place]))
            except CorruptSnapshotError:
                self._check_part(
                    file, part
                )  # another file may explain it; the digest of the row stands for all else
                raise

    def read_all(self) -> Iterator[Weights]:
        """Weights and buffers of every snapshot in order; the errors of ``read``."""
        for part in self.parts:
            with open_hdf5(part.path) as file:
                self._check_part(file, part)
                stored = self._stored(file, part)
                for row in range(part.length):
                    yield read_row(stored, row, bytes(self.theta_sha256[part.start + row]))

    def _stored(self, file: h5py.File, part: _Part) -> StoredRows:
        description = self.description
        return stored_rows(file, part.length, num_parameters(description.layout), num_bytes(description.buffers))

    def _check_part(self, file: h5py.File, part: _Part) -> None:
        header = read_header(file)
        _check_length(file, header, self.description)
        if header.run_id != self.run_id or header.num_snapshots != part.length:
            raise corrupt(file, "the file", "was replaced since the run was opened")


def check_index(run: Run, index: int) -> int:
    """``index`` as an int; MissingSnapshotError unless it is in 0 .. n - 1."""
    place = operator.index(index)
    if not 0 <= place < len(run):
        raise MissingSnapshotError(f"{run.path} has no snapshot {place}. Choose one of 0 to {len(run) - 1}.")
    return place


def _check_length(file: h5py.File, header: Header, description: RunDescription) -> None:
    length = num_parameters(description.layout)
    if header.num_parameters != length:
        raise corrupt(
            file, "attribute 'num_parameters'", f"is {header.num_parameters}, but the layout has {length}"
        )


def read_segments(path: Path, description: RunDescription) -> Iterator[tuple[SegmentFile, Index]]:
    """Each segment of a run directory with its index, order and chain checked; CorruptSnapshotError."""
    files = list_segments(path)
    check_sequence(files)
    for position, file in enumerate(files):
        with open_hdf5(file.path) as opened:
            header = read_header(opened)
            check_header(file, header, description.run_id, files[position - 1] if position else None)
            _check_length(opened, header, description)
            yield file, read_index(opened, header)


def _run(path: Path, description: RunDescription, pairs: list[tuple[Path, Index]], **facts: Any) -> Run:
    index = join_indices([index for _, index in pairs])
    starts = np.cumsum([0, *(len(part) for _, part in pairs)])
    parts = tuple(_Part(file, int(start), len(part)) for (file, part), start in zip(pairs, starts, strict=False))
    return Run(path=path, description=description, **vars(index), parts=parts, **facts)


def _open_directory(path: Path) -> Run:
    if not os.path.lexists(path / RUN_FILE):
        raise MissingSnapshotError(f"{path} is not a run: it has no {RUN_FILE}. Give the directory of a run.")
    info = read_run_info(path)
    # Before the segments: a run that ends meanwhile must not look as if it had lost its last ones.
    outcome = read_outcome(path)
    pairs = [(file.path, index) for file, index in read_segments(path, info.description)]
    if not pairs:
        raise no_segment(path, outcome)
    if info.thinned_from is None:
        check_end(path, outcome, int(pairs[-1][1].samples_seen[-1]))
    return _run(path, info.description, pairs, provenance=info.provenance, outcome=outcome,
                thinned_from=info.thinned_from)  # fmt: skip


def _check_kind(path: Path) -> None:
    """Tell weights of other programs, by how they begin, from runs that are damaged; UnsupportedFormatError."""
    check_regular(path)
    with damage_reported(path, "beginning"), path.open("rb") as file:
        head = file.read(16)
    if head.startswith(_FOREIGN) or head[8:9] == b"{":
        raise UnsupportedFormatError(
            f"{path} holds weights of another program, not a run. Import it first: landscape snapshots import "
            f"{path} --output RUN."
        )


def _open_file(path: Path) -> Run:
    _check_kind(path)
    with open_hdf5(path) as file:
        header = read_header(file)
        description = read_description(file, header)
        _check_length(file, header, description)
        index = read_index(file, header)
        documents = {name: parse_json(text, f"{path}: /{name}") for name, text in read_documents(file).items()}
    outcome = check_outcome(documents["outcome"], f"{path}: /outcome") if "outcome" in documents else None
    return _run(path, description, [(path, index)], provenance=documents.get("provenance"), outcome=outcome,
                thinned_from=documents.get("thinned_from"))  # fmt: skip


def open_run(path: str | Path) -> Run:
    """The run in a directory, a segment or a packed file, or at ``embedded:NAME``; reads no weights.

    Raises MissingSnapshotError, CorruptSnapshotError, UnsafeFileError or UnsupportedSchemaError.
    """
    place = resolve(path)
    return _open_directory(place) if os.path.isdir(place) else _open_file(place)
