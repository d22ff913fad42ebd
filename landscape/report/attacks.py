"""Figures of attacks: accuracy against the radius, and images with their perturbations."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from landscape.report.figures import FORMATS
from landscape.report.style import freeze_layout, new_figure, save, style
from landscape.study.attacked import AccuracyCurves, Examples, Line

# Colours that readers with any colour vision tell apart (Okabe & Ito 2008), one for each kind of attack.
# Attacks of one kind differ by their dashes.
_COLOURS = {
    "clean": "0.45",
    "random noise": "#56B4E9",
    "single step": "#E69F00",
    "iterative": "#D55E00",
    "minimum norm": "#0072B2",
    "black box": "#009E73",
}
_DASHES: tuple[Any, ...] = ("solid", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1, 1, 1)), (0, (2, 2, 6, 2)))
# Inches.
_CURVE_WIDTH, _CURVE_HEIGHT = 6.4, 3.6
_IMAGE, _HEAD = 0.72, 0.55
_NORMS = {2.0: "\\ell_2", math.inf: "\\ell_\\infty"}


def draw_accuracy_curve(
    curves: AccuracyCurves,
    title: str,
    directory: str | os.PathLike[str],
    name: str,
) -> list[Path]:
    """Draw accuracy against ε, a line for each rung; the worst case in black. One file for each format."""
    with style():
        figure = accuracy_figure(curves, title)
        return [save(figure, Path(directory, f"{name}.{suffix}"), suffix) for suffix in FORMATS]


def accuracy_figure(curves: AccuracyCurves, title: str) -> Figure:
    """The figure; call inside ``style()``."""
    figure = new_figure(_CURVE_WIDTH, _CURVE_HEIGHT)
    axes = figure.subplots()
    seen: dict[str, int] = {}
    for rung, (kind, line) in curves.rungs.items():
        place = seen.setdefault(kind, 0)
        seen[kind] += 1
        if curves.boundary is not None and rung == "nearest_boundary":
            line = curves.boundary  # noqa: PLW2901  (the same quantity at more radii)
        _plot(axes, line, rung, _COLOURS[kind], _DASHES[place % len(_DASHES)])
    axes.plot(curves.worst.eps, curves.worst.accuracy, color="black", linewidth=2.0, label="worst case", zorder=2)
    axes.set_xlim(0, max(curves.worst.eps))
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
    axes.set_xlabel(rf"radius $\varepsilon$ in ${_NORMS[curves.norm]}$")
    axes.set_ylabel("accuracy (%)")
    axes.set_title(f"{title}; {curves.num_samples} test images", loc="left")
    figure.legend(loc="outside right upper", frameon=False, handlelength=3)
    freeze_layout(figure)
    return figure


def _plot(axes: Axes, line: Line, label: str, colour: str, dashes: Any) -> None:
    axes.plot(line.eps, line.accuracy, color=colour, linestyle=dashes, linewidth=1.2, label=label, zorder=3)


def draw_examples(
    examples: Examples,
    title: str,
    directory: str | os.PathLike[str],
    name: str,
) -> list[Path]:
    """Draw a row for each image: the image, then perturbation and adversarial image of each attack."""
    with style():
        figure = examples_figure(examples, title)
        return [save(figure, Path(directory, f"{name}.{suffix}"), suffix) for suffix in FORMATS]


def examples_figure(examples: Examples, title: str) -> Figure:
    """The figure; call inside ``style()``. A prediction that is wrong is written in bold with a cross."""
    rows, columns = len(examples.labels), 1 + 2 * len(examples.attacked)
    figure = new_figure(_IMAGE * columns, _IMAGE * rows * 1.22 + _HEAD)
    grid = figure.subplots(rows, columns, squeeze=False)
    for i, label in enumerate(examples.labels):
        _show(grid[i, 0], examples.images[i], f"{label}")
        for j, (attack, images) in enumerate(examples.attacked.items()):
            change = images[i] - examples.images[i]
            _show_change(grid[i, 1 + 2 * j], change)
            predicted = examples.predictions[attack][i]
            _show(grid[i, 2 + 2 * j], images[i], f"{predicted}", wrong=predicted != label)
    heads = ["image", *(head for attack in examples.attacked for head in ("change by", attack))]
    for axes, head in zip(grid[0], heads, strict=True):
        axes.annotate(
            head,
            (0.5, 1.34),
            xycoords="axes fraction",
            ha="center",
            va="bottom",
            fontsize=6,
            annotation_clip=False,
        )
    radius = rf"$\varepsilon={examples.eps:g}$ in ${_NORMS[examples.norm]}$"
    figure.suptitle(f"{title}, {radius}; above each image its prediction", fontsize=8)
    freeze_layout(figure)
    return figure


def _show(axes: Axes, image: NDArray[Any], text: str, wrong: bool = False) -> None:
    axes.imshow(image, cmap="gray_r" if image.ndim == 2 else None, vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(f"{text} ✗" if wrong else text, fontsize=7, fontweight="bold" if wrong else None, pad=2)
    _bare(axes)


def _show_change(axes: Axes, change: NDArray[Any]) -> None:
    """Grey is none; a change is shown from its largest negative to its largest positive value."""
    largest = float(abs(change).max())
    axes.set_title("" if largest else "none", fontsize=7, pad=2)
    largest = largest or 1.0
    if change.ndim == 2:
        axes.imshow(change, cmap="PuOr", vmin=-largest, vmax=largest, interpolation="nearest")
    else:
        axes.imshow(0.5 + change / (2 * largest), interpolation="nearest")
    _bare(axes)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
