"""Loss and accuracy of a snapshot over a plane of θ, point by point, kept in a file where they can go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.errors import RunConflictError
from landscape.geometry.eigenpairs import top_eigenpairs
from landscape.interchange.surfaces import (
    StoredSurface,
    computed,
    directions_digest,
    directions_image,
    empty_surface,
    read_directions,
    read_surface,
    surface_image,
)
from landscape.problem.parameter_objective import ParameterObjective
from landscape.problem.plane_directions import random_directions
from landscape.snapshots import Snapshot
from landscape.study.problems import Problem, theta_objective
from landscape.study.surface import RANDOM, Surface, SurfaceConfig
from landscape.study.table import write_atomically

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SurfaceFiles:
    """Where a surface and its directions are."""

    surface: Path
    directions: Path

    @classmethod
    def at(cls, path: Path) -> SurfaceFiles:
        """The directions lie beside the surface."""
        return cls(path, path.with_name(f"{path.stem}_directions{path.suffix}"))


@dataclass(frozen=True)
class Plane:
    """A plane through a snapshot's θ, and what is known of it so far."""

    phi: ParameterObjective
    directions: Tensor  # (2, n)
    stored: StoredSurface

    @property
    def missing(self) -> list[tuple[int, int]]:
        """Places that are not computed yet, row by row."""
        return [(int(i), int(j)) for i, j in np.argwhere(~computed(self.stored))]

    def at(self, i: int, j: int) -> Tensor:
        """θ + x_i δ_x + y_j δ_y, ``(1, n)``."""
        coordinates = torch.tensor([self.stored.x[i], self.stored.y[j]]).to(self.directions)
        return self.phi.origin + coordinates @ self.directions


def open_plane(snapshot: Snapshot, problem: Problem, config: SurfaceConfig, files: SurfaceFiles) -> Plane:
    """Go on with the surface that is stored, or begin it, with its directions on disk.

    Raises:
        RunConflictError: If the files are those of something else.
        SnapshotError: The family of it, for a stored file that is damaged or unsafe.
    """
    phi = theta_objective(problem, config.samples, config.seed)
    settings = _settings(snapshot, problem, config)
    shapes = [tuple(parameter.shape) for parameter in problem.model.parameters()]
    if files.surface.exists():
        stored = read_surface(files.surface)
        directions = read_directions(files.directions, shapes)
        if stored.settings != settings or directions_digest(directions) != stored.directions_sha256:
            raise RunConflictError(
                f"{files.surface} and {files.directions.name} hold a surface of another snapshot, of other "
                "settings, or with other directions. Choose another output."
            )
        return Plane(phi, torch.from_numpy(directions).to(phi.origin), stored)
    if files.directions.exists():
        raise RunConflictError(f"{files.directions} exists without {files.surface.name}. Choose another output.")
    directions = _directions(phi, problem, config).cpu().numpy()
    write_atomically(files.directions, directions_image(directions, shapes))
    empty = empty_surface(config.x.coordinates, config.y.coordinates, settings, directions_digest(directions))
    plane = Plane(phi, torch.from_numpy(directions).to(phi.origin), empty)
    save(plane, files)
    return plane


def compute(plane: Plane) -> Iterator[Plane]:
    """Compute what is missing; yields the plane after each point, one forward pass over the data each."""
    loss, accuracy = plane.stored.loss.copy(), plane.stored.accuracy.copy()
    for i, j in plane.missing:
        value, right = plane.phi.value_and_accuracy(plane.at(i, j))
        loss[i, j], accuracy[i, j] = value.item(), 100 * right.item()
        yield replace(plane, stored=replace(plane.stored, loss=loss.copy(), accuracy=accuracy.copy()))


def save(plane: Plane, files: SurfaceFiles) -> None:
    """Write what is known so far."""
    write_atomically(files.surface, surface_image(plane.stored, files.directions))


def surface_of(plane: Plane, name: str, epoch: int, config: SurfaceConfig) -> Surface:
    """What a plane shows, with the curvature along its directions where they are eigenvectors."""
    directions, stored = plane.directions.double(), plane.stored
    lengths = directions.norm(dim=1)
    curvature = () if config.directions == RANDOM else _curvatures(plane)
    return Surface(
        run=name,
        epoch=epoch,
        config=config,
        x=stored.x,
        y=stored.y,
        loss=stored.loss,
        accuracy=stored.accuracy,
        lengths=(lengths[0].item(), lengths[1].item()),
        cosine=(directions[0] @ directions[1] / lengths.prod()).item(),
        eigenvalues=curvature,
    )


def _directions(phi: ParameterObjective, problem: Problem, config: SurfaceConfig) -> Tensor:
    if config.directions == RANDOM:
        return random_directions(problem.model, 2, config.normalisation, config.biases, config.seed)
    return top_eigenpairs(phi, 2, "LA", config.eigen_tol, config.seed).eigenvectors[0]


def _curvatures(plane: Plane) -> tuple[float, ...]:
    """δᵀ H δ / δᵀδ of both directions."""
    product = plane.phi.linearize(plane.phi.origin)
    values = [(d @ product(d[None])[0] / (d @ d)).item() for d in plane.directions]
    return tuple(values)


def _settings(snapshot: Snapshot, problem: Problem, config: SurfaceConfig) -> str:
    """What a surface is of: equal text, equal surface."""
    subject = {"theta_sha256": snapshot.theta_sha256, "data_sha256": problem.train.sha256}
    model = {"model": snapshot.model, "model_args": snapshot.model_args}
    return json.dumps(subject | model | config.as_settings(), sort_keys=True, ensure_ascii=True)
