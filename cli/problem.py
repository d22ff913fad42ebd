"""What the commands about one snapshot share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

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
    check_model(run, snapshot.model, given)
    problem = load_problem(snapshot, device, given)
    tell_data(run, snapshot.data_sha256, given)
    return snapshot, problem


def check_model(run: str, model: str, given: Given) -> None:
    """Refuse a ``--model`` that a snapshot has no use for."""
    if given.model is not None and ":" not in model and model not in (given.model, "unknown"):
        raise click.BadParameter(
            f"{run} is of the model {model!r}, not of {given.model!r}; leave it out.", param_hint="--model"
        )


def tell_data(run: str, data_sha256: str, given: Given) -> None:
    """Say if the data that were measured on are not those of a snapshot's training."""
    data = given.open()
    if data is not None and data[0].sha256 != data_sha256:
        note(f"measured on {data[0].name}, which is not the data stored as that of {run}'s training")


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
