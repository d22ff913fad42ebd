"""``landscape width``."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .output import note

if TYPE_CHECKING:
    from landscape.study.given import Given

# Samples in θ and in X: of one measurement, and of a curve, which takes many more searches.
_SAMPLES, _CURVE_SAMPLES = (2000, 100), (400, 40)
_NORMS = {"1": 1.0, "2": 2.0, "inf": math.inf}
_METRICS = ("euclidean", "elementwise", "filter", "layer")
# Options that a curve does not take, with their defaults.
_NOT_WITH_CURVE = {
    "metric": "euclidean",
    "biases": True,
    "theta_norm": 2.0,
    "x_norm": 2.0,
    "box": False,
    "joint": False,
    "balanced": False,
    "memory": 2**31,
    "per_sample": 0,
    "certify": 0,
}


def _norm(name: str, what: str) -> Callable[[options.Command], options.Command]:
    choice = click.Choice(tuple(_NORMS))
    return click.option(name, type=choice, default="2", callback=lambda _, __, chosen: _NORMS[chosen], help=what)


def _samples(name: str, place: int, what: str) -> Callable[[options.Command], options.Command]:
    shown = f"{_SAMPLES[place]}; {_CURVE_SAMPLES[place]} with --curve"
    return click.option(name, type=options.SIZE, default=None, show_default=shown, help=what)


@click.command(name="width")
@click.option(
    "--snapshot",
    "runs",
    required=True,
    multiple=True,
    metavar="RUN",
    help="The run to look at; with --curve, repeat it for several.",
)
@options.at
@options.given
@options.levels
@_samples("--samples", 0, "Training samples in the loss over θ.")
@_samples("--x-samples", 1, "Test samples whose distance is searched.")
@click.option(
    "--metric",
    type=click.Choice(_METRICS),
    default="euclidean",
    help="Metric on θ; elementwise, in units of |θ|, does not see ReLU rescaling.",
)
@click.option("--biases/--no-biases", default=True, help="Whether biases may move.")
@_norm("--theta-norm", "Norm in θ.")
@_norm("--x-norm", "Norm in X.")
@click.option("--box/--no-box", default=False, help="Whether images stay in [0, 1].")
@options.balanced
@click.option("--joint", is_flag=True, help="Also search the whole matrix X with the mean loss.")
@click.option(
    "--per-sample",
    type=click.IntRange(0),
    default=0,
    help="Images for which the distance in θ of their own loss is searched.",
)
@click.option(
    "--certify", type=click.IntRange(0), default=0, help="Images that get a certified lower bound of d_X."
)
@click.option(
    "--tol", type=options.Positive(), default=1e-2, help="Angle to the gradient at which a search stops."
)
@click.option(
    "--curve",
    is_flag=True,
    help="Trace d(c), w(c) and worst-case sharpness over many levels and radii, and draw them.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    show_default="curves",
    help="With --curve: folder for curve-RUN.json and the figure.",
)
@options.memory
@options.execution
def command(
    runs: tuple[str, ...],
    at: str,
    levels: tuple[float, ...],
    samples: int | None,
    x_samples: int | None,
    tol: float,
    curve: bool,
    output: Path | None,
    given: Given,
    memory: int,
    seed: int,
    device: str,
    threads: int | None,
    as_json: bool,
    **geometry: Any,
) -> None:
    """Measure d(c) and the width w(c) = d(c) / (c − φ*) in parameters, and per image in inputs.

    Every distance is that of a point found on the level set: an upper bound, with its evidence beside it.
    With --curve, many levels are measured, and worst-case sharpness at many radii, in one figure for all
    snapshots. A curve is kept as soon as it is traced, and the same command goes on where it was interrupted.

    \b
    Examples:
      landscape width --snapshot embedded:runs/sgd_lr0.05_b16_seed0 --level ln2
      landscape width --snapshot embedded:runs/sgd_lr0.05_b16_seed0 --x-norm inf --box --certify 5
      landscape width --snapshot embedded:runs/sgd_lr0.05_b16_seed0 --curve --output curves
    """
    _check_usage(runs, curve, output, geometry | {"memory": memory})
    sizes = _CURVE_SAMPLES if curve else _SAMPLES
    samples, x_samples = samples or sizes[0], x_samples or sizes[1]
    if curve:
        from .curve import curves, settings

        config = settings(levels, samples, x_samples, seed, tol)
        curves(runs, at, config, output or Path("curves"), given, device, threads, as_json)
        return
    from landscape.study.widths import WidthConfig, measure_widths

    from .problem import identity, load
    from .widths import print_widths, print_widths_json

    chosen = WidthConfig(
        levels=levels,
        theta_samples=samples,
        x_samples=x_samples,
        seed=seed,
        tol=tol,
        certified=geometry.pop("certify"),
        **geometry,
    )
    snapshot, problem = load(runs[0], at, device, threads, given)
    found = measure_widths(problem, chosen, lambda text: note(f"{text} …"), memory)
    if as_json:
        print_widths_json(found, chosen, identity(snapshot, given))
    else:
        print_widths(found, chosen)


def _check_usage(runs: tuple[str, ...], curve: bool, output: Path | None, geometry: dict[str, Any]) -> None:
    if not curve and len(runs) > 1:
        raise click.BadParameter("only --curve takes several snapshots.", param_hint="--snapshot")
    if not curve and output is not None:
        raise click.BadParameter("only --curve writes files.", param_hint="--output")
    for name, default in _NOT_WITH_CURVE.items():
        if curve and geometry[name] != default:
            raise click.BadParameter("not with --curve.", param_hint=f"--{name.replace('_', '-')}")
