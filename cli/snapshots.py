"""``landscape snapshots``; verify, import, export and inspect have files of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .interchange import export_command, import_command, inspect_command
from .output import note, plain, print_json, print_table, say
from .verify import verify_command

if TYPE_CHECKING:
    from landscape.snapshots import Run


@click.group(name="snapshots")
def command() -> None:
    """List, inspect, verify, thin and pack stored runs; import and export weights of other programs."""


command.add_command(verify_command)
command.add_command(import_command)
command.add_command(export_command)
command.add_command(inspect_command)


@command.command(name="list")
@click.argument("runs", nargs=-1, required=True, metavar="RUNS...")
@options.as_json
def list_runs(runs: tuple[str, ...], as_json: bool) -> None:
    """List runs, one a line; a run that cannot be read is named on stderr (exit code 3)."""
    from landscape.errors import SnapshotError
    from landscape.snapshots import find_runs, open_run

    rows, failed = [], False
    for path in find_runs(runs):
        try:
            run = open_run(path)
        except SnapshotError as error:
            failed = True
            note(f"failed: {path}: {' '.join(str(error).split())}")
            continue
        rows.append(
            {
                "run": str(path),
                "model": run.description.model,
                "snapshots": len(run),
                "epoch": int(run.epoch[-1]),
                "samples_seen": int(run.samples_seen[-1]),
                "outcome": (run.outcome or {}).get("outcome", "unfinished"),
            }
        )
    _print(as_json, "snapshots list", {"runs": runs}, rows)
    if failed:
        raise SystemExit(3)


@command.command(name="info")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@options.as_json
def info(runs: tuple[str, ...], as_json: bool) -> None:
    """Show what runs are, how they ended, and the metrics of their epochs."""
    described = [_describe(run) for run in runs]
    if as_json:
        print_json("snapshots info", {"runs": runs}, described)
        return
    for about in described:
        epochs = about.pop("epochs")
        for name, value in about.items():
            if name != "layout":
                say(f"{name}: {plain(value)}")
        if epochs:
            say()
            print_table(list(epochs[0]), [list(epoch.values()) for epoch in epochs])


def _describe(path: str) -> dict[str, Any]:
    from landscape.snapshots import num_parameters, open_run, resolve

    run = open_run(resolve(path))
    names = ["epoch", *sorted(set(run.metrics) - {"epoch"})]
    values = zip(*(run.metrics[name].tolist() for name in names), strict=True)
    return {
        "path": str(run.path),
        "run_id": run.run_id,
        "model": run.description.model,
        "model_args": run.description.model_args,
        "layout": [{"name": slot.name, "shape": slot.shape} for slot in run.description.layout],
        "parameters": num_parameters(run.description.layout),
        "config": run.description.config,
        "snapshots": len(run),
        "outcome": run.outcome,
        "provenance": run.provenance,
        "epochs": [dict(zip(names, row, strict=True)) for row in values],
    }


@command.command(name="thin")
@click.argument("runs", nargs=-1, required=True, metavar="RUNS...")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder for the thinned runs.")
@click.option("--keep", multiple=True, default=("last",), metavar="AT", help=f"{options.AT_HELP} Repeatable.")
def thin(runs: tuple[str, ...], output: Path, keep: tuple[str, ...]) -> None:
    """Copy runs with a few of their snapshots, all of their metrics, and nothing to resume from.

    A selector that a run does not have, such as an epoch that it never reached, is passed over with a note.
    """
    from landscape.errors import SnapshotError
    from landscape.snapshots import find_runs, open_run, thin_run

    failed = False
    for path in find_runs(runs):
        if (output / path.name).exists():
            note(f"{output / path.name} is there already")
            continue
        try:
            present = _stored(open_run(path), keep)
            say(str(thin_run(path, output / path.name, present)))
        except SnapshotError as error:
            failed = True
            note(f"failed: {path}: {' '.join(str(error).split())}")
    if failed:
        raise SystemExit(3)


def _stored(run: Run, keep: tuple[str, ...]) -> list[str]:
    """The selectors that a run has; MissingSnapshotError if it has none of them."""
    from landscape.errors import MissingSnapshotError
    from landscape.snapshots import select_index

    present = []
    for selector in keep:
        try:
            select_index(run, selector)
            present.append(selector)
        except MissingSnapshotError as error:
            note(f"{run.path}: {error}")
    if not present:
        raise MissingSnapshotError(f"none of {', '.join(keep)} is stored.")
    return present


@command.command(name="pack")
@click.argument("run", metavar="RUN")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The .h5 file to write.")
def pack(run: str, output: Path) -> None:
    """Pack all segments of a run into one HDF5 file."""
    from landscape.snapshots import pack_run, resolve

    say(str(pack_run(resolve(run), output)))


def _print(as_json: bool, name: str, inputs: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    if as_json:
        print_json(name, inputs, rows)
    elif rows:
        print_table(list(rows[0]), [list(row.values()) for row in rows])
