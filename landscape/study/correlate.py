"""Is a minimum that is wide in θ also wide in X? The study's answer from its table, with its evidence."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from landscape.study.associations import (
    REASONS,
    Columns,
    CorrelateConfig,
    Correlations,
    FgsmGap,
    columns_of,
    figure_pairs,
    find_association,
    interval_sign,
)
from landscape.study.columns import (
    BELOW_MINIMUM,
    LEVELS,
    NOT_REACHED,
    OK,
    PLAIN,
    Cell,
    Row,
    Rows,
    attack_column,
    flag_column,
    numbers,
    text,
    text_values,
)
from landscape.study.statistics import Association, associate, holm, leave_one_cell_out
from landscape.study.verdict import verdict

CELL = ("model", "model_args", "optimizer", "method", "method_args", "learning_rate", "batch_size")
# Tables that were written before there were methods hold plain runs.
_BEFORE_METHODS: Row = {"method": PLAIN}


def correlate(rows: Rows, config: CorrelateConfig | None = None) -> Correlations:
    """Associations of widths, distances, λ₁ and accuracy under attack over ``rows``, one row per training run.

    Distances enter as they are: the primary hypothesis is about log d_θ and log d_X, and ranks are the same.
    A cell holds the runs of equal ``CELL``. Rows that cannot be used are counted by reason, never repaired.
    """
    config = config or CorrelateConfig()
    columns = columns_of(config)
    reasons = exclusion_reasons(rows, config.level)
    used = tuple(i for i, reason in enumerate(reasons) if not reason)
    kept = [rows[i] for i in used]
    names = tuple(dataclasses.astuple(columns))
    pairs = tuple(_associate(kept, x, y, config) for x, y in itertools.combinations(names, 2))
    primary = find_association(pairs, columns.d_theta, columns.d_x)
    family = ((columns.d_theta, columns.d_x), (columns.d_x, columns.exact), (columns.d_theta, columns.exact))
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
        p_holm=dict(zip(family, holm([find_association(pairs, *pair).p_within for pair in family]), strict=True)),
        names=names,
        matrix=_matrix(names, pairs),
        panels=_panels(kept, columns, config),
        simpson=_is_simpson(primary),
        fgsm_gap=_fgsm_gap(kept, columns),
        masking=_count_masking(kept, config),
        verdict="",
    )
    return dataclasses.replace(draft, verdict=verdict(draft))


def exclusion_reasons(rows: Rows, level: str) -> list[str]:
    """For each row the first of ``REASONS`` that applies, or ``""``.

    ``repeated``: a later snapshot of the same run, or the same weights, is in the table; counting both would
    make one run look like two. ``diverged``: the training loss is missing, not finite, or at least log 10,
    that of guessing among ten classes; not judged in a table without any training loss.
    """
    repeated = _earlier_rows(rows, _run_key) | _earlier_rows(rows, lambda row: row.get("theta_sha256"))
    losses = np.array(numbers(rows, "train_loss"))
    diverged = ~(losses < LEVELS["ln10"]) & np.isfinite(losses).any()
    flags = [row.get(flag_column(level)) for row in rows]
    candidates = zip(
        (not _is_ok(row) for row in rows),
        (i in repeated for i in range(len(rows))),
        diverged,
        (flag == NOT_REACHED for flag in flags),
        (flag == BELOW_MINIMUM for flag in flags),
        strict=True,
    )
    return [next(itertools.compress(REASONS, applies), "") for applies in candidates]


def _is_ok(row: Mapping[str, Cell]) -> bool:
    return row.get("status", OK) == OK


def _run_key(row: Mapping[str, Cell]) -> Cell:
    return row.get("run_id") or row.get("run")


def _earlier_rows(rows: Rows, key: Callable[[Mapping[str, Cell]], Cell]) -> set[int]:
    """Indices of usable rows that a row with the same key follows in training (or else in the table)."""
    last: dict[Cell, int] = {}
    steps = numbers(rows, "step")
    earlier = set()
    for i, row in enumerate(rows):
        if not (_is_ok(row) and key(row)):
            continue
        j = last.setdefault(key(row), i)
        if j != i:
            older, newer = (i, j) if steps[i] < steps[j] else (j, i)
            last[key(row)] = newer
            earlier.add(older)
    return earlier


def _cells(rows: Rows) -> list[tuple[str, ...]]:
    # Text, because a batch size read from CSV may be 32 in one row and 32.0 in another.
    return [tuple(map(_cell_text, CELL, map(row.get, CELL))) for row in rows]


def _cell_text(name: str, value: Cell) -> str:
    if value is None or value == "":
        value = _BEFORE_METHODS.get(name)
    return f"{value:g}" if isinstance(value, int | float) else text(value)


def _associate(rows: Rows, x: str, y: str, config: CorrelateConfig) -> Association:
    return associate(
        numbers(rows, x),
        numbers(rows, y),
        _cells(rows),
        permutations=config.permutations,
        bootstrap=config.bootstrap,
        seed=config.seed,
        names=(x, y),
    )


def _leave_one_out(rows: Rows, columns: Columns) -> tuple[float, float]:
    return leave_one_cell_out(numbers(rows, columns.d_theta), numbers(rows, columns.d_x), _cells(rows))


def _panels(rows: Rows, columns: Columns, config: CorrelateConfig) -> dict[tuple[str, str, str], Association]:
    return {
        (x, y, optimizer): _associate(
            [row for row in rows if text(row.get("optimizer")) == optimizer], x, y, config
        )
        for x, y in figure_pairs(columns)
        for optimizer in text_values(rows, "optimizer")
    }


def _matrix(names: Sequence[str], pairs: Sequence[Association]) -> tuple[tuple[float, ...], ...]:
    def entry(i: int, j: int) -> float:
        if i == j:
            return 1.0
        association = find_association(pairs, names[i], names[j])
        return association.within_rho if i < j else association.total_rho

    return tuple(tuple(entry(i, j) for j in range(len(names))) for i in range(len(names)))


def _is_simpson(a: Association) -> bool:
    return interval_sign(a.total_low, a.total_high) * interval_sign(a.within_low, a.within_high) == -1


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


def _count_masking(rows: Rows, config: CorrelateConfig) -> dict[str, int]:
    """Rows by verdict of the masking audit, most frequent first; those without one are not counted."""
    found = (row.get(attack_column("masking", config.eps)) for row in rows)
    return dict(Counter(str(judgement) for judgement in found if judgement).most_common())
