"""Reading foreign files in a process of its own, which may be killed by them and can do nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from landscape.errors import SnapshotError, UnsafeFileError
from landscape.interchange.frames import BrokenOffError, is_end, raise_error, read_header, read_state
from landscape.interchange.state import State

# Seconds that the child has to exit after its last word.
_PATIENCE = 30
_COMMAND = (sys.executable, "-P", "-m", "landscape.interchange.child")
# HDF5 looks for plugins of filters in folders that others may write to; this turns them off.
_ENVIRONMENT = {"HDF5_PLUGIN_PRELOAD": "::", "OMP_NUM_THREADS": "1"}


def read_states(
    files: Sequence[Path], key: str | None = None, mapped: Sequence[str] = ()
) -> Iterator[tuple[int, State]]:
    """Number of the file and each state in it, in the order given; raises the SnapshotError family.

    The files are read by a child process with limits of memory and CPU time; nothing it sends is unpickled.
    """
    request = {"files": [os.path.abspath(file) for file in files], "key": key, "mapped": list(mapped)}
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, env=os.environ | _ENVIRONMENT
        )
        try:
            with contextlib.suppress(BrokenPipeError), _pipe(child.stdin) as pipe:
                pipe.write(json.dumps(request).encode())
            with _pipe(child.stdout) as stream:
                yield from _states(stream, files, child, said)
        finally:
            child.kill()
            child.wait()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise SnapshotError("The process that reads the files has no pipe. Try again.")
    return pipe


def _states(
    stream: IO[bytes], files: Sequence[Path], child: subprocess.Popen[bytes], said: IO[bytes]
) -> Iterator[tuple[int, State]]:
    number = -1
    try:
        # Without the last frame the end of the stream could be that of a process that gave up.
        while not is_end(header := read_header(stream)):
            raise_error(header)
            number, state = read_state(stream, header, len(files))
            yield number, state
    except BrokenOffError as error:
        if code := _ended(child):
            raise _stopped(code, files, number, said) from None
        raise error


def _ended(child: subprocess.Popen[bytes]) -> int:
    """Its exit code; it has closed its pipe, and has little left to do."""
    try:
        return child.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def _stopped(code: int, files: Sequence[Path], number: int, said: IO[bytes]) -> SnapshotError:
    """The error for a child that did not end by itself."""
    name = files[min(number + 1, len(files) - 1)]
    if code < 0:
        return UnsafeFileError(
            f"{name} stopped the process that read it ({signal.Signals(-code).name}): it needs more time or "
            "memory than its size allows, or is made to do harm. It is not read further."
        )
    said.seek(0)
    last = said.read()[-2000:].decode(errors="replace").strip().splitlines()
    return SnapshotError(f"{name} could not be read: {last[-1][:300] if last else f'exit code {code}'}.")
