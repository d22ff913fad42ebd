"""The figure of a surface: loss as colour and contours, accuracy as lines."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from landscape.report.figures import FORMATS
from landscape.report.style import COLOUR_MAP, freeze_layout, new_figure, save, style
from landscape.study.surface import RANDOM, Surface

WIDTH, HEIGHT = 4.6, 3.6
# Percent of samples told right.
_ACCURACIES = (20, 50, 80, 95)
# Below this loss (nats) colours do not go on.
_LOWEST = 1e-6


def draw_surface(
    surface: Surface, directory: str | os.PathLike[str], name: str, formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Draw loss (logarithmic colour) with contours of accuracy, one file for each format; NaN stays white."""
    with style():
        figure = new_figure(WIDTH, HEIGHT)
        _draw(figure, figure.subplots(), surface)
        freeze_layout(figure)
        return [save(figure, Path(directory, f"{name}.{suffix}"), suffix) for suffix in formats]


def _draw(figure: Figure, axes: Axes, surface: Surface) -> None:
    loss = np.ma.masked_invalid(np.maximum(surface.loss.T, _LOWEST))
    colours = LogNorm(loss.min(), max(loss.max(), 1.001 * loss.min())) if loss.count() else None
    mesh = axes.pcolormesh(surface.x, surface.y, loss, norm=colours, cmap=COLOUR_MAP, shading="nearest")
    mesh.set_rasterized(True)
    figure.colorbar(mesh, ax=axes, label="training loss (nat)")
    between = [a for a in _ACCURACIES if np.nanmin(surface.accuracy) < a < np.nanmax(surface.accuracy)]
    if between:
        lines = axes.contour(
            surface.x, surface.y, surface.accuracy.T, levels=between, colors="white", linewidths=0.8
        )
        axes.clabel(lines, fmt="%g %%", fontsize=6)
    if surface.x[0] <= 0 <= surface.x[-1] and surface.y[0] <= 0 <= surface.y[-1]:
        axes.plot(0, 0, marker="+", color="white", markersize=7)
    axes.grid(visible=False)
    x, y = axis_labels(surface)
    axes.set(xlabel=x, ylabel=y, title=f"{surface.run}, epoch {surface.epoch}")


def axis_labels(surface: Surface) -> tuple[str, str]:
    """What the coordinates are multiples of."""
    if surface.config.directions == RANDOM:
        first, second = (f"along random direction {i} (‖δ‖ = {d:.3g})" for i, d in enumerate(surface.lengths, 1))
        return first, second
    first, second = (
        f"along eigenvector {i} (λ = {value:.3g}), distance in θ" for i, value in enumerate(surface.eigenvalues, 1)
    )
    return first, second
