"""The five figures of the study, each in every format."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from landscape.errors import ConfigurationError
from landscape.report.scatter import Scatter, draw_scatter
from landscape.report.style import save, style
from landscape.study.associations import Columns, Correlations
from landscape.study.columns import Rows, numbers

FORMATS = ("pdf", "svg", "png")
FIGURES = ("w_theta-w_x", "w_theta-fgsm", "w_x-fgsm", "d_theta-d_x", "lambda_1-fgsm")
READINGS = ("FGSM as published (float32 cross-entropy)", "FGSM exact (log-odds)", "worst case of all attacks")


def draw_figures(
    rows: Rows,
    correlations: Correlations,
    directory: str | os.PathLike[str],
    formats: Sequence[str] = FORMATS,
) -> list[Path]:
    """Draw ``FIGURES`` of the rows that ``correlations`` used, one file per figure and format.

    Points are single runs, colours learning rates, markers batch sizes; the numbers above each panel are those
    of ``correlations.panels``. The same input gives the same bytes with the same versions.
    Raises ``ConfigurationError`` if there is nothing to draw or ``rows`` are not those of ``correlations``.
    """
    _check(rows, correlations, formats)
    used = [rows[i] for i in correlations.used]
    paths = []
    with style():
        for name, scatter in scatters(correlations.columns, correlations.config.eps).items():
            figure = draw_scatter(used, measured_readings(scatter, used), correlations.panels)
            paths += [save(figure, Path(directory, f"{name}.{suffix}"), suffix) for suffix in formats]
    return paths


def scatters(columns: Columns, eps: float) -> dict[str, Scatter]:
    """The five figures by name."""
    widths = columns.w_theta, columns.w_x, columns.lambda_1
    robust = columns.published, columns.exact, columns.worst
    label = rf"accuracy, $\varepsilon={eps:g}$ (%)"
    fgsm = [Scatter(x, robust, READINGS, label) for x in widths]
    drawn = (
        Scatter(columns.w_theta, (columns.w_x,)),
        fgsm[0],
        fgsm[1],
        Scatter(columns.d_theta, (columns.d_x,)),
        fgsm[2],
    )
    return dict(zip(FIGURES, drawn, strict=True))


def measured_readings(scatter: Scatter, rows: Rows) -> Scatter:
    """The figure without readings that no row has; all of them if none has any."""
    known = [i for i, y in enumerate(scatter.ys) if any(map(math.isfinite, numbers(rows, y)))]
    if not known:
        return scatter
    return replace(
        scatter,
        ys=tuple(scatter.ys[i] for i in known),
        titles=tuple(scatter.titles[i] for i in known if i < len(scatter.titles)),
    )


def _check(rows: Rows, correlations: Correlations, formats: Sequence[str]) -> None:
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise ConfigurationError(f"figure format {unknown[0]!r} is unknown: choose from {', '.join(FORMATS)}")
    if len(rows) != correlations.num_rows:
        raise ConfigurationError(
            f"the table has {len(rows)} rows, its correlations {correlations.num_rows}: correlate it again"
        )
    if not correlations.used:
        reasons = ", ".join(f"{n} {reason}" for reason, n in correlations.num_excluded.items() if n)
        raise ConfigurationError(
            f"none of the {len(rows)} rows can be drawn ({reasons or 'empty table'}): measure runs first"
        )
