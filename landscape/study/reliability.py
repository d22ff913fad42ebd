"""How far a study's measurements repeat on other data, and what its associations would be if they did exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from landscape.statistics.reliability import (
    Disattenuated,
    IntraclassCorrelation,
    disattenuate,
    intraclass_correlation,
)
from landscape.study.columns import Cell, Rows
from landscape.study.selection import cells_of, is_ok, matrix_of

if TYPE_CHECKING:
    from landscape.study.associations import Columns, CorrelateConfig, Pair

Key: TypeAlias = tuple[Cell, Cell]


@dataclass(frozen=True)
class Reliability:
    """Agreement of ``measurements`` of each run, the first included; ``unmatched`` runs lack a repeat.

    ``columns``: intraclass correlations over all runs, of logarithms of distances. ``links``: within-cell ρ of the
    first measurement, and corrected for the errors of both quantities.
    """

    measurements: int
    unmatched: int
    columns: Mapping[str, IntraclassCorrelation]
    links: Mapping[Pair, Disattenuated]


def compare_repeats(
    rows: Rows, repeats: Sequence[Rows], columns: Columns, config: CorrelateConfig
) -> Reliability | None:
    """Reliability of ``rows`` measured again in each of ``repeats``; None without repeats.

    Rows are matched by ``run_id``, or else ``path``, and by step.
    """
    if not repeats:
        return None
    found = [_by_key(each) for each in repeats]
    matched = [[each.get(_key(row), {}) for row in rows] for each in found]
    measurements: list[Rows] = [rows, *matched]
    unmatched = sum(not all(each[i] for each in matched) for i in range(len(rows)))
    of_columns = {
        name: intraclass_correlation(_values(measurements, name, log=name in (columns.d_theta, columns.d_x)))
        for name in (columns.d_theta, columns.d_x, *columns.robustness.values())
    }
    links = {
        (x, y): disattenuate(
            _values(measurements, x),
            _values(measurements, y),
            cells_of(rows),
            bootstrap=config.bootstrap,
            seed=config.seed,
        )
        for x, y in columns.links
    }
    return Reliability(len(measurements), unmatched, of_columns, links)


def _key(row: Mapping[str, Cell]) -> Key:
    return (row.get("run_id") or row.get("path"), row.get("step"))


def _by_key(rows: Rows) -> dict[Key, Mapping[str, Cell]]:
    """Rows that were measured, by what they are matched by; without any name a row matches none."""
    return {_key(row): row for row in rows if is_ok(row) and _key(row)[0]}


def _values(measurements: Sequence[Rows], name: str, log: bool = False) -> NDArray[np.float64]:
    """A column in each measurement, ``(n, k)``."""
    values = np.stack([matrix_of(rows, [name])[:, 0] for rows in measurements], axis=1)
    return np.log(np.where(values > 0, values, np.nan)) if log else values
