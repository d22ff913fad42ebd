"""A model of a disk that loses power: what of some recorded system calls may be there afterwards.

The model is pessimistic: what POSIX does not promise may be lost. A file's data are safe after its fsync; names in
a directory are safe after the directory's fsync; all else may be there or not, page by page and name by name.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PAGE = 4096

# Contents by path relative to the root; None is a directory.
Tree = dict[str, bytes | None]


@dataclass(frozen=True)
class Call:
    """One recorded call; paths are relative to the root. "said" is what was promised to be stored."""

    kind: str  # mkdir, create, write, fsync, syncdir, rename, unlink or said
    path: str = ""
    target: str = ""
    data: bytes = b""
    said: Any = None


@dataclass
class Recorder:
    """Calls below a root, in order."""

    root: Path
    calls: list[Call] = field(default_factory=list)
    _open: dict[int, str] = field(default_factory=dict)

    def say(self, what: object) -> None:
        """Record a promise."""
        self.calls.append(Call("said", said=what))

    def name(self, path: Any) -> str:
        return os.path.relpath(path, self.root)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what this process does to files meanwhile; all of it is really done, too."""
        with pytest.MonkeyPatch.context() as patch:
            for kind in ("mkdir", "open", "write", "fsync", "rename", "unlink"):
                patch.setattr(os, kind, self._wrapped(getattr(os, kind), getattr(self, f"_{kind}_done")))
            yield

    @staticmethod
    def _wrapped(real: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            existed = isinstance(arguments[0], str | Path) and os.path.lexists(arguments[0])
            result = real(*arguments, **options)
            note(existed, result, *arguments)
            return result

        return call

    def _mkdir_done(self, existed: bool, result: None, path: Any, *_: Any) -> None:
        self.calls.append(Call("mkdir", self.name(path)))

    def _open_done(self, existed: bool, descriptor: int, path: Any, flags: int = 0, *_: Any) -> None:
        self._open[descriptor] = self.name(path)
        if flags & os.O_CREAT and not existed:
            self.calls.append(Call("create", self.name(path)))

    def _write_done(self, existed: bool, count: int, descriptor: int, data: Any) -> None:
        self.calls.append(Call("write", self._open[descriptor], data=bytes(data)[:count]))

    def _fsync_done(self, existed: bool, result: None, descriptor: int) -> None:
        path = self._open[descriptor]
        self.calls.append(Call("syncdir" if (self.root / path).is_dir() else "fsync", path))

    def _rename_done(self, existed: bool, result: None, source: Any, target: Any) -> None:
        self.calls.append(Call("rename", self.name(source), self.name(target)))

    def _unlink_done(self, existed: bool, result: None, path: Any, *_: Any) -> None:
        self.calls.append(Call("unlink", self.name(path)))


@dataclass
class _File:
    safe: bytes = b""  # what an fsync has promised
    written: bytes = b""  # what the process sees


class Disk:
    """Files and names after some calls, with what of them is safe."""

    def __init__(self, tree: Tree) -> None:
        self._files = {path: _File(data, data) for path, data in tree.items() if data is not None}
        self._names: dict[str, list[tuple[str, str, _File | None]]] = {}  # by directory: what is not safe yet
        self._safe: dict[str, _File | None] = {path: self._files.get(path) for path in tree}
        self._seen = dict(self._safe)

    def do(self, call: Call) -> None:
        """Apply a call."""
        directory = os.path.dirname(call.path) or "."
        if call.kind in ("mkdir", "create"):
            file = _File() if call.kind == "create" else None
            self._seen[call.path] = file
            self._names.setdefault(directory, []).append(("", call.path, file))
        elif call.kind == "write":
            file = self._seen[call.path]
            assert file is not None
            file.written += call.data
        elif call.kind == "fsync":
            file = self._seen[call.path]
            assert file is not None
            file.safe = file.written
        elif call.kind == "syncdir":
            for gone, name, file in self._names.pop(call.path, []):
                _enter(self._safe, gone, name, file)
        elif call.kind in ("rename", "unlink"):
            file = self._seen.pop(call.path)
            if call.target:
                self._seen[call.target] = file
            self._names.setdefault(directory, []).append((call.path, call.target, file))

    def after_kill(self) -> Tree:
        """What is there when the process dies and the machine does not."""
        return _reachable({path: file.written if file else None for path, file in self._seen.items()})

    def after_power_loss(self, rng: random.Random) -> Tree:
        """What may be there when the machine dies."""
        names = dict(self._safe)
        for pending in self._names.values():
            for change in pending:
                if rng.random() < 0.5:
                    _enter(names, *change)
        return _reachable({path: _pages(file, rng) if file else None for path, file in names.items()})


def _enter(names: dict[str, _File | None], gone: str, name: str, file: _File | None) -> None:
    names.pop(gone, None)
    if name:
        names[name] = file


def _pages(file: _File, rng: random.Random) -> bytes:
    """The safe bytes, then any of the pages that were written since; those that are missing are zeros."""
    rest = file.written[len(file.safe) :]
    if not rest or rng.random() < 0.2:
        return file.safe
    pages = [rest[i : i + PAGE] for i in range(0, len(rest), PAGE)]
    if rng.random() < 0.4:
        return file.written
    kept = [page if rng.random() < 0.5 else bytes(len(page)) for page in pages[: rng.randint(1, len(pages))]]
    return file.safe + b"".join(kept)


def _reachable(tree: Tree) -> Tree:
    """Without what lies in directories that are not there."""

    def there(path: str) -> bool:
        parent = os.path.dirname(path)
        return not parent or (parent in tree and tree[parent] is None and there(parent))

    return {path: data for path, data in sorted(tree.items()) if there(path)}


def states(calls: Sequence[Call], draws: int, seed: int, start: Tree | None = None) -> Iterator[tuple[int, Tree]]:
    """Every point of a crash with what may be there: after a kill, in the middle of a write, after power loss."""
    rng, disk = random.Random(seed), Disk(start or {})
    for position in range(len(calls) + 1):
        yield position, disk.after_kill()
        for _ in range(draws):
            yield position, disk.after_power_loss(rng)
        if position == len(calls):
            return
        call = calls[position]
        if call.kind == "write":
            half = Disk(disk.after_kill())
            half.do(Call("write", call.path, data=call.data[: len(call.data) // 2]))
            yield position, half.after_kill()
        disk.do(call)


def build(tree: Tree, root: Path) -> None:
    """Make the files of a state below an empty root."""
    for path, data in tree.items():
        if data is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(data)


def tree_of(root: Path) -> Tree:
    """The files below a root."""
    return {
        os.path.relpath(path, root): None if path.is_dir() else path.read_bytes()
        for path in sorted(root.rglob("*"))
    }
