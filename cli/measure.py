"""``landscape measure``."""

from __future__ import annotations

from typing import Any

import click

from . import options
from .output import print_json, print_table
from .study import any_failed, collect_rows, study_options

SHOWN = ("run", "status", "train_loss", "lambda_1", "d_theta[ln2]", "d_x_median[ln2]", "clean_accuracy")


@click.command(name="measure")
@click.argument("runs", nargs=-1, required=True, metavar="RUNS...")
@study_options
@options.as_json
def command(runs: tuple[str, ...], as_json: bool, **settings: Any) -> None:
    """Turn snapshots into rows: curvature, distances and widths in θ and X, accuracies, evidence.

    RUNS are runs, or folders of runs. Rows are kept in a ledger by the content of what was measured, so that
    nothing is computed twice; an interrupted command goes on where it was.

    \b
    Example:
      landscape measure data/runs --json
    """
    rows = collect_rows(runs, settings)
    if as_json:
        print_json("measure", {"runs": runs} | settings, rows)
    else:
        names = [name for name in SHOWN if any(name in row for row in rows)]
        print_table(names, [[row.get(name, "") for name in names] for row in rows])
    if any_failed(rows):
        raise SystemExit(3)
