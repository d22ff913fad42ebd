"""Is a minimum that is wide in θ also wide in X? The study's answer from its table, with its evidence."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from landscape.statistics.association import Association, associate_pairs, leave_one_cell_out
from landscape.statistics.multiplicity import holm
from landscape.study.adjusted import adjust
from landscape.study.associations import (
    Columns,
    CorrelateConfig,
    Correlations,
    FgsmGap,
    Pair,
    columns_of,
    figure_pairs,
    find_association,
)
from landscape.study.columns import Rows, attack_column, numbers, text, text_values
from landscape.study.granulated import over_settings
from landscape.study.levels import over_levels
from landscape.study.reliability import compare_repeats
from landscape.study.selection import REASONS, cells_of, exclusion_reasons, matrix_of
from landscape.study.verdict import verdict


def correlate(rows: Rows, config: CorrelateConfig | None = None, repeats: Sequence[Rows] = ()) -> Correlations:
    """Associations of widths, distances, λ₁ and accuracy under attack over ``rows``, one row per training run.

    Distances enter as they are: the primary hypothesis is about log d_θ and log d_X, and ranks are the same.
    A cell holds the runs of equal ``selection.CELL``. Rows that cannot be used are counted, never repaired.
    Each of ``repeats`` holds the same runs, measured once more on other data.
    """
    config = config or CorrelateConfig()
    columns = columns_of(config)
    reasons = exclusion_reasons(rows, config.level)
    used = tuple(i for i, reason in enumerate(reasons) if not reason)
    kept = [rows[i] for i in used]
    names = tuple(dataclasses.astuple(columns))
    pairs = _associate_all(kept, columns, list(itertools.combinations(names, 2)), config)
    primary = find_association(pairs, columns.d_theta, columns.d_x)
    counts = Counter(reason for reason in reasons if reason)
    draft = Correlations(
        config=config,
        columns=columns,
        num_rows=len(rows),
        num_failed=counts["failed"],
        num_excluded={reason: counts[reason] for reason in REASONS},
        used=used,
        primary=primary,
        leave_one_out=_leave_one_out(kept, columns),
        pairs=pairs,
        p_holm=_holm(pairs, columns),
        names=names,
        matrix=_matrix(names, pairs),
        panels=_panels(kept, columns, config),
        simpson=primary.is_simpson,
        fgsm_gap=_fgsm_gap(kept, columns),
        masking=_count_masking(kept, config),
        audit_samples=_fewest(kept, "audit_samples"),
        adjusted=adjust(kept, columns, config),
        levels=over_levels(kept, config),
        granulated=over_settings(kept, columns, config),
        reliability=compare_repeats(kept, repeats, columns, config),
        verdict="",
    )
    return dataclasses.replace(draft, verdict=verdict(draft))


def _associate_all(
    rows: Rows, columns: Columns, pairs: Sequence[Pair], config: CorrelateConfig
) -> tuple[Association, ...]:
    # The primary pair leads, so that what is drawn for it does not depend on which other columns there are.
    names = list(dict.fromkeys((columns.d_theta, columns.d_x, *dataclasses.astuple(columns))))
    return associate_pairs(
        matrix_of(rows, names),
        cells_of(rows),
        [(names.index(x), names.index(y)) for x, y in pairs],
        names,
        **config.draws,
    )


def _holm(pairs: Sequence[Association], columns: Columns) -> dict[Pair, float]:
    adjusted = holm([find_association(pairs, *link).p_within for link in columns.links])
    return dict(zip(columns.links, adjusted, strict=True))


def _leave_one_out(rows: Rows, columns: Columns) -> tuple[float, float]:
    return leave_one_cell_out(numbers(rows, columns.d_theta), numbers(rows, columns.d_x), cells_of(rows))


def _panels(rows: Rows, columns: Columns, config: CorrelateConfig) -> dict[tuple[str, str, str], Association]:
    panels = {}
    for optimizer in text_values(rows, "optimizer"):
        members = [row for row in rows if text(row.get("optimizer")) == optimizer]
        for a in _associate_all(members, columns, figure_pairs(columns), config):
            panels[a.x, a.y, optimizer] = a
    return {(x, y, o): panels[x, y, o] for x, y in figure_pairs(columns) for o in text_values(rows, "optimizer")}


def _matrix(names: Sequence[str], pairs: Sequence[Association]) -> tuple[tuple[float, ...], ...]:
    def entry(i: int, j: int) -> float:
        if i == j:
            return 1.0
        association = find_association(pairs, names[i], names[j])
        return association.within_rho if i < j else association.total_rho

    return tuple(tuple(entry(i, j) for j in range(len(names))) for i in range(len(names)))


def _fgsm_gap(rows: Rows, columns: Columns) -> FgsmGap:
    published, exact = np.array([numbers(rows, columns.published), numbers(rows, columns.exact)])
    both = np.isfinite(published) & np.isfinite(exact)
    worst = np.array(numbers(rows, columns.worst))
    worst = worst[np.isfinite(worst)]
    mean_worst = float(worst.mean()) if worst.size else math.nan
    if not both.any():
        return FgsmGap(0, math.nan, math.nan, math.nan, math.nan, mean_worst)
    published, exact = published[both], exact[both]
    gap = published - exact
    means = map(float, (gap.mean(), gap.max(), published.mean(), exact.mean(), mean_worst))
    return FgsmGap(int(both.sum()), *means)


def _fewest(rows: Rows, name: str) -> int | None:
    told = [value for value in numbers(rows, name) if math.isfinite(value)]
    return int(min(told)) if told else None


def _count_masking(rows: Rows, config: CorrelateConfig) -> dict[str, int]:
    """Rows by verdict of the masking audit, most frequent first; those without one are not counted."""
    found = (row.get(attack_column("masking", config.eps)) for row in rows)
    return dict(Counter(str(judgement) for judgement in found if judgement).most_common())
