"""Figures of curvature: leading eigenvalues along a run, and the spectral density of a snapshot."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.errors import ConfigurationError
from landscape.report.curve import COLOURS
from landscape.report.figures import FORMATS
from landscape.report.style import freeze_layout, new_figure, save, style
from landscape.study.curvature import Spectrum, Trajectory

# Inches: one column and a half of a page.
WIDTH, HEIGHT = 5.2, 3.4
# What is drawn of a density, in units of its peak; below is rounding and the tails of the kernel.
_LOWEST = 1e-8
_NAMES = {
    "hessian": "Hessian",
    "gauss_newton": "Gauss–Newton matrix",
    "fisher": "Fisher matrix",
    "empirical_fisher": "empirical Fisher matrix",
}


def draw_trajectory(
    trajectory: Trajectory, directory: str | os.PathLike[str], formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Draw λ_k against samples seen, with the edge of stability where it is known; one file for each format.

    Pairs that have not converged are hollow. Raises ``ConfigurationError`` if there is nothing to draw.
    """
    if not trajectory.points:
        raise ConfigurationError("there is no point of a trajectory to draw; pass at least one.")
    with style():
        figure = new_figure(WIDTH, HEIGHT)
        _draw_eigenvalues(figure.subplots(), trajectory)
        return _saved(figure, directory, f"hessian-{trajectory.run}", formats)


def draw_spectrum(
    spectrum: Spectrum, directory: str | os.PathLike[str], formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Draw the density of eigenvalues, logarithmic, with its standard error; one file for each format."""
    with style():
        figure = new_figure(WIDTH, HEIGHT)
        _draw_density(figure.subplots(), spectrum)
        return _saved(figure, directory, f"spectrum-{spectrum.run}-{spectrum.kind}", formats)


def _saved(figure: Figure, directory: str | os.PathLike[str], name: str, formats: Sequence[str]) -> list[Path]:
    freeze_layout(figure)
    return [save(figure, Path(directory, f"{name}.{suffix}"), suffix) for suffix in formats]


def _draw_eigenvalues(axes: Axes, trajectory: Trajectory) -> None:
    seen = [point.samples_seen for point in trajectory.points]
    for k in range(len(trajectory.points[0].eigenvalues)):
        values = [point.eigenvalues[k] for point in trajectory.points]
        colour = COLOURS[k % len(COLOURS)]
        axes.plot(
            seen, values, color=colour, linewidth=1.0, marker=".", markersize=3, label=f"$\\lambda_{{{k + 1}}}$"
        )
        failed = [
            (s, p.eigenvalues[k]) for s, p in zip(seen, trajectory.points, strict=True) if not p.converged[k]
        ]
        if failed:
            axes.plot(*zip(*failed, strict=True), "o", color=colour, markersize=6, fillstyle="none")
    if trajectory.edge is not None:
        axes.axhline(trajectory.edge, color="0.3", linewidth=0.9, linestyle=(0, (4, 2)))
        label = f"edge of stability $2 (1 + \\beta) / \\eta$ = {trajectory.edge:.4g}"
        place = axes.get_yaxis_transform()
        axes.text(0.99, trajectory.edge, label, transform=place, fontsize=6.5, ha="right", va="bottom")
    axes.set_xlabel("samples seen")
    axes.set_ylabel("eigenvalue of the Hessian over $\\theta$")
    axes.set_title(trajectory.run, loc="left")
    axes.legend(ncols=min(5, len(trajectory.points[0].eigenvalues)), loc="best", frameon=False)


def _draw_density(axes: Axes, spectrum: Spectrum) -> None:
    grid, middle, error = map(np.array, (spectrum.grid, spectrum.density, spectrum.standard_error))
    floor = _LOWEST * float(middle.max())
    axes.plot(grid, np.maximum(middle, floor), color=COLOURS[0], linewidth=1.0)
    low, high = np.maximum(middle - error, floor), np.maximum(middle + error, floor)
    axes.fill_between(grid, low, high, color=COLOURS[0], alpha=0.25, linewidth=0)
    axes.set_yscale("log")
    axes.set_ylim(floor, 3 * float((middle + error).max()))
    axes.set_xlabel(f"eigenvalue of the {_NAMES[spectrum.kind]} over $\\theta$")
    axes.set_ylabel("density; band: ± 1 standard error")
    axes.set_title(f"{spectrum.run}, epoch {spectrum.epoch}, kernel $\\sigma$ = {spectrum.width:.3g}", loc="left")
