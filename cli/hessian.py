"""``landscape hessian``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from . import options
from .output import note, print_json, print_table

if TYPE_CHECKING:
    from landscape.geometry.eigenpairs import Eigenpairs
    from landscape.problem.input_objective import InputObjective
    from landscape.problem.parameter_objective import ParameterObjective
    from landscape.study.given import Given
    from landscape.study.problems import Problem

# Samples by default: of the loss over θ, or images in X.
SAMPLES = {"theta": 2000, "x": 10}


@click.command(name="hessian")
@options.snapshot
@click.option("--top-k", "k", type=options.SIZE, default=5, help="Number of eigenpairs.")
@click.option("--which", type=click.Choice(["LA", "SA", "LM", "BE"]), default="LA", help="Which end, as in scipy.")
@click.option(
    "--space", type=click.Choice(["theta", "x"]), default="theta", help="Matrix over θ, or per image in X."
)
@options.kind
@options.parameters
@click.option("--tol", type=options.Positive(), default=1e-3, help="Relative residual at which to stop.")
@click.option("--max-steps", type=options.SIZE, default=None, help="Lanczos steps at most.")
@click.option(
    "--samples", type=options.SIZE, default=None, help="Samples: of the loss over θ (2000), or in X (10)."
)
@options.balanced
@options.memory
@click.option("--double", is_flag=True, help="Compute in float64.")
@click.option(
    "--every", type=options.SIZE, default=None, help="Along the run: each so many stored snapshots, over θ."
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("figures"),
    help="Folder of the figure and of the points of --every.",
)
@options.execution
def command(
    run: str,
    at: str,
    space: str,
    every: int | None,
    output: Path,
    given: Given,
    device: str,
    threads: int | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Compute leading eigenvalues of the Hessian of the loss, with their true residuals.

    With --every, along a whole run: each search starts from the one before, points that --output holds are not
    computed again, and a figure shows them with the edge of stability. Exit code 3 if a pair has not converged.

    \b
    Example:
      landscape hessian --snapshot embedded:runs/sgd_lr0.05_b16_seed0 --top-k 5
      landscape hessian --snapshot runs/adam --every 8
    """
    settings["samples"] = settings["samples"] or SAMPLES[space]
    if settings["parameters"] and space == "x":
        raise click.BadParameter("are chosen in θ only.", param_hint="--parameters")
    if every is not None and settings.pop("balanced"):
        raise click.BadParameter("not with --every.", param_hint="--balanced")
    if every is None:
        if click.get_current_context().get_parameter_source("output") is ParameterSource.COMMANDLINE:
            raise click.BadParameter("only --every writes files.", param_hint="--output")
        converged = _at_one_point(run, at, space, given, device, threads, as_json, settings)
    else:
        _check_whole_run(space, at)
        from .trajectory import trajectory

        converged = trajectory(run, every, settings, output, given, device, threads, as_json)
    if not converged:
        note("some pairs have not converged; raise --max-steps or --tol.")
        raise SystemExit(3)


def _check_whole_run(space: str, at: str) -> None:
    if space == "x":
        raise click.BadParameter("goes along a run in θ only.", param_hint="--every")
    if at != "last":
        raise click.BadParameter("names one snapshot, --every the whole run; pass one of them.", param_hint="--at")


def _at_one_point(
    run: str,
    at: str,
    space: str,
    given: Given,
    device: str,
    threads: int | None,
    as_json: bool,
    settings: dict[str, Any],
) -> bool:
    """Print the pairs of one snapshot; returns whether all have converged."""
    from .problem import identity, load

    snapshot, problem = load(run, at, device, threads, given)
    pairs, phi = _pairs(problem, space, **settings)
    settings["samples"] = len(phi.y)
    if as_json:
        names = ("eigenvalues", "residuals", "converged", "num_hvp", "asymmetry")
        results = {name: getattr(pairs, name) for name in names} | {"loss": phi.value(phi.origin)}
        print_json("hessian", {"snapshot": identity(snapshot, given), "space": space} | settings, results)
    else:
        _print_pairs(pairs, space)
        note(f"{pairs.num_hvp} Hessian-vector products on {settings['samples']} samples")
    return bool(pairs.converged.all())


def _pairs(
    problem: Problem,
    space: str,
    *,
    samples: int,
    seed: int,
    memory: int,
    balanced: bool,
    kind: str,
    parameters: tuple[str, ...],
    double: bool,
    **search: Any,
) -> tuple[Eigenpairs, ParameterObjective | InputObjective]:
    from landscape.geometry.eigenpairs import top_eigenpairs
    from landscape.geometry.operators import curvature_operator
    from landscape.study.cost import hessian_cost
    from landscape.study.problems import theta_objective, x_objective
    from landscape.study.spectra import theta_operator

    problem = problem.double() if double else problem
    if space == "theta":
        phi = theta_objective(problem, samples, seed, memory, balanced=balanced)
        note(hessian_cost(phi, search["k"], memory).text)
        return top_eigenpairs(theta_operator(phi, kind, parameters), seed=seed, **search), phi
    images = x_objective(problem, samples, seed, memory, balanced=balanced)
    return top_eigenpairs(curvature_operator(images, kind), seed=seed, **search), images


def _print_pairs(pairs: Eigenpairs, space: str) -> None:
    columns = (pairs.eigenvalues.tolist(), pairs.residuals.tolist(), pairs.converged.tolist())
    rows = [
        (*((i,) if space == "x" else ()), j + 1, value, residual, "yes" if done else "NO")
        for i, row in enumerate(zip(*columns, strict=True))
        for j, (value, residual, done) in enumerate(zip(*row, strict=True))
    ]
    print_table([*(["image"] if space == "x" else []), "k", "eigenvalue", "residual", "converged"], rows)
