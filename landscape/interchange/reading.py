"""Reading foreign files in a process of its own, which may be killed by them and can do nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from landscape.errors import SnapshotError, UnsafeFileError
from landscape.interchange.frames import BrokenOffError, is_end, raise_error, read_header, read_state
from landscape.interchange.inspecting import Entry, Inspection
from landscape.interchange.state import State

T = TypeVar("T")

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
    yield from _answers(files, {"key": key, "mapped": list(mapped)}, read_state)


def inspect_file(path: str | Path) -> Inspection:
    """What a run directory or a file of any known format holds, looked at by the process with limits.

    Raises:
        SnapshotError: The family of it, for what is missing, damaged, made to do harm, or of no known format.
    """
    (found,) = _answers([Path(path)], {"inspect": True}, _inspection)
    return found


def _inspection(stream: IO[bytes], header: dict[str, Any], num_files: int) -> Inspection:
    """What the other process found; it is not trusted to say it as it should."""
    try:
        found = header["found"]
        entries = tuple(
            Entry(_plain(e["name"]), tuple(map(int, e["shape"])), _plain(e["dtype"]), int(e["bytes"]))
            for e in found["entries"]
        )
        facts = {
            _plain(name): _plain(value) if isinstance(value, str) else value
            for name, value in dict(found["facts"]).items()
        }
        return Inspection(_plain(found["format"]), entries, facts)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BrokenOffError("The process that reads the files found nothing. Try again.") from error


def _plain(text: object) -> str:
    """Without what a terminal would take for a command."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


def _answers(
    files: Sequence[Path], request: dict[str, Any], read: Callable[[IO[bytes], dict[str, Any], int], T]
) -> Iterator[T]:
    """What a process of its own says of the files: each answer is read from its header and what follows it."""
    asked = request | {"files": [os.path.abspath(file) for file in files]}
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, env=os.environ | _ENVIRONMENT
        )
        try:
            with contextlib.suppress(BrokenPipeError), _pipe(child.stdin) as pipe:
                pipe.write(json.dumps(asked).encode())
            with _pipe(child.stdout) as stream:
                yield from _frames(stream, files, child, said, read)
        finally:
            child.kill()
            child.wait()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise SnapshotError("The process that reads the files has no pipe. Try again.")
    return pipe


def _frames(
    stream: IO[bytes],
    files: Sequence[Path],
    child: subprocess.Popen[bytes],
    said: IO[bytes],
    read: Callable[[IO[bytes], dict[str, Any], int], T],
) -> Iterator[T]:
    number = -1
    try:
        # Without the last frame the end of the stream could be that of a process that gave up.
        while not is_end(header := read_header(stream)):
            raise_error(header)
            answer = read(stream, header, len(files))
            number = int(header.get("file", number))
            yield answer
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
