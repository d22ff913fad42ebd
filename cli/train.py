"""``landscape train``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from . import options
from .output import counter, note, print_json, show


@click.command(name="train")
@click.option("--model", default="cnn", help="cnn (the paper's), mlp or logistic.")
@click.option("--model-args", default="{}", metavar="JSON", help='Arguments of the model, such as {"hidden": 25}.')
@click.option("--dataset", default="mnist", help="mnist (embedded), fashion-mnist, kmnist or cifar10.")
@click.option("--optimizer", type=click.Choice(["sgd", "adam"]), default="sgd", help="Optimizer.")
@click.option("--lr", "learning_rate", type=options.Positive(), default=0.1, help="Learning rate, constant.")
@click.option("--momentum", type=click.FloatRange(0, 1, max_open=True), default=0.0, help="Momentum, sgd only.")
@click.option("--batch-size", type=options.SIZE, default=16, help="Samples in a step.")
@click.option("--epochs", type=options.SIZE, default=5, help="Passes over the training data.")
@click.option("--loss", default="cross_entropy_as_published", help="Training loss; torch's, as in the paper.")
@click.option("--eps", "epsilon", type=options.Positive(), default=0.3, help="FGSM radius after each epoch.")
@click.option("--snapshot-every", type=options.SIZE, default=1024, help="Samples seen between two stored pairs.")
@click.option(
    "--method",
    type=click.Choice(["plain", "sam", "flooding", "swa", "fgsm-training", "pgd-training"]),
    default="plain",
    help="What is done beside plain training for a wide or robust minimum.",
)
@click.option(
    "--method-args",
    default="{}",
    metavar="JSON",
    help='Arguments of the method, such as {"rho": 0.1}: rho of sam; level of flooding; start of swa; epsilon and '
    "random_start of both trainings; steps and step_size of pgd-training.",
)
@options.seed
@click.option("--threads", type=options.COUNT, default=1, help="Threads of torch; kept on resume.")
@click.option("--allow-inexact", is_flag=True, help="Resume although torch, threads or CPU changed.")
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="RUN", help="Run directory.")
@options.as_json
def command(
    output: Path,
    model_args: str,
    method_args: str,
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
    """
    arguments: dict[str, Any] = {
        "model_args": _parse_arguments(model_args, "--model-args", "hidden", 25),
        "method_args": _parse_arguments(method_args, "--method-args", "rho", 0.1),
    }
    from landscape.problem.datasets import load_dataset
    from landscape.training.config import TrainingConfig
    from landscape.training.loop import train

    config = TrainingConfig(**arguments, **settings)
    total = config.epochs * len(load_dataset(config.dataset, "train"))
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
        click.echo(str(output))


def _parse_arguments(text: str, option: str, name: str, value: float) -> dict[str, Any]:
    """Arguments of a model or method; the error shows one such as they may be."""
    try:
        arguments = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise click.BadParameter(f"{text[:80]!r} is not JSON: {error}.", param_hint=option) from error
    if not isinstance(arguments, dict):
        raise click.BadParameter(f'{text!r} is not an object such as {{"{name}": {value}}}.', param_hint=option)
    return arguments


def _epoch_line(metrics: dict[str, float]) -> str:
    named = {k: v for k, v in metrics.items() if k != "epoch"}
    return f"\nsaved epoch {metrics['epoch']:.0f}: " + ", ".join(f"{k} {show(v)}" for k, v in named.items())
