"""One figure of curves: d(c), w(c) and S(ρ) over θ and over X, for one snapshot or several."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.typing import ColorType

from landscape.errors import ConfigurationError
from landscape.report.figures import FORMATS
from landscape.report.scatter import log_limits
from landscape.report.style import COLOUR_MAP, freeze_layout, new_figure, save, set_log_ticks, style
from landscape.study.curve import MARKED, Band, Curve, SpaceCurve

FIGURE = "curve"
# Inches: both columns of a page.
WIDTH, HEIGHT, KEY_HEIGHT = 7.0, 6.4, 0.16
# Colours that readers with any colour vision tell apart (Okabe & Ito 2008), in order of contrast.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BAND_ALPHA = 0.1
# The axis of S begins at the lowest median over this.
_BELOW_MEDIANS = 10
_DASHED = {"linewidth": 0.9, "linestyle": (0, (4, 2)), "zorder": 2.5}
_MARK = {"color": "0.45", "linewidth": 0.6, "linestyle": (0, (1, 1.5)), "zorder": 1}
_LABELS = (
    ("distance $d_\\theta(c)$", "distance $d_X(c)$", "level $c$ (nat)"),
    ("width $w_\\theta(c)$ (1/nat)", "width $w_X(c)$ (1/nat)", "level $c$ (nat)"),
    ("sharpness $S_\\theta(\\rho)$ (nat)", "sharpness $S_X(\\rho)$ (nat)", "radius $\\rho$ in "),
)


def draw_curves(
    curves: Sequence[Curve], directory: str | os.PathLike[str], formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Draw all curves into one figure, one file for each format; the same curves give the same bytes.

    Rows: d(c), w(c), S(ρ). Columns: θ, with the quadratic estimate dashed, and X, medians over images with bands
    from the 10 % to the 90 % quantile. Raises ``ConfigurationError`` if there is nothing to draw.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise ConfigurationError(f"figure format {unknown[0]!r} is unknown: choose from {', '.join(FORMATS)}")
    if not curves:
        raise ConfigurationError("there is no curve to draw; pass at least one.")
    with style():
        figure = draw(curves)
        return [save(figure, Path(directory, f"{FIGURE}.{suffix}"), suffix) for suffix in formats]


def draw(curves: Sequence[Curve]) -> Figure:
    """The figure; call inside ``style()``."""
    key_columns = 2 if len(curves) > 1 else 1
    key_rows = math.ceil(len(curves) / key_columns) + 1
    figure = new_figure(WIDTH, HEIGHT + KEY_HEIGHT * key_rows)
    grid = figure.subplots(3, 2)
    colours = _colours(len(curves))
    for column, name in enumerate(("theta", "x")):
        for curve, colour in zip(curves, colours, strict=True):
            _draw_space(grid[:, column].tolist(), curve, getattr(curve, name), colour)
        _draw_quadratic(grid[0][0], grid[1][0], curves, colours) if name == "theta" else None
        _finish(grid[:, column].tolist(), column, _lowest_sharpness([getattr(curve, name) for curve in curves]))
    grid[0][0].set_title("parameters θ", loc="left")
    grid[0][1].set_title(f"inputs X, {_image_counts(curves)}", loc="left")
    _add_keys(figure, curves, colours, key_columns)
    freeze_layout(figure)
    return figure


def _colours(count: int) -> list[ColorType]:
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    return [colormaps[COLOUR_MAP](0.95 * i / (count - 1)) for i in range(count)]


def _draw_space(panels: Sequence[Axes], curve: Curve, space: SpaceCurve, colour: ColorType) -> None:
    _draw_band(panels[0], curve.levels, space.distance, colour, space.num_rows > 1)
    _draw_band(panels[1], curve.levels, space.width, colour, space.num_rows > 1)
    _draw_band(panels[2], space.radii, space.sharpness, colour, space.num_rows > 1, marker=".")


def _draw_band(
    axes: Axes, xs: Sequence[float], band: Band, colour: ColorType, spread: bool, marker: str = ""
) -> None:
    axes.plot(xs, band.median, color=colour, linewidth=1.3, marker=marker, markersize=3.5, zorder=3)
    if spread:
        axes.fill_between(xs, band.q10, band.q90, color=colour, alpha=BAND_ALPHA, linewidth=0, zorder=2)
        for edge in (band.q10, band.q90):
            axes.plot(xs, edge, color=colour, alpha=0.6, linewidth=0.4, zorder=2)


def _draw_quadratic(distances: Axes, widths: Axes, curves: Sequence[Curve], colours: Sequence[ColorType]) -> None:
    for curve, colour in zip(curves, colours, strict=True):
        distances.plot(curve.levels, curve.quadratic, color=colour, **_DASHED)  # type: ignore[arg-type]
        ratios = [d / (c - curve.loss) for c, d in zip(curve.levels, curve.quadratic, strict=True)]
        widths.plot(curve.levels, ratios, color=colour, **_DASHED)  # type: ignore[arg-type]


def _lowest_sharpness(spaces: Sequence[SpaceCurve]) -> float:
    """Where the axis of S begins: bands may go down to zero, which would leave no room for the medians."""
    medians = [s for space in spaces for s in space.sharpness.median if s > 0]
    return min(medians, default=0.0) / _BELOW_MEDIANS


def _finish(panels: Sequence[Axes], column: int, lowest_sharpness: float) -> None:
    """Scales, limits around what is drawn, ticks, labels and the marked levels."""
    for row, (axes, labels) in enumerate(zip(panels, _LABELS, strict=True)):
        axes.set_xscale("log")
        axes.set_yscale("log")
        box = axes.dataLim
        bottom = max(box.minposy, lowest_sharpness) if row == 2 else box.minposy
        for axis, limits, ends in (
            (axes.xaxis, axes.set_xlim, (box.minposx, box.x1)),
            (axes.yaxis, axes.set_ylim, (bottom, box.y1)),
        ):
            low, high = log_limits([float(v) for v in ends if math.isfinite(v) and v > 0])
            limits(low, high)
            set_log_ticks(axis, low, high)
        axes.set_ylabel(labels[column])
        axes.set_xlabel(labels[2] + (("$\\theta$", "$X$")[column] if row == 2 else ""))
        if row < 2:
            _mark_levels(axes)


def _mark_levels(axes: Axes) -> None:
    for level, label in zip(MARKED, ("ln 2", "ln 10"), strict=True):
        axes.axvline(level, **_MARK)  # type: ignore[arg-type]
        place = axes.get_xaxis_transform()
        axes.text(level, 1.0, label, transform=place, fontsize=6, color="0.35", ha="center", va="bottom")


def _image_counts(curves: Sequence[Curve]) -> str:
    counts = sorted({curve.x.num_rows for curve in curves})
    return f"{' or '.join(map(str, counts))} image{'s' if counts != [1] else ''}"


def _add_keys(figure: Figure, curves: Sequence[Curve], colours: Sequence[ColorType], columns: int) -> None:
    handles: list[Line2D | Patch] = [Line2D([], [], color=colour, linewidth=1.3) for colour in colours]
    labels = [f"{curve.run}, epoch {curve.epoch}" for curve in curves]
    handles += [
        Line2D([], [], color="0.3", **_DASHED)  # type: ignore[arg-type]
    ]
    labels += ["quadratic estimate $\\sqrt{2(c-\\varphi^*)/\\lambda_1}$"]
    if any(curve.x.num_rows > 1 for curve in curves):
        handles += [Patch(facecolor="0.3", alpha=2 * BAND_ALPHA, linewidth=0)]
        labels += ["10 % to 90 % of the images; line: median"]
    figure.legend(handles, labels, ncols=columns, loc="outside lower center", frameon=False)
