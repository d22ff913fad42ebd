"""Grids of runs from a TOML file: every cell in a process of its own, what is done is skipped."""

from __future__ import annotations

import difflib
import itertools
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from landscape.engine import MakeExecutor, Outcome, run_tasks
from landscape.errors import ConfigurationError
from landscape.training.config import TrainingConfig

FIELDS = tuple(f.name for f in fields(TrainingConfig))


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


def read_sweep(path: Path | str) -> list[TrainingConfig]:
    """The configurations of a sweep file: the product of ``[grid]``, each with the settings of ``[fixed]``.

    A file may hold ``[[sweep]]`` tables instead, each with its own ``grid`` and ``fixed``.

    Raises:
        ConfigurationError: If the file cannot be parsed, a key is unknown, or a value is impossible.
    """
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"the sweep file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the sweep file {path} is not valid TOML: {error}.") from error
    configurations = [c for table in _tables(document, path) for c in _expand(table, path)]
    names = [run_name(c) for c in configurations]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(f"the file {path} names {twice[0]} more than once; make all cells distinct.")
    return configurations


def _tables(document: Mapping[str, Any], path: Path | str) -> Sequence[Mapping[str, Any]]:
    """The ``[[sweep]]`` tables, or the document itself as the only one."""
    if "sweep" not in document:
        return [document]
    tables = document["sweep"]
    if set(document) != {"sweep"}:
        others = ", ".join(sorted(set(document) - {"sweep"}))
        raise ConfigurationError(f"{others} of {path} must stand inside one of the [[sweep]] tables.")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ConfigurationError(f"sweep of {path} must be written as tables, [[sweep]], not {tables!r}.")
    return tables


def _expand(table: Mapping[str, Any], path: Path | str) -> Iterator[TrainingConfig]:
    for key in sorted(set(table) - {"grid", "fixed"}):
        raise ConfigurationError(f"the sweep file {path} has a table {key!r}; only [grid] and [fixed] are known.")
    grid, fixed = table.get("grid", {}), table.get("fixed", {})
    if not isinstance(grid, dict) or not isinstance(fixed, dict):
        raise ConfigurationError(f"grid and fixed of {path} must be tables of settings.")
    for key in (*grid, *fixed):
        _check_key(key, path)
    if both := set(grid) & set(fixed):
        raise ConfigurationError(f"{', '.join(sorted(both))} stands in both [grid] and [fixed] of {path}.")
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigurationError(f"[grid] {key} of {path} must be a non-empty list, not {values!r}.")
    for values in itertools.product(*grid.values()):
        settings = dict(fixed) | dict(zip(grid, values, strict=True))
        try:
            yield TrainingConfig(**settings)
        except ConfigurationError as error:
            raise ConfigurationError(f"the sweep file {path}: {error}") from error


def _check_key(key: str, path: Path | str) -> None:
    if key in FIELDS:
        return
    nearest = difflib.get_close_matches(key, FIELDS, 1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(FIELDS)}."
    raise ConfigurationError(f"the sweep file {path} sets {key!r}, which is not a setting of a run; {hint}")


def run_name(config: TrainingConfig) -> str:
    """Directory name of a run: its cell, its seed, and what else differs from the defaults."""
    parts = [config.optimizer, f"lr{config.learning_rate:.12g}", f"b{config.batch_size}"]
    default = TrainingConfig()
    for name in ("model", "dataset", "momentum", "loss"):
        if (value := getattr(config, name)) != getattr(default, name):
            parts.append(f"{name}-{value:g}" if isinstance(value, float) else f"{value}")
    if config.model_args:
        arguments = json.dumps(dict(config.model_args), sort_keys=True, separators=(",", "="))
        parts.append(arguments.translate(str.maketrans("", "", '{}[]"')))
    return "_".join([*parts, f"seed{config.seed}"])


def sweep(
    configurations: Sequence[TrainingConfig],
    output: Path | str,
    make_executor: MakeExecutor,
    *,
    workers: int,
    threads: int = 1,
) -> Iterator[Outcome[Cell, CellResult]]:
    """Train all runs of a grid below ``output``, resuming what was begun; yields them as they end.

    A run that fails, or kills its process, is yielded with its error; the others go on.
    """
    cells = [Cell(c, str(Path(output) / run_name(c)), threads) for c in configurations]
    yield from run_tasks(make_executor, train_cell, cells, window=workers)


def train_cell(cell: Cell) -> CellResult:
    """Train one run; the function that worker processes execute."""
    from landscape.training.loop import train  # noqa: PLC0415  (the parent need not load torch's tracing)

    result = train(cell.config, cell.directory, threads=cell.threads)
    return CellResult(cell.directory, result.outcome, result.reason, result.epochs)
