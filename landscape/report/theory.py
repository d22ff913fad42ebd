"""The figure of Theorem 2: widths in X against widths in θ over families of solutions, dim ker X varied."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from landscape.errors import ConfigurationError
from landscape.report.figures import FORMATS
from landscape.report.scatter import log_limits
from landscape.report.style import MARKERS, freeze_layout, new_figure, save, set_log_ticks, style
from landscape.study.theorem2 import Solution

NAME = "theorem2"
# Okabe and Ito's colours: told apart by everybody, and different in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7")
# The two readings of a width: fields of a solution, axis labels.
READINGS = (
    ("w_theta", "w_x", r"$w_\theta$", r"$w_X$"),
    ("w_theta_quadratic", "w_x_quadratic", r"quadratic $\hat w_\theta$", r"quadratic $\hat w_X$"),
)
PANEL_WIDTH, PANEL_HEIGHT, KEY_HEIGHT = 1.75, 1.75, 0.4
_MANY_DECADES = 2e3


def draw_theorem2(found: Sequence[Solution], directory: str | os.PathLike[str]) -> list[Path]:
    """Draw all solutions, a column of panels for each design: widths above, quadratic estimates below.

    Raises:
        ConfigurationError: If there is nothing to draw.
    """
    if not found:
        raise ConfigurationError("there are no solutions to draw.")
    with style():
        figure = theorem2_figure(found)
        return [save(figure, Path(directory, f"{NAME}.{suffix}"), suffix) for suffix in FORMATS]


def theorem2_figure(found: Sequence[Solution]) -> Figure:
    """The figure; call inside ``style()``."""
    designs = list(dict.fromkeys((s.num_samples, s.num_features, s.dim_kernel) for s in found))
    families = list(dict.fromkeys(s.family for s in sorted(found, key=lambda s: -s.dim_kernel)))
    figure = new_figure(PANEL_WIDTH * len(designs), 2 * PANEL_HEIGHT + KEY_HEIGHT)
    grid = figure.subplots(2, len(designs), squeeze=False)
    for axes_row, (x, y, x_label, y_label) in zip(grid, READINGS, strict=True):
        for axes, design in zip(axes_row, designs, strict=True):
            members = [s for s in found if s.num_features == design[1]]
            _draw_panel(axes, members, families, (x, y))
            # Widths are compared between panels; quadratic estimates spread too far for common axes.
            _set_limits(axes, found if axes in grid[0] else members, (x, y))
            axes.set_xlabel(x_label)
        axes_row[0].set_ylabel(y_label)
    for axes in grid[0, 1:]:
        axes.tick_params(labelleft=False)
    for axes, (n, d, kernel) in zip(grid[0], designs, strict=True):
        axes.set_title(f"n = {n}, d = {d}\ndim ker X = {kernel}", loc="left")
    _add_key(figure, families)
    freeze_layout(figure)
    return figure


def _draw_panel(axes: Axes, members: Sequence[Solution], families: Sequence[str], names: tuple[str, str]) -> None:
    for family, marker, colour in zip(families, MARKERS, COLOURS, strict=False):
        chosen = [s for s in members if s.family == family]
        axes.plot(
            [getattr(s, names[0]) for s in chosen],
            [getattr(s, names[1]) for s in chosen],
            linestyle="",
            marker=marker,
            markersize=3.6,
            markerfacecolor=colour,
            markeredgecolor="0.15",
            markeredgewidth=0.4,
        )


def _set_limits(axes: Axes, found: Sequence[Solution], names: tuple[str, str]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    (left, right), (low, high) = (log_limits([getattr(s, name) for s in found]) for name in names)
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    _set_ticks(axes.xaxis, left, right)
    _set_ticks(axes.yaxis, low, high)


def _set_ticks(axis: Axis, low: float, high: float) -> None:
    """Round numbers, or over many decades a few powers of ten."""
    if high < _MANY_DECADES * low:
        set_log_ticks(axis, low, high)
        return
    axis.set_major_locator(LogLocator(numticks=5))
    axis.set_minor_locator(NullLocator())


def _add_key(figure: Figure, families: Sequence[str]) -> None:
    handles = [
        Line2D([], [], linestyle="", marker=m, markersize=4, markerfacecolor=c, markeredgecolor="0.15")
        for _, m, c in zip(families, MARKERS, COLOURS, strict=False)
    ]
    figure.legend(handles, families, ncols=len(families), loc="outside lower center", frameon=False)
