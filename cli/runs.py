"""A progress bar of runs that are trained in other processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .output import counter

if TYPE_CHECKING:
    from landscape.training.sweep import Cell

# Seconds between two looks at how far the runs have come.
_LOOK = 3.0


@contextmanager
def epochs_bar(cells: Sequence[Cell]) -> Iterator[None]:
    """A bar of the epochs that are stored, by what the runs' directories show."""
    ended = threading.Event()
    with counter("epochs", sum(cell.config.epochs for cell in cells)) as bar:
        bar.update(_epochs(cells))

        def follow() -> None:
            while not ended.wait(_LOOK):
                bar.update(_epochs(cells) - bar.pos)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        bar.update(_epochs(cells) - bar.pos)


def _epochs(cells: Sequence[Cell]) -> int:
    from landscape.snapshots import run_status

    states = [(cell.config.epochs, run_status(cell.directory)) for cell in cells]
    return sum(epochs if status.ended else status.epochs for epochs, status in states)
