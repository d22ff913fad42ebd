"""``landscape width``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from . import options
from .output import note, print_json, print_table

if TYPE_CHECKING:
    from torch import Tensor

    from landscape.geometry.eigenpairs import Eigenpairs
    from landscape.geometry.level_sets import LevelSetDistance
    from landscape.problem.parameter_objective import ParameterObjective


@click.command(name="width")
@options.snapshot
@options.levels
@click.option("--samples", type=options.SIZE, default=2000, help="Training samples in the loss over θ.")
@click.option("--x-samples", type=options.SIZE, default=100, help="Test samples whose distance is searched.")
@click.option(
    "--tol", type=options.Positive(), default=1e-2, help="Angle to the gradient at which a search stops."
)
@options.seed
@options.device
@options.threads
@options.as_json
def command(
    run: str,
    at: str,
    levels: tuple[float, ...],
    samples: int,
    x_samples: int,
    tol: float,
    seed: int,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure d(c) and the width w(c) = d(c) / (c − φ*) in parameters, and per image in inputs.

    Every distance is that of a point found on the level set: an upper bound, with its evidence beside it.

    \b
    Example:
      landscape width --snapshot embedded:runs/sgd_lr0.05_b16_seed0 --level ln2
    """
    from .problem import identity, load

    snapshot, problem = load(run, at, device, threads)
    from landscape.geometry.eigenpairs import top_eigenpairs
    from landscape.study.measure import (
        EIGENVECTOR_STARTS,
        MeasureConfig,
        theta_distance,
        theta_objective,
        x_distance,
        x_objective,
    )

    config = MeasureConfig(levels=levels, theta_samples=samples, x_samples=x_samples, seed=seed, tol=tol)
    theta = theta_objective(problem, samples, seed)
    note("curvature over θ …")
    pairs = top_eigenpairs(theta, EIGENVECTOR_STARTS + 1, "BE", config.eigen_tol, seed)
    note("distances over θ …")
    found_theta = theta_distance(theta, pairs, config)
    note("distances over X …")
    found_x = x_distance(problem, x_objective(problem, x_samples, seed), config)
    minimum = _minimum(theta, pairs)
    if as_json:
        inputs = {"snapshot": identity(snapshot), "levels": levels, "samples": samples, "x_samples": x_samples}
        results = {
            "minimum": minimum,
            "theta": _theta_rows(found_theta, minimum),
            "x": _x_results(found_x),
            "cost": {"theta": _cost(found_theta), "x": _cost(found_x)},
        }
        print_json("width", inputs | {"seed": seed, "tol": tol}, results)
        return
    click.echo("  ".join(f"{name} {value:.4g}" for name, value in minimum.items()))
    _print_rows("\nparameters θ", _theta_rows(found_theta, minimum))
    _print_rows(f"\ninputs X, over {x_samples} images", _x_rows(found_x))


def _minimum(theta: ParameterObjective, pairs: Eigenpairs) -> dict[str, float]:
    """How far the snapshot is from a minimum."""
    value, gradient = theta.value_and_grad(theta.origin)
    return {
        "loss": value[0].item(),
        "gradient_norm": gradient.double().norm().item(),
        "largest_eigenvalue": pairs.eigenvalues[0, 0].item(),
        "smallest_eigenvalue": pairs.eigenvalues[0, -1].item(),
    }


def _print_rows(title: str, rows: list[dict[str, Any]]) -> None:
    click.echo(title)
    print_table(list(rows[0]), [list(row.values()) for row in rows])


def _theta_rows(found: LevelSetDistance, minimum: dict[str, float]) -> list[dict[str, Any]]:
    from landscape.geometry.level_sets import width
    from landscape.study.columns import level_label
    from landscape.study.measure import flag, quadratic_distance

    widths = width(found)
    return [
        {
            "c": level_label(c),
            "d": found.distance[0, i].item(),
            "w": widths[0, i].item() if found.reached[0, i] else math.nan,
            "quadratic_d": quadratic_distance(c, minimum["loss"], minimum["largest_eigenvalue"]),
            "level_error": found.level_error[0, i].item(),
            "angle": found.angle[0, i].item(),
            "spread": found.spread[0, i].item(),
            "agreement": found.agreement[0, i].item(),
            "flag": flag(found, 0, i),
        }
        for i, c in enumerate(found.levels.tolist())
    ]


def _x_rows(found: LevelSetDistance) -> list[dict[str, Any]]:
    from landscape.geometry.level_sets import width
    from landscape.study.columns import level_label

    widths = width(found)
    rows = []
    for i, c in enumerate(found.levels.tolist()):
        reached = found.reached[:, i]
        rows.append(
            {
                "c": level_label(c),
                "d_q10": _quantile(found.distance[reached, i], 0.1),
                "d_median": _quantile(found.distance[reached, i], 0.5),
                "d_q90": _quantile(found.distance[reached, i], 0.9),
                "w_median": _quantile(widths[reached, i], 0.5),
                "angle_median": _quantile(found.angle[reached, i], 0.5),
                "reached": int(reached.sum()),
                "below_minimum": int(found.below_minimum[:, i].sum()),
            }
        )
    return rows


def _x_results(found: LevelSetDistance) -> dict[str, Any]:
    return {
        "summary": _x_rows(found),
        "loss": found.value,
        "distance": found.distance,
        "level_error": found.level_error,
        "angle": found.angle,
    }


def _cost(found: LevelSetDistance) -> dict[str, float]:
    """What a search took, for each point that it started at."""
    return {"num_gradients": found.num_gradients, "num_values": found.num_values}


def _quantile(values: Tensor, q: float) -> float:
    return values.quantile(q).item() if len(values) else math.nan
