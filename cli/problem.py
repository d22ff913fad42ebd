"""What the commands about one snapshot share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .output import note

if TYPE_CHECKING:
    from landscape.snapshots import Snapshot
    from landscape.study.given import Given
    from landscape.study.problems import Problem


def load(run: str, at: str, device: str, threads: int | None, given: Given) -> tuple[Snapshot, Problem]:
    """Load a snapshot with its model and data, after setting the number of threads; says if the data differ."""
    import torch

    from landscape.engine import default_workers
    from landscape.snapshots import load_snapshot
    from landscape.study.problems import load_problem

    torch.set_num_threads(threads or default_workers())
    snapshot = load_snapshot(run, at)
    problem = load_problem(snapshot, device, given)
    if problem.train.sha256 != snapshot.data_sha256:
        note(f"measured on {problem.train.name}, which is not the data stored as that of {run}'s training")
    return snapshot, problem


def identity(snapshot: Snapshot, given: Given) -> dict[str, Any]:
    """What was looked at, and on which data if these were named, for the ``inputs`` of a JSON document."""
    return ({} if given.dataset is None else {"measured_on": given.dataset}) | {
        "path": snapshot.path,
        "run_id": snapshot.run_id,
        "theta_sha256": snapshot.theta_sha256,
        "model": snapshot.model,
        "model_args": snapshot.model_args,
        "config": snapshot.config,
        "epoch": snapshot.position.epoch,
        "step": snapshot.position.step,
        "samples_seen": snapshot.position.samples_seen,
    }
