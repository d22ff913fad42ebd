"""``landscape sweep``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .output import note, print_json, print_table, show_bytes, show_seconds
from .runs import epochs_bar

if TYPE_CHECKING:
    from landscape.training.sweep import Cell


@click.command(name="sweep")
@click.argument("grid", metavar="FILE")
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="RUNS", help="Folder of runs.")
@options.workers
@click.option(
    "--stack",
    type=options.SIZE,
    default=None,
    show_default="measured",
    help="Alike runs that are trained as one.",
)
@click.option("--dry-run", is_flag=True, help="Print the runs, their size and a forecast of the time, and stop.")
@click.option("--status", is_flag=True, help="Print how far each run has come, and stop.")
@options.as_json
def command(
    grid: str,
    output: Path,
    workers: int | None,
    stack: int | None,
    dry_run: bool,
    status: bool,
    as_json: bool,
) -> None:
    """Train the grid of runs that FILE describes, in parallel processes.

    FILE is TOML with a [grid] of lists and [fixed] settings, or one of paper-adam, paper-sgd (the paper's tables),
    paper-small (an hour on two cores) and layer-width (its Figure 3). Runs that are alike but for seed and
    learning rate are trained as one stack; a run ends in the same bytes whatever company it had. Runs that are
    done are skipped, those that were interrupted go on, and one that fails does not stop the others (exit code 3).

    \b
    Example of FILE:
      [grid]
      optimizer = ["sgd"]
      learning_rate = [0.01, 0.1]
      seed = [0, 1, 2]
      [fixed]
      epochs = 5
    """
    from landscape.engine import default_workers
    from landscape.training.grid import find_grid, read_sweep
    from landscape.training.sweep import cells_of

    cells = cells_of(read_sweep(find_grid(grid)), output)
    inputs = {"file": grid, "output": str(output), "workers": min(workers or default_workers(), len(cells))}
    if status:
        _print_status(cells, inputs, as_json)
    elif dry_run:
        _print_forecast(cells, inputs, stack, as_json)
    else:
        _train(cells, inputs, stack, as_json)


def _print_status(cells: Sequence[Cell], inputs: dict[str, Any], as_json: bool) -> None:
    from landscape.snapshots import run_status

    statuses = [run_status(cell.directory) for cell in cells]
    rows = [
        (Path(cell.directory).name, status.state, status.epochs, cell.config.epochs, status.reason)
        for cell, status in zip(cells, statuses, strict=True)
    ]
    header = ["run", "state", "epochs", "of", "reason"]
    if as_json:
        listed = [dict(zip(header, row, strict=True)) for row in rows]
        print_json("sweep", inputs | {"status": True}, {"runs": listed})
        return
    print_table(header, rows)
    states = [status.state for status in statuses]
    note(", ".join(f"{states.count(state)} {state}" for state in sorted(set(states))))


def _print_forecast(cells: Sequence[Cell], inputs: dict[str, Any], stack: int | None, as_json: bool) -> None:
    from landscape.training.forecast import Forecaster
    from landscape.training.sweep import stacks_of

    forecaster, workers = Forecaster(), inputs["workers"]
    stacks = stacks_of(cells, workers, (lambda configs: stack) if stack else forecaster.stack_size)
    whole = forecaster.forecast(stacks, workers)
    sizes = {cell.directory: len(cells) for cells in stacks for cell in cells}
    rows = [
        (Path(c.directory).name, c.config.epochs, sizes[c.directory], forecaster.storage(c.config)) for c in cells
    ]
    if as_json:
        listed = [
            {"run": name, "epochs": epochs, "stack": size, "snapshots": s.snapshots, "bytes": s.num_bytes}
            for name, epochs, size, s in rows
        ]
        total = {
            "runs": len(cells),
            "snapshots": whole.snapshots,
            "bytes": whole.num_bytes,
            "seconds": whole.seconds,
        }
        print_json("sweep", inputs | {"dry_run": True}, {"runs": listed, "forecast": total})
        return
    table = [(name, epochs, size, s.snapshots, show_bytes(s.num_bytes)) for name, epochs, size, s in rows]
    print_table(["run", "epochs", "stack", "snapshots", "size"], table)
    processes = f"{workers} process" + ("es" if workers > 1 else "")
    note(
        f"{len(cells)} runs, {whole.snapshots} snapshots, {show_bytes(whole.num_bytes)}; about "
        f"{show_seconds(whole.seconds)} on {processes} for what is not trained yet"
    )


def _train(cells: Sequence[Cell], inputs: dict[str, Any], stack: int | None, as_json: bool) -> None:
    from landscape.engine import local_executor
    from landscape.training.forecast import Forecaster
    from landscape.training.sweep import sweep

    workers = inputs["workers"]
    stack_size = (lambda configs: stack) if stack else Forecaster().stack_size
    outcomes = sweep(cells, local_executor(workers, threads=1), workers=workers, stack_size=stack_size)
    results, failures = [], []
    with epochs_bar(cells):
        for outcome in outcomes:
            if outcome.result is not None:
                results.append(outcome.result)
            else:
                failures.append((outcome.task.directory, str(outcome.error)))
                note(f"\nfailed: {outcome.task.directory}: {outcome.error}")
    rows = [(r.directory, r.outcome, r.epochs, r.reason) for r in results]
    if as_json:
        names = ("run", "outcome", "epochs", "reason")
        failed = [{"run": run, "error": error} for run, error in failures]
        listed = [dict(zip(names, row, strict=True)) for row in rows]
        print_json("sweep", inputs, {"runs": listed, "failed": failed})
    else:
        print_table(["run", "outcome", "epochs", "reason"], sorted(rows))
    if failures:
        raise SystemExit(3)
