"""The curves c ↦ d(c), w(c) and ρ ↦ S(ρ) of one snapshot as plain numbers, and how they are kept on disk."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from landscape.errors import ConfigurationError
from landscape.provenance import provenance
from landscape.study.columns import LEVELS
from landscape.study.table import write_atomically

# To be raised by hand whenever what a curve holds changes, so that stored ones are computed anew.
VERSION = 5

# Levels through which every curve passes.
MARKED = (LEVELS["ln2"], LEVELS["ln10"])
# The first level of a grid, in units of φ*.
_FIRST = 1.2


@dataclass(frozen=True)
class CurveConfig:
    """What is traced, on how many samples; every field is part of a curve's key."""

    highest: float = 10.0  # last level, nats
    num_levels: int = 25
    num_radii: int = 12
    levels: tuple[float, ...] = MARKED  # levels that the grid must contain
    theta_samples: int = 400  # training samples in φ(θ)
    x_samples: int = 40  # test samples whose curves are traced
    seed: int = 0  # of the subsets and of the searches
    eigen_tol: float = 3e-2
    tol: float = 1e-2

    def __post_init__(self) -> None:
        if not (math.isfinite(self.highest) and self.highest > 0):
            raise ConfigurationError(f"highest = {self.highest} cannot be; pass a finite number above zero.")
        if not all(math.isfinite(c) and c > 0 for c in self.levels):
            raise ConfigurationError(f"levels {self.levels} cannot be; pass finite numbers above zero.")
        for name, least in (("num_levels", 2), ("num_radii", 2), ("theta_samples", 1), ("x_samples", 1)):
            if getattr(self, name) < least:
                raise ConfigurationError(f"{name} = {getattr(self, name)} cannot be; pass {least} or more.")


@dataclass(frozen=True)
class Band:
    """Quantiles over rows; in θ there is one row, and all three are equal. NaN where there is no row."""

    q10: tuple[float, ...]
    median: tuple[float, ...]
    q90: tuple[float, ...]


@dataclass(frozen=True)
class SpaceCurve:
    """The curves of one space: over its levels, then over its radii."""

    num_rows: int
    distance: Band  # d(c), over the rows that reached c
    width: Band  # w(c), likewise
    reached: tuple[float, ...]  # share of rows
    below_minimum: tuple[float, ...]  # share of rows with c ≤ φ*
    envelope: tuple[float, ...]  # median over rows of |d′(c)·‖∇φ‖ − 1|, by differences along the curve
    radii: tuple[float, ...]
    sharpness: Band  # S(ρ)
    disagreement: Band  # d(φ* + S(ρ)) / ρ − 1 as searched, before either search was told of the other's points
    remaining: Band  # the same after each search was given the points of the other
    num_shortened: int  # distances that the points of S shortened by more than tol²
    num_raised: int  # values of S that the points of d raised by more than tol²
    num_gradients: float  # for each row
    num_values: float


@dataclass(frozen=True)
class Curve:
    """What ``landscape width --curve`` knows of one snapshot."""

    run: str
    key: str
    path: str
    theta_sha256: str
    epoch: int
    loss: float  # φ* over θ
    largest_eigenvalue: float
    levels: tuple[float, ...]
    quadratic: tuple[float, ...]  # √(2 (c − φ*) / λ₁) over θ
    theta: SpaceCurve
    x: SpaceCurve
    settings: dict[str, Any]
    seconds: float


def level_grid(minimum: float, config: CurveConfig) -> tuple[float, ...]:
    """Ascending levels, geometric from slightly above φ* to ``highest``; of each marked level, the nearest moves.

    Raises:
        ConfigurationError: If φ* lies above the highest level.
    """
    first = _FIRST * minimum
    if not 0 < first < config.highest:
        raise ConfigurationError(
            f"the loss {minimum:.4g} is not between 0 and the highest level {config.highest:g} of the curve."
        )
    ratio = (config.highest / first) ** (1 / (config.num_levels - 1))
    free = [first * ratio**i for i in range(config.num_levels)]
    marked = sorted(set(config.levels))
    for level in marked:
        if free and first <= level <= config.highest:
            free.remove(min(free, key=lambda c: abs(math.log(c / level))))
    return tuple(sorted([*free, *marked]))


def write_curve(curve: Curve, path: Path) -> None:
    """Keep a curve as JSON, NaN as null; the file appears whole or not at all."""
    document = {"schema": 1, "curve": _without_nan(asdict(curve)), "provenance": provenance()}
    write_atomically(path, json.dumps(document, indent=1, allow_nan=False).encode())


def read_curve(path: Path, key: str) -> Curve | None:
    """The curve stored at ``path`` if it is whole and the one of this key, else None."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))["curve"]
        if stored["key"] != key:
            return None
        spaces = {name: _space(stored[name]) for name in ("theta", "x")}
        rows = {name: _numbers(stored[name]) for name in ("levels", "quadratic")}
        return Curve(**(stored | spaces | rows))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _space(stored: Mapping[str, Any]) -> SpaceCurve:
    values: dict[str, Any] = {}
    for name, value in stored.items():
        if isinstance(value, dict):
            values[name] = Band(**{q: _numbers(row) for q, row in value.items()})
        else:
            values[name] = _numbers(value) if isinstance(value, list) else value
    return SpaceCurve(**values)


def _numbers(stored: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(math.nan if value is None else value for value in stored)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
