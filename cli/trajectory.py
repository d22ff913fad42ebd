"""What ``landscape hessian --every`` does: leading eigenvalues along a run, kept, drawn and printed."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .output import file_name, note, print_json, print_table, progress
from .problem import check_model, tell_data

if TYPE_CHECKING:
    from landscape.study.curvature import Trajectory
    from landscape.study.given import Given


def trajectory(
    run: str,
    every: int,
    settings: dict[str, Any],
    output: Path,
    given: Given,
    device: str,
    threads: int | None,
    as_json: bool,
) -> bool:
    """Compute the points that ``output`` does not hold yet, draw and print all; returns whether all converged."""
    import torch

    from landscape.engine import default_workers
    from landscape.snapshots import open_run
    from landscape.study.curvature import (
        Trajectory,
        TrajectoryConfig,
        append_point,
        every_index,
        read_points,
        trajectory_key,
    )
    from landscape.study.problems import data_subject
    from landscape.study.spectra import trace_trajectory

    torch.set_num_threads(threads or default_workers())
    opened, config = open_run(run), TrajectoryConfig(**settings)
    check_model(run, opened.description.model, given)
    name = file_name(opened.path.name, config.parameters, config.kind)
    indices = every_index(len(opened), every)
    data = data_subject(opened.description, given)
    other = data["data_sha256"] if data["data_sha256"] != opened.description.data_sha256 else None
    key = trajectory_key(opened.run_id, config, other)
    file = output / f"hessian-{name}.jsonl"
    points = read_points(file, key)
    missing = [index for index in indices if index not in points]
    note(f"{len(indices) - len(missing)} points known, {len(missing)} to compute ({file})")
    computed = trace_trajectory(opened, missing, config, device, given)
    with progress(missing, "computing") as bar:
        for _ in bar:
            point = next(computed)
            output.mkdir(parents=True, exist_ok=True)  # nothing is written for what is refused
            append_point(file, key, point)
            points[point.index] = point
    tell_data(run, opened.description.data_sha256, given)
    found = Trajectory(name, opened.description.config, config.which, tuple(points[i] for i in indices))
    os.environ["MPLBACKEND"] = "agg"  # whatever the environment asks for, files are drawn
    from landscape.report.curvature import draw_trajectory

    files = [str(file), *map(str, draw_trajectory(found, output))]
    if as_json:
        results = {"points": [asdict(point) for point in found.points], "edge": found.edge, "files": files}
        print_json(
            "hessian --every", {"snapshot": run, "dataset": given.dataset, "every": every} | settings, results
        )
    else:
        _print_points(found)
    note("\n".join(["written:", *(f"  {file}" for file in files)]))
    return all(all(point.converged) for point in found.points)


def _print_points(found: Trajectory) -> None:
    names = [f"lambda_{i + 1}" for i in range(len(found.points[0].eigenvalues))]
    print_table(
        ("index", "epoch", "samples_seen", "loss", *names, "converged"),
        [
            (p.index, p.epoch, p.samples_seen, p.loss, *p.eigenvalues, "yes" if all(p.converged) else "NO")
            for p in found.points
        ],
    )
    mean = sum(p.num_hvp for p in found.points) / len(found.points)
    edge = "" if found.edge is None else f"; edge of stability 2 (1 + momentum) / lr = {found.edge:.4g}"
    note(f"{mean:.1f} Hessian-vector products a point{edge}")
