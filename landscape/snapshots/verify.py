"""Reading every byte of a run and reporting everything that is wrong."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h5py

from landscape.errors import LandscapeError, MissingSnapshotError
from landscape.snapshots.buffers import num_bytes
from landscape.snapshots.contents import (
    Header,
    read_description,
    read_header,
    read_index,
    read_resume,
    read_row,
    stored_rows,
)
from landscape.snapshots.directory import (
    SegmentFile,
    check_end,
    check_header,
    check_sequence,
    checked_digest,
    file_digest,
    list_segments,
    no_segment,
    parse_segment_name,
    read_outcome,
    read_run_info,
)
from landscape.snapshots.hdf5 import open_hdf5
from landscape.snapshots.layout import num_parameters
from landscape.snapshots.locate import resolve
from landscape.snapshots.reader import open_run
from landscape.snapshots.segment import Index


@dataclass(frozen=True)
class Verification:
    """What a check of a whole run found."""

    path: Path
    ok: bool
    problems: tuple[str, ...]
    num_segments: int
    num_snapshots: int


@dataclass
class _Findings:
    problems: list[str] = field(default_factory=list)
    num_segments: int = 0
    num_snapshots: int = 0
    run_id: str = ""
    samples_seen: int = 0

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        try:
            yield
        except (LandscapeError, OSError) as error:
            # Several checks may meet the same damage.
            if str(error) not in self.problems:
                self.problems.append(str(error))


def _check_rows(file: h5py.File, header: Header, index: Index, findings: _Findings) -> None:
    size = num_bytes(read_description(file, header).buffers)
    stored = stored_rows(file, header.num_snapshots, header.num_parameters, size)
    for row in range(len(index)):
        with findings.collected():
            read_row(stored, row, bytes(index.theta_sha256[row]))
            findings.num_snapshots += 1


def _check_contents(file: h5py.File, header: Header, findings: _Findings) -> None:
    with findings.collected():
        index = read_index(file, header)
        findings.samples_seen = int(index.samples_seen[-1])
        _check_rows(file, header, index, findings)
    with findings.collected():
        read_resume(file, header)
    with findings.collected():
        description = read_description(file, header)
        if num_parameters(description.layout) != header.num_parameters:
            findings.problems.append(f"{file.filename}: num_parameters does not fit the layout. Restore the file.")


def _check_segment(file: SegmentFile, previous: SegmentFile | None, findings: _Findings) -> None:
    findings.num_segments += 1
    with findings.collected():
        checked_digest(file)
    with findings.collected(), open_hdf5(file.path) as opened:
        header = read_header(opened)
        with findings.collected():
            check_header(file, header, findings.run_id or header.run_id, previous)
        _check_previous(file, header, previous, findings)
        _check_contents(opened, header, findings)


def _check_previous(file: SegmentFile, header: Header, previous: SegmentFile | None, findings: _Findings) -> None:
    # The name holds only a part of the digest; the chain holds all of it.
    with findings.collected():
        if previous and header.previous != file_digest(previous.path):
            findings.problems.append(f"{file.path} does not follow {previous.path.name}. Restore both.")


def _check_outcome(path: Path, thinned: bool, findings: _Findings) -> None:
    with findings.collected():
        outcome = read_outcome(path)
        if not thinned:
            check_end(path, outcome, findings.samples_seen)


def _check_directory(path: Path, findings: _Findings) -> None:
    thinned = False
    with findings.collected():
        info = read_run_info(path)
        findings.run_id, thinned = info.description.run_id, info.thinned_from is not None
    with findings.collected():
        files = list_segments(path)
        with findings.collected():
            check_sequence(files)
        for previous, file in zip([None, *files], files, strict=False):
            _check_segment(file, previous, findings)
        if not files:
            raise no_segment(path, read_outcome(path))
    _check_outcome(path, thinned, findings)


def _check_file(path: Path, findings: _Findings) -> None:
    findings.num_segments = 1
    named = parse_segment_name(path)
    with findings.collected():
        if named:
            checked_digest(named)
    with findings.collected(), open_hdf5(path) as file:
        _check_contents(file, read_header(file), findings)
    with findings.collected():
        open_run(path)


def verify_run(path: str | Path) -> Verification:
    """All digests, the chain, completeness and finiteness of a run; MissingSnapshotError only if absent."""
    place = resolve(path)
    if not os.path.lexists(place):
        raise MissingSnapshotError(f"{place} does not exist. Check the path.")
    findings = _Findings()
    (_check_directory if place.is_dir() else _check_file)(place, findings)
    problems = tuple(findings.problems)
    return Verification(place, not problems, problems, findings.num_segments, findings.num_snapshots)
