"""``landscape doctor``."""

from __future__ import annotations

from dataclasses import asdict

import click

from . import options
from .output import note, print_json, print_table


@click.command(name="doctor")
@options.device
@options.threads
@options.as_json
def command(device: str, threads: int | None, as_json: bool) -> None:
    """Look at this installation: versions, device, float64, data, folders, and what a gradient pass costs here.

    Exit code 1: something that is needed is missing or broken; it is said what to do. Extras are not needed.

    \b
    Example:
      landscape doctor
    """
    import torch

    from landscape.engine import default_workers
    from landscape.study.doctor import examine

    torch.set_num_threads(threads or default_workers())
    checks = list(examine(device))
    if as_json:
        print_json("doctor", {"device": device, "threads": threads}, [asdict(check) for check in checks])
    else:
        print_table(("what", "ok", "found"), [(c.name, "yes" if c.ok else "NO", c.found) for c in checks])
    for check in checks:
        if check.advice:
            note(f"{check.name}: {check.advice}")
    if not all(check.ok for check in checks):
        raise SystemExit(1)
