"""Grids of runs from a TOML file, and the names of their runs."""

from __future__ import annotations

import difflib
import itertools
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from landscape.errors import ConfigurationError
from landscape.problem.datasets import DATASETS
from landscape.snapshots import resolve
from landscape.training.config import TrainingConfig
from landscape.training.methods import PLAIN, arguments_text

# Grids that ship with the package.
PRESETS = ("paper-adam", "paper-sgd", "paper-small", "layer-width")
FIELDS = tuple(f.name for f in fields(TrainingConfig))


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


def find_grid(name: str) -> Path:
    """The file of that name, or of the grid that ships with the package under it; a file comes first.

    Raises:
        ConfigurationError: If there is neither.
    """
    if os.path.isfile(name):
        return Path(name)
    if name in PRESETS:
        return resolve(f"embedded:sweeps/{name}.toml")
    raise ConfigurationError(f"there is no sweep file {name}; give one, or one of {', '.join(PRESETS)}.")


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
        _check_built_in(settings.get("dataset"), path)
        try:
            yield TrainingConfig(**settings)
        except ConfigurationError as error:
            raise ConfigurationError(f"the sweep file {path}: {error}") from error


def _check_built_in(dataset: Any, path: Path | str) -> None:
    # A sweep file may come from somebody else; only the command line opens files or runs code.
    if isinstance(dataset, str) and dataset not in DATASETS:
        raise ConfigurationError(
            f"the sweep file {path} names the unknown dataset {dataset!r}; choose one of {', '.join(DATASETS)}, "
            "or train on your own by `landscape train --dataset`."
        )


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
        parts.append(arguments_text(config.model_args))
    if config.method != PLAIN:
        parts.append(config.method)
    if config.method_args:
        parts.append(arguments_text(config.method_args))
    return "_".join([*parts, f"seed{config.seed}"])
