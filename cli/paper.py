"""``landscape paper``."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .output import note, plain, print_json, print_table, progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from landscape.study.paper import Table
    from landscape.study.paper_runs import TrainedRun

_COUNT = click.IntRange(1, 10)
_SHOWN = (
    *("table", "reading", "batch_size", "learning_rate", "num_runs", "num_diverged", "epoch_avg", "acc_avg"),
    *("adv_acc_avg", "adv_acc_std", "paper_acc_avg", "paper_adv_acc_avg"),
)


@click.command(name="paper")
@click.argument("runs", nargs=-1, required=True, metavar="RUNS...")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("paper"),
    help="Folder for the tables and figures.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=0.005,
    help="By how much the clean accuracy of a run's best epoch may lie below its highest; 1 takes every epoch.",
)
@click.option("--samples", type=options.SIZE, default=2000, help="Test samples in Figure 4.")
@click.option("--examples", type=_COUNT, default=8, help="Images in Figure 5.")
@options.device
@options.threads
@options.as_json
def command(
    runs: tuple[str, ...],
    output: Path,
    tolerance: float,
    samples: int,
    examples: int,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Draw up the paper's Tables 1 and 2 and its five figures from trained runs, in both readings of FGSM.

    The tables are over the runs of the protocol (epochs, network, method …) that most runs share, Figure 3 over
    those that differ in the first dense layer. Figures 1, 2, 4 and 5 show the runs whose settings are nearest to
    the paper's. The paper's own numbers stand beside ours where its text gives them legibly. Exit code 3: some
    runs could not be read.

    \b
    Example:
      landscape paper runs/ --output out/
    """
    import torch

    from landscape.engine import default_workers

    torch.set_num_threads(threads or default_workers())
    trained, failures = _read(runs)
    if not trained:
        raise click.ClickException("none of the runs has ended; train some, or see landscape sweep --status.")
    from landscape.study.paper_runs import main_protocol

    chosen, others = main_protocol(trained)
    tables = _tables(chosen, tolerance)
    output.mkdir(parents=True, exist_ok=True)
    files = _write_tables(tables, chosen, output)
    drawings = _drawings(trained, chosen, tolerance, samples, examples, device)
    files += _draw(drawings, output)
    _print(tables, {"runs": runs, "tolerance": tolerance, "samples": samples}, files, as_json)
    _note_left_out(others)
    note("\n".join(["written:", *(f"  {file}" for file in files)]))
    if failures:
        raise SystemExit(3)


def _read(paths: Sequence[str]) -> tuple[list[TrainedRun], int]:
    """The runs that have ended, and how many could not be read; says what became of the others."""
    from landscape.errors import SnapshotError
    from landscape.snapshots import find_runs
    from landscape.study.paper_runs import read_trained_run

    trained, unfinished, failures = [], 0, 0
    with progress(find_runs(paths), "reading runs") as bar:
        for path in bar:
            try:
                run = read_trained_run(path)
            except SnapshotError as error:
                failures += 1
                note(f"\nleft out: {error}")
                continue
            unfinished += not run.outcome
            trained += [run] if run.outcome else []
    if unfinished:
        note(f"left out, not finished: {_number_of_runs(unfinished)}")
    return trained, failures


def _tables(runs: Sequence[TrainedRun], tolerance: float) -> list[Table]:
    """Each optimizer's table in each reading."""
    from landscape.snapshots import BestRule
    from landscape.study.paper import READINGS, TABLES
    from landscape.study.paper_tables import table_of

    made = (table_of(runs, name, BestRule(reading, tolerance)) for name in TABLES for reading in READINGS)
    return [table for table in made if table is not None]


def _write_tables(tables: Sequence[Table], runs: Sequence[TrainedRun], output: Path) -> list[Path]:
    from landscape.provenance import provenance
    from landscape.report.paper_tables import rows_of, to_csv, to_latex, to_markdown
    from landscape.study.paper_reference import paper_reference
    from landscape.study.table import write_atomically

    reference = paper_reference()
    rows = rows_of(tables, reference)
    document = plain({"schema": 1, "tables": rows, "runs": [run.name for run in runs], "provenance": provenance()})
    epsilon = float(runs[0].settings["epsilon"])
    texts = {
        "tables.md": to_markdown(tables, reference, epsilon, _protocol(runs)),
        "tables.csv": to_csv(tables, reference),
        "tables.json": json.dumps(document, indent=2, allow_nan=False),
    }
    texts |= {f"table-{table.number}-{table.reading}.tex": to_latex(table) for table in tables}
    for name, text in texts.items():
        write_atomically(output / name, text.encode())
    return [output / name for name in texts]


