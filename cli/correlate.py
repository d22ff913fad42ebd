"""``landscape correlate``."""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .output import note, plain, print_json
from .study import any_failed, collect_rows, find_or_fail, study_options

if TYPE_CHECKING:
    from landscape.study.associations import Correlations
    from landscape.study.columns import Row


@click.command(name="correlate")
@click.argument("runs", nargs=-1, required=True, metavar="RUNS...")
@study_options
@click.option(
    "--test-level", type=options.Level(), default="ln2", help="The level at which hypotheses are tested."
)
@click.option("--test-eps", type=options.Positive(), default=0.3, help="The FGSM radius of the tests.")
@click.option("--permutations", type=options.SIZE, default=9999, help="Draws of the permutation test.")
@click.option("--bootstrap", type=options.SIZE, default=2000, help="Draws of the bootstrap.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("correlation"),
    help="Folder for rows.csv, correlations.json and the figures.",
)
@options.as_json
def command(
    runs: tuple[str, ...],
    test_level: float,
    test_eps: float,
    permutations: int,
    bootstrap: int,
    output: Path,
    as_json: bool,
    **settings: Any,
) -> None:
    """Answer whether minima that are wide in θ are wide in X, and more robust, over many runs.

    Measures what the ledger lacks; then tests, within cells of equal optimizer, method, learning rate and batch
    size, the rank association of distances in θ and in X, and draws the scatter plots.

    \b
    Example:
      landscape correlate data/runs --output figures/demo
    """
    if test_level not in settings["levels"]:
        raise click.BadParameter(
            f"{test_level:g} is not among the levels that are measured.", param_hint="--test-level"
        )
    if test_eps not in settings["eps"]:
        raise click.BadParameter(
            f"{test_eps:g} is not among the radii that are measured.", param_hint="--test-eps"
        )
    find_or_fail(runs)
    output.mkdir(parents=True, exist_ok=True)
    rows = collect_rows(runs, settings)
    from landscape.study.associations import CorrelateConfig
    from landscape.study.columns import level_label
    from landscape.study.correlate import correlate
    from landscape.study.table import format_table

    config = CorrelateConfig(level_label(test_level), test_eps, permutations, bootstrap, settings["seed"])
    correlations = correlate(rows, config)
    files = _write(rows, correlations, output)
    if as_json:
        print_json("correlate", {"runs": runs} | settings, {"correlations": _plain(correlations), "files": files})
    else:
        click.echo(format_table(correlations))
        click.echo()
        click.echo(textwrap.fill(correlations.verdict, 100))
    note("\n".join(["written:", *(f"  {file}" for file in files)]))
    if any_failed(rows):
        raise SystemExit(3)


def _write(rows: list[Row], correlations: Correlations, output: Path) -> list[str]:
    os.environ["MPLBACKEND"] = "agg"  # whatever the environment asks for, files are drawn
    from landscape.errors import ConfigurationError
    from landscape.provenance import provenance
    from landscape.report import draw_figures
    from landscape.study.table import write_atomically, write_rows_csv

    table, summary = output / "rows.csv", output / "correlations.json"
    write_rows_csv(rows, table)
    document = plain({"schema": 1, "correlations": _plain(correlations), "provenance": provenance()})
    write_atomically(summary, json.dumps(document, indent=2, allow_nan=False).encode())
    try:
        figures = draw_figures(rows, correlations, output)
    except ConfigurationError as error:
        note(f"no figures: {error}")
        figures = []
    return [str(path) for path in (table, summary, *figures)]


def _plain(correlations: Correlations) -> Any:
    from landscape.study.associations import to_json

    return to_json(correlations)
