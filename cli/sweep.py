"""``landscape sweep``."""

from __future__ import annotations

from pathlib import Path

import click

from . import options
from .output import counter, note, print_json, print_table


@click.command(name="sweep")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="RUNS", help="Folder of runs.")
@options.workers
@click.option("--dry-run", is_flag=True, help="Print the runs of the grid and stop.")
@options.as_json
def command(file: Path, output: Path, workers: int | None, dry_run: bool, as_json: bool) -> None:
    """Train the grid of runs that FILE describes, in parallel processes.

    FILE is TOML with a [grid] of lists and [fixed] settings. Runs that are done are skipped, those that were
    interrupted go on, and one that fails does not stop the others (exit code 3).

    \b
    Example of FILE:
      [grid]
      optimizer = ["sgd"]
      learning_rate = [0.01, 0.1]
      seed = [0, 1, 2]
      [fixed]
      epochs = 5
    """
    from landscape.training.sweep import read_sweep, run_name

    configurations = read_sweep(file)
    if dry_run:
        planned = [{"run": run_name(c), "epochs": c.epochs} for c in configurations]
        if as_json:
            print_json("sweep", {"file": str(file), "dry_run": True}, planned)
        else:
            print_table(["run", "epochs"], [list(run.values()) for run in planned])
        return
    from landscape.engine import default_workers, local_executor
    from landscape.training.sweep import sweep

    count = min(workers or default_workers(), len(configurations))
    outcomes = sweep(configurations, output, local_executor(count, threads=1), workers=count)
    results, failures = [], []
    with counter("runs", len(configurations)) as bar:
        for outcome in outcomes:
            bar.update(1)
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
        print_json("sweep", {"file": str(file)}, {"runs": listed, "failed": failed})
    else:
        print_table(["run", "outcome", "epochs", "reason"], sorted(rows))
    if failures:
        raise SystemExit(3)
