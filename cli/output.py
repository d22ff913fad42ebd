"""What commands print: one JSON document, or aligned tables."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from operator import length_hint
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

T = TypeVar("T")

SCHEMA = 1
# Seconds between two lines of progress where there is no terminal.
_SILENT = 30.0


def file_name(run: str, parameters: Sequence[str] = (), kind: str = "hessian") -> str:
    """What files about a run, or about some of its parameters, are named by."""
    parts = [Path(run).name.removesuffix(".h5"), *([kind] if kind != "hessian" else []), *parameters]
    return "-".join([parts[0], *(re.sub(r"[^A-Za-z0-9_.]+", "_", part).strip("_.") for part in parts[1:])])


def print_json(command: str, inputs: dict[str, Any], results: Any) -> None:
    """Print the one document of a command; NaN and infinity become null."""
    from landscape.provenance import provenance

    document = {
        "schema": SCHEMA,
        "command": command,
        "inputs": inputs,
        "results": results,
        "provenance": provenance(),
    }
    say(json.dumps(plain(document), indent=2, allow_nan=False))


def plain(value: Any) -> Any:
    """Turn tensors, arrays and numbers into what JSON knows."""
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def print_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows under a header; columns of numbers are aligned to the right, those of text to the left."""
    table = [list(row) for row in rows]
    lines = [list(header), *([show(cell) for cell in row] for row in table)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    texts = [all(isinstance(row[i], str) for row in table) for i in range(len(header))]
    for line in lines:
        cells = zip(line, widths, texts, strict=True)
        say("  ".join(cell.ljust(w) if text else cell.rjust(w) for cell, w, text in cells).rstrip())


def show(value: Any) -> str:
    """A number with four significant digits; NaN stays NaN; other things as they are."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show_bytes(count: float) -> str:
    """An amount of memory with three digits and a unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:  # else it would be shown as 1e+03
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def show_seconds(seconds: float) -> str:
    """A time in seconds, minutes, hours or days."""
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 1:
        return f"{seconds:.0f} s"
    if hours < 1:
        return f"{minutes:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


class Lines(Generic[T]):
    """What a progress bar says where there is no terminal: its label, and now and then a line on stderr."""

    def __init__(self, items: Iterable[T], label: str, length: int | None) -> None:
        self.items, self.label, self.pos = items, label, 0
        self.length = length_hint(items) if length is None else length
        self.begin = self.said = time.monotonic()

    def __enter__(self) -> Lines[T]:
        """Say what begins."""
        note(self.label)
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to be said."""

    def __iter__(self) -> Iterator[T]:
        """The items; each is done when the next one is asked for."""
        for item in self.items:
            yield item
            self.update(1)

    def update(self, count: int) -> None:
        """Go on by so many."""
        self.pos, now = self.pos + count, time.monotonic()
        if now - self.said > _SILENT and 0 < self.pos < self.length:
            left = (now - self.begin) / self.pos * (self.length - self.pos)
            note(f"{self.label}: {self.pos} of {self.length}, about {show_seconds(left)} left")
            self.said = now


def progress(items: Iterable[T], label: str, length: int | None = None) -> ProgressBar[T] | Lines[T]:
    """A progress bar on stderr over ``items``, with the time left."""
    if not sys.stderr.isatty():
        return Lines(items, label, length)
    return click.progressbar(items, length=length, label=label, file=sys.stderr)


def counter(label: str, length: int) -> ProgressBar[int] | Lines[int]:
    """A progress bar on stderr that is moved by ``update``."""
    if not sys.stderr.isatty():
        return Lines((), label, length)
    return click.progressbar(length=length, label=label, file=sys.stderr, show_pos=True)


def note(text: str) -> None:
    """Say something on stderr."""
    say(text, err=True)


def say(text: str = "", err: bool = False) -> None:
    """Print a line on stdout or stderr."""
    click.echo(printable(text), err=err)


def printable(text: str) -> str:
    """Text whose control characters are spelled out: names come from files, and a terminal would obey them."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
