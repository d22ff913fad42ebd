"""Tables of what adjusts, splits and repeats the associations of a study."""

from __future__ import annotations

from landscape.report.symbols import column_label, to_plain
from landscape.report.tables import Estimate, Field, Table, TableCell, number_of
from landscape.report.words import GRANULATED, LEVELS, PARTIAL, RELIABILITY, REPEATS, say
from landscape.statistics import resampling
from landscape.study.associations import Correlations

_ALL = "all: mean τ, largest sign error"


def partial_table(c: Correlations) -> Table:
    """The links of the claim given covariates, and without them."""
    fields = (
        Field("pair", "pair", "pair"),
        Field("given", "given"),
        Field("n", "n", "count"),
        Field("total_rho", "ρ without (total)", "estimate"),
        Field("direct_rho", "ρ given (direct)", "estimate"),
        Field("p", "p given", "p"),
    )
    rows = tuple(
        ((a.x, a.y), ", ".join(map(_label, a.given)), a.n, _estimate(a.total), _estimate(a.direct), a.p)
        for a in c.adjusted.found
    )
    left_out = "".join(f" Left out: {_label(name)}, {reason}." for name, reason in c.adjusted.left_out.items())
    caption = say(PARTIAL, permutations=c.config.permutations) + left_out
    return Table("partial", "Given training loss, margin and norm", caption, fields, rows)


def levels_table(c: Correlations) -> Table:
    """Distances at all levels, metrics and norms, p adjusted for all of them; empty where there is one pair."""
    tests = c.levels.tests
    fields = (
        Field("pair", "pair", "pair"),
        Field("n", "n", "count"),
        Field("within_rho", "within-cell ρ", "correlation"),
        Field("p", "p", "p"),
        Field("p_max_t", "p, max-T", "p"),
    )
    values = zip(c.levels.pairs, tests.rho, tests.p, tests.p_adjusted, strict=True)
    rows = tuple((pair, tests.n, rho, p, adjusted) for pair, rho, p, adjusted in values)
    left_out = "".join(f" Left out: {_label(name)}, {reason}." for name, reason in c.levels.left_out.items())
    caption = say(LEVELS, permutations=c.config.permutations) + left_out
    return Table("levels", "All levels at once", caption, fields, rows if len(rows) > 1 else ())


def granulated_table(c: Correlations) -> Table:
    """Granulated τ and sign errors of d_θ with d_X and with each reading of robustness."""
    fields = (
        Field("y", "quantity", "column"),
        Field("setting", "setting that differs"),
        Field("pairs", "pairs of runs", "count"),
        Field("groups", "groups", "count"),
        Field("tau", "τ", "estimate"),
        Field("sign_error", "sign error", "estimate"),
        Field("worst", "worst setting"),
    )
    rows: list[tuple[TableCell, ...]] = []
    for g in c.granulated:
        axes = [a for a in g.axes if a.pairs]
        for a in axes:
            tau, wrong = _estimate(a.tau), _estimate(a.sign_error)
            rows.append((g.y, a.axis.replace("_", " "), a.pairs, a.groups, tau, wrong, None))
        if axes:
            tau, wrong = _estimate(g.tau), _estimate(g.sign_error)
            rows.append((g.y, _ALL, None, None, tau, wrong, g.worst_axis.replace("_", " ")))
    notes = "".join(f" Left out: {note}." for note in dict.fromkeys(g.note for g in c.granulated if g.note))
    caption = say(GRANULATED, d_theta=_label(c.columns.d_theta), bootstrap=c.config.bootstrap) + notes
    return Table("granulated", "One setting at a time", caption, fields, tuple(rows))


def reliability_table(c: Correlations) -> Table:
    """The links of the claim, corrected for errors of measurement; empty where nothing was measured again."""
    fields = (
        Field("pair", "pair", "pair"),
        Field("n", "n", "count"),
        Field("reliability_x", "reliability of the first", "estimate"),
        Field("reliability_y", "of the second", "estimate"),
        Field("within_rho", "within-cell ρ", "estimate"),
        Field("corrected_rho", "corrected ρ", "estimate"),
        Field("note", "note"),
    )
    found = c.reliability
    rows = tuple(
        (
            pair,
            a.n,
            *map(_estimate, (a.reliability_x, a.reliability_y, a.rho, a.corrected)),
            a.note or None,
        )
        for pair, a in (found.links.items() if found else ())
    )
    caption = say(RELIABILITY, measurements=found.measurements if found else 0)
    if found and found.unmatched:
        caption += f" Not measured every time: {number_of(found.unmatched, 'run')}."
    return Table("reliability", "Corrected for errors of measurement", caption, fields, rows)


def repeats_table(c: Correlations) -> Table:
    """How far repeated measurements of a quantity agree; empty where nothing was measured again."""
    fields = (
        Field("quantity", "quantity", "column"),
        Field("n", "n", "count"),
        Field("repeats", "measurements", "count"),
        Field("agreement", "ICC(A,1), agreement", "estimate"),
        Field("consistency", "ICC(C,1), consistency", "estimate"),
    )
    rows = tuple(
        (name, icc.n, icc.repeats, _estimate(icc.agreement), _estimate(icc.consistency))
        for name, icc in (c.reliability.columns.items() if c.reliability else ())
        if icc.n
    )
    return Table("repeats", "Measured again", say(REPEATS), fields, rows)


def _label(name: str) -> str:
    return to_plain(column_label(name))


def _estimate(found: resampling.Estimate) -> Estimate:
    return found.value, found.low, found.high
