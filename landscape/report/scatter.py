"""One figure: a grid of scatter panels, a column per optimizer and a row per reading of the y axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, MultipleLocator, NullLocator, PercentFormatter

from landscape.report.style import COLOUR_MAP, MARKERS, freeze_layout, new_figure, set_log_ticks
from landscape.statistics.association import Association
from landscape.study.columns import (
    PLAIN,
    Rows,
    axis_label,
    distinct,
    find_column,
    method_of,
    methods_of,
    numbers,
    text,
    text_values,
)

Associations = Mapping[tuple[str, str, str], Association]
EDGE = {"edgecolors": "0.15", "linewidths": 0.5}  # keeps light colours legible on white and in greyscale
MARKER_AREA = 20.0
# The mark of a run that a method trained has a hole.
HOLE: dict[str, Any] = {
    "linestyle": "",
    "marker": "o",
    "markersize": 1.7,
    "markerfacecolor": "white",
    "markeredgecolor": "0.15",
    "markeredgewidth": 0.4,
}
# Inches. Two optimizers make 7: both columns of a page, and the numbers above a panel fit over it at 7 pt.
PANEL_WIDTH, KEY_WIDTH = 2.85, 1.3
PANEL_HEIGHT, HEAD_HEIGHT, FOOT_HEIGHT = 1.8, 0.5, 0.7
MAX_COLOUR_TICKS = 8


@dataclass(frozen=True)
class Scatter:
    """What a figure shows: column ``x`` against each column of ``ys``, whose rows are called ``titles``."""

    x: str
    ys: tuple[str, ...]
    titles: tuple[str, ...] = ("",)
    y_label: str | None = None


@dataclass(frozen=True)
class _Encoding:
    """How settings are shown: learning rate by colour, batch size by marker, a method by a hole."""

    norm: LogNorm
    learning_rates: list[float]
    markers: dict[float, str]
    methods: list[str]


def draw_scatter(rows: Rows, scatter: Scatter, associations: Associations) -> Figure:
    """Draw ``scatter`` for ``rows``; call inside ``style()``."""
    optimizers = text_values(rows, "optimizer")
    num_rows = len(scatter.ys)
    height = FOOT_HEIGHT + num_rows * (PANEL_HEIGHT + HEAD_HEIGHT)
    figure = new_figure(KEY_WIDTH + PANEL_WIDTH * len(optimizers), height)
    grid = figure.subplots(num_rows, len(optimizers), sharex=True, sharey=True, squeeze=False)
    encoding = _encoding(rows)
    for axes_row, y, title in zip(grid, scatter.ys, scatter.titles, strict=True):
        for axes, optimizer in zip(axes_row, optimizers, strict=True):
            runs = [row for row in rows if text(row.get("optimizer")) == optimizer]
            hidden = _draw_points(axes, runs, (scatter.x, y), encoding)
            _write_head(axes, (optimizer, title), associations.get((scatter.x, y, optimizer)), hidden)
        axes_row[0].set_ylabel(scatter.y_label or axis_label(y))
    for axes in grid[-1]:
        axes.set_xlabel(axis_label(scatter.x))
    _finish_axes(grid.ravel().tolist(), rows, scatter)
    _add_keys(figure, grid.ravel().tolist(), encoding)
    freeze_layout(figure)
    return figure


def _encoding(rows: Rows) -> _Encoding:
    rates = [rate for rate in distinct(numbers(rows, "learning_rate")) if rate > 0]
    low, high = (rates[0], rates[-1]) if rates else (1.0, 1.0)
    widen = 2.0 if low == high else 1.0  # one learning rate still needs a range of colours
    sizes = distinct(numbers(rows, "batch_size"))
    markers = {size: MARKERS[i % len(MARKERS)] for i, size in enumerate(sizes)}
    return _Encoding(LogNorm(low / widen, high * widen), rates, markers, methods_of(rows))


def is_log(name: str) -> bool:
    """Whether a column is drawn on a logarithmic axis; shares are not."""
    column = find_column(name)
    return column is None or column.unit != "share"


def _shown(name: str, value: float) -> bool:
    return math.isfinite(value) and (value > 0 or not is_log(name))


def _draw_points(axes: Axes, runs: Rows, names: tuple[str, str], encoding: _Encoding) -> int:
    """Draw the runs that have both values; return how many a log axis cannot show."""
    xs, ys = (numbers(runs, name) for name in names)
    sizes, rates = numbers(runs, "batch_size"), numbers(runs, "learning_rate")
    measured = [i for i in range(len(runs)) if not (math.isnan(xs[i]) or math.isnan(ys[i]))]
    shown = [i for i in measured if _shown(names[0], xs[i]) and _shown(names[1], ys[i])]
    for size in [*encoding.markers, math.nan]:
        chosen = [i for i in shown if sizes[i] == size or (math.isnan(size) and math.isnan(sizes[i]))]
        axes.scatter(
            [xs[i] for i in chosen],
            [ys[i] for i in chosen],
            s=MARKER_AREA,
            c=[rates[i] if rates[i] > 0 else math.nan for i in chosen],
            norm=encoding.norm,
            cmap=COLOUR_MAP,
            marker=encoding.markers.get(size, "."),
            plotnonfinite=True,
            clip_on=False,
            zorder=3,
            **EDGE,  # type: ignore[arg-type]
        )
    holes = [i for i in shown if method_of(runs[i]) != PLAIN]
    if holes:
        axes.plot([xs[i] for i in holes], [ys[i] for i in holes], clip_on=False, zorder=4, **HOLE)
    return len(measured) - len(shown)


def _write_head(axes: Axes, titles: tuple[str, str], association: Association | None, hidden: int) -> None:
    """Title and numbers above the panel, where no point can lie under them."""
    lines = [", ".join(filter(None, titles)), *describe(association)]
    if hidden:
        lines.append(f"{hidden} not shown, value ≤ 0")
    axes.set_title("\n".join(lines), loc="left", fontsize=7, linespacing=1.25)


def describe(association: Association | None) -> list[str]:
    """Lines with n, total ρ and within-cell ρ; ``n/a`` where the study has no number."""
    if association is None:
        return ["n/a"]
    a = association
    p = "" if math.isnan(a.p_within) else f", p = {a.p_within:.{2 if a.p_within >= 0.001 else 1}g}"
    return [
        f"n = {a.n}, total ρ = {_estimate(a.total_rho, a.total_low, a.total_high)}",
        f"within cells ρ = {_estimate(a.within_rho, a.within_low, a.within_high)}{p}",
    ]


def _estimate(rho: float, low: float, high: float) -> str:
    if math.isnan(rho):
        return "n/a"
    interval = "" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]"
    return f"{rho:.2f}{interval}".replace("-", "−")


def _finish_axes(panels: Sequence[Axes], rows: Rows, scatter: Scatter) -> None:
    columns = {"x": (scatter.x,), "y": scatter.ys}
    for axis_name, names in columns.items():
        values = [v for name in names for v in numbers(rows, name) if _shown(name, v)]
        for axes in panels:
            axis = axes.xaxis if axis_name == "x" else axes.yaxis
            limits = axes.set_xlim if axis_name == "x" else axes.set_ylim
            if not is_log(names[0]):
                limits(0.0, 1.0)
                axis.set_major_locator(MultipleLocator(0.2))
                axis.set_major_formatter(PercentFormatter(1.0, symbol=""))
                continue
            low, high = log_limits(values)
            (axes.set_xscale if axis_name == "x" else axes.set_yscale)("log")
            limits(low, high)
            set_log_ticks(axis, low, high)


def log_limits(values: Sequence[float]) -> tuple[float, float]:
    """Limits with 6 % of the logarithmic range beyond the values, and at least a factor of 2 between them."""
    if not values:
        return 0.1, 10.0
    low, high = math.log(min(values)), math.log(max(values))
    margin = max(0.06 * (high - low), (math.log(2.0) - (high - low)) / 2)
    return math.exp(low - margin), math.exp(high + margin)


def _add_keys(figure: Figure, panels: Sequence[Axes], encoding: _Encoding) -> None:
    bar = figure.colorbar(
        ScalarMappable(encoding.norm, COLOUR_MAP), ax=panels, aspect=30, pad=0.02, label="learning rate"
    )
    if 0 < len(encoding.learning_rates) <= MAX_COLOUR_TICKS:
        bar.ax.yaxis.set_major_locator(FixedLocator(encoding.learning_rates))
        bar.ax.yaxis.set_major_formatter(FixedFormatter([f"{rate:g}" for rate in encoding.learning_rates]))
        bar.ax.yaxis.set_minor_locator(NullLocator())
    # An invisible first entry writes the title beside the markers instead of above them.
    handles: list[Any] = [Line2D([], [], linestyle=""), *map(_key_mark, encoding.markers.values())]
    labels = ["batch size:", *(f"{size:g}" for size in encoding.markers)]
    if encoding.methods:
        handles.append((_key_mark("o"), Line2D([], [], **HOLE)))
        labels.append(", ".join(encoding.methods))
    figure.legend(handles, labels, ncols=len(labels), loc="outside lower center", frameon=False, handletextpad=0.1)


def _key_mark(marker: str) -> Line2D:
    return Line2D(
        [], [], linestyle="", marker=marker, markersize=4.5, markerfacecolor="0.75", markeredgecolor="0.15"
    )
