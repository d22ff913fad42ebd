"""What a run is trained with: options of the commands that train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from . import options

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--model", default="cnn", help="cnn (the paper's), mlp or logistic."),
    click.option(
        "--model-args", default="{}", metavar="JSON", help='Arguments of the model, such as {"hidden": 25}.'
    ),
    click.option("--dataset", default="mnist", metavar="DATA", help=options.DATA_HELP),
    click.option("--optimizer", type=click.Choice(["sgd", "adam"]), default="sgd", help="Optimizer."),
    click.option(
        "--momentum", type=click.FloatRange(0, 1, max_open=True), default=0.0, help="Momentum, sgd only."
    ),
    click.option("--batch-size", type=options.SIZE, default=16, help="Samples in a step."),
    click.option("--loss", default="cross_entropy_as_published", help="Training loss; torch's, as in the paper."),
    click.option(
        "--method",
        type=click.Choice(["plain", "sam", "flooding", "swa", "fgsm-training", "pgd-training"]),
        default="plain",
        help="What is done beside plain training for a wide or robust minimum.",
    ),
    click.option(
        "--method-args",
        default="{}",
        metavar="JSON",
        help='Arguments of the method, such as {"rho": 0.1}: rho of sam; level of flooding; start of swa; epsilon '
        "and random_start of both trainings; steps and step_size of pgd-training.",
    ),
)


def run_options(command: Command) -> Command:
    """Model, data, optimizer and method of a run; not its length, learning rate and seed."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def parse_arguments(model_args: str, method_args: str) -> dict[str, Any]:
    """Arguments of model and method, of the options --model-args and --method-args."""
    return {
        "model_args": options.parse_object(model_args, "--model-args", {"hidden": 25}),
        "method_args": options.parse_object(method_args, "--method-args", {"rho": 0.1}),
    }
