"""``landscape edge``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .output import note, print_json, print_table, say, show
from .run_options import parse_arguments, run_options
from .runs import epochs_bar

if TYPE_CHECKING:
    from landscape.engine import Outcome
    from landscape.training.edge import Confirmation, Edge, Probe, Train
    from landscape.training.sweep import Cell, CellResult


@click.command(name="edge")
@run_options
@click.option("--epochs", type=options.SIZE, default=1, help="Length of the runs that are tried.")
@click.option("--seeds", type=options.COUNT, default=5, help="Runs at each learning rate.")
@click.option(
    "--tolerance", type=options.Between(1.01, 2), default=1.25, help="Ratio of the last bracket at most."
)
@click.option(
    "--start",
    type=options.Between(1e-9, 1e9),
    default=None,
    show_default="0.1 for sgd, 0.001 for adam",
    help="Learning rate to begin at.",
)
@click.option(
    "--confirm",
    type=click.IntRange(0, 1024),
    default=0,
    help="Other seeds that are then trained at half of the edge and at twice the edge.",
)
@click.option(
    "--output", default="edges", type=click.Path(path_type=Path), metavar="FOLDER", help="Folder of edges."
)
@options.workers
@options.as_json
def command(
    model_args: str,
    method_args: str,
    start: float | None,
    seeds: int,
    tolerance: float,
    confirm: int,
    output: Path,
    workers: int | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Find the largest learning rate at which training still converges.

    Short runs of several seeds are trained at powers of 2, then within the bracket that they leave. A run
    converges when its training loss ends at half of ln K or below; a learning rate converges when most of its
    runs do. The edge belongs to the length of the runs: over more epochs it is lower. It is stored in FOLDER,
    where `landscape train --at-edge` finds it. A search that is interrupted goes on when the same command is
    given again. Exit code 3: no edge was found, or it was not confirmed.

    \b
    Example:
      landscape edge --optimizer sgd --batch-size 128
      landscape train --optimizer sgd --batch-size 128 --at-edge --output runs/edge
    """
    arguments = parse_arguments(model_args, method_args)
    from landscape.errors import DatasetError
    from landscape.problem.datasets import DATASETS
    from landscape.training.config import TrainingConfig
    from landscape.training.edge import STARTS, EdgeSearch, confirm_edge, edge_name
    from landscape.training.edge_files import stored_or_searched

    if settings["dataset"] not in DATASETS:
        raise DatasetError(
            f"unknown dataset {settings['dataset']!r}; an edge is searched on {', '.join(DATASETS)} only."
        )
    rate = start or STARTS[settings["optimizer"]]
    search = EdgeSearch(TrainingConfig(**arguments, learning_rate=rate, **settings), seeds, tolerance)
    folder, train = output / edge_name(search.config), _trainer(workers)
    edge = stored_or_searched(search, output, train)
    confirmed = confirm_edge(edge, confirm, folder, train) if confirm and edge.bracketed else None
    if as_json:
        inputs = settings | arguments | {"start": rate, "seeds": seeds, "tolerance": tolerance}
        results = _results(edge, confirmed) | {"folder": str(folder)}
        print_json("edge", inputs | {"confirm": confirm, "output": str(output)}, results)
    else:
        _print(edge, confirmed)
    if not edge.monotone:
        note("the outcomes are not monotone: a learning rate that fails lies between two that converge")
    if not edge.bracketed or (confirmed is not None and not confirmed.separates):
        raise SystemExit(3)


def _trainer(workers: int | None) -> Train:
    """Trains the runs of a search as a sweep does, with a bar for each round."""
    from landscape import engine
    from landscape.training.forecast import Forecaster
    from landscape.training.sweep import sweep

    forecaster = Forecaster()

    def train(cells: Sequence[Cell]) -> Iterator[Outcome[Cell, CellResult]]:
        count = min(workers or engine.default_workers(), len(cells))
        rates = dict.fromkeys(show(cell.config.learning_rate) for cell in cells)
        note(f"learning rate {', '.join(rates)}")
        with epochs_bar(cells):
            make_executor = engine.local_executor(count, threads=1)
            yield from sweep(cells, make_executor, workers=count, stack_size=forecaster.stack_size)

    return train


def _print(edge: Edge, confirmed: Confirmation | None) -> None:
    _print_probes(edge.probes)
    if edge.learning_rate is None:
        say("no edge: no learning rate converges")
    elif edge.above is None:
        say(f"no edge: {show(edge.learning_rate)} converges, and no larger one was tried")
    else:
        say(f"edge {show(edge.learning_rate)}: it converges, {show(edge.above)} does not")
    if confirmed is not None:
        say("\nother seeds at half of the edge and at twice the edge")
        _print_probes((confirmed.half, confirmed.twice))


def _print_probes(probes: Sequence[Probe]) -> None:
    rows = [(p.learning_rate, f"{p.converged} of {len(p.losses)}", p.median_loss) for p in probes]
    print_table(["learning_rate", "converged", "median_train_loss"], rows)


def _results(edge: Edge, confirmed: Confirmation | None) -> dict[str, Any]:
    from landscape.training.edge import RULE

    results = {
        "edge": edge.learning_rate,
        "above": edge.above,
        "bracketed": edge.bracketed,
        "monotone": edge.monotone,
        "rule": RULE,
        "loss_limit": edge.loss_limit,
        "probes": [_plain(probe) for probe in edge.probes],
    }
    if confirmed is None:
        return results
    sides = {"half": _plain(confirmed.half), "twice": _plain(confirmed.twice)}
    return results | {"confirmation": sides | {"separates": confirmed.separates}}


def _plain(probe: Probe) -> dict[str, Any]:
    return {
        "learning_rate": probe.learning_rate,
        "converged": probe.converged,
        "median_train_loss": probe.median_loss,
        "train_losses": probe.losses,
    }
