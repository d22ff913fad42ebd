"""Writing a file so that after a crash it is either wholly there or not there at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from landscape.errors import RunConflictError, SnapshotError

TEMPORARY_PREFIX = ".tmp-"


def write_synced(path: Path, payload: bytes) -> None:
    """Create ``path`` with ``payload`` and wait until the disk has it; OSError when either fails."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        view = memoryview(payload)
        while view:
            view = view[os.write(descriptor, view) :]
        # Never retried: after a failed fsync the kernel may drop the dirty pages, and the next one would lie.
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Wait until the disk has the names in the directory ``path``; OSError when it fails."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def commit_bytes(path: Path, payload: bytes) -> Path:
    """Put ``payload`` at ``path`` in one atomic, durable step; OSError leaves no partial file behind."""
    temporary = path.with_name(TEMPORARY_PREFIX + path.name)
    try:
        write_synced(temporary, payload)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_directory(path.parent)
    return path


def make_directory(path: Path) -> None:
    """Make ``path`` and its parents, each durably; OSError when it cannot be made."""
    if path.is_dir():
        return
    make_directory(path.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
    sync_directory(path.parent)


def check_free(target: Path) -> None:
    """RunConflictError if there is anything at ``target``."""
    if os.path.lexists(target):
        raise RunConflictError(f"{target} already exists. Choose another path, or remove it first.")


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Path]:
    """A path for a file or folder that gets the name ``target`` when the block ends, or is removed.

    Raises:
        SnapshotError: If it cannot be written, in the block or after it.
    """
    temporary = target.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{target.name}")
    try:
        make_directory(target.parent)
        yield temporary
        os.rename(temporary, target)
        sync_directory(target.parent)
    except SnapshotError:  # some of which are OSErrors, too
        raise
    except (OSError, RuntimeError) as error:  # h5py raises both
        raise SnapshotError(f"{target} could not be written: {error}. Free space or use another path.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):
            temporary.unlink()


def remove_orphans(directory: Path) -> list[str]:
    """Delete what a killed writer left half-written in ``directory``; the names, OSError when it fails."""
    entries = [entry for entry in os.scandir(directory) if not entry.is_dir(follow_symlinks=False)]
    names = sorted(entry.name for entry in entries if entry.name.startswith(TEMPORARY_PREFIX))
    for name in names:
        (directory / name).unlink()
    return names
