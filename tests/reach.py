"""Which files are opened or changed when one is read: by Python, and by any library, as the kernel sees it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
from sound_files import KEYS

from landscape.errors import LandscapeError
from landscape.interchange.formats import read_file
from landscape.interchange.inspecting import describe
from landscape.snapshots import open_run, verify_run
from landscape.study import ledger


def open_rows(path: Path) -> None:
    list(open_run(path).read_all())


def verify(path: Path) -> None:
    """Raises the first problem, so that it is seen like any other."""
    found = verify_run(path)
    if not found.ok:
        raise LandscapeError(found.problems[0])


def import_states(path: Path) -> None:
    list(read_file(path))


def write_ledger(path: Path) -> None:
    with ledger.Ledger(path) as opened:
        opened.find(KEYS)


def read_ledger(path: Path) -> None:
    with ledger.Ledger(path, read_only=True) as opened:
        opened.find(KEYS)


def without_care(path: Path) -> None:
    """As h5py reads a file: what must be seen if the watching is worth anything."""
    with h5py.File(path) as file:
        found: list[Any] = []
        file.visititems(lambda _, place: found.append(place))
        for place in found:
            _ = isinstance(place, h5py.Dataset) and place[()]


OPERATIONS: dict[str, Callable[[Path], Any]] = {
    operation.__name__: operation
    for operation in (open_rows, verify, describe, import_states, write_ledger, read_ledger, without_care)
}
Task = tuple[str, str]  # name of the operation, path


@dataclass(frozen=True)
class Reach:
    """What came of a task, and the paths that were opened, changed or run meanwhile."""

    outcome: str
    by_python: list[str]
    by_kernel: list[str] | None  # None where nothing can watch it


# ---- the process that is watched

_EVENTS = ("open", "os.", "shutil.", "subprocess.", "sqlite3.", "socket.", "ctypes.", "import")
_HARMLESS = ("os.listdir", "os.scandir", "os.putenv", "os.unsetenv")
_MARK = "/the-next-task-begins"


def main() -> None:
    """Do tasks from stdin; those before the first null only load what the others need. Prints what Python saw."""
    seen: list[str] = []
    tasks = json.load(sys.stdin)
    start = tasks.index(None)
    vars(ledger)["provenance"] = dict  # which reads the versions of packages, whatever the ledger holds
    outcomes = [_do(*task) for task in tasks[:start]]
    sys.addaudithook(lambda event, arguments: _note(seen, event, arguments))
    for task in tasks[start + 1 :]:
        os.path.exists(_MARK)
        outcomes.append(_do(*task))
        os.path.exists(_MARK)
        outcomes[-1] = (outcomes[-1], list(seen))
        seen.clear()
    sys.stdout.write(json.dumps(outcomes[start:]))


def _note(seen: list[str], event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith(_EVENTS) and event not in _HARMLESS and isinstance(arguments[0], str | bytes | Path):
        seen.append(os.fsdecode(arguments[0]).removeprefix("file://").partition("?mode=ro")[0])


def _do(name: str, path: str) -> Any:
    try:
        OPERATIONS[name](Path(path))
    except LandscapeError as error:
        return f"{type(error).__name__}: {error}"
    except Exception as error:
        return f"not ours: {type(error).__name__}: {error}"
    return "read"


# ---- the process that watches

_CALLS = "open,openat,openat2,creat,unlink,unlinkat,rename,renameat,renameat2,truncate,link,linkat,symlink,execve"
_CALL = re.compile(r"^\d*\s*(\w+)\((.*)")
_HERE = Path(__file__).resolve().parent


def watch(tasks: list[Task], loading: list[Task], log: Path, environment: dict[str, str]) -> list[Reach]:
    """What each of the tasks reached, all in one process; ``loading`` are done first, unwatched."""
    command = [sys.executable, str(_HERE / "reach.py")]
    strace = shutil.which("strace")
    if strace:
        stats = "stat,newfstatat,statx,access,faccessat,faccessat2"
        command = [strace, "-f", "-s", "4096", "-o", str(log), "-e", f"trace={_CALLS},{stats}", *command]
    done = subprocess.run(
        command, input=json.dumps([*loading, None, *tasks]), capture_output=True, text=True, check=False,
        cwd=_HERE, env=os.environ | environment,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the process that is watched ended with {done.returncode}: {done.stderr}")
    outcomes = json.loads(done.stdout)
    kernel: list[Any] = list(_between_marks(log)) if strace else [None] * len(tasks)
    return [Reach(outcome, seen, paths) for (outcome, seen), paths in zip(outcomes, kernel, strict=True)]


def _between_marks(log: Path) -> Iterator[list[str]]:
    inside, paths = False, list[str]()
    for text in log.read_text().splitlines():
        if _MARK in text:
            if inside:
                yield paths
            inside, paths = not inside, []
        elif inside and (call := _CALL.match(text)) and call[1] in _CALLS.split(","):
            paths += re.findall(r'"((?:[^"\\]|\\.)*)"', call[2])


if __name__ == "__main__":
    main()
