"""Is a minimum that is wide in θ also wide in X? The study's answer from its table, with its evidence."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from landscape.errors import ConfigurationError
from landscape.study.columns import (
    BELOW_MINIMUM,
    LEVELS,
    NOT_REACHED,
    OK,
    Cell,
    Rows,
    distance_column,
    fgsm_column,
    flag_column,
    level_label,
    numbers,
    parse_level,
    text,
    text_values,
    width_column,
)
from landscape.study.statistics import (
    Association,
    associate,
    detectable_correlation,
    holm,
    leave_one_cell_out,
)

CELL = ("model", "optimizer", "learning_rate", "batch_size")
REASONS = ("failed", "repeated", "diverged", NOT_REACHED, BELOW_MINIMUM)
Pair = tuple[str, str]


@dataclass(frozen=True)
class CorrelateConfig:
    """What is tested: the level c of both distances, the FGSM size ε, and how many draws are made."""

    level: str = "ln2"
    eps: float = 0.3
    permutations: int = 9999
    bootstrap: int = 2000
    seed: int = 0
    alpha: float = 0.05

    def __post_init__(self) -> None:
        object.__setattr__(self, "level", level_label(parse_level(self.level)))
        if self.permutations < 1 or self.bootstrap < 1:
            raise ConfigurationError("permutations and bootstrap must be at least 1")
        if not (0 < self.alpha < 1 and self.eps > 0):
            raise ConfigurationError(f"alpha {self.alpha} must be in (0, 1) and eps {self.eps} positive")


@dataclass(frozen=True)
class Columns:
    """The seven columns that one configuration relates."""

    w_theta: str
    w_x: str
    d_theta: str
    d_x: str
    lambda_1: str
    published: str
    exact: str


@dataclass(frozen=True)
class FgsmGap:
    """Accuracy under FGSM as published less that with exact gradients, over ``n`` rows; shares."""

    n: int
    mean: float
    max: float
    mean_published: float
    mean_exact: float

    @property
    def vanishing_share(self) -> float:
        """Share of the published accuracy that exact gradients take away."""
        return self.mean / self.mean_published if self.mean_published > 0 else math.nan


@dataclass(frozen=True)
class Correlations:
    """All associations of one table, over the rows ``used``, and what they say.

    ``matrix[i][j]`` belongs to ``names[i], names[j]``: within-cell ρ above the diagonal, total ρ below.
    ``panels`` holds the associations among the runs of one optimizer, by ``(x, y, optimizer)``.
    ``p_holm`` adjusts ``p_within`` over the three links of the claim: d_θ - d_X, d_X - FGSM and d_θ - FGSM
    with exact gradients. The primary association is the one hypothesis fixed in advance.
    """

    config: CorrelateConfig
    columns: Columns
    num_rows: int
    num_failed: int
    num_excluded: Mapping[str, int]
    used: tuple[int, ...]
    primary: Association
    leave_one_out: tuple[float, float]
    pairs: tuple[Association, ...]
    p_holm: Mapping[Pair, float]
    names: tuple[str, ...]
    matrix: tuple[tuple[float, ...], ...]
    panels: Mapping[tuple[str, str, str], Association]
    simpson: bool
    fgsm_gap: FgsmGap
    verdict: str

    def pair(self, x: str, y: str) -> Association:
        """The association of two of ``names``, in either order."""
        return _find(self.pairs, x, y)


def columns_of(config: CorrelateConfig) -> Columns:
    """Names of the columns at the level and the FGSM size of ``config``."""
    return Columns(
        w_theta=width_column("theta", config.level),
        w_x=width_column("x", config.level),
        d_theta=distance_column("theta", config.level),
        d_x=distance_column("x", config.level),
        lambda_1="lambda_1",
        published=fgsm_column("published", config.eps),
        exact=fgsm_column("exact", config.eps),
    )


def correlate(rows: Rows, config: CorrelateConfig | None = None) -> Correlations:
    """Associations of widths, distances, λ₁ and FGSM accuracy over ``rows``, one row per training run.

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
    primary = _find(pairs, columns.d_theta, columns.d_x)
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
        p_holm=dict(zip(family, holm([_find(pairs, *pair).p_within for pair in family]), strict=True)),
        names=names,
        matrix=_matrix(names, pairs),
        panels=_panels(kept, columns, config),
        simpson=_is_simpson(primary),
        fgsm_gap=_fgsm_gap(kept, columns),
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


def to_json(correlations: Correlations) -> dict[str, object]:
    """Plain values for ``json.dumps(..., allow_nan=False)``: NaN as null, tuple keys as ``x|y[|optimizer]``."""
    plain = _plain(dataclasses.asdict(correlations))
    if not isinstance(plain, dict):
        raise TypeError("a dataclass becomes a dict")
    return plain


