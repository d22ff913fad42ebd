"""No plugins of HDF5 while files are read that may ask for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import h5py


@dataclass
class _Folders:
    """Where HDF5 looked for plugins before the first of the ``readers`` came; the process has one such list."""

    readers: int = 0
    taken: list[bytes] = field(default_factory=list)


_FOLDERS = _Folders()
# Files may be closed by the garbage collector, in the middle of anything.
_LOCK = threading.RLock()


@contextmanager
def plugins_off() -> Iterator[None]:
    """Leave HDF5 no folder to load code from, which it would do for any unknown filter.

    Those of datasets can be looked at before they are used; those of the heaps that hold a group's links can not.
    """
    with _LOCK:
        if not _FOLDERS.readers:
            _FOLDERS.taken = _take()
        _FOLDERS.readers += 1
    try:
        yield
    finally:
        with _LOCK:
            _FOLDERS.readers -= 1
            if not _FOLDERS.readers:
                _give_back(_FOLDERS.taken)


def _take() -> list[bytes]:
    folders = [h5py.h5pl.get(place) for place in range(h5py.h5pl.size())]
    for _ in folders:
        h5py.h5pl.remove(0)
    return folders


def _give_back(folders: list[bytes]) -> None:
    for folder in folders:
        h5py.h5pl.append(folder)
