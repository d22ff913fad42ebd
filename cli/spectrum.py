"""``landscape spectrum``."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .output import file_name, note, print_json, print_table, say

if TYPE_CHECKING:
    from landscape.study.given import Given


@click.command(name="spectrum")
@options.snapshot
@options.kind
@options.parameters
@options.samples(2000, "Training samples in the loss over θ.")
@click.option("--products", "num_products", type=click.IntRange(4), default=40, help="For each of the estimates.")
@click.option("--steps", type=options.SIZE, default=60, help="Lanczos steps of each probe of the density.")
@click.option("--probes", "num_probes", type=click.IntRange(2), default=8, help="Probes of the density.")
@click.option(
    "--width", type=options.Positive(), default=None, show_default="1 % of the range", help="Of the kernel, σ."
)
@options.memory
@click.option("--double", is_flag=True, help="Compute in float64.")
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), default=None, help="Folder of a figure."
)
@options.execution
def command(
    run: str,
    at: str,
    double: bool,
    output: Path | None,
    given: Given,
    device: str,
    threads: int | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Estimate trace, Frobenius norm and density of all eigenvalues, with their standard errors.

    \b
    Example:
      landscape spectrum --snapshot embedded:runs/sgd_lr0.05_b16_seed0 --output figures
    """
    from .problem import identity, load

    snapshot, problem = load(run, at, device, threads, given)
    from landscape.study.curvature import SpectrumConfig
    from landscape.study.spectra import spectrum

    if output is not None:
        output.mkdir(parents=True, exist_ok=True)  # before anything is computed for it
    config = SpectrumConfig(**settings)
    name = file_name(snapshot.path, config.parameters)
    found = spectrum(problem.double() if double else problem, name, snapshot.position.epoch, config)
    files: list[str] = []
    if output is not None:
        os.environ["MPLBACKEND"] = "agg"  # whatever the environment asks for, files are drawn
        from landscape.report.curvature import draw_spectrum

        files = [str(file) for file in draw_spectrum(found, output)]
    if as_json:
        results = asdict(found) | {"files": files}
        print_json("spectrum", {"snapshot": identity(snapshot, given), "double": double} | settings, results)
    else:
        say(f"loss {found.loss:.4g}  {found.kind}, Ritz values from {found.smallest:.4g} to {found.largest:.4g}")
        rows = [(e.what, e.size, e.value, e.standard_error) for e in found.estimates]
        print_table(("estimate", "size", "value", "standard_error"), rows)
        note(f"{found.num_products} products on {config.samples} samples")
    if files:
        note("\n".join(["written:", *(f"  {file}" for file in files)]))
