"""``landscape theory``."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .output import note, print_json, print_table, say

if TYPE_CHECKING:
    from landscape.study.columns import Row
    from landscape.study.given import Given
    from landscape.study.theorem2 import Solution

# Levels below the lowest that is asked for, as parts of it.
LOWER = (0.5,)


@click.command(name="theory")
@click.option("--snapshot", "run", default=None, metavar="RUN", help="The run around which Theorem 1 is checked.")
@options.at
@options.given
@options.levels
@click.option("--points", type=options.SIZE, default=200, help="Random points for each level (and image).")
@click.option("--samples", type=options.SIZE, default=500, help="Training samples in the loss over θ.")
@click.option("--x-samples", type=options.SIZE, default=30, help="Test samples whose surroundings are looked at.")
@click.option("--example-level", type=options.Level(), default="ln2", help="Level c of the single-layer example.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder for the figure of Theorem 2.",
)
@options.execution
def command(
    run: str | None,
    at: str,
    levels: tuple[float, ...],
    points: int,
    samples: int,
    x_samples: int,
    example_level: float,
    output: Path | None,
    given: Given,
    seed: int,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Check the paper's theorems: 1 around a snapshot, 2 on the single-layer example.

    Theorem 1: within d(c) of a minimum, φ ≤ c; and, if φ is convex, φ − φ* ≤ ‖x − x*‖ / w(c). Theorem 2: the
    larger w_θ, the larger w_X. Without --snapshot only the example is looked at.

    \b
    Example:
      landscape theory --snapshot embedded:runs/sgd_lr0.05_b16_seed0 --level ln2 --output figures/theory
    """
    inputs: dict[str, Any] = {"levels": levels, "points": points, "samples": samples, "x_samples": x_samples}
    results: dict[str, Any] = {}
    if run is None:
        _set_threads(threads)
        inputs["snapshot"] = None
    else:
        inputs["snapshot"], results["theorem1"] = _theorem1(
            run, at, given, device, threads, levels, (points, samples, x_samples, seed)
        )
    results |= _example(example_level, seed, output)
    if as_json:
        print_json("theory", inputs | {"example_level": example_level, "seed": seed}, results)
        return
    for space, rows in results.get("theorem1", {}).items():
        _print_rows(f"Theorem 1 over {space}", rows)
    _print_rows("single layer: closed forms against the general code", results["agreement"])
    _print_rows("Theorem 2, part 3, on the single layer", results["theorem2"])


def _set_threads(threads: int | None) -> None:
    import torch

    from landscape.engine import default_workers

    torch.set_num_threads(threads or default_workers())


def _theorem1(
    run: str,
    at: str,
    given: Given,
    device: str,
    threads: int | None,
    levels: tuple[float, ...],
    counts: tuple[int, int, int, int],
) -> tuple[dict[str, Any], dict[str, list[Row]]]:
    from .problem import identity, load

    snapshot, problem = load(run, at, device, threads, given)
    from landscape.geometry.eigenpairs import top_eigenpairs
    from landscape.study import problems, searches
    from landscape.study.measure_config import MeasureConfig
    from landscape.study.theorem import theorem_rows, width_rows

    points, samples, x_samples, seed = counts
    # Lower levels, because part 2 is about all of them.
    ladder = tuple(sorted({*levels, *(f * min(levels) for f in LOWER)}))
    config = MeasureConfig(levels=ladder, theta_samples=samples, x_samples=x_samples, seed=seed)
    theta = problems.theta_objective(problem, samples, seed)
    note("Theorem 1 over θ …")
    pairs = top_eigenpairs(theta, searches.EIGENVECTOR_STARTS + 1, "BE", config.eigen_tol, seed)
    leading = pairs.eigenvectors[:, : searches.EIGENVECTOR_STARTS]
    found = searches.theta_distance(theta, pairs, config)
    rows = {"θ, points": theorem_rows(theta, found, leading, points, seed), "θ, widths": width_rows(found)}
    note("Theorem 1 over X …")
    inputs = problems.x_objective(problem, x_samples, seed)
    leading = top_eigenpairs(inputs, 1, tol=config.eigen_tol, seed=seed).eigenvectors
    found = searches.x_distance(problem, inputs, config)
    rows |= {
        "X, points": theorem_rows(inputs, found, leading, points, seed),
        "X, widths": width_rows(found),
    }
    return identity(snapshot, given), rows


def _example(level: float, seed: int, output: Path | None) -> dict[str, Any]:
    from landscape.study.theorem2 import theorem2_rows
    from landscape.study.theory import agreement_rows, theorem2_solutions

    note("single layer …")
    agreement = agreement_rows(level, seed)
    found = theorem2_solutions(level, seed, note)
    results = {
        "agreement": agreement,
        "theorem2": theorem2_rows(found),
        "solutions": [asdict(solution) for solution in found],
    }
    return results | ({"files": _draw(found, output)} if output else {})


def _draw(found: list[Solution], output: Path) -> list[str]:
    os.environ["MPLBACKEND"] = "agg"  # whatever the environment asks for, files are drawn
    from landscape.report.theory import draw_theorem2

    output.mkdir(parents=True, exist_ok=True)
    files = [str(path) for path in draw_theorem2(found, output)]
    note("\n".join(["written:", *(f"  {file}" for file in files)]))
    return files


def _print_rows(title: str, rows: list[Row]) -> None:
    say(title)
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    say()