# --- rows ---------------------------------------------------------------------------------------------------


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
    return [tuple(f"{v:g}" if isinstance(v, int | float) else text(v) for v in map(row.get, CELL)) for row in rows]


# --- numbers ------------------------------------------------------------------------------------------------


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


def _find(pairs: Sequence[Association], x: str, y: str) -> Association:
    for association in pairs:
        if {association.x, association.y} == {x, y}:
            return association
    raise ConfigurationError(f"there is no association of {x!r} and {y!r}: choose two of the study's columns")


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


def figure_pairs(columns: Columns) -> tuple[Pair, ...]:
    """The pairs (x, y) that the figures show."""
    return (
        (columns.w_theta, columns.w_x),
        (columns.d_theta, columns.d_x),
        *itertools.product((columns.w_theta, columns.w_x, columns.lambda_1), (columns.published, columns.exact)),
    )


def _matrix(names: Sequence[str], pairs: Sequence[Association]) -> tuple[tuple[float, ...], ...]:
    def entry(i: int, j: int) -> float:
        if i == j:
            return 1.0
        association = _find(pairs, names[i], names[j])
        return association.within_rho if i < j else association.total_rho

    return tuple(tuple(entry(i, j) for j in range(len(names))) for i in range(len(names)))


def _sign(low: float, high: float) -> int:
    """Sign of an interval that excludes zero, else 0."""
    return int(low > 0) - int(high < 0)


def _is_simpson(a: Association) -> bool:
    return _sign(a.total_low, a.total_high) * _sign(a.within_low, a.within_high) == -1


def _fgsm_gap(rows: Rows, columns: Columns) -> FgsmGap:
    published, exact = np.array([numbers(rows, columns.published), numbers(rows, columns.exact)])
    both = np.isfinite(published) & np.isfinite(exact)
    if not both.any():
        return FgsmGap(0, math.nan, math.nan, math.nan, math.nan)
    published, exact = published[both], exact[both]
    gap = published - exact
    return FgsmGap(int(both.sum()), *map(float, (gap.mean(), gap.max(), published.mean(), exact.mean())))


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {"|".join(k) if isinstance(k, tuple) else str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- words --------------------------------------------------------------------------------------------------


def outcome(association: Association, alpha: float) -> str:
    """``supported``, ``opposite``, ``not supported``, ``unsettled`` or ``not testable``, within cells.

    A finding needs both p <= alpha and an interval that excludes zero (p alone where there is no interval);
    ``unsettled`` is one without the other.
    """
    a = association
    if math.isnan(a.p_within):
        return "not testable"
    significant = a.p_within <= alpha
    excludes_zero = significant if math.isnan(a.within_low) else _sign(a.within_low, a.within_high) != 0
    if significant and excludes_zero:
        return "supported" if a.within_rho > 0 else "opposite"
    return "unsettled" if significant or excludes_zero else "not supported"


def verdict(c: Correlations) -> str:
    """What the numbers say, in plain words; the ``verdict`` that ``c`` already holds is not read."""
    sentences = (_say_rows, _say_primary, _say_optimizers, _say_total, _say_fgsm, _say_gap, _say_ratio)
    return " ".join(filter(None, (say(c) for say in sentences)))


def _say_rows(c: Correlations) -> str:
    excluded = ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in c.num_excluded.items() if n)
    said = f"{len(c.used)} of {c.num_rows} rows are used" + (f" (excluded: {excluded})." if excluded else ".")
    if c.num_excluded[NOT_REACHED]:
        said += " Rows whose d_θ was not reached may be the widest ones; leaving them out can bias what follows."
    return said


_EQUAL = "among runs with the same settings"
_PRIMARY = {
    "supported": f"Supported within cells: {_EQUAL}, those with a larger distance d_θ to the level {{level}} also "
    "have a larger median d_X ({numbers}; {sizes}). {range} This is an association between seeds; it does not "
    "show that the one causes the other.",
    "opposite": f"Opposite sign: {_EQUAL}, those with a larger distance d_θ to the level {{level}} have a smaller "
    "median d_X ({numbers}; {sizes}). {range} This contradicts the claim that wide in θ means wide in X.",
    "not supported": f"Not supported: {_EQUAL}, no association of d_θ and median d_X at {{level}} was found; the "
    "test does not reject and the interval includes 0 ({numbers}; {sizes}). This does not show that there is "
    "none: {power}, and smaller ones less often.",
    "unsettled": f"Unsettled: {_EQUAL}, the permutation test and the interval of d_θ and median d_X at {{level}} "
    "disagree ({numbers}; {sizes}). This counts as not supported; {power}.",
    "not testable": "Not testable: {reason} ({sizes}). Whether d_θ and d_X at {level} go together at equal "
    "settings cannot be told from this table; that takes several seeds per cell.",
}


