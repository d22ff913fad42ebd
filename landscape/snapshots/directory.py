"""The files of a run directory: their names, run.json, outcome.json and the list of segments."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landscape.errors import CorruptSnapshotError, MissingSnapshotError, SnapshotError, UnsafeFileError
from landscape.snapshots.contents import Header
from landscape.snapshots.description import RunDescription, canonical_json, check_schema, parse_json
from landscape.snapshots.hdf5 import check_regular

RUN_FILE = "run.json"
OUTCOME_FILE = "outcome.json"
LOCK_FILE = "LOCK"
LOG_FILE = "log.jsonl"
SEGMENTS = "segments"
RUN_FORMAT = "landscape-run"
OUTCOMES = ("completed", "diverged")
_SEGMENT_NAME = re.compile(r"seg-([0-9]{8})-([0-9a-f]{16})\.h5")
_LARGEST_JSON = 64 * 2**20


@dataclass(frozen=True)
class RunInfo:
    """What run.json says."""

    description: RunDescription
    provenance: dict[str, Any] | None
    thinned_from: dict[str, Any] | None = None


@dataclass(frozen=True)
class SegmentFile:
    """A sealed segment, as its name tells: its place in the run and the first 16 hex of its sha256."""

    path: Path
    sequence: int
    prefix: str


def segment_name(sequence: int, digest: str) -> str:
    """File name of the segment with this sequence number and sha256."""
    return f"seg-{sequence:08d}-{digest[:16]}.h5"


def parse_segment_name(path: Path) -> SegmentFile | None:
    """What the name of a sealed segment says; None for other names."""
    match = _SEGMENT_NAME.fullmatch(path.name)
    return SegmentFile(path, int(match[1]), match[2]) if match else None


def file_digest(path: Path) -> str:
    """Hex sha256 of a plain file; SnapshotError when it cannot be read."""
    check_regular(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CorruptSnapshotError(f"{path} cannot be read: {error}. Restore it from a copy.") from error


def checked_digest(file: SegmentFile) -> str:
    """Hex sha256 of a segment; CorruptSnapshotError if it is not the one in the file's name."""
    digest = file_digest(file.path)
    if digest[:16] != file.prefix:
        raise CorruptSnapshotError(
            f"{file.path} has the sha256 {digest[:16]}..., not the one in its name: its contents changed. "
            "Restore it from a copy; or delete it and all later segments, then train again from there."
        )
    return digest


def read_json(path: Path) -> dict[str, Any]:
    """JSON object in a plain file; MissingSnapshotError, UnsafeFileError or CorruptSnapshotError."""
    size = check_regular(path)
    if size > _LARGEST_JSON:
        raise CorruptSnapshotError(f"{path} has {size} bytes, more than any of our JSON files. Restore it.")
    try:
        return parse_json(path.read_bytes(), str(path))
    except OSError as error:
        raise SnapshotError(f"{path} cannot be read: {error}. Check its permissions.") from error


def run_info_bytes(info: RunInfo) -> bytes:
    """Contents of run.json."""
    value: dict[str, Any] = {
        "schema": info.description.schema,
        "format": RUN_FORMAT,
        "run_id": info.description.run_id,
        "description": info.description.to_dict(),
        "provenance": info.provenance,
    }
    if info.thinned_from is not None:
        value["thinned_from"] = info.thinned_from
    return canonical_json(value).encode() + b"\n"


def read_run_info(path: Path) -> RunInfo:
    """run.json of the directory ``path``; MissingSnapshotError, CorruptSnapshotError, UnsupportedSchemaError."""
    file = path / RUN_FILE
    value = read_json(file)
    if value.get("format") != RUN_FORMAT:
        raise CorruptSnapshotError(f"{file} has format {value.get('format')!r}, not {RUN_FORMAT!r}. Restore it.")
    check_schema(value, str(file))
    description = RunDescription.from_dict(value.get("description"), str(file))
    if value.get("run_id") != description.run_id:
        raise CorruptSnapshotError(f"{file}: run_id does not match the description; it was edited. Restore it.")
    return RunInfo(description, _object(file, value, "provenance"), _object(file, value, "thinned_from"))


