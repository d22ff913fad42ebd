"""What the numbers of a study say, in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping

from landscape.statistics.association import Association, interval_sign
from landscape.statistics.power import detectable_correlation
from landscape.study.associations import Correlations
from landscape.study.columns import NOT_REACHED
from landscape.study.details import number, p_value, rho, say_adjusted, say_levels, say_repeats, say_settings

# Images of an audit from which on gaps of a few percentage points can be seen.
_MANY_IMAGES = 100


def outcome(association: Association, alpha: float) -> str:
    """``supported``, ``opposite``, ``not supported``, ``unsettled`` or ``not testable``, within cells.

    A finding needs both p <= alpha and an interval that excludes zero (p alone where there is no interval);
    ``unsettled`` is one without the other.
    """
    a = association
    if math.isnan(a.p_within) or a.degrees_of_freedom < 1:
        return "not testable"
    significant = a.p_within <= alpha
    excludes_zero = significant if math.isnan(a.within_low) else interval_sign(a.within_low, a.within_high) != 0
    if significant and excludes_zero:
        return "supported" if a.within_rho > 0 else "opposite"
    return "unsettled" if significant or excludes_zero else "not supported"


def verdict(c: Correlations) -> str:
    """What the numbers say, in plain words; the ``verdict`` that ``c`` already holds is not read."""
    sentences = (
        _say_rows,
        _say_primary,
        _say_optimizers,
        say_levels,
        say_adjusted,
        say_repeats,
        _say_total,
        say_settings,
        _say_attacks,
        _say_gap,
        _say_masking,
        _say_ratio,
    )
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
    "test does not reject{interval} ({numbers}; {sizes}). This does not show that there is "
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
        numbers=f"within-cell {rho(a.within_rho, a.within_low, a.within_high)}, permutation {p_value(a.p_within)}",
        sizes=f"{a.n} runs in {a.num_cells} cells" + (f", {a.dropped} without a distance" if a.dropped else ""),
        range=f"Leaving out any one cell, ρ stays between {c.leave_one_out[0]:.2f} and {c.leave_one_out[1]:.2f}.",
        interval="" if math.isnan(a.within_low) else " and the interval includes 0",
        power=f"with {a.degrees_of_freedom} degrees of freedom this design finds |ρ| ≥ {number(detectable)} "
        "with about 80 % power",
        reason=a.note or ("no p-value" if a.degrees_of_freedom > 0 else "too few runs share their settings"),
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
    each = (f"{name} {rho(a.within_rho, a.within_low, a.within_high)}" for name, a in panels.items())
    return f"By optimizer, within cells: {'; '.join(each)}."


def _say_total(c: Correlations) -> str:
    a = c.primary
    if math.isnan(a.total_rho):
        return ""
    said = (
        f"Over all runs, settings ignored, {rho(a.total_rho, a.total_low, a.total_high)}; this total "
        "association is confounded by the settings, which can move both distances at once: description only."
    )
    if c.simpson:
        said += (
            " Its sign is the opposite of that within cells, with both intervals away from 0 (Simpson's paradox)."
        )
    return said


def _say_attacks(c: Correlations) -> str:
    found = {name: c.pair(c.columns.w_theta, column) for name, column in c.columns.robustness.items()}
    tested = {name: a for name, a in found.items() if not math.isnan(a.p_within)}
    if not tested:
        return "The within-cell association of w_θ and accuracy under attack cannot be tested."
    numbers_ = "; ".join(
        f"{name} {rho(a.within_rho, a.within_low, a.within_high)}, {p_value(a.p_within)}"
        for name, a in tested.items()
    )
    untested = "".join(
        f" {name[0].upper()}{name[1:]} it cannot be tested: {a.note or 'no p-value'}."
        for name, a in found.items()
        if name not in tested and a.n
    )
    return (
        f"Within cells, the association of w_θ and accuracy at ε = {c.config.eps:g} "
        f"{_summary({name: outcome(a, c.config.alpha) for name, a in tested.items()})} "
        f"({numbers_}; not adjusted for multiple tests).{untested}"
    )


def _summary(outcomes: Mapping[str, str]) -> str:
    """For which readings of robustness the claim holds."""
    held = [name for name, kind in outcomes.items() if kind == "supported"]
    opposite = [name for name, kind in outcomes.items() if kind == "opposite"]
    if len(held) == len(outcomes):
        return "holds " + " and ".join(held)
    if held:
        return f"holds only {' and '.join(held)}, so it depends on what is called robust"
    if opposite:
        return f"has the opposite sign {' and '.join(opposite)}"
    return "is not found as claimed for any reading"


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
    said += f" (mean gap {100 * gap.mean:.1f}, largest {100 * gap.max:.1f} percentage points; {gap.n} runs)."
    if math.isnan(gap.mean_worst):
        return said
    return said + f" In the worst case over all attacks {gap.mean_worst:.1%} are left."


def _say_masking(c: Correlations) -> str:
    if not c.masking:
        return ""
    counts = ", ".join(f"{count} {judgement}" for judgement, count in c.masking.items())
    if c.audit_samples is None:
        return f"The masking audit at ε = {c.config.eps:g} calls the runs: {counts}."
    said = f"The masking audit at ε = {c.config.eps:g}, on {c.audit_samples} images a run, calls them: {counts}."
    return said if c.audit_samples >= _MANY_IMAGES else f"{said} So few images show large gaps only."


def _say_ratio(c: Correlations) -> str:
    a = c.pair(c.columns.w_theta, c.columns.w_x)
    if math.isnan(a.within_rho):
        return ""
    return (
        "Widths w = d / (c - φ*) are not the primary measure: w_θ and w_X have divisors of the same "
        f"kind, which alone can correlate them (within-cell ρ of w_θ and w_X = {a.within_rho:.2f}, "
        f"of d_θ and d_X = {number(c.primary.within_rho)})."
    )
