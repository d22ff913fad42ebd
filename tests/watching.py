"""Whether the kernel saw a file being opened, by whatever library."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest


class Watch:
    """Counts how often a file is opened or read, by inotify."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self.descriptor = library.inotify_init1(os.O_NONBLOCK)
        if self.descriptor < 0 or library.inotify_add_watch(self.descriptor, bytes(path), 0x21) < 0:
            pytest.skip("inotify is not available")

    def opened(self) -> bool:
        try:
            return bool(os.read(self.descriptor, 4096))
        except BlockingIOError:
            return False


@contextlib.contextmanager
def watching(path: Path) -> Iterator[Watch]:
    watch = Watch(path)
    try:
        yield watch
    finally:
        os.close(watch.descriptor)
