"""``landscape correlate``."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .output import note, plain, print_json, say
from .study import Command, any_failed, collect_rows, find_or_fail, look_up, study_options

if TYPE_CHECKING:
    from landscape.study.associations import Correlations
    from landscape.study.columns import Row


_TESTS = (
    click.option(
        "--test-level", type=options.Level(), default="ln2", help="The level at which hypotheses are tested."
    ),
    click.option("--test-eps", type=options.Positive(), default=0.3, help="The FGSM radius of the tests."),
    click.option("--permutations", type=options.SIZE, default=9999, help="Draws of the permutation test."),
    click.option("--bootstrap", type=options.SIZE, default=2000, help="Draws of the bootstrap."),
    click.option(
        "--repeat",
        type=click.IntRange(0, 1000),
        default=0,
        help="Measure each snapshot this many times more, on disjoint data, to see how far measurements repeat.",
    ),
)


def correlation_options(command: Command) -> Command:
    """Options that define what is tested, and how; ``check_tested`` and ``correlate_rows`` read them."""
    for option in reversed(_TESTS):
        command = option(command)
    return command


def check_tested(settings: dict[str, Any]) -> None:
    """Refuse to test what is not measured, before anything is."""
    for name, measured, what in (("test_level", "levels", "levels"), ("test_eps", "eps", "radii")):
        if settings[name] not in settings[measured]:
            raise click.BadParameter(
                f"{settings[name]:g} is not among the {what} that are measured.",
                param_hint=f"--{name.replace('_', '-')}",
            )


def check_repeats(runs: Sequence[str], settings: dict[str, Any]) -> None:
    """Refuse more repeats than there are parts of the data, before anything is written."""
    from landscape.study.survey import check_parts

    if settings["repeat"]:
        with look_up(runs, settings | {"part": settings["repeat"]}) as (plan, _):
            check_parts(plan)


def collect_all(runs: Sequence[str], settings: dict[str, Any]) -> tuple[list[Row], list[list[Row]]]:
    """The rows of all runs, and again on each further part of the data."""
    rows, *repeats = (collect_rows(runs, settings | {"part": part}) for part in range(settings["repeat"] + 1))
    return rows, repeats


def correlate_rows(rows: list[Row], settings: dict[str, Any], repeats: Sequence[list[Row]] = ()) -> Correlations:
    """The associations that the options ask for."""
    from landscape.study.associations import CorrelateConfig
    from landscape.study.columns import level_label
    from landscape.study.correlate import correlate

    level, eps, seed = level_label(settings["test_level"]), settings["test_eps"], settings["seed"]
    config = CorrelateConfig(level, eps, settings["permutations"], settings["bootstrap"], seed)
    return correlate(rows, config, repeats)


@click.command(name="correlate")
@click.argument("runs", nargs=-1, required=True, metavar="RUNS...")
@study_options
@correlation_options
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("correlation"),
    help="Folder for rows.csv, correlations.json and the figures.",
)
@options.as_json
def command(
    runs: tuple[str, ...],
    output: Path,
    as_json: bool,
    **settings: Any,
) -> None:
    """Answer whether minima that are wide in θ are wide in X, and more robust, over many runs.

    Measures what the ledger lacks; then tests, within cells of equal optimizer, method, learning rate and batch
    size, the rank association of distances in θ and in X, alone and given training loss, margin and norm, and
    draws the scatter plots.

    \b
    Example:
      landscape correlate data/runs --output figures/demo
    """
    check_tested(settings)
    find_or_fail(runs)
    check_repeats(runs, settings)
    output.mkdir(parents=True, exist_ok=True)
    rows, repeats = collect_all(runs, settings)
    from landscape.study.terminal import format_table

    correlations = correlate_rows(rows, settings, repeats)
    files = _write(rows, repeats, correlations, output)
    if as_json:
        print_json("correlate", {"runs": runs} | settings, {"correlations": _plain(correlations), "files": files})
    else:
        say(format_table(correlations))
        say()
        say(textwrap.fill(correlations.verdict, 100))
    note("\n".join(["written:", *(f"  {file}" for file in files)]))
    if any(map(any_failed, (rows, *repeats))):
        raise SystemExit(3)


def _write(rows: list[Row], repeats: Sequence[list[Row]], correlations: Correlations, output: Path) -> list[str]:
    os.environ["MPLBACKEND"] = "agg"  # whatever the environment asks for, files are drawn
    from landscape.errors import ConfigurationError
    from landscape.provenance import provenance
    from landscape.report import draw_figures
    from landscape.study.table import write_atomically, write_rows_csv

    tables = [output / "rows.csv", *(output / f"rows_repeat{k}.csv" for k in range(1, len(repeats) + 1))]
    for path, measured in zip(tables, (rows, *repeats), strict=True):
        write_rows_csv(measured, path)
    summary = output / "correlations.json"
    document = plain({"schema": 1, "correlations": _plain(correlations), "provenance": provenance()})
    write_atomically(summary, json.dumps(document, indent=2, allow_nan=False).encode())
    try:
        figures = draw_figures(rows, correlations, output)
    except ConfigurationError as error:
        note(f"no figures: {error}")
        figures = []
    return [str(path) for path in (*tables, summary, *figures)]


def _plain(correlations: Correlations) -> Any:
    from landscape.study.associations import to_json

    return to_json(correlations)
