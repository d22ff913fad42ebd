"""The ``landscape`` command: a group whose commands are loaded when they are called."""

from __future__ import annotations

import importlib
import io
import sys
from typing import Any

import click

from landscape.errors import LandscapeError

from .output import printable

# One file a command; none of them imports torch before it runs.
COMMANDS = (
    "train",
    "sweep",
    "edge",
    "snapshots",
    "hessian",
    "spectrum",
    "width",
    "surface",
    "attack",
    "measure",
    "correlate",
    "report",
    "paper",
    "theory",
    "doctor",
)

EPILOG = """\b
Exit codes: 0 done, 1 error, 2 wrong usage, 3 finished but some runs failed, or nothing was found.
Results go to stdout, all else to stderr."""


class LazyGroup(click.Group):
    """Loads a command's module on demand, and shows this package's errors as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order in which one uses them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the module of a command."""
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f".{name}", __package__).command
        return command

    def main(self, *arguments: Any, **settings: Any) -> Any:
        """Run; a terminal that cannot show θ gets an escape for it instead of an error."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        return super().main(*arguments, **settings)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what went wrong becomes one line on stderr and exit code 1."""
        try:
            return super().invoke(ctx)
        except LandscapeError as error:
            raise click.ClickException(_one_line(error)) from error
        except BrokenPipeError:
            raise  # the reader of a pipe left; click ends quietly
        except OSError as error:
            place = f": {error.filename}" if error.filename else ""
            raise click.ClickException(f"{error.strerror or error}{place}") from error


def _one_line(error: Exception) -> str:
    return printable(" ".join(str(error).split()))


@click.group(
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "max_content_width": 100,
    },
)
@click.version_option(package_name="landscape-torch", prog_name="landscape")
def main() -> None:
    """Measure how wide the minima of a loss are, in parameters and in inputs, and what that says of robustness.

    RUN is a run directory, one of its segments, or a packed .h5 file; embedded:runs are the runs that ship
    with the package.
    """
