"""Laying out the contents of a file in HDF5; equal contents give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import h5py
import numpy as np

from landscape.snapshots.description import SCHEMA, RunDescription
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


def text_array(text: bytes) -> Array:
    """Text as uint8 (length,): attributes could hold only 64 kB."""
    return np.frombuffer(text, np.uint8)


def _write_array(file: h5py.File, name: str, values: Array) -> None:
    options = {}
    if 0 < values.nbytes <= _LARGEST_CHUNK and values.ndim:
        options = {"chunks": values.shape, "fletcher32": True}
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    file.create_dataset(name, data=little, **options)


def _write_theta(file: h5py.File, shape: tuple[int, int], rows: Iterable[Array]) -> None:
    dataset = file.create_dataset("theta", shape, "<f4", chunks=(1, shape[1]), fletcher32=True)
    for position, row in enumerate(rows):
        dataset[position] = row


def _write_attributes(file: h5py.File, attributes: Mapping[str, str | int]) -> None:
    for name, value in attributes.items():
        if isinstance(value, int):
            file.attrs.create(name, value, dtype="<i8")
        else:
            file.attrs.create(name, np.bytes_(value.encode("ascii")), dtype=f"S{max(len(value), 64)}")


def write_contents(file: h5py.File, contents: Contents, rows: Iterable[Array]) -> None:
    """Fill an empty file; ``rows`` are the weights of the index's snapshots, float32 (P,) each."""
    length = num_parameters(contents.description.layout)
    documents = {"description": contents.description.to_json().encode(), **contents.documents}
    small = {**index_arrays(contents.index), **{name: text_array(text) for name, text in documents.items()}}
    attributes: dict[str, str | int] = {
        "format": contents.format,
        "schema": SCHEMA,
        "run_id": contents.description.run_id,
        "sequence": contents.sequence,
        "num_snapshots": len(contents.index),
        "num_parameters": length,
        "previous": contents.previous,
        "index_sha256": arrays_digest(small),
        "resume_sha256": arrays_digest(contents.resume),
    }
    _write_attributes(file, attributes)
    _write_theta(file, (len(contents.index), length), rows)
    for name in sorted(small):
        _write_array(file, name, small[name])
    for name in sorted(contents.resume):
        _write_array(file, f"resume/{name}", contents.resume[name])


def segment_image(description: RunDescription, sequence: int, previous: str, segment: Segment) -> bytes:
    """Bytes of a sealed segment file, made in memory so that HDF5 itself never touches the disk."""
    contents = Contents(SEGMENT_FORMAT, sequence, previous, description, index_of(segment), segment.resume, {})
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=LIBVER) as file:
        write_contents(file, contents, segment.theta)
    return buffer.getvalue()


def segment_size(description: RunDescription, segment: Segment) -> int:
    """Bytes of the file that a segment like this one makes."""
    return len(segment_image(description, 0, "", segment))
