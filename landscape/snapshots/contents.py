"""Reading the parts of a segment or packed file, each verified against its digest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import h5py
import numpy as np

from landscape.errors import NotFiniteError
from landscape.snapshots.buffers import num_bytes
from landscape.snapshots.description import RunDescription, check_schema
from landscape.snapshots.hdf5 import (
    checked_dataset,
    corrupt,
    damage_reported,
    expect,
    has_object,
    native,
    read_array,
    read_attribute,
    read_group,
)
from landscape.snapshots.image import PACKED_FORMAT, SEGMENT_FORMAT, Weights
from landscape.snapshots.segment import (
    COLUMNS,
    METRIC_TYPE,
    Array,
    Index,
    Segment,
    arrays_digest,
    columns_of,
    index_arrays,
    theta_digest,
)

DOCUMENTS = ("outcome", "provenance", "thinned_from")


@dataclass(frozen=True)
class Header:
    """The root attributes of a file."""

    format: str
    run_id: str
    sequence: int
    num_snapshots: int
    num_parameters: int
    previous: str
    index_sha256: str
    resume_sha256: str


def _text(file: h5py.File, name: str) -> str:
    value = read_attribute(file, name)
    if not isinstance(value, str):
        raise corrupt(file, f"attribute {name!r}", "is not a text")
    return value


def _number(file: h5py.File, name: str, least: int) -> int:
    value = read_attribute(file, name)
    if not isinstance(value, int) or value < least:
        raise corrupt(file, f"attribute {name!r}", f"is {value!r}, not an integer from {least}")
    return value


def read_header(file: h5py.File) -> Header:
    """The root attributes; CorruptSnapshotError if these are not ours, UnsupportedSchemaError if newer."""
    kind = _text(file, "format")
    if kind not in (SEGMENT_FORMAT, PACKED_FORMAT):
        raise corrupt(file, "attribute 'format'", f"is {kind!r}, not {SEGMENT_FORMAT!r} or {PACKED_FORMAT!r}")
    check_schema({"schema": read_attribute(file, "schema")}, file.filename)
    return Header(
        kind,
        _text(file, "run_id"),
        _number(file, "sequence", -1),
        _number(file, "num_snapshots", 1),
        _number(file, "num_parameters", 1),
        _text(file, "previous"),
        _text(file, "index_sha256"),
        _text(file, "resume_sha256"),
    )


def _read_text(file: h5py.File, name: str) -> Array:
    return read_array(file, name, "|u1", (None,))


def _check_metrics(file: h5py.File, metrics: dict[str, Array]) -> None:
    shapes = {(values.dtype.newbyteorder("<").str, values.shape) for values in metrics.values()}
    if "epoch" not in metrics or shapes != {(METRIC_TYPE, (len(metrics["epoch"].ravel()),))}:
        raise corrupt(file, "/metrics", f"holds {sorted(metrics)} of types and shapes {sorted(shapes)}")


def read_description(file: h5py.File, header: Header) -> RunDescription:
    """The description that is stored in the file, which must have the file's run_id."""
    description = RunDescription.from_json(_read_text(file, "description").tobytes(), file.filename)
    if description.run_id != header.run_id:
        raise corrupt(file, "/description", "does not belong to the run_id of the file")
    return description


def read_documents(file: h5py.File) -> dict[str, bytes]:
    """The JSON texts beside the arrays, by name, unparsed."""
    return {name: _read_text(file, name).tobytes() for name in DOCUMENTS if has_object(file, name)}


def read_index(file: h5py.File, header: Header) -> Index:
    """Everything but weights and resume state, verified; CorruptSnapshotError or UnsafeFileError."""
    rows = header.num_snapshots
    columns = {name: read_array(file, name, dtype, (rows,)) for name, dtype in COLUMNS.items()}
    digests = read_array(file, "theta_sha256", "|u1", (rows, 32))
    metrics = read_group(file, "metrics")
    _check_metrics(file, metrics)
    index = Index(**columns, theta_sha256=digests, metrics=metrics)
    _check_index(file, header, index)
    return index


def _check_index(file: h5py.File, header: Header, index: Index) -> None:
    description = _read_text(file, "description")
    documents = {name: np.frombuffer(text, np.uint8) for name, text in read_documents(file).items()}
    if hashlib.sha256(description.tobytes()).hexdigest() != header.run_id:
        raise corrupt(file, "/description", "does not belong to the run_id of the file")
    if arrays_digest({**index_arrays(index), "description": description, **documents}) != header.index_sha256:
        raise corrupt(file, "the index", "does not match its digest")


@dataclass(frozen=True, eq=False)
class StoredRows:
    """Weights (n, P) and buffers (n, B) of a file, fit to be read row by row."""

    file: h5py.File
    theta: h5py.Dataset
    buffers: h5py.Dataset | None


def stored_rows(file: h5py.File, rows: int, length: int, size: int) -> StoredRows:
    """/theta, float32 (rows, length), and /buffers, uint8 (rows, size); CorruptSnapshotError, UnsafeFileError."""
    theta = _matrix(file, "theta", "<f4", (rows, length))
    return StoredRows(file, theta, _matrix(file, "buffers", "|u1", (rows, size)) if size else None)


def _matrix(file: h5py.File, name: str, dtype: str, shape: tuple[int, int]) -> h5py.Dataset:
    dataset, _ = checked_dataset(file, name)
    with damage_reported(file.filename, f"/{name}"):
        expect(file, dataset, dtype, shape)
    return dataset


def read_row(stored: StoredRows, row: int, digest: bytes) -> Weights:
    """Weights of one snapshot, float32 (P,), and its buffers, verified; CorruptSnapshotError or NotFiniteError."""
    file = stored.file
    with damage_reported(file.filename, f"row {row} of /theta"):
        vector = native(stored.theta[row])
        buffers = None if stored.buffers is None else native(stored.buffers[row])
    if theta_digest(vector, buffers) != digest:
        raise corrupt(file, f"row {row} of /theta", "does not match its sha256")
    if not np.isfinite(vector).all():
        raise NotFiniteError(
            f"{file.filename}: row {row} of /theta holds NaN or infinity. Use an earlier snapshot of the run."
        )
    return vector, buffers


def read_resume(file: h5py.File, header: Header) -> dict[str, Array]:
    """The resume arrays by name, verified, {} if there are none; CorruptSnapshotError or UnsafeFileError."""
    resume = read_group(file, "resume")
    if arrays_digest(resume) != header.resume_sha256:
        raise corrupt(file, "/resume", "does not match its digest")
    return resume


def read_segment(file: h5py.File) -> Segment:
    """All of a file, verified; CorruptSnapshotError, UnsafeFileError, NotFiniteError."""
    header = read_header(file)
    index = read_index(file, header)
    size = num_bytes(read_description(file, header).buffers)
    stored = stored_rows(file, header.num_snapshots, header.num_parameters, size)
    rows = [read_row(stored, row, digest.tobytes()) for row, digest in enumerate(index.theta_sha256)]
    theta, buffers = np.stack([row[0] for row in rows]), [row[1] for row in rows if row[1] is not None]
    return Segment(
        theta,
        **columns_of(index),
        metrics=index.metrics,
        resume=read_resume(file, header),
        buffers=np.stack(buffers) if buffers else None,
    )
