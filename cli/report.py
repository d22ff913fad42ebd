"""``landscape report``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .correlate import check_repeats, check_tested, collect_all, correlate_rows, correlation_options
from .output import note, print_json, say
from .study import any_failed, find_or_fail, study_options

if TYPE_CHECKING:
    from landscape.study.associations import Correlations
    from landscape.study.columns import Row

# Where results lie and who works has no influence on them.
_NOT_SHOWN = ("ledger", "workers", "engine", "scheduler", "test_level", "test_eps", "permutations", "bootstrap")


@click.command(name="report")
@click.argument("runs", nargs=-1, required=True, metavar="RUNS...")
@study_options
@correlation_options
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    help="The file to write.",
)
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Also write all rows as CSV, one for each run.",
)
@options.as_json
def command(runs: tuple[str, ...], output: Path, csv_file: Path | None, as_json: bool, **settings: Any) -> None:
    """Write the answer, its plots, its tables and how it was measured as one HTML file that loads nothing.

    Measures what the ledger lacks. --json prints the verdict and all tables of the report. Exit code 3: some runs
    failed; the report lists them.

    \b
    Example:
      landscape report data/runs --output report.html
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise click.BadParameter(f"{str(output)!r} must end in .html, the format.", param_hint="--output")
    check_tested(settings)
    find_or_fail(runs)
    check_repeats(runs, settings)
    rows, repeats = collect_all(runs, settings)
    correlations = correlate_rows(rows, settings, repeats)
    files = _write(rows, correlations, settings, output, csv_file)
    if as_json:
        print_json("report", {"runs": runs} | settings, _results(rows, correlations) | {"files": files})
    else:
        say("\n".join(files))
    if any(map(any_failed, (rows, *repeats))):
        note("some runs failed: the report lists them")
        raise SystemExit(3)


def _write(
    rows: list[Row], correlations: Correlations, settings: dict[str, Any], output: Path, csv_file: Path | None
) -> list[str]:
    os.environ["MPLBACKEND"] = "agg"  # whatever the environment asks for, no window is opened
    from landscape.provenance import provenance
    from landscape.report import html_report
    from landscape.study.table import write_atomically, write_rows_csv

    shown = {name: value for name, value in settings.items() if name not in _NOT_SHOWN}
    page = html_report(rows, correlations, settings=shown, provenance=provenance())
    write_atomically(output, page.encode())
    if csv_file is not None:
        write_rows_csv(rows, csv_file)
    return [str(output), *([str(csv_file)] if csv_file else [])]


def _results(rows: list[Row], correlations: Correlations) -> dict[str, Any]:
    from landscape.report import report_tables

    tables = report_tables(rows, correlations)
    return {"verdict": correlations.verdict, "tables": {table.name: table.records() for table in tables}}
