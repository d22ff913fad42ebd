"""``landscape hessian``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import options
from .output import note, print_json, print_table


@click.command(name="hessian")
@options.snapshot
@click.option("--top-k", "k", type=options.SIZE, default=5, help="Number of eigenpairs.")
@click.option("--which", type=click.Choice(["LA", "SA", "LM", "BE"]), default="LA", help="Which end, as in scipy.")
@click.option(
    "--space", type=click.Choice(["theta", "x"]), default="theta", help="Hessian over θ, or per image in X."
)
@click.option("--tol", type=options.Positive(), default=1e-3, help="Relative residual at which to stop.")
@click.option("--max-steps", type=options.SIZE, default=None, help="Lanczos steps at most.")
@click.option(
    "--samples", type=options.SIZE, default=None, help="Samples: of the loss over θ (2000), or in X (10)."
)
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
@options.seed
@options.device
@options.threads
@options.as_json
def command(
    run: str,
    at: str,
    k: int,
    space: str,
    samples: int | None,
    double: bool,
    seed: int,
    every: int | None,
    output: Path,
    device: str,
    threads: int | None,
    as_json: bool,
    **search: Any,
) -> None:
    """Compute leading eigenvalues of the Hessian of the loss, with their true residuals.

    With --every, along a whole run: each search starts from the one before, points that --output holds are not
    computed again, and a figure shows them with the edge of stability. Exit code 3 if a pair has not converged.

    \b
    Example:
      landscape hessian --snapshot embedded:runs/sgd_lr0.05_b16_seed0 --top-k 5
      landscape hessian --snapshot runs/adam --every 8
    """
    if every is not None:
        if space == "x":
            raise click.BadParameter("goes along a run in θ only.", param_hint="--every")
        if at != "last":
            raise click.BadParameter(
                "names one snapshot, --every the whole run; pass one of them.", param_hint="--at"
            )
        from .trajectory import trajectory

        config = {"k": k, "samples": samples or 2000, "double": double, "seed": seed} | search
        trajectory(run, every, config, output, device, threads, as_json)
        return
    from .problem import identity, load

    snapshot, problem = load(run, at, device, threads)
    from landscape.geometry.eigenpairs import top_eigenpairs
    from landscape.study.measure import theta_objective, x_objective

    if double:
        problem = problem.double()
    phi = (
        theta_objective(problem, samples or 2000, seed)
        if space == "theta"
        else x_objective(problem, samples or 10, seed)
    )
    pairs = top_eigenpairs(phi, k, seed=seed, **search)
    if as_json:
        results = {
            "eigenvalues": pairs.eigenvalues,
            "residuals": pairs.residuals,
            "converged": pairs.converged,
            "num_hvp": pairs.num_hvp,
            "loss": phi.value(phi.origin),
        }
        inputs = {"snapshot": identity(snapshot), "space": space, "k": k, "samples": len(phi.y), "seed": seed}
        print_json("hessian", inputs | search | {"double": double}, results)
    else:
        rows = [
            (*((i,) if space == "x" else ()), j + 1, value, residual, "yes" if done else "NO")
            for i, (values, residuals, converged) in enumerate(
                zip(pairs.eigenvalues.tolist(), pairs.residuals.tolist(), pairs.converged.tolist(), strict=True)
            )
            for j, (value, residual, done) in enumerate(zip(values, residuals, converged, strict=True))
        ]
        print_table([*(["image"] if space == "x" else []), "k", "eigenvalue", "residual", "converged"], rows)
        note(f"{pairs.num_hvp} Hessian-vector products on {len(phi.y)} samples")
    if not pairs.converged.all():
        note("some pairs have not converged; raise --max-steps or --tol.")
        raise SystemExit(3)
