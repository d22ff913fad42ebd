"""``landscape attack``."""

from __future__ import annotations

import click

from . import options
from .output import print_json, print_table, progress


@click.command(name="attack")
@options.snapshot
@click.option("--eps", type=options.Positive(), multiple=True, default=(0.1, 0.2, 0.3), help="Radius; repeatable.")
@click.option("--samples", type=options.SIZE, default=10_000, help="Test samples.")
@click.option(
    "--dataset", default=None, show_default="the snapshot's own", help="Attack test images of this dataset."
)
@options.execution
def command(
    run: str,
    at: str,
    eps: tuple[float, ...],
    samples: int,
    dataset: str | None,
    seed: int,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure accuracy under FGSM, as published (float32 cross-entropy) and exact (log-odds).

    In exact arithmetic both are the same attack: where they differ, the published number is rounding.

    \b
    Example:
      landscape attack --snapshot embedded:runs/adam_lr0.0015_b16_seed0 --eps 0.1 --eps 0.3
    """
    from .problem import identity, load

    snapshot, problem = load(run, at, device, threads, dataset)
    from landscape.robustness.accuracy import accuracy, robust_accuracy
    from landscape.robustness.fgsm import READINGS

    data = problem.test.subset(samples, seed)
    clean = accuracy(problem.model, data.images, data.labels)
    rows = [{"eps": 0.0} | dict.fromkeys(READINGS, clean)]
    with progress(sorted(eps), "attacking") as radii:
        for radius in radii:
            found = {
                name: robust_accuracy(problem.model, data.images, data.labels, radius, loss).accuracy
                for name, loss in READINGS.items()
            }
            rows.append({"eps": radius} | found)
    if as_json:
        inputs = {"snapshot": identity(snapshot), "eps": eps, "samples": len(data), "seed": seed}
        print_json("attack", inputs, rows)
    else:
        print_table(["eps", *READINGS], [list(row.values()) for row in rows])
