"""What ``landscape width --curve`` does: trace the curves of all snapshots, keep them, draw them, print them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .output import note, plain, print_json, print_table, progress, say
from .problem import check_model, tell_data

if TYPE_CHECKING:
    from landscape.study.curve import Curve, CurveConfig
    from landscape.study.given import Given


@dataclass(frozen=True)
class _Task:
    """One snapshot, and the file that keeps its curve."""

    name: str
    path: str
    index: int
    key: str
    file: Path


def curves(
    runs: Sequence[str],
    at: str,
    config: CurveConfig,
    output: Path,
    given: Given,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Trace what ``output`` does not hold yet, draw all curves in one figure, and print them."""
    tasks = _tasks(runs, at, config, output, given)
    output.mkdir(parents=True, exist_ok=True)
    traced = _trace(tasks, config, device, threads, given)
    os.environ["MPLBACKEND"] = "agg"  # whatever the environment asks for, files are drawn
    from landscape.report.curve import draw_curves

    files = [str(file) for file in (*(task.file for task in tasks), *draw_curves(traced, output))]
    if as_json:
        results = {"curves": [asdict(curve) for curve in traced], "files": files}
        print_json(
            "width --curve",
            {"snapshots": runs, "at": at, "dataset": given.dataset} | plain(asdict(config)),
            results,
        )
    else:
        for curve in traced:
            _print_curve(curve)
    note("\n".join(["written:", *(f"  {file}" for file in files)]))


def _tasks(runs: Sequence[str], at: str, config: CurveConfig, output: Path, given: Given) -> list[_Task]:
    """All snapshots with their keys, before anything is computed or written."""
    from landscape.snapshots import open_run, select_index
    from landscape.study.trace import curve_key

    opened = [open_run(run) for run in runs]
    for run in opened:
        check_model(str(run.path), run.description.model, given)
    indices = [select_index(run, at) for run in opened]
    digests = [run.digest(index) for run, index in zip(opened, indices, strict=True)]
    keys = [curve_key(digest, run.description, config, given) for run, digest in zip(opened, digests, strict=True)]
    if len(set(keys)) < len(keys):
        raise click.BadParameter("the same snapshot is named twice.", param_hint="--snapshot")
    names = [run.path.name.removesuffix(".h5") for run in opened]
    often = {name for name, count in Counter(names).items() if count > 1}
    names = [f"{n}-{digest[:8]}" if n in often else n for n, digest in zip(names, digests, strict=True)]
    return [
        _Task(name, str(run.path), index, key, output / f"curve-{name}.json")
        for name, run, index, key in zip(names, opened, indices, keys, strict=True)
    ]


def _trace(
    tasks: Sequence[_Task], config: CurveConfig, device: str, threads: int | None, given: Given
) -> list[Curve]:
    """The curves of all tasks; each that was missing is kept as soon as it is traced."""
    import torch

    from landscape.engine import default_workers
    from landscape.snapshots import load_snapshot
    from landscape.study.curve import read_curve, write_curve
    from landscape.study.trace import trace_curve

    torch.set_num_threads(threads or default_workers())
    known = {task.key: read_curve(task.file, task.key) for task in tasks}
    missing = [task for task in tasks if known[task.key] is None]
    note(f"{len(tasks) - len(missing)} curves known, {len(missing)} to trace")
    with progress(missing, "tracing") as bar:
        for task in bar:
            snapshot = load_snapshot(task.path, f"index={task.index}")
            curve = trace_curve(snapshot, config, device, task.name, given, task.key)
            tell_data(snapshot.path, snapshot.data_sha256, given)
            write_curve(curve, task.file)
            known[task.key] = curve
    return [curve for curve in (known[task.key] for task in tasks) if curve is not None]


def _print_curve(curve: Curve) -> None:
    from landscape.study.columns import level_label

    theta, x = curve.theta, curve.x
    say(f"{curve.run}, epoch {curve.epoch}")
    say(f"loss {curve.loss:.4g}  largest_eigenvalue {curve.largest_eigenvalue:.4g}")
    header = ("c", "d_theta", "w_theta", "d_x_median", "w_x_median", "envelope_theta", "envelope_x")
    columns = (theta.distance, theta.width, x.distance, x.width)
    labels = [level_label(c) if c in _marked() else f"{c:.4g}" for c in curve.levels]
    envelopes = (theta.envelope, x.envelope)
    print_table(header, zip(labels, *(band.median for band in columns), *envelopes, strict=True))
    say()
    header = ("rho_theta", "S_theta", "gap_theta", "rho_x", "S_x_median", "gap_x_median", "gap_x_q90")
    in_theta = (theta.radii, theta.sharpness.median, theta.remaining.median)
    in_x = (x.radii, x.sharpness.median, x.remaining.median, x.remaining.q90)
    print_table(header, zip(*in_theta, *in_x, strict=True))
    for name, space in (("θ", theta), ("X", x)):
        say(
            f"{name}: {space.num_shortened} distances shortened by points of S, {space.num_raised} S raised by "
            f"points of d; {space.num_gradients:.0f} gradients, {space.num_values:.0f} values"
        )
    say()


def _marked() -> tuple[float, ...]:
    from landscape.study.columns import LEVELS

    return tuple(LEVELS.values())


def settings(levels: tuple[float, ...], samples: int, x_samples: int, seed: int, tol: float) -> CurveConfig:
    """The configuration that the options describe; ln 2 and ln 10 are always among the levels."""
    from landscape.study.curve import MARKED, CurveConfig

    chosen = tuple(sorted({*levels, *MARKED}))
    return CurveConfig(levels=chosen, theta_samples=samples, x_samples=x_samples, seed=seed, tol=tol)
