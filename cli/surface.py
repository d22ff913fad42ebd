"""``landscape surface``."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .output import counter, file_name, note, print_json, print_table, show_seconds

if TYPE_CHECKING:
    from landscape.study.given import Given
    from landscape.study.surface import Axis
    from landscape.study.surfaces import Plane, SurfaceFiles

# Seconds between two writings of what is known.
_PERIOD = 5.0
# Points by which the time of all is told.
_TRIED = 4


def _axis(context: click.Context, parameter: click.Parameter, text: str) -> Axis:
    from landscape.errors import ConfigurationError
    from landscape.study.surface import Axis

    try:
        low, high, count = text.split(":")
        return Axis(float(low), float(high), int(count))
    except (ValueError, ConfigurationError) as error:
        raise click.BadParameter(
            f"{text!r} is no axis: give low:high:points, such as {parameter.opts[0]}=-1:1:25."
        ) from error


@click.command(name="surface")
@options.snapshot
@click.option(
    "--directions",
    type=click.Choice(("random", "eigenvectors")),
    default="random",
    help="What spans the plane: two random directions, or the two leading eigenvectors of the Hessian.",
)
@click.option(
    "--normalisation",
    type=click.Choice(("filter", "layer", "none")),
    default="filter",
    help="Random directions get the norms of the weights, filter by filter or layer by layer.",
)
@click.option("--biases/--no-biases", default=False, help="Whether random directions move biases.")
@click.option("--x", callback=_axis, default="-1:1:25", metavar="LOW:HIGH:POINTS", help="Coordinates.")
@click.option("--y", callback=_axis, default="-1:1:25", metavar="LOW:HIGH:POINTS", help="Coordinates.")
@options.samples(2000, "Training samples in the loss.")
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.h5",
    help="The surface, in the layout of the program loss-landscape; its directions and a figure lie beside it.",
)
@options.execution
def command(
    run: str,
    at: str,
    output: Path,
    given: Given,
    device: str,
    threads: int | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Compute loss and accuracy over a plane of parameter space, and draw them.

    A surface is a picture of two directions out of many; it measures nothing (for widths see landscape width).
    What is computed is kept, and the same command goes on where it was interrupted.

    \b
    Example:
      landscape surface --snapshot embedded:runs/sgd_lr0.05_b16_seed0 --output surface.h5
    """
    if output.suffix != ".h5":
        raise click.BadParameter(f"{str(output)!r} must end in .h5.", param_hint="--output")
    from .problem import identity, load

    snapshot, problem = load(run, at, device, threads, given)
    from landscape.study.surface import SurfaceConfig
    from landscape.study.surfaces import SurfaceFiles, open_plane, surface_of

    config, files = SurfaceConfig(**settings), SurfaceFiles.at(output)
    plane = _complete(open_plane(snapshot, problem, config, files), files)
    surface = surface_of(plane, file_name(snapshot.path), snapshot.position.epoch, config)
    os.environ["MPLBACKEND"] = "agg"  # whatever the environment asks for, files are drawn
    from landscape.report.surface import draw_surface

    drawn = draw_surface(surface, output.parent, output.stem)
    written = [str(file) for file in (files.surface, files.directions, *drawn)]
    if as_json:
        results = {name: getattr(surface, name) for name in ("x", "y", "loss", "accuracy", "lengths", "cosine")}
        results |= {"eigenvalues": surface.eigenvalues, "files": written}
        print_json("surface", {"snapshot": identity(snapshot, given)} | config.as_settings(), results)
    else:
        readings = (("loss (nat)", surface.loss), ("accuracy (%)", surface.accuracy))
        rows = [(name, float(values.min()), float(values.max())) for name, values in readings]
        print_table(("", "lowest", "highest"), rows)
    note("\n".join(["written:", *(f"  {file}" for file in written)]))


def _complete(plane: Plane, files: SurfaceFiles) -> Plane:
    """Compute what is missing, with a forecast and a bar; what is known is written now and then and at the end."""
    from landscape.study.surfaces import compute, save

    known, total, begin = plane, len(plane.missing), time.monotonic()
    saved, times = begin, [begin]
    try:
        with counter("surface", total) as bar:
            for known in compute(plane):
                bar.update(1)
                times.append(time.monotonic())
                if len(times) == _TRIED and total > _TRIED:  # the first point takes longer than others
                    note(f"{total} points, about {show_seconds((times[-1] - times[1]) / (_TRIED - 2) * total)}")
                if times[-1] - saved > _PERIOD:
                    save(known, files)
                    saved = times[-1]
    finally:
        save(known, files)
    return known
