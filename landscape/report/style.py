"""How figures look, and how they are written so that the same table gives the same bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib.style
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from landscape.provenance import package_version, source_revision
from landscape.study.table import write_atomically

PNG_DPI = 200
COLOUR_MAP = "viridis"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")

RC: Mapping[str, Any] = MappingProxyType(
    {
        "font.family": "DejaVu Sans",  # comes with matplotlib, so that the files do not depend on the machine
        "font.size": 8.0,
        "axes.labelsize": 8.0,
        "axes.titlesize": 7.0,
        "xtick.labelsize": 7.0,
        "ytick.labelsize": 7.0,
        "legend.fontsize": 7.0,
        "legend.title_fontsize": 7.0,
        "mathtext.fontset": "dejavusans",
        "axes.linewidth": 0.6,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "0.88",
        "grid.linewidth": 0.5,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "pdf.fonttype": 42,  # TrueType outlines: text that an editor can select
        "svg.fonttype": "none",
        "svg.hashsalt": "landscape",  # else element identifiers are random
        "path.simplify": False,
    }
)


def style() -> AbstractContextManager[None]:
    """Settings of the figures, in force inside a ``with`` block only; matplotlib's defaults elsewhere."""
    context: AbstractContextManager[None] = matplotlib.style.context(["default", dict(RC)])
    return context


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of ``width`` x ``height`` inches that pyplot does not know of."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def freeze_layout(figure: Figure) -> None:
    """Place the parts of ``figure`` now and for all formats.

    Else each file starts from where the one before has left them, and its bytes depend on what came before.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def save(figure: Figure, path: Path, file_format: str) -> Path:
    """Write ``figure`` to ``path`` in one step, with the version as its creator and without a date."""
    data = io.BytesIO()
    figure.savefig(data, format=file_format, dpi=PNG_DPI, metadata=_metadata(file_format))
    write_atomically(path, data.getvalue())
    return path


def set_log_ticks(axis: Axis, low: float, high: float) -> None:
    """Ticks at round numbers between ``low`` and ``high``, at least three where that is possible."""
    ticks = log_ticks(low, high)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))
    axis.set_minor_locator(NullLocator())


def log_ticks(low: float, high: float) -> list[float]:
    """The coarsest of the series 1, 1-3, 1-2-5, … with three members in ``[low, high]``.

    The finest series has three members between any positive number and its double.
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    series = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9))
    ticks: list[float] = []
    for mantissas in series:
        # Through text, because 3 * 10**-1 is not 0.3.
        ticks = [float(f"{m:g}e{decade}") for decade in decades for m in mantissas]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 3:
            break
    return ticks


def _metadata(file_format: str) -> dict[str, str | None]:
    creator = f"landscape-torch {package_version('landscape-torch')}"
    if revision := source_revision():
        creator += f" ({revision})"
    known: dict[str, dict[str, str | None]] = {
        "pdf": {"Creator": creator, "CreationDate": None},
        "svg": {"Creator": creator, "Date": None},
        "png": {"Software": creator},
    }
    return known[file_format]
