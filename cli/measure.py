"""``landscape measure``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import engines, options
from .output import note, print_json, print_table
from .study import any_failed, collect_rows, look_up, study_options

if TYPE_CHECKING:
    from landscape.study.columns import Row

SHOWN = ("run", "status", "train_loss", "lambda_1", "d_theta[ln2]", "d_x_median[ln2]", "clean_accuracy")


_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(name="measure")
@click.argument("runs", nargs=-1, required=True, metavar="RUNS...")
@study_options
@click.option(
    "--status",
    is_flag=True,
    help="Print what is known, missing and failed of each run, measure nothing, and stop.",
)
@click.option("--csv", "csv_file", type=_FILE, default=None, help="Also write all rows as CSV.")
@click.option("--parquet", "parquet_file", type=_FILE, default=None, help="Also write all rows as Parquet.")
@options.as_json
def command(
    runs: tuple[str, ...],
    status: bool,
    csv_file: Path | None,
    parquet_file: Path | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Turn snapshots into rows: curvature, distances and widths in θ and X, accuracies, evidence.

    RUNS are runs, or folders of runs. Rows are kept in a ledger by the content of what was measured, so that
    nothing is computed twice; an interrupted command goes on where it was. Exit code 3: some snapshots failed; the
    same command tries them again.

    \b
    Examples:
      landscape measure data/runs --json
      landscape measure data/runs --status
    """
    if status:
        _print_status(runs, settings, as_json)
        return
    if parquet_file is not None:
        from landscape.study.parquet import check_parquet

        check_parquet()
    rows = collect_rows(runs, settings)
    _write(rows, csv_file, parquet_file)
    if as_json:
        print_json("measure", {"runs": runs} | settings, rows)
    else:
        names = [name for name in SHOWN if any(name in row for row in rows)]
        print_table(names, [[row.get(name, "") for name in names] for row in rows])
    if any_failed(rows):
        raise SystemExit(3)


def _write(rows: Sequence[Row], csv_file: Path | None, parquet_file: Path | None) -> None:
    from landscape.study.parquet import write_rows_parquet
    from landscape.study.table import write_rows_csv

    if csv_file is not None:
        write_rows_csv(rows, csv_file)
    if parquet_file is not None:
        write_rows_parquet(rows, parquet_file)


def _print_status(runs: Sequence[str], settings: dict[str, Any], as_json: bool) -> None:
    from landscape.study.status import study_progress

    with look_up(runs, settings) as (plan, ledger):
        found, path = study_progress(plan, ledger), ledger.path
    workers = engines.num_workers(settings, len(plan.tasks))
    if as_json:
        seconds = plan.forecast / workers
        results = {"runs": [asdict(run) for run in found], "forecast": {"seconds": seconds, "workers": workers}}
        print_json("measure", {"runs": runs} | settings | {"status": True}, results)
        return
    table = [(str(run.path), run.known, run.missing, run.failed, "; ".join(run.reasons)) for run in found]
    print_table(["run", "known", "missing", "failed", "reasons"], table)
    known, missing, failed = (sum(getattr(run, name) for run in found) for name in ("known", "missing", "failed"))
    left = engines.forecast_text(plan, workers) if plan.tasks else "nothing to measure"
    note(f"{known} known, {missing} missing, {failed} failed ({path}); {left}")
