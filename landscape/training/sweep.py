"""Training the runs of a grid: alike ones as stacks, stacks in parallel processes, what is done is skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from landscape.engine import MakeExecutor, Outcome, run_tasks
from landscape.errors import LandscapeError
from landscape.snapshots import run_status
from landscape.training.config import TrainingConfig, shared_settings
from landscape.training.grid import run_name

if TYPE_CHECKING:
    from landscape.training.loop import TrainingResult

# How many of these runs, which are alike, are best trained as one stack.
StackSize = Callable[[Sequence[TrainingConfig]], int]


@dataclass(frozen=True)
class Cell:
    """One run of a grid: what to train and where to store it."""

    config: TrainingConfig
    directory: str
    threads: int = 1


@dataclass(frozen=True)
class CellResult:
    """How a run of a grid ended, as plain values that travel between processes."""

    directory: str
    outcome: str
    reason: str
    epochs: int


def cells_of(configurations: Sequence[TrainingConfig], output: Path | str, threads: int = 1) -> list[Cell]:
    """The cells of a grid below ``output``, by the names of their runs."""
    return [Cell(c, str(Path(output) / run_name(c)), threads) for c in configurations]


def sweep(
    cells: Sequence[Cell], make_executor: MakeExecutor, *, workers: int, stack_size: StackSize = len
) -> Iterator[Outcome[Cell, CellResult]]:
    """Train all runs of a grid, resuming what was begun; yields them as their stacks end.

    A run that fails is yielded with its error; the others go on. The runs of a stack that killed its process, or
    found no memory, are tried again one at a time, so that only the one that does it fails.

    Args:
        cells: What to train.
        make_executor: Makes the executor that the stacks run on.
        workers: Stacks at a time.
        stack_size: How many of some alike runs go into a stack; by default all.
    """
    alone: list[tuple[Cell, ...]] = []
    for outcome in run_tasks(make_executor, train_cells, stacks_of(cells, workers, stack_size), window=workers):
        unforeseen = outcome.error is not None and not isinstance(outcome.error, LandscapeError)
        if unforeseen and len(outcome.task) > 1:
            alone.extend((cell,) for cell in outcome.task)
        else:
            yield from _by_cell(outcome)
    for outcome in run_tasks(make_executor, train_cells, alone, window=workers):
        yield from _by_cell(outcome)


def stacks_of(cells: Sequence[Cell], workers: int, stack_size: StackSize) -> list[tuple[Cell, ...]]:
    """Alike cells in stacks of about the same size, enough of them for all workers; those that ended apart."""
    alike: dict[tuple[bool, str, int], list[Cell]] = {}
    for cell in cells:
        key = (run_status(cell.directory).ended, shared_settings(cell.config), cell.threads)
        alike.setdefault(key, []).append(cell)
    return list(
        chain.from_iterable(
            _divide(some, workers, len if ended else stack_size) for (ended, *_), some in alike.items()
        )
    )


def _divide(cells: Sequence[Cell], workers: int, stack_size: StackSize) -> Iterator[tuple[Cell, ...]]:
    size = max(1, stack_size([cell.config for cell in cells]))
    count = min(len(cells), max(workers, -(-len(cells) // size)))
    for number in range(count):
        yield tuple(cells[number * len(cells) // count : (number + 1) * len(cells) // count])


def _by_cell(
    outcome: Outcome[tuple[Cell, ...], list[CellResult | LandscapeError]],
) -> Iterator[Outcome[Cell, CellResult]]:
    for number, cell in enumerate(outcome.task):
        result = outcome.result[number] if outcome.result is not None else outcome.error
        if isinstance(result, CellResult):
            yield Outcome(cell, result, None)
        else:
            yield Outcome(cell, None, result)


def train_cells(cells: Sequence[Cell]) -> list[CellResult | LandscapeError]:
    """Train runs as one stack; the function that worker processes execute."""
    from landscape.training.loop import train_together  # noqa: PLC0415  (the parent need not load it)

    runs = [(cell.config, Path(cell.directory)) for cell in cells]
    return [_plain(result) for result in train_together(runs, threads=cells[0].threads)]


def _plain(result: TrainingResult | LandscapeError) -> CellResult | LandscapeError:
    if isinstance(result, LandscapeError):
        return result
    return CellResult(str(result.path), result.outcome, result.reason, result.epochs)
