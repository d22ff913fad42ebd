"""``landscape snapshots verify``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .output import note, print_json, print_table, progress

if TYPE_CHECKING:
    from landscape.study.given import Given

_EVALUATED = ("epoch", "stored_loss", "loss", "stored_accuracy", "accuracy")


@click.command(name="verify")
@click.argument("runs", nargs=-1, required=True, metavar="RUNS...")
@click.option(
    "--evaluate",
    is_flag=True,
    help="Also find training loss and test accuracy of the last epoch again, and compare them with those stored.",
)
@options.given
@options.device
@options.threads
@options.as_json
def verify_command(
    runs: tuple[str, ...], evaluate: bool, given: Given, device: str, threads: int | None, as_json: bool
) -> None:
    """Check every digest, the chain of segments, and that all weights are finite; exit code 1 if not.

    With --evaluate, that weights, network and data belong together: the stored loss and accuracy are found again.

    \b
    Example:
      landscape snapshots verify runs/ --evaluate
    """
    from landscape.snapshots import find_runs, verify_run

    rows, problems = [], {}
    with progress(find_runs(runs), "verifying") as paths:
        for path in paths:
            result = verify_run(path)
            found = list(result.problems)
            row: dict[str, Any] = {"run": str(result.path), "ok": "", "segments": result.num_segments}
            row["snapshots"] = result.num_snapshots
            if evaluate:
                row |= dict.fromkeys(_EVALUATED, math.nan)
            if evaluate and result.ok:
                found += _reevaluated(path, device, threads, given, row)
            rows.append(row | {"ok": "NO" if found else "yes"})
            problems[str(result.path)] = found
    listed = [row | {"problems": problems[row["run"]]} for row in rows] if as_json else rows
    if as_json:
        print_json("snapshots verify", {"runs": runs, "evaluate": evaluate}, listed)
    elif rows:
        print_table(list(rows[0]), [list(row.values()) for row in rows])
    for run, found in problems.items():
        for problem in found:
            note(f"{run}: {problem}")
    if any(problems.values()):
        raise SystemExit(1)


def _reevaluated(path: Path, device: str, threads: int | None, given: Given, row: dict[str, Any]) -> list[str]:
    """Write into a row what is found again; what is wrong."""
    import torch

    from landscape.engine import default_workers
    from landscape.errors import LandscapeError
    from landscape.study.reevaluation import reevaluate

    torch.set_num_threads(threads or default_workers())
    try:
        found = reevaluate(path, device, given)
    except LandscapeError as error:
        return [f"digests are right, but nothing could be evaluated: {' '.join(str(error).split())}"]
    row |= {name: getattr(found, name) for name in _EVALUATED}
    if found.agrees is None:
        note(f"{path}: no loss is stored to compare with; found {found.loss:.4g} and {found.accuracy:.4g}")
    if found.agrees is not False:
        return []
    stored, now = ((found.stored_loss, found.stored_accuracy), (found.loss, found.accuracy))
    return [
        f"stored loss {stored[0]:.6g} and accuracy {stored[1]:.4g}, found {now[0]:.6g} and {now[1]:.4g}: weights, "
        "network and data do not belong together. Check --dataset, and the versions in `snapshots info`."
    ]
