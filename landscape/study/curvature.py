"""Curvature along a run and over a spectrum as plain numbers, and how trajectories are kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from landscape.errors import ConfigurationError
from landscape.study.columns import PLAIN

# To be raised by hand whenever what a point holds changes, so that stored ones are computed anew.
VERSION = 1
# Bytes of activations and linearisations, by default.
MEMORY = 2**31


@dataclass(frozen=True)
class TrajectoryConfig:
    """What is computed at every point of a trajectory; every field but the memory is part of its key."""

    k: int = 5
    which: str = "LA"
    tol: float = 1e-2
    samples: int = 2000  # training samples in φ(θ)
    seed: int = 0
    max_steps: int | None = None
    double: bool = False
    kind: str = "hessian"
    parameters: tuple[str, ...] = ()  # patterns of names; all if there is none
    memory: int = MEMORY  # bytes


@dataclass(frozen=True)
class TrajectoryPoint:
    """Leading eigenpairs of one snapshot of a run."""

    index: int
    epoch: int
    samples_seen: int
    loss: float
    eigenvalues: tuple[float, ...]
    residuals: tuple[float, ...]
    converged: tuple[bool, ...]
    num_hvp: int


@dataclass(frozen=True)
class Trajectory:
    """Leading eigenvalues of a run's snapshots, in the order of training."""

    run: str
    config: Mapping[str, Any]  # of the training
    which: str
    points: tuple[TrajectoryPoint, ...]

    @property
    def edge(self) -> float | None:
        """Sharpness above which gradient descent is unstable, 2 (1 + β)/η; None for other optimizers and methods.

        Of the full-batch loss, with momentum β (Cohen et al. 2021, §2); steps of small batches stay below it.
        None, too, where an imported run does not tell its learning rate η or its momentum.
        """
        if self.config.get("optimizer") != "sgd" or self.config.get("method", PLAIN) != PLAIN:
            return None
        momentum = self.config.get("momentum", None if "imported" in self.config else 0.0)
        rate = self.config.get("learning_rate")
        return 2 * (1 + float(momentum)) / float(rate) if rate and momentum is not None else None


def every_index(count: int, every: int) -> list[int]:
    """Indices of each ``every``-th of ``count`` stored snapshots, and of the last one.

    Raises:
        ConfigurationError: If ``every`` is below 1.
    """
    if every < 1:
        raise ConfigurationError(f"every = {every} cannot be; pass 1 or more.")
    return sorted({*range(0, count, every), count - 1})


def trajectory_key(run_id: str, config: TrajectoryConfig, data_sha256: str | None = None) -> str:
    """What the points of a run depend on, beside the snapshot's index; ``data_sha256`` of other data than its."""
    settings = {"run_id": run_id, "version": VERSION, **asdict(config)}
    settings |= {} if data_sha256 is None else {"data_sha256": data_sha256}
    del settings["memory"]  # which changes no more than rounding
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def read_points(file: Path, key: str) -> dict[int, TrajectoryPoint]:
    """Points that ``file`` keeps for this key, by index; a torn last line is passed over."""
    points: dict[int, TrajectoryPoint] = {}
    if not file.exists():
        return points
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            stored = json.loads(line)
            if stored.pop("key") != key:
                continue
            fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
            point = TrajectoryPoint(**fields)
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
        points[point.index] = point
    return points


def append_point(file: Path, key: str, point: TrajectoryPoint) -> None:
    """Keep one more point; what was kept before stays as it is."""
    torn = file.exists() and file.stat().st_size and not file.read_bytes().endswith(b"\n")
    with file.open("a", encoding="utf-8") as stream:
        stream.write(("\n" if torn else "") + json.dumps({"key": key, **asdict(point)}) + "\n")


@dataclass(frozen=True)
class SpectrumConfig:
    """What is estimated of a spectrum, and by how many products."""

    kind: str = "hessian"
    samples: int = 2000  # training samples in φ(θ)
    seed: int = 0
    num_products: int = 40  # of trace, norm and blocks, each
    steps: int = 60  # of Lanczos' method, for each probe of the density
    num_probes: int = 8
    width: float | None = None  # of the kernel
    parameters: tuple[str, ...] = ()  # patterns of names; all if there is none
    memory: int = MEMORY  # bytes


@dataclass(frozen=True)
class NamedEstimate:
    """One number that a spectrum has, and its standard error."""

    what: str
    size: int  # of the matrix or of its block
    value: float
    standard_error: float


@dataclass(frozen=True)
class Spectrum:
    """What is known of all eigenvalues of one curvature matrix over θ."""

    run: str
    epoch: int
    kind: str
    loss: float
    estimates: tuple[NamedEstimate, ...]  # trace, Frobenius norm, and the trace of each parameter's block
    smallest: float  # Ritz value of all probes of the density
    largest: float
    grid: tuple[float, ...]
    density: tuple[float, ...]
    standard_error: tuple[float, ...]  # of the density
    width: float  # of the kernel, σ
    num_products: int  # with the matrix, all estimates together
