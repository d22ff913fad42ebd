"""``landscape train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from . import options
from .output import counter, note, print_json, say, show
from .run_options import parse_arguments, run_options

if TYPE_CHECKING:
    from landscape.training.config import TrainingConfig


@click.command(name="train")
@run_options
@click.option("--lr", "learning_rate", type=options.Positive(), default=0.1, help="Learning rate, constant.")
@click.option(
    "--at-edge",
    is_flag=False,
    flag_value="edges",
    type=click.Path(path_type=Path),
    metavar="[FOLDER]",
    help="Instead of --lr: the edge of convergence that `landscape edge` stored in FOLDER (edges).",
)
@click.option("--epochs", type=options.SIZE, default=5, help="Passes over the training data.")
@click.option("--eps", "epsilon", type=options.Positive(), default=0.3, help="FGSM radius after each epoch.")
@click.option("--snapshot-every", type=options.SIZE, default=1024, help="Samples seen between two stored pairs.")
@options.seed
@click.option("--threads", type=options.COUNT, default=1, help="Threads of torch; kept on resume.")
@click.option("--allow-inexact", is_flag=True, help="Resume although torch, threads or CPU changed.")
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="RUN", help="Run directory.")
@options.as_json
def command(
    output: Path,
    model_args: str,
    method_args: str,
    at_edge: Path | None,
    threads: int,
    allow_inexact: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train one run by the paper's protocol and store its snapshots.

    A run that was interrupted, in whatever way, goes on where it was when the same command is given again, and
    ends in the same bytes.

    \b
    Example:
      landscape train --optimizer adam --lr 0.002 --batch-size 128 --epochs 5 --output runs/adam
      landscape train --method sam --method-args '{"rho": 0.1}' --output runs/sam
      landscape train --optimizer sgd --batch-size 128 --at-edge --output runs/edge
    """
    arguments = parse_arguments(model_args, method_args)
    _check_one_learning_rate(at_edge)
    from landscape.problem.own_data import open_dataset
    from landscape.training.config import TrainingConfig
    from landscape.training.loop import train

    if at_edge is not None:
        settings["learning_rate"] = _learning_rate_at_edge(at_edge, TrainingConfig(**arguments, **settings))
    config = TrainingConfig(**arguments, **settings)
    total = config.epochs * len(open_dataset(config.dataset, "train"))
    with counter(str(output), total) as bar:
        result = train(
            config,
            output,
            threads=threads,
            allow_inexact=allow_inexact,
            advance=bar.update,
            report=lambda metrics: note(_epoch_line(metrics)),
        )
    note(f"{result.outcome}: {result.reason}")
    if as_json:
        facts = {"outcome": result.outcome, "reason": result.reason, "epochs": result.epochs}
        print_json("train", settings | arguments, facts | {"run": str(output)})
    else:
        say(str(output))


def _check_one_learning_rate(at_edge: Path | None) -> None:
    given = click.get_current_context().get_parameter_source("learning_rate")
    if at_edge is not None and given is not ParameterSource.DEFAULT:
        raise click.UsageError("--at-edge chooses the learning rate; leave out --lr, or --at-edge.")


def _learning_rate_at_edge(folder: Path, config: TrainingConfig) -> float:
    from landscape.training.edge_files import rate_at_edge

    found = rate_at_edge(folder, config)
    note(f"learning rate {found.learning_rate}, the edge of {found.folder}")
    return found.learning_rate


def _epoch_line(metrics: dict[str, float]) -> str:
    named = {k: v for k, v in metrics.items() if k != "epoch"}
    return f"\nsaved epoch {metrics['epoch']:.0f}: " + ", ".join(f"{k} {show(v)}" for k, v in named.items())