def _object(file: Path, value: dict[str, Any], name: str) -> dict[str, Any] | None:
    entry = value.get(name)
    if entry is not None and not isinstance(entry, dict):
        raise CorruptSnapshotError(f"{file}: {name} is not a JSON object. Restore it from a copy.")
    return entry


def check_outcome(value: dict[str, Any], source: str) -> dict[str, Any]:
    """The outcome itself; CorruptSnapshotError unless it has the fields of an outcome."""
    counts = [value.get(name) for name in ("epochs", "steps", "samples_seen")]
    wrong_counts = any(type(count) is not int or count < 0 for count in counts)
    if value.get("outcome") not in OUTCOMES or wrong_counts or not isinstance(value.get("reason"), str):
        raise CorruptSnapshotError(f"{source} is not an outcome: {value}. Restore it from a copy.")
    return value


def read_outcome(path: Path) -> dict[str, Any] | None:
    """outcome.json of the directory ``path``, None if training has not ended; CorruptSnapshotError."""
    file = path / OUTCOME_FILE
    return check_outcome(read_json(file), str(file)) if os.path.lexists(file) else None


def list_segments(path: Path) -> list[SegmentFile]:
    """Sealed segments in order of their names; CorruptSnapshotError for foreign names, UnsafeFileError."""
    folder = path / SEGMENTS
    if not os.path.lexists(folder):
        return []
    if not stat.S_ISDIR(os.lstat(folder).st_mode):
        raise UnsafeFileError(f"{folder} is not a plain directory. Put the segments themselves there.")
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise SnapshotError(f"{folder} cannot be listed: {error}. Check its permissions.") from error
    return [_segment_file(folder / name) for name in names]


def _segment_file(path: Path) -> SegmentFile:
    file = parse_segment_name(path)
    if file is None:
        raise CorruptSnapshotError(f"{path} is not named like a segment: renamed, or foreign. Move it away.")
    return file


def check_sequence(files: Sequence[SegmentFile]) -> None:
    """Raise CorruptSnapshotError unless the sequence numbers are 0, 1, 2, ..."""
    for expected, file in enumerate(files):
        if file.sequence != expected:
            raise CorruptSnapshotError(
                f"{file.path} comes where segment {expected} must be: a segment is missing or there twice. "
                "Restore the missing file from a copy; or delete all later segments and train again from there."
            )


def check_header(file: SegmentFile, header: Header, run_id: str, previous: SegmentFile | None) -> None:
    """Raise CorruptSnapshotError unless a segment's attributes fit its name, its run and its predecessor."""
    before = previous.prefix if previous else ""
    problems = {
        f"belongs to the run {header.run_id[:16]}, not {run_id[:16]}": header.run_id != run_id,
        f"says sequence {header.sequence} inside": header.sequence != file.sequence,
        f"follows {header.previous[:16]!r}, but comes after {before!r}": header.previous[:16] != before,
    }
    for problem, found in problems.items():
        if found:
            raise CorruptSnapshotError(f"{file.path} {problem}. Files were swapped or mixed; restore the run.")


def no_segment(path: Path, outcome: dict[str, Any] | None = None) -> SnapshotError:
    """The error for a run without any sealed segment."""
    if outcome and outcome["outcome"] == "completed":
        return lost_end(path, outcome["samples_seen"])
    if outcome:
        return MissingSnapshotError(
            f"{path} holds no snapshot: the run {outcome['outcome']} before its first one ({outcome['reason']}). "
            "Leave it out, or train with other settings."
        )
    return MissingSnapshotError(
        f"{path} holds no snapshot: the run never finished its first segment. "
        "Start the same training again to go on, or remove the directory."
    )


def lost_end(path: Path, missing: int) -> CorruptSnapshotError:
    """The error for a completed run whose last segments are gone."""
    return CorruptSnapshotError(
        f"{path}: the last {missing} samples of the run are not stored: segments are missing at the end. "
        "Restore them, or remove the directory and train again."
    )


def check_end(path: Path, outcome: dict[str, Any] | None, samples_seen: int) -> None:
    """Refuse a run that was completed beyond its last segment; CorruptSnapshotError."""
    if outcome and outcome["outcome"] == "completed" and outcome["samples_seen"] > samples_seen:
        raise lost_end(path, outcome["samples_seen"] - samples_seen)
