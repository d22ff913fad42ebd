"""What ``measure`` and ``correlate`` share: options, the ledger's place, and the progress bar."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from landscape.study.columns import METRICS, NORMS

from . import engines, options
from .output import note, progress

if TYPE_CHECKING:
    from landscape.study.columns import Row
    from landscape.study.given import Given
    from landscape.study.ledger import Ledger
    from landscape.study.measure_config import MeasureConfig
    from landscape.study.survey import Plan

Command = TypeVar("Command", bound=Callable[..., Any])


def _one_selection(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> str:
    """The one selection that was given, if there is such a selection."""
    from landscape.errors import ConfigurationError
    from landscape.snapshots import check_selection

    if len(values) > 1:
        raise click.BadParameter("pass --select or --at, and only once.", context, option)
    try:
        return check_selection(values[0])
    except ConfigurationError as error:
        raise click.BadParameter(str(error), context, option) from error


_OPTIONS = (
    click.option(
        "--select",
        "--at",
        "select",
        multiple=True,
        default=("last",),
        show_default="last",
        callback=_one_selection,
        metavar="SELECTION",
        help="Snapshots of each run: every:8 (each eighth stored one and the last), epochs:1,2,5, equal-loss:0.01 "
        "(the end of the epoch with the nearest training loss, within a factor 2), or one position: last, first, "
        "best, epoch=5, samples=102400, index=12.",
    ),
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
    options.balanced,
    options.seed,
    options.device,
    options.workers,
    *engines.OPTIONS,
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
    command = options.model(options.dataset(command))
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def config_of(settings: dict[str, Any]) -> MeasureConfig:
    """The configuration that the options describe."""
    from landscape.study.measure_config import MeasureConfig

    samples = ("theta_samples", "x_samples", "attack_samples", "ladder_samples")
    names = ("levels", "eps", "metrics", "x_norms", "equal_margin", *samples, "seed", "balanced")
    return MeasureConfig(**{name: settings[name] for name in names}, repeat=settings.get("part", 0))


def _given(settings: dict[str, Any]) -> Given:
    from landscape.study.given import Given

    return Given(settings["model"], settings["dataset"])


def collect_rows(runs: Sequence[str], settings: dict[str, Any]) -> list[Row]:
    """The rows of all runs, in the order of their paths: from the ledger, or measured now."""
    from landscape.problem.device import resolve_device
    from landscape.study.survey import check_given, execute, make_plan

    config, device = config_of(settings), str(resolve_device(settings["device"]))
    engines.check(settings)
    find_or_fail(runs)
    with open_ledger(settings["ledger"] or default_ledger(runs[0])) as ledger:
        plan = make_plan(runs, settings["select"], config, ledger, device, _given(settings))
        check_given(plan)
        rows = [*plan.known, *plan.unreadable]
        note(f"{len(plan.known)} snapshots known, {len(plan.tasks)} to measure ({ledger.path})")
        if others := sum("test_sha256" in task.subject for task in plan.tasks):
            note(f"{others} snapshots are measured on other data than those stored as of their training")
        if plan.tasks:
            with engines.opened(settings, len(plan.tasks)) as engine:
                note(engines.forecast_text(plan, engine.workers) + _times_more(settings))
                measured = execute(
                    plan, ledger, engine.make_executor, workers=engine.workers, window=engine.window
                )
                with progress(measured, "measuring", len(plan.tasks)) as bar:
                    rows.extend(bar)
            _note_conflicts(ledger)
    for row in rows:
        if row["status"] == "failed":
            note(f"failed: {row['path']}: {row['error']}")
    return sorted(rows, key=position_in_study)


def _times_more(settings: dict[str, Any]) -> str:
    """What a forecast leaves out: measurements of the same snapshots that follow."""
    left = settings.get("repeat", 0) - settings.get("part", 0)
    return f", and as long again for each repeat that follows ({left})" if left > 0 else ""


@contextmanager
def look_up(runs: Sequence[str], settings: dict[str, Any]) -> Iterator[tuple[Plan, Ledger]]:
    """What is known and missing of all runs, and the ledger that says so; nothing is created or changed."""
    from landscape.problem.device import resolve_device
    from landscape.study.ledger import Ledger
    from landscape.study.survey import make_plan

    engines.check(settings)
    find_or_fail(runs)
    with Ledger(settings["ledger"] or default_ledger(runs[0]), read_only=True) as ledger:
        device = str(resolve_device(settings["device"]))
        config = config_of(settings)
        yield make_plan(runs, settings["select"], config, ledger, device, _given(settings)), ledger


def position_in_study(row: Row) -> tuple[str, float, str]:
    """Rows are listed by path, then in the order of training; what could not be read comes last."""
    step = row.get("step")
    return str(row["path"]), float(step) if isinstance(step, int) else math.inf, str(row["at"])


def open_ledger(path: Path) -> Ledger:
    """A ledger to write to; what became of one that was damaged is said."""
    from landscape.study.ledger import Ledger

    ledger = Ledger(path)
    if ledger.recovery is not None:
        note(str(ledger.recovery))
    return ledger


def _note_conflicts(ledger: Ledger) -> None:
    """Say which rows were measured twice with different results; they should not depend on who measures them."""
    for conflict in ledger.conflicts:
        names = conflict.columns
        values = ", ".join(f"{n} {conflict.stored.get(n)} and {conflict.measured.get(n)}" for n in names[:3])
        more = f" and {len(names) - 3} more columns" if len(names) > 3 else ""
        note(
            f"LedgerConflict: {conflict.key[:12]} is in the ledger with other values ({values}{more}); that row "
            "stays. Two processes measured it, and should have agreed: compare their provenance in the ledger."
        )


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
