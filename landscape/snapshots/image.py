"""Laying out the contents of a file in HDF5; equal contents give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat

import h5py
import numpy as np

from landscape.snapshots.buffers import num_bytes
from landscape.snapshots.description import RunDescription
from landscape.snapshots.layout import num_parameters
from landscape.snapshots.segment import Array, Index, Segment, arrays_digest, index_arrays, index_of

SEGMENT_FORMAT = "landscape-segment"
PACKED_FORMAT = "landscape-packed"
# Fixed bounds: 'latest' would change its meaning with the installed HDF5. v110 has checksums on all metadata.
LIBVER = ("v110", "v110")
_LARGEST_CHUNK = 2**30


@dataclass(frozen=True, eq=False)
class Contents:
    """All that one file holds but its weights; ``documents`` are JSON texts by dataset name."""

    format: str
    sequence: int
    previous: str
    description: RunDescription
    index: Index
    resume: Mapping[str, Array]
    documents: Mapping[str, bytes]


Weights = tuple[Array, Array | None]


def weights_of(segment: Segment) -> Iterator[Weights]:
    """Weights and buffers of each snapshot."""
    return zip(segment.theta, repeat(None) if segment.buffers is None else segment.buffers, strict=False)


def text_array(text: bytes) -> Array:
    """Text as uint8 (length,): attributes could hold only 64 kB."""
    return np.frombuffer(text, np.uint8)


def _write_array(file: h5py.File, name: str, values: Array) -> None:
    options = {}
    if 0 < values.nbytes <= _LARGEST_CHUNK and values.ndim:
        options = {"chunks": values.shape, "fletcher32": True}
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    file.create_dataset(name, data=little, **options)


def _create(file: h5py.File, name: str, shape: tuple[int, int], dtype: str) -> h5py.Dataset:
    return file.create_dataset(name, shape, dtype, chunks=(1, shape[1]), fletcher32=True)


def _write_rows(file: h5py.File, description: RunDescription, count: int, rows: Iterable[Weights]) -> None:
    length, size = num_parameters(description.layout), num_bytes(description.buffers)
    theta = _create(file, "theta", (count, length), "<f4")
    stored = _create(file, "buffers", (count, size), "|u1") if size else None
    for position, (vector, buffers) in enumerate(rows):
        theta[position] = vector
        if stored is not None:
            stored[position] = buffers


def _write_attributes(file: h5py.File, attributes: Mapping[str, str | int]) -> None:
    for name, value in attributes.items():
        if isinstance(value, int):
            file.attrs.create(name, value, dtype="<i8")
        else:
            file.attrs.create(name, np.bytes_(value.encode("ascii")), dtype=f"S{max(len(value), 64)}")


def write_contents(file: h5py.File, contents: Contents, rows: Iterable[Weights]) -> None:
    """Fill an empty file; ``rows`` are weights float32 (P,) and buffers uint8 (B,) of the index's snapshots."""
    documents = {"description": contents.description.to_json().encode(), **contents.documents}
    small = {**index_arrays(contents.index), **{name: text_array(text) for name, text in documents.items()}}
    attributes: dict[str, str | int] = {
        "format": contents.format,
        "schema": contents.description.schema,
        "run_id": contents.description.run_id,
        "sequence": contents.sequence,
        "num_snapshots": len(contents.index),
        "num_parameters": num_parameters(contents.description.layout),
        "previous": contents.previous,
        "index_sha256": arrays_digest(small),
        "resume_sha256": arrays_digest(contents.resume),
    }
    _write_attributes(file, attributes)
    _write_rows(file, contents.description, len(contents.index), rows)
    for name in sorted(small):
        _write_array(file, name, small[name])
    for name in sorted(contents.resume):
        _write_array(file, f"resume/{name}", contents.resume[name])


def segment_image(description: RunDescription, sequence: int, previous: str, segment: Segment) -> bytes:
    """Bytes of a sealed segment file, made in memory so that HDF5 itself never touches the disk."""
    contents = Contents(SEGMENT_FORMAT, sequence, previous, description, index_of(segment), segment.resume, {})
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=LIBVER) as file:
        write_contents(file, contents, weights_of(segment))
    return buffer.getvalue()


def segment_size(description: RunDescription, segment: Segment) -> int:
    """Bytes of the file that a segment like this one makes."""
    return len(segment_image(description, 0, "", segment))
