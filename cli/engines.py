"""Where a study is measured: options, and the engines that they name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from .output import show_seconds

if TYPE_CHECKING:
    from landscape.study.survey import Plan

OPTIONS = (
    click.option(
        "--engine",
        type=click.Choice(["local", "dask"]),
        default="local",
        help="Where snapshots are measured: in processes here, or by the workers of a Dask scheduler.",
    ),
    click.option("--scheduler", metavar="ADDRESS", default=None, help="Of Dask, such as tcp://host:8786."),
)


def forecast_text(plan: Plan, workers: int) -> str:
    """How long it takes to measure what a plan lacks."""
    at_once = f"{workers} worker" + ("s" if workers > 1 else "")
    if math.isnan(plan.forecast):
        return f"time unknown until the first row, on {at_once}"
    return f"about {show_seconds(plan.forecast / workers)} on {at_once}"


def num_workers(settings: dict[str, Any], tasks: int) -> int:
    """Local workers for so many tasks."""
    from landscape.engine import default_workers

    return min(settings["workers"] or default_workers(), max(tasks, 1))


def check(settings: dict[str, Any]) -> None:
    """Refuse an engine without its scheduler, and a scheduler without its engine."""
    if (settings["engine"] == "dask") != (settings["scheduler"] is not None):
        raise click.UsageError("--engine dask and --scheduler ADDRESS go together.")


@dataclass(frozen=True)
class Engine:
    """What makes executors, how many tasks they run at a time, and how many may wait for them."""

    make_executor: Callable[[], Any]
    workers: int
    window: int | None = None


# Chunks in flight on a cluster: workers may come while it runs.
_WINDOW = 64


@contextmanager
def opened(settings: dict[str, Any], tasks: int) -> Iterator[Engine]:
    """The engine that the options name, for so many tasks."""
    if settings["engine"] == "dask":
        from landscape.dask_engine import dask_cluster

        with dask_cluster(settings["scheduler"]) as cluster:
            yield Engine(cluster.make_executor, cluster.workers, max(_WINDOW, 2 * cluster.workers))
    else:
        from landscape.engine import local_executor

        workers = num_workers(settings, tasks)
        yield Engine(local_executor(workers, threads=1), workers)