def _protocol(runs: Sequence[TrainedRun]) -> str:
    """What the runs of one protocol have in common, in words."""
    first, seeds = runs[0], sorted({run.seed for run in runs})
    return (
        f"{_number_of_runs(len(runs))} of {_network(first)} on {first.settings['dataset']}{_method(first)}, "
        f"{first.settings['epochs']} epochs (the paper trains 120), seeds {', '.join(map(str, seeds))}."
    )


def _drawings(
    trained: Sequence[TrainedRun],
    chosen: Sequence[TrainedRun],
    tolerance: float,
    samples: int,
    examples: int,
    device: str,
) -> list[tuple[str, Callable[[], Figure | None]]]:
    """Names of the figures, with what computes and draws each; None where the runs do not allow it."""
    from landscape.report import paper_figures as drawing
    from landscape.study import paper_figures as study
    from landscape.study.paper_tables import layer_widths

    models, epsilon = study.find_models(chosen), float(chosen[0].settings["epsilon"])

    def learning_curve(number: int) -> Figure | None:
        curve = study.learning_curve(number, chosen)
        return drawing.draw_learning_curve(curve) if curve else None

    def widths() -> Figure | None:
        found = layer_widths(trained, tolerance)
        return drawing.draw_layer_widths(found) if found else None

    def radii() -> Figure | None:
        attacked = [study.attack_model(model, samples, device) for model in models]
        return drawing.draw_accuracy_over_radius(attacked) if attacked else None

    def images() -> Figure | None:
        if not models:
            return None
        return drawing.draw_examples(study.adversarial_examples(models, epsilon, examples, device))

    return [
        ("figure-1", lambda: learning_curve(1)),
        ("figure-2", lambda: learning_curve(2)),
        ("figure-3", widths),
        ("figure-4", radii),
        ("figure-5", images),
    ]


_NEEDS = {
    "figure-1": "a completed run with Adam",
    "figure-2": "a completed run with SGD",
    "figure-3": "equal runs with two or more widths of the first dense layer (landscape sweep layer-width)",
    "figure-4": "completed runs",
    "figure-5": "completed runs",
}


def _draw(drawings: Sequence[tuple[str, Callable[[], Figure | None]]], output: Path) -> list[Path]:
    os.environ["MPLBACKEND"] = "agg"  # whatever the environment asks for, files are drawn
    from landscape.report.paper_figures import save_figure
    from landscape.report.style import style

    files: list[Path] = []
    with style(), progress(drawings, "drawing figures") as bar:
        for name, draw in bar:
            figure = draw()
            if figure is None:
                note(f"\nno {name}: it needs {_NEEDS[name]}")
            else:
                files += save_figure(figure, name, output)
    return files


def _print(tables: Sequence[Table], inputs: dict[str, Any], files: Sequence[Path], as_json: bool) -> None:
    from landscape.report.paper_tables import rows_of
    from landscape.study.paper_reference import paper_reference

    rows = rows_of(tables, paper_reference())
    if as_json:
        print_json("paper", inputs, {"tables": rows, "files": [str(file) for file in files]})
        return
    print_table(_SHOWN, [[_shown(row[name]) for name in _SHOWN] for row in rows])


def _shown(value: Any) -> Any:
    return float("nan") if value is None else value


def _network(run: TrainedRun) -> str:
    """Its model, and the arguments of that."""
    return run.model + (f" {json.dumps(dict(run.model_args), sort_keys=True)}" if run.model_args else "")


def _method(run: TrainedRun) -> str:
    """What it is trained by, unless that is plain training."""
    method, arguments = run.settings.get("method", "plain"), run.settings.get("method_args")
    if method == "plain":
        return ""
    return f" by {method}" + (f" {json.dumps(arguments, sort_keys=True)}" if arguments else "")


def _note_left_out(others: Sequence[TrainedRun]) -> None:
    """Say which runs are in no table."""
    kinds = Counter(f"{_network(run)}{_method(run)}, {run.settings['epochs']} epochs" for run in others)
    for kind, count in sorted(kinds.items()):
        note(f"in no table: {_number_of_runs(count)} of {kind}")


def _number_of_runs(count: int) -> str:
    return f"{count} run" + ("s" if count != 1 else "")
