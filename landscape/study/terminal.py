"""The associations of a study on the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from landscape.statistics.association import Association
from landscape.statistics.resampling import Estimate
from landscape.study.associations import Correlations


def format_table(correlations: Correlations) -> str:
    """Aligned tables: all pairs first, then what adjusts, repeats or splits the links of the claim."""
    parts = (_pairs, _adjusted, _levels, _settings, _reliability)
    excluded = ", ".join(f"{n} {reason}" for reason, n in correlations.num_excluded.items() if n) or "none"
    summary = f"rows: {correlations.num_rows}, used: {len(correlations.used)}, excluded: {excluded}"
    return "\n\n".join([summary, *filter(None, (part(correlations) for part in parts))])


def _pairs(c: Correlations) -> str:
    header = ("x", "y", "n", "cells", "total ρ", "within-cell ρ", "p within", "p Holm", "note")
    ordered = (c.primary, *(pair for pair in c.pairs if pair is not c.primary))
    title = "all pairs; first line: the primary pair; intervals: 95 % cluster bootstrap"
    return _table(title, header, [_pair(pair, c) for pair in ordered])


def _pair(a: Association, c: Correlations) -> tuple[str, ...]:
    total = _show(Estimate(a.total_rho, a.total_low, a.total_high))
    within = _show(Estimate(a.within_rho, a.within_low, a.within_high))
    holm = _p(c.p_holm.get((a.x, a.y), math.nan), "")
    return (a.x, a.y, str(a.n), str(a.num_cells), total, within, _p(a.p_within), holm, a.note)


def _adjusted(c: Correlations) -> str:
    left_out = "".join(f"; {name} is left out: {reason}" for name, reason in c.adjusted.left_out.items())
    header = ("x", "y", "given", "n", "ρ without", "ρ given", "p given")
    body = [
        (a.x, a.y, ", ".join(a.given), str(a.n), _show(a.total), _show(a.direct), _p(a.p))
        for a in c.adjusted.found
    ]
    return _table(f"within cells, given covariates{left_out}", header, body)


def _levels(c: Correlations) -> str:
    tests = c.levels.tests
    left_out = "".join(f"; {name} is left out: {reason}" for name, reason in c.levels.left_out.items())
    values = zip(c.levels.pairs, tests.rho, tests.p, tests.p_adjusted, strict=True)
    body = [(*pair, str(tests.n), _show(Estimate(rho)), _p(p), _p(all_)) for pair, rho, p, all_ in values]
    title = f"distances within cells; p of all: max-T{left_out}"
    return _table(title, ("x", "y", "n", "within-cell ρ", "p alone", "p of all"), body)


def _settings(c: Correlations) -> str:
    body = [
        (a.y, axis.axis, str(axis.pairs), _show(axis.tau), _show(axis.sign_error))
        for a in c.granulated
        for axis in a.axes
        if axis.pairs
    ]
    title = f"{c.columns.d_theta} and y between runs that differ in one setting alone"
    return _table(title, ("y", "setting", "pairs", "τ", "sign error"), body)


def _reliability(c: Correlations) -> str:
    if c.reliability is None:
        return ""
    body = [
        (x, y, str(a.n), *map(_show, (a.reliability_x, a.reliability_y, a.rho, a.corrected)), a.note)
        for (x, y), a in c.reliability.links.items()
    ]
    header = ("x", "y", "n", "reliability of x", "of y", "within-cell ρ", "corrected ρ", "note")
    title = f"{c.reliability.measurements} measurements, {c.reliability.unmatched} runs without all of them"
    return _table(title, header, body)


def _table(title: str, header: tuple[str, ...], body: Sequence[tuple[str, ...]]) -> str:
    if not body:
        return ""
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    lines = [_align(line, widths) for line in (header, tuple("-" * width for width in widths), *body)]
    return "\n".join([title, *lines])


def _show(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "n/a"
    interval = "" if math.isnan(estimate.low) else f" [{estimate.low:+.2f}, {estimate.high:+.2f}]"
    return f"{estimate.value:+.2f}{interval}"


def _p(p: float, missing: str = "n/a") -> str:
    return missing if math.isnan(p) else f"{p:.4f}"


def _align(fields: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join(field.ljust(width) for field, width in zip(fields, widths, strict=True)).rstrip()
