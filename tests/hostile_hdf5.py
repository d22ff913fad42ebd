"""Things in HDF5 files that no reader may follow, load or believe, and the errors that they end in."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from landscape.errors import CorruptSnapshotError, SnapshotError, UnsafeFileError, UnsupportedFormatError

Make = Callable[[h5py.File, str, Path], Any]


def soft_link(file: h5py.File, name: str, target: Path) -> None:
    file[name] = h5py.SoftLink("/other")


def external_link(file: h5py.File, name: str, target: Path) -> None:
    file[name] = h5py.ExternalLink(str(target), "b")


def external_group(file: h5py.File, name: str, target: Path) -> None:
    file[name] = h5py.ExternalLink(str(target), "/")


def cycle_of_links(file: h5py.File, name: str, target: Path) -> None:
    file[name] = h5py.SoftLink("/back")
    file["back"] = h5py.SoftLink(f"/{name}")


def virtual(file: h5py.File, name: str, target: Path) -> None:
    layout = h5py.VirtualLayout((7,), "<f4")
    layout[...] = h5py.VirtualSource(str(target), "b", (7,))
    file.create_virtual_dataset(name, layout)


def stored_outside(file: h5py.File, name: str, target: Path) -> None:
    file.create_dataset(name, (7,), "<f4", external=[(str(target), 0, 28)])


def committed(file: h5py.File, name: str, target: Path) -> None:
    file[name] = np.dtype("<f4")


def of_committed_type(file: h5py.File, name: str, target: Path) -> None:
    file["type"] = np.dtype("<f4")
    file.create_dataset(name, (2,), dtype=file["type"])
    del file["type"]


def texts(file: h5py.File, name: str, target: Path) -> None:
    file[name] = np.array([b"abc"])


def objects(file: h5py.File, name: str, target: Path) -> None:
    file.create_dataset(name, (2,), h5py.string_dtype())


def varying_lengths(file: h5py.File, name: str, target: Path) -> None:
    file.create_dataset(name, (2,), h5py.vlen_dtype(np.dtype("<f4")))


def references(file: h5py.File, name: str, target: Path) -> None:
    file.create_dataset(name, (2,), h5py.ref_dtype)


def regions(file: h5py.File, name: str, target: Path) -> None:
    file.create_dataset(name, (2,), h5py.regionref_dtype)


def compound(file: h5py.File, name: str, target: Path) -> None:
    file[name] = np.zeros(2, [("x", "<f4"), ("y", "<i4")])


def opaque(file: h5py.File, name: str, target: Path) -> None:
    file[name] = np.zeros(2, "V4")


def enumerated(file: h5py.File, name: str, target: Path) -> None:
    file[name] = np.zeros(2, bool)


def scaled(file: h5py.File, name: str, target: Path) -> None:
    file.create_dataset(name, (2,), "<f4", chunks=(2,), scaleoffset=4)


def _filtered(file: h5py.File, name: str, number: int) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((2,))
    plist.set_filter(number, h5py.h5z.FLAG_OPTIONAL)
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    shape = h5py.h5s.create_simple((2,))
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE, shape, plist, links)


def few_bits(file: h5py.File, name: str, target: Path) -> None:
    _filtered(file, name, h5py.h5z.FILTER_NBIT)


def unknown_filter(file: h5py.File, name: str, target: Path) -> None:
    _filtered(file, name, 32026)


def large(file: h5py.File, name: str, target: Path) -> None:
    file.create_dataset(name, (2**40,), "<f4")


def bomb(file: h5py.File, name: str, target: Path) -> None:
    file.create_dataset(name, (2**24, 2**10), "<f4", chunks=(2**8, 2**10), compression="gzip")


def large_in_all(file: h5py.File, name: str, target: Path) -> None:
    for number in range(50):
        file.create_dataset(f"{name}{number}", (100,), "<f4", chunks=(100,))
    for number in range(50):
        file.create_dataset(f"other{name}{number}", (2000,), "<f4", chunks=(100,))


def deep(file: h5py.File, name: str, target: Path) -> None:
    place: Any = file.create_group(name)
    for _ in range(300):
        place = place.create_group("g")


def many(file: h5py.File, name: str, target: Path) -> None:
    for number in range(10_001):
        h5py.h5g.create(file.id, str(number).encode())


def same_but_for_dots(file: h5py.File, name: str, target: Path) -> None:
    file["x/y"], file["x.y"] = np.zeros(2, "f4"), np.zeros(2, "f4")


def odd_name(file: h5py.File, name: str, target: Path) -> None:
    file["a\nb"] = np.zeros(2, "f4")


# What the readers of foreign files and of runs say; None for what a run may hold beside its own datasets.
Errors = tuple[type[SnapshotError], type[SnapshotError] | None]
HOSTILE: dict[Make, Errors] = {
    **dict.fromkeys(
        (
            soft_link, external_link, external_group, cycle_of_links, virtual, stored_outside, of_committed_type,
            texts, objects, varying_lengths, references, regions, compound, opaque, enumerated, scaled, few_bits,
            unknown_filter,
        ),
        (UnsafeFileError, UnsafeFileError),
    ),
    committed: (UnsafeFileError, CorruptSnapshotError),
    large: (CorruptSnapshotError, CorruptSnapshotError),
    bomb: (CorruptSnapshotError, CorruptSnapshotError),
    deep: (UnsafeFileError, CorruptSnapshotError),
    large_in_all: (CorruptSnapshotError, None),
    many: (UnsafeFileError, None),
    same_but_for_dots: (UnsupportedFormatError, None),
    odd_name: (CorruptSnapshotError, None),
}  # fmt: skip


# ---- filters of what holds a group's links

_FILTER = 32099
INT, UINT, SIZE, IDENTIFIER = ctypes.c_int, ctypes.c_uint, ctypes.c_size_t, ctypes.c_int64
POINTER, TEXT = ctypes.c_void_p, ctypes.c_char_p
_WORK = ctypes.CFUNCTYPE(SIZE, UINT, SIZE, POINTER, SIZE, POINTER, POINTER)


class _Class(ctypes.Structure):
    """H5Z_class2_t: a filter as the library is told of it."""

    _fields_ = (
        ("version", INT), ("number", INT), ("encodes", UINT), ("decodes", UINT),
        ("name", TEXT), ("can_apply", POINTER), ("set_local", POINTER), ("work", _WORK),
    )  # fmt: skip


def _library() -> ctypes.CDLL | None:
    """The HDF5 that h5py has loaded, which has no name of its own in Python."""
    maps = Path("/proc/self/maps")
    found = re.search(r"(/\S*libhdf5-\S*)", maps.read_text()) if maps.exists() else None
    return ctypes.CDLL(found[1]) if found else None


def group_of_filtered_links(file: h5py.File, name: str) -> bool:
    """A group whose links pass a filter that no reader has; False where none can be written."""
    library = _library()
    if library is None:
        return False
    work = _WORK(lambda flags, count, values, length, size, buffer: length)
    known = _Class(1, _FILTER, 1, 1, b"none", None, None, work)
    library.H5Pset_filter.argtypes = (IDENTIFIER, INT, UINT, SIZE, POINTER)
    plist = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    if library.H5Zregister(ctypes.byref(known)) < 0:
        return False
    try:
        library.H5Pset_filter(plist.id, _FILTER, 0, 0, None)
        group = h5py.h5g.create(file.id, name.encode(), gcpl=plist)
        for number in range(30):  # few would lie in the header of the group
            h5py.h5g.create(group, f"entry{number}".encode())
        file.flush()
    finally:
        library.H5Zunregister(_FILTER)
    return True
