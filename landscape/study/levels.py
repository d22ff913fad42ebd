"""Is the association of distances in θ and in X that of one level, metric and norm, or of all?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from landscape.statistics.multiplicity import MaxT, max_t
from landscape.study.columns import METRICS, NORMS, Rows, level_column, parse_level, split_name
from landscape.study.selection import cells_of, matrix_of

if TYPE_CHECKING:
    from landscape.study.associations import CorrelateConfig, Pair

THETA = ("d_theta", *(f"d_theta_{metric}" for metric in METRICS))
X = ("d_x_median", *(f"d_x_{norm}_median" for norm in NORMS))
MIN_KNOWN = 0.5  # only runs with all distances are compared; a column that fewer have would leave few


@dataclass(frozen=True)
class Levels:
    """Within-cell associations of distances in θ and in X at each level, with p adjusted for all of them (max-T).

    ``left_out``: columns that too few runs have, and how many do.
    """

    pairs: tuple[Pair, ...]
    tests: MaxT
    left_out: Mapping[str, str]


def over_levels(rows: Rows, config: CorrelateConfig) -> Levels:
    """Max-T over all metrics of θ, norms of X and levels whose distances are in the table."""
    columns = {name: split_name(name) for name in sorted({name for row in rows for name in row})}
    names = [name for name, (base, level) in columns.items() if base in (*THETA, *X) and level]
    known = dict(zip(names, (~np.isnan(matrix_of(rows, names))).sum(axis=0).tolist(), strict=True))
    kept = {name for name, n in known.items() if n >= max(MIN_KNOWN * len(rows), 3)}
    levels = sorted({columns[name][1] for name in names}, key=parse_level)
    every = [(level_column(x, c), level_column(y, c)) for x in THETA for y in X for c in levels]
    pairs = tuple(pair for pair in every if kept.issuperset(pair))
    used = list(dict.fromkeys([x for x, _ in pairs] + [y for _, y in pairs]))
    tests = max_t(
        matrix_of(rows, used),
        cells_of(rows),
        [(used.index(x), used.index(y)) for x, y in pairs],
        permutations=config.permutations,
        seed=config.seed,
    )
    left_out = {name: f"known for {known[name]} of {len(rows)} runs" for name in names if name not in kept}
    return Levels(pairs, tests, left_out)
