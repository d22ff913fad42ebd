"""Is the association of distances in θ and in X that of one level, or of all? Tested over all levels at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from landscape.statistics.multiplicity import MaxT, max_t
from landscape.study.columns import Rows, distance_column, level_label, matrix_of, parse_level, split_name
from landscape.study.selection import cells_of

if TYPE_CHECKING:
    from landscape.study.associations import CorrelateConfig

MIN_KNOWN = 0.5  # only runs with all distances are compared; a level that fewer have would leave few


@dataclass(frozen=True)
class Levels:
    """Within-cell associations of d_θ and median d_X at ``levels``, with p adjusted for all of them (max-T).

    ``left_out``: levels that too few runs reach, and how many do.
    """

    levels: tuple[str, ...]
    tests: MaxT
    left_out: Mapping[str, str]


def over_levels(rows: Rows, config: CorrelateConfig) -> Levels:
    """Max-T over all levels whose distances are in the table."""
    known = {level: _num_known(rows, level) for level in _levels_of(rows)}
    levels = tuple(level for level, n in known.items() if n >= max(MIN_KNOWN * len(rows), 3))
    names = [distance_column(space, level) for space in ("theta", "x") for level in levels]
    tests = max_t(
        matrix_of(rows, names),
        cells_of(rows),
        [(i, len(levels) + i) for i in range(len(levels))],
        permutations=config.permutations,
        seed=config.seed,
    )
    left_out = {level: f"known for {n} of {len(rows)} runs" for level, n in known.items() if level not in levels}
    return Levels(levels, tests, left_out)


def _levels_of(rows: Rows) -> list[str]:
    """Levels with a distance in θ, ascending."""
    found = map(split_name, {name for row in rows for name in row})
    return sorted({level_label(parse_level(c)) for base, c in found if base == "d_theta" and c}, key=parse_level)


def _num_known(rows: Rows, level: str) -> int:
    names = [distance_column("theta", level), distance_column("x", level)]
    return int(np.isfinite(matrix_of(rows, names)).all(axis=1).sum())