def _say_primary(c: Correlations) -> str:
    a = c.primary
    detectable = detectable_correlation(a.degrees_of_freedom, alpha=c.config.alpha)
    kind = outcome(a, c.config.alpha)
    said = _PRIMARY[kind].format(
        level=f"c = {c.config.level}",
        numbers=f"within-cell {_rho(a.within_rho, a.within_low, a.within_high)}, permutation {_p(a.p_within)}",
        sizes=f"{a.n} runs in {a.num_cells} cells" + (f", {a.dropped} without a distance" if a.dropped else ""),
        range=f"Leaving out any one cell, ρ stays between {c.leave_one_out[0]:.2f} and {c.leave_one_out[1]:.2f}.",
        power=f"with {a.degrees_of_freedom} degrees of freedom this design finds |ρ| ≥ {_number(detectable)} "
        "with about 80 % power",
        reason=a.note or "no p-value",
    )
    return said + (f" Caution: {a.note}." if a.note and kind != "not testable" else "")


def _say_optimizers(c: Correlations) -> str:
    panels = {
        optimizer: a
        for (x, y, optimizer), a in c.panels.items()
        if (x, y) == (c.columns.d_theta, c.columns.d_x) and not math.isnan(a.within_rho)
    }
    if len(panels) < 2:
        return ""
    each = (f"{name} {_rho(a.within_rho, a.within_low, a.within_high)}" for name, a in panels.items())
    return f"By optimizer, within cells: {'; '.join(each)}."


def _say_total(c: Correlations) -> str:
    a = c.primary
    if math.isnan(a.total_rho):
        return ""
    said = (
        f"Over all runs, settings ignored, {_rho(a.total_rho, a.total_low, a.total_high)}; this total "
        "association is confounded by the settings, which can move both distances at once: description only."
    )
    if c.simpson:
        said += (
            " Its sign is the opposite of that within cells, with both intervals away from 0 (Simpson's paradox)."
        )
    return said


def _say_fgsm(c: Correlations) -> str:
    readings = {
        name: c.pair(c.columns.w_theta, column)
        for name, column in (("as published", c.columns.published), ("with exact gradients", c.columns.exact))
    }
    found = [outcome(a, c.config.alpha) for a in readings.values()]
    if "not testable" in found:
        return "The within-cell association of w_θ and FGSM accuracy cannot be tested for both FGSM readings."
    numbers_ = "; ".join(
        f"{name} {_rho(a.within_rho, a.within_low, a.within_high)}, {_p(a.p_within)}"
        for name, a in readings.items()
    )
    said = {
        ("supported", "supported"): "holds for both FGSM readings",
        ("opposite", "opposite"): "has the opposite sign for both FGSM readings",
    }.get((found[0], found[1]))
    if said is None and "supported" in found:
        held = list(readings)[found.index("supported")]
        said = f"holds only {held}, so it depends on how FGSM's gradient is computed"
    said = said or "is not found as claimed for either FGSM reading"
    return (
        f"Within cells, the association of w_θ and accuracy under FGSM (ε = {c.config.eps:g}) {said} "
        f"({numbers_}; not adjusted for multiple tests)."
    )


def _say_gap(c: Correlations) -> str:
    gap = c.fgsm_gap
    if gap.n == 0:
        return "How the two FGSM readings differ was not measured."
    said = (
        f"With exact gradients, mean FGSM accuracy is {gap.mean_exact:.1%} instead of {gap.mean_published:.1%} as "
        f"published"
    )
    if gap.mean > 0:
        said += f": {gap.vanishing_share:.0%} of it disappears"
    return said + f" (mean gap {100 * gap.mean:.1f}, largest {100 * gap.max:.1f} percentage points; {gap.n} runs)."


def _say_ratio(c: Correlations) -> str:
    a = c.pair(c.columns.w_theta, c.columns.w_x)
    if math.isnan(a.within_rho):
        return ""
    return (
        "Widths w = d / (c - φ*) are not the primary measure: w_θ and w_X have divisors of the same "
        f"kind, which alone can correlate them (within-cell ρ of w_θ and w_X = {a.within_rho:.2f}, "
        f"of d_θ and d_X = {_number(c.primary.within_rho)})."
    )


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.2f}"


def _rho(rho: float, low: float, high: float) -> str:
    interval = "no interval" if math.isnan(low) else f"95 % interval {low:.2f} to {high:.2f}"
    return f"ρ = {_number(rho)} ({interval})"


def _p(p: float) -> str:
    return f"p = {p:.2g}" if p >= 0.001 else f"p = {p:.1g}"
