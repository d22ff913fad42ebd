"""The process that reads foreign files, within limits of memory and CPU time."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import torch

from landscape.errors import LandscapeError
from landscape.interchange.formats import read_file
from landscape.interchange.frames import write_end, write_error, write_frame, write_state
from landscape.interchange.inspecting import describe

# Memory beside the file itself: its tensors, a contiguous copy of one, and what the readers need.
_COPIES = 6
_EXTRA_BYTES = 2**30
_SECONDS = 30
_BYTES_PER_SECOND = 20_000_000


def limit_memory(size: int) -> None:
    """Set RLIMIT_AS to what is in use now and a multiple of a file's ``size``."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    used = pages * resource.getpagesize() or 2**35
    _limit(resource.RLIMIT_AS, used + _COPIES * size + _EXTRA_BYTES)


def limit_seconds(size: int) -> None:
    """Set RLIMIT_CPU to what was used so far, half a minute, and more for large files."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = usage.ru_utime + usage.ru_stime
    _limit(resource.RLIMIT_CPU, int(used) + _SECONDS + size // _BYTES_PER_SECOND)


def _limit(which: int, value: int) -> None:
    # The hard limit stays, so that the next file can have more; the file's contents cannot call this.
    _, hard = resource.getrlimit(which)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(which, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def serve(request: dict[str, Any], output: IO[bytes]) -> None:
    """Write all states of the request's files; the first error ends it."""
    name = ""
    try:
        for number, name in enumerate(request["files"]):
            path = Path(name)
            size = path.lstat().st_size if os.path.lexists(path) else 0
            limit_memory(size)
            limit_seconds(size)
            if request.get("inspect"):
                write_frame(output, {"found": asdict(describe(path))})
                continue
            for state in read_file(path, request["key"], request["mapped"]):
                write_state(output, number, state)
            output.flush()
        write_end(output)
    except LandscapeError as error:
        write_error(output, error)
    except MemoryError:
        write_frame(output, {"error": "UnsafeFileError", "message": f"{name} needs more memory than its size "
                             "allows. It is not read further; ask its author for a plain file."})  # fmt: skip


def main() -> None:
    """Read the request from stdin, answer on stdout."""
    torch.set_num_threads(1)
    _limit(resource.RLIMIT_CORE, 0)
    request = json.load(sys.stdin)
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as output:
        serve(request, output)


if __name__ == "__main__":
    main()
