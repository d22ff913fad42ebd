"""Scatter plots as inline SVG: one panel for each optimizer and reading, one mark for each run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from landscape.report.encoding import IN_LEGEND, Encoding, disc, hole, short
from landscape.report.points import Points
from landscape.report.scatter import Associations, Scatter, describe, is_log, log_limits
from landscape.report.style import log_ticks
from landscape.report.symbols import escape, to_plain, to_svg
from landscape.study.columns import PLAIN, Rows, axis_label, method_of, numbers, text

WIDTH, HEIGHT = 340, 250
LEFT, RIGHT, TOP, BOTTOM = 50, 330, 10, 208
_MAX_TICKS = 7


@dataclass(frozen=True)
class Axis:
    """Where the values of a column lie between ``start`` and ``end`` of a plot."""

    name: str
    label: str
    low: float
    high: float
    start: float
    end: float

    @property
    def log(self) -> bool:
        """Whether it is logarithmic; shares are not."""
        return is_log(self.name)

    def shows(self, value: float) -> bool:
        """Whether the axis has a place for a value."""
        return math.isfinite(value) and (value > 0 or not self.log)

    def place(self, value: float) -> float:
        """Coordinate of a value."""
        low, high, v = map(math.log, (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return self.start + (v - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """Coordinates of the ticks, and what stands beside them."""
        values = log_ticks(self.low, self.high) if self.log else [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        values = values[:: math.ceil(len(values) / _MAX_TICKS)]
        return [(self.place(v), f"{v:g}" if self.log else f"{100 * v:.0f}") for v in values]


@dataclass(frozen=True)
class Drawing:
    """What all panels of a report share."""

    rows: Rows  # those that were used
    points: Points
    encoding: Encoding
    associations: Associations
    titles: bool  # whether each mark tells its run without the script


def figure_html(drawing: Drawing, scatter: Scatter) -> str:
    """All panels of one figure: a row for each reading, in it one for each optimizer."""
    x_axis = _axis(drawing.rows, (scatter.x,), axis_label(scatter.x), (LEFT, RIGHT))
    panels = []
    for y, title in zip(scatter.ys, scatter.titles, strict=True):
        y_axis = _axis(drawing.rows, (y, *scatter.ys), scatter.y_label or axis_label(y), (BOTTOM, TOP))
        for number, optimizer in enumerate(drawing.points.filters[0].values):
            panels.append(_panel(drawing, (x_axis, y_axis), (optimizer, title), number))
    return f'<div class="panels">{"".join(panels)}</div>'


def num_marks(rows: Rows, scatters: Sequence[Scatter]) -> int:
    """How many marks all figures have at most."""
    return len(rows) * sum(len(scatter.ys) for scatter in scatters)


def _axis(rows: Rows, names: Sequence[str], label: str, ends: tuple[float, float]) -> Axis:
    """Limits are those of all columns ``names``, so that panels can be compared; the first one is shown."""
    if not is_log(names[0]):
        return Axis(names[0], label, 0.0, 1.0, *ends)
    values = [v for name in names for v in numbers(rows, name) if math.isfinite(v) and v > 0]
    return Axis(names[0], label, *log_limits(values), *ends)


def _panel(drawing: Drawing, axes: tuple[Axis, Axis], titles: tuple[str, str], optimizer: int) -> str:
    x, y = axes
    members = [i for i, row in enumerate(drawing.rows) if text(row.get("optimizer")) == titles[0]]
    at = _places(drawing.rows, axes, members)
    measured = _num_measured(drawing.rows, axes, members)
    said = describe(drawing.associations.get((x.name, y.name, titles[0])))
    if measured > len(at):
        said.append(f"{measured - len(at)} not shown, value ≤ 0")
    lines = "".join(f"<span>{escape(line)}</span>" for line in said)
    name = f"{to_plain(y.label)} against {to_plain(x.label)}, {', '.join(filter(None, titles))}: {len(at)} runs"
    return (
        f'<figure class="panel" data-optimizer="{optimizer}"><figcaption><b>{escape(titles[0])}</b>'
        f"{f', {escape(titles[1])}' if titles[1] else ''}{lines}</figcaption>"
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="group" aria-label="{escape(name)}" '
        f'data-x="{escape(x.name)}" data-y="{escape(y.name)}" stroke-width="{short(drawing.encoding.edge)}">'
        f"{_frame(x, y)}{_marks(drawing, at, (x.name, y.name))}</svg></figure>"
    )


def _places(rows: Rows, axes: tuple[Axis, Axis], members: Sequence[int]) -> dict[int, tuple[float, float]]:
    """Coordinates of the runs that have both values, by their number."""
    x, y = axes
    xs, ys = numbers(rows, x.name), numbers(rows, y.name)
    shown = (i for i in members if x.shows(xs[i]) and y.shows(ys[i]))
    return {i: (x.place(xs[i]), y.place(ys[i])) for i in shown}


def _num_measured(rows: Rows, axes: tuple[Axis, Axis], members: Sequence[int]) -> int:
    x, y = (numbers(rows, axis.name) for axis in axes)
    return sum(math.isfinite(x[i]) and math.isfinite(y[i]) for i in members)


def _frame(x: Axis, y: Axis) -> str:
    """Axes, grid and labels."""
    columns, lines = x.ticks(), y.ticks()
    grid = "".join(f"M{short(at)} {TOP}V{BOTTOM}" for at, _ in columns)
    grid += "".join(f"M{LEFT} {short(at)}H{RIGHT}" for at, _ in lines)
    marks = "".join(f'<text x="{short(at)}" y="{BOTTOM + 15}">{tick}</text>' for at, tick in columns)
    marks += "".join(f'<text class="y" x="{LEFT - 5}" y="{short(at + 4)}">{tick}</text>' for at, tick in lines)
    middle = (TOP + BOTTOM) / 2
    return (
        f'<path class="grid" d="{grid}"/><path class="frame" d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}V{TOP}z"/>'
        f'<g class="ticks" aria-hidden="true">{marks}</g>'
        f'<text class="label" x="{(LEFT + RIGHT) / 2:g}" y="{HEIGHT - 8}">{to_svg(x.label)}</text>'
        f'<text class="label" transform="translate(13 {middle:g})rotate(-90)">{to_svg(y.label)}</text>'
    )


def _marks(drawing: Drawing, at: Mapping[int, tuple[float, float]], plotted: tuple[str, str]) -> str:
    """Runs that look alike and pass the same filters as one group, so that thousands stay light.

    Large marks lie below small ones.
    """
    groups: dict[tuple[float, str, str, str, str], list[int]] = {}
    for run in at:
        keys = ".".join(map(str, drawing.points.keys(run)))
        groups.setdefault((*_look(drawing, run), keys), []).append(run)
    return "".join(
        _group(drawing, look, {run: at[run] for run in groups[look]}, plotted) for look in sorted(groups)
    )


def _look(drawing: Drawing, run: int) -> tuple[float, str, str, str]:
    """Negative radius, colour and path of a mark, and the path of its hole."""
    rate, size = (numbers([drawing.rows[run]], name)[0] for name in ("learning_rate", "batch_size"))
    encoding = drawing.encoding
    radius = encoding.radius(rate)
    cut = "" if method_of(drawing.rows[run]) == PLAIN else hole(radius)
    return -radius, encoding.colour(rate), encoding.shape(size, radius), cut


def _group(
    drawing: Drawing,
    look: tuple[float, str, str, str, str],
    at: Mapping[int, tuple[float, float]],
    plotted: tuple[str, str],
) -> str:
    _, colour, shape, cut, keys = look
    paths = {run: _path(f"M{short(x)} {short(y)}", shape, cut) for run, (x, y) in at.items()}
    marks = "".join(_mark(drawing, run, path, plotted) for run, path in paths.items())
    return f'<g fill="{colour}" data-key="{keys}" data-runs="{" ".join(map(str, at))}">{marks}</g>'


def _path(centre: str, shape: str, cut: str) -> str:
    return centre + shape + (centre + cut if cut else "")


def _mark(drawing: Drawing, run: int, path: str, plotted: tuple[str, str]) -> str:
    if not drawing.titles:
        return f'<path d="{path}"/>'
    return f'<path role="img" d="{path}"><title>{escape(drawing.points.say(run, plotted))}</title></path>'


def legend_html(encoding: Encoding, methods: Sequence[str]) -> str:
    """What shapes, colours and sizes mean, and which methods have a hole."""
    shapes = "".join(_swatch(encoding.shape(b, 5), "", f"{b:g}") for b in encoding.batch_sizes)
    rates = encoding.learning_rates
    chosen = rates if len(rates) <= 12 else [rates[round(i * (len(rates) - 1) / 8)] for i in range(9)]
    dots = "".join(_swatch(disc(encoding.radius(r, IN_LEGEND)), encoding.colour(r), f"{r:.4g}") for r in chosen)
    more = "" if len(chosen) == len(rates) else f" <span>({len(rates)} values, some of them shown)</span>"
    ring = _swatch(_path("", disc(5), f"M0 0{hole(5)}"), "", ", ".join(methods))
    said = {"Shape: batch size": shapes, "Colour and size: learning rate": dots + more}
    if methods:
        said["With a hole: trained by a method"] = ring
    return "".join(
        f'<p class="legend"><span class="what">{name}</span>{marks}</p>' for name, marks in said.items()
    )


def _swatch(path: str, colour: str, label: str) -> str:
    fill = f' fill="{colour}"' if colour else ' class="plain"'
    return (
        f'<span class="swatch"><svg viewBox="-8 -8 16 16" width="16" height="16" aria-hidden="true">'
        f'<path{fill} d="M0 0{path}"/></svg>{escape(label)}</span>'
    )
