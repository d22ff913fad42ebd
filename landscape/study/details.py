"""What the parts of a study beside its main test say, in plain words."""

from __future__ import annotations

import math

from landscape.study.associations import Correlations

_COVARIATES = {"train_loss": "training loss", "margin_median": "median margin", "theta_norm": "‖θ‖"}


def say_levels(c: Correlations) -> str:
    """For how many distances the association is found, adjusted for all."""
    tests = c.levels.tests
    tested = [p for p in tests.p_adjusted if not math.isnan(p)]
    if len(tested) < 2:
        return ""
    found = sum(p <= c.config.alpha for p in tested)
    return (
        f"Of {len(tested)} pairs of distances at all levels and in all metrics and norms that were measured, "
        f"adjusted for each other, the test rejects for "
        f"{found} (smallest {p_value(min(tested))})."
    )


def say_adjusted(c: Correlations) -> str:
    """What is left of the primary association at equal covariates."""
    a = c.adjusted.given_all(c.columns.d_theta, c.columns.d_x)
    if a is None or math.isnan(a.direct.value):
        return ""
    *others, last = (_COVARIATES.get(name, name) for name in a.given)
    given = f"{', '.join(others)} and {last}" if others else last
    return (
        f"At equal {given}, {rho(a.direct.value, a.direct.low, a.direct.high)}, {p_value(a.p)} (without them "
        f"{number(a.total.value)}; these are outcomes of training, too)."
    )


def say_repeats(c: Correlations) -> str:
    """How well distances repeat, and what that does to the primary association."""
    if c.reliability is None:
        return ""
    a = c.reliability.links[c.columns.d_theta, c.columns.d_x]
    if not a.n:
        return "No run was measured again, so that reliability is not known."
    said = (
        f"Measured {c.reliability.measurements} times on disjoint data, the reliability within cells is "
        f"{number(a.reliability_x.value)} for d_θ and {number(a.reliability_y.value)} for d_X"
    )
    if math.isnan(a.corrected.value):
        return f"{said}; ρ cannot be corrected for it ({a.note or 'no ρ'})."
    return f"{said}; corrected for it, {rho(a.corrected.value, a.corrected.low, a.corrected.high)}."


def say_settings(c: Correlations) -> str:
    """How distances go together when one setting changes."""
    a = c.granulated[0]
    if math.isnan(a.tau.value):
        return ""
    return (
        f"Between runs that differ in one setting alone, granulated τ of d_θ and d_X is {number(a.tau.value)}; "
        f"along {a.worst_axis.replace('_', ' ')}, the worst, {a.sign_error.value:.0%} of pairs are ordered "
        "oppositely."
    )


def number(value: float) -> str:
    """Two digits, ``n/a`` for NaN."""
    return "n/a" if math.isnan(value) else f"{value:.2f}"


def rho(value: float, low: float, high: float) -> str:
    """A correlation with its interval."""
    interval = "no interval" if math.isnan(low) else f"95 % interval {low:.2f} to {high:.2f}"
    return f"ρ = {number(value)} ({interval})"


def p_value(p: float) -> str:
    """``p = `` with two digits, or one where it is tiny."""
    return f"p = {p:.2g}" if p >= 0.001 else f"p = {p:.1g}"
