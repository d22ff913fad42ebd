"""What ``measure`` and ``correlate`` share: options, the ledger's place, and the progress bar."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from landscape.study.columns import METRICS, NORMS

from . import options
from .output import note, progress

if TYPE_CHECKING:
    from landscape.study.columns import Row
    from landscape.study.measure_config import MeasureConfig

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    options.at,
    options.levels,
    click.option(
        "--eps", type=options.Positive(), multiple=True, default=(0.1, 0.3), help="Attack radius; repeatable."
    ),
    click.option(
        "--metric",
        "metrics",
        type=click.Choice(METRICS),
        multiple=True,
        help="Also measure distances in θ in this metric; repeatable.",
    ),
    click.option(
        "--x-norm",
        "x_norms",
        type=click.Choice(list(NORMS)),
        multiple=True,
        help="Also measure distances in X in this norm; repeatable.",
    ),
    click.option(
        "--equal-margin",
        type=options.Positive(),
        default=None,
        help="Multiply the logits of each network so that its median margin is this, and measure that.",
    ),
    click.option("--theta-samples", type=options.SIZE, default=300, help="Training samples in the loss over θ."),
    click.option("--x-samples", type=options.SIZE, default=40, help="Test samples whose distance is searched."),
    click.option("--attack-samples", type=options.SIZE, default=2000, help="Test samples under FGSM."),
    click.option("--ladder-samples", type=options.SIZE, default=300, help="Of those, samples under all attacks."),
    options.seed,
    options.device,
    options.workers,
    click.option(
        "--ledger",
        type=click.Path(path_type=Path, dir_okay=False),
        default=None,
        show_default="ledger.sqlite beside the runs",
        help="Where measured rows are kept.",
    ),
)


def study_options(command: Command) -> Command:
    """Options that define what is measured, and how."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def config_of(settings: dict[str, Any]) -> MeasureConfig:
    """The configuration that the options describe."""
    from landscape.study.measure_config import MeasureConfig

    samples = ("theta_samples", "x_samples", "attack_samples", "ladder_samples")
    names = ("levels", "eps", "metrics", "x_norms", "equal_margin", *samples, "seed")
    return MeasureConfig(**{name: settings[name] for name in names}, repeat=settings.get("part", 0))


def collect_rows(runs: Sequence[str], settings: dict[str, Any]) -> list[Row]:
    """The rows of all runs, in the order of their paths: from the ledger, or measured now."""
    from landscape.engine import default_workers, local_executor
    from landscape.problem.device import resolve_device
    from landscape.study.ledger import Ledger
    from landscape.study.survey import execute, make_plan

    config, device = config_of(settings), str(resolve_device(settings["device"]))
    find_or_fail(runs)
    with Ledger(settings["ledger"] or default_ledger(runs[0])) as ledger:
        plan = make_plan(runs, settings["at"], config, ledger, device)
        workers = min(settings["workers"] or default_workers(), max(len(plan.tasks), 1))
        rows = [*plan.known, *plan.unreadable]
        note(f"{len(plan.known)} runs known, {len(plan.tasks)} to measure ({ledger.path})")
        if plan.tasks:
            measured = execute(plan, ledger, local_executor(workers, threads=1), workers=workers)
            with progress(measured, "measuring", len(plan.tasks)) as bar:
                rows.extend(bar)
    for row in rows:
        if row["status"] == "failed":
            note(f"failed: {row['path']}: {row['error']}")
    return sorted(rows, key=lambda row: str(row["path"]))


def find_or_fail(runs: Sequence[str]) -> None:
    """Refuse paths without runs before anything is written."""
    from landscape.snapshots import find_runs

    find_runs(runs)


def default_ledger(first: str) -> Path:
    """``ledger.sqlite`` beside the runs; in the user's cache where that cannot be written."""
    from landscape.problem.datasets import cache_directory
    from landscape.snapshots import is_run, resolve

    place = resolve(first).resolve()
    while is_run(place) or any(is_run(parent) for parent in place.parents):
        place = place.parent  # never inside a run
    folder = place
    inside_package = first.startswith("embedded:")
    return (cache_directory() if inside_package or not os.access(folder, os.W_OK) else folder) / "ledger.sqlite"


def any_failed(rows: Sequence[Row]) -> bool:
    """Whether any row has no measurement."""
    return any(row["status"] == "failed" for row in rows)
