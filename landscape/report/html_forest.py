"""The associations that the verdict rests on, with their intervals, as one drawing."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from landscape.report.encoding import short
from landscape.report.symbols import escape, to_plain, to_svg
from landscape.report.tables import show
from landscape.report.words import FOREST, say
from landscape.statistics.association import Association
from landscape.study.associations import Correlations
from landscape.study.columns import find_column

WIDTH, LINE, FOOT, MARGIN = 340, 34, 34, 10
Entry = tuple[str, Association]


def forest_html(correlations: Correlations) -> str:
    """Within-cell ρ as discs with intervals, total ρ as diamonds; nothing if no pair has a number."""
    entries = [(label, a) for label, a in _entries(correlations) if not math.isnan(a.within_rho)]
    if not entries:
        return ""
    height = LINE * len(entries) + FOOT
    bottom = height - FOOT + 4
    ticks = "".join(f"M{short(_at(t))} 4V{bottom}" for t in (-1, -0.5, 0.5, 1))
    labels = "".join(
        f'<text x="{short(_at(t))}" y="{bottom + 13}">{show(t, "number")}</text>'
        for t in (-1.0, -0.5, 0.0, 0.5, 1.0)
    )
    lines = "".join(_line(label, a, LINE * i) for i, (label, a) in enumerate(entries))
    return (
        f'<figure class="forest"><svg viewBox="0 0 {WIDTH} {height}" role="group" '
        f'aria-label="Rank correlations of {len(entries)} pairs, with intervals">'
        f'<path class="grid" d="{ticks}"/><path class="zero" d="M{short(_at(0))} 4V{bottom}"/>{lines}'
        f'<g class="ticks" aria-hidden="true">{labels}</g>'
        f'<text class="label" x="{WIDTH / 2:g}" y="{height - 4}">rank correlation ρ</text></svg>'
        f"<figcaption>{escape(say(FOREST))}</figcaption></figure>"
    )


def _entries(c: Correlations) -> Sequence[Entry]:
    """The primary pair, alone and by optimizer; the other links; w_θ against every reading of robustness."""
    d_theta, d_x = c.columns.d_theta, c.columns.d_x
    panels = [(f"… {name} alone", a) for (x, y, name), a in c.panels.items() if (x, y) == (d_theta, d_x)]
    links = [(_pair(x, y), c.pair(x, y)) for x, y in c.p_holm if (x, y) != (c.primary.x, c.primary.y)]
    readings = [(_pair(c.columns.w_theta, y), c.pair(c.columns.w_theta, y)) for y in c.columns.robustness.values()]
    return [
        (f"{_pair(d_theta, d_x)} (primary)", c.primary),
        *(panels if len(panels) > 1 else []),
        *links,
        *readings,
    ]


def _pair(x: str, y: str) -> str:
    return " and ".join(_name(name) for name in (x, y))


def _name(name: str) -> str:
    """The symbol of a column, or its label where it has none."""
    column = find_column(name)
    symbol = re.search(r"\$.*?\$", column.label) if column else None
    return symbol[0] if symbol else column.label if column else name


def _line(label: str, a: Association, top: float) -> str:
    y = top + 24
    within, total = (a.within_rho, a.within_low, a.within_high), (a.total_rho, a.total_low, a.total_high)
    said = f"{to_plain(label)}: within cells ρ = {show(within, 'estimate')}, total ρ = {show(total, 'estimate')}"
    bar = f'<path class="bar" d="M{_x(within[1])} {y}H{_x(within[2])}"/>' if math.isfinite(within[1]) else ""
    diamond = f'<path class="total" d="M{_x(total[0])} {y}m0-5l5 5-5 5-5-5z"/>' if math.isfinite(total[0]) else ""
    return (
        f'<g role="img" aria-label="{escape(said)}">'
        f'<text class="name" x="{MARGIN}" y="{top + 13}">{to_svg(label)}</text>'
        f'<text class="value" x="{WIDTH - MARGIN}" y="{top + 13}">{show(within, "estimate")}</text>'
        f'{diamond}{bar}<circle class="within" cx="{_x(within[0])}" cy="{y}" r="4"/></g>'
    )


def _x(rho: float) -> str:
    return short(_at(rho))


def _at(rho: float) -> float:
    return WIDTH / 2 + rho * (WIDTH / 2 - 2 * MARGIN)
