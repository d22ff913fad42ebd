"""Options that mean the same in every command."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import click

if TYPE_CHECKING:
    NumberType = click.ParamType[float]  # generic since click 8.5
else:
    NumberType = click.ParamType

Command = TypeVar("Command", bound=Callable[..., Any])

# Of threads, processes or anything else that a machine has few of.
COUNT = click.IntRange(1, 1024)
# Of samples, epochs and the like: whatever fits an index.
SIZE = click.IntRange(1, 2**31 - 1)

AT_HELP = (
    "Position in the run: last, first, epoch=5, samples=102400, index=12, or best: the end of the epoch with the "
    "best accuracy under FGSM among those within 0.005 of the best clean accuracy; best=exact judges by exact "
    "gradients, best=published,0.02 has another tolerance; or equal-loss=0.01: the end of the epoch "
    "whose training loss is nearest, within a factor 2."
)

seed = click.option(
    "--seed", default=0, type=click.IntRange(0, 2**63 - 1), help="Seed of everything that is drawn."
)
device = click.option(
    "--device",
    default="auto",
    envvar="LANDSCAPE_DEVICE",
    show_envvar=True,
    help="auto, cpu, cuda or cuda:N; auto: CUDA if there is one.",
)
threads = click.option("--threads", default=None, type=COUNT, show_default="all cores", help="Threads of torch.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
model = click.option(
    "--model",
    default=None,
    metavar="PACKAGE.MODULE:FUNCTION",
    help="Trust this code, if it is what the snapshot names as its network. Other names need no permission.",
)
DATA_HELP = (
    "mnist (embedded), fashion-mnist, kmnist or cifar10; or your own: an .h5 or .npz file, a folder of images by "
    "class, or package.module:function."
)
dataset = click.option(
    "--dataset",
    default=None,
    metavar="DATA",
    show_default="the one it was trained on",
    help=f"Data to measure on: {DATA_HELP} Your own is named here even if the run was trained on it.",
)
at = click.option("--at", default="last", help=AT_HELP)
workers = click.option(
    "--workers",
    default=None,
    type=COUNT,
    show_default="one a core",
    help="Worker processes; each uses one thread.",
)


balanced = click.option("--balanced", is_flag=True, help="Take as many samples of each class, as far as they go.")


def execution(command: Command) -> Command:
    """``--seed``, ``--device``, ``--threads`` and ``--json``."""
    return seed(device(threads(as_json(command))))


def snapshot(command: Command) -> Command:
    """``--snapshot``, ``--at``, ``--model`` and ``--dataset``."""
    chosen = click.option("--snapshot", "run", required=True, metavar="RUN", help="The run to look at.")
    return chosen(at(given(command)))


def given(command: Command) -> Command:
    """``--model`` and ``--dataset``, what no snapshot may name by itself, as one argument ``given``."""

    @functools.wraps(command)
    def with_given(*arguments: Any, model: str | None, dataset: str | None, **settings: Any) -> Any:
        from landscape.study.given import Given

        return command(*arguments, given=Given(model, dataset), **settings)

    return model(dataset(cast("Command", with_given)))


def samples(default: int, what: str) -> Callable[[Command], Command]:
    """``--samples``, with the meaning it has in a command."""
    return click.option("--samples", default=default, type=SIZE, help=what)


class Positive(NumberType):
    """A finite number above zero."""

    name = "number > 0"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse, and refuse what is not positive and finite."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (number > 0 and math.isfinite(number)):
            self.fail(f"{value!r} is not a finite number above zero.", param, ctx)
        return number


class Between(NumberType):
    """A number between two others, both included."""

    def __init__(self, least: float, most: float) -> None:
        self.least, self.most = least, most
        self.name = f"{least:g} to {most:g}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse, and refuse what is not within."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not self.least <= number <= self.most:
            self.fail(f"{value!r} is not a number from {self.least:g} to {self.most:g}.", param, ctx)
        return number


class Bytes(NumberType):
    """An amount of memory, in bytes or with a unit."""

    name = "size"
    units: ClassVar = {
        "": 1,
        "k": 1e3,
        "m": 1e6,
        "g": 1e9,
        "t": 1e12,
        "ki": 2**10,
        "mi": 2**20,
        "gi": 2**30,
        "ti": 2**40,
    }

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse numbers such as 500M, 2GiB or 1.5e9."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?)\s*([kmgt]i?)?b?", value.strip().lower())
        try:
            number = float(found[1]) * self.units[found[2] or ""] if found else math.nan
        except ValueError:
            number = math.nan
        if not 1 <= number < 2**63:
            self.fail(f"{value!r} is no amount of memory; write for example 500M or 2GiB.", param, ctx)
        return int(number)


memory = click.option(
    "--memory",
    type=Bytes(),
    default=2**31,
    show_default="2GiB",
    help="For activations and linearisations, such as 500M or 8GiB; what does not fit is computed again.",
)
parameters = click.option(
    "--parameters",
    multiple=True,
    metavar="PATTERN",
    help="Only those whose names match, such as '0.*' or '*.weight'; repeat it for several.",
)
kind = click.option(
    "--kind",
    type=click.Choice(["hessian", "gauss_newton", "fisher", "empirical_fisher"]),
    default="hessian",
    help="Which curvature matrix.",
)


class Level(NumberType):
    """A level c of the loss: a number, or ln2, ln10."""

    name = "level"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse by the table of named levels."""
        from landscape.errors import ConfigurationError
        from landscape.study.columns import parse_level

        if isinstance(value, float):
            return value
        try:
            return parse_level(value)
        except ConfigurationError as error:
            self.fail(str(error), param, ctx)


levels = click.option(
    "--level",
    "levels",
    multiple=True,
    type=Level(),
    default=("0.5", "ln2", "1", "ln10"),
    help="Level c of the loss, in nats: a number, ln2 or ln10; repeat it for several.",
)


def parse_object(text: str, option: str, example: dict[str, Any]) -> dict[str, Any]:
    """A JSON object that ``option`` was given; BadParameter, which shows one such as it may be."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        shown = f"{text[:80]!r} is not JSON such as {json.dumps(example)}: {error}."
        raise click.BadParameter(shown, param_hint=option) from error
    if not isinstance(value, dict):
        raise click.BadParameter(f"{text!r} is not an object such as {json.dumps(example)}.", param_hint=option)
    return value
