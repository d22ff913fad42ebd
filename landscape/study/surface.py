"""What a surface over a plane of θ is computed of, and what it shows, as plain numbers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscape.errors import ConfigurationError

RANDOM, EIGENVECTORS = "random", "eigenvectors"
DIRECTIONS = (RANDOM, EIGENVECTORS)


@dataclass(frozen=True)
class Axis:
    """Coordinates from ``low`` to ``high``, both included."""

    low: float = -1.0
    high: float = 1.0
    count: int = 25

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high and self.count >= 2):
            raise ConfigurationError(
                f"an axis from {self.low} to {self.high} with {self.count} points cannot be; pass two numbers in "
                "ascending order and at least 2 points, such as -1:1:25."
            )

    @property
    def coordinates(self) -> NDArray[np.float64]:
        """All of them, ``(count,)``."""
        return np.linspace(self.low, self.high, self.count)


@dataclass(frozen=True)
class SurfaceConfig:
    """Over which plane, at which points, and on how many samples.

    The plane is spanned by two ``random`` directions, normalised as `random_directions` says, or by the two
    leading ``eigenvectors`` of the Hessian, of length 1, so that coordinates are distances in θ.
    """

    directions: str = RANDOM
    normalisation: str = "filter"
    biases: bool = False
    x: Axis = Axis()
    y: Axis = Axis()
    samples: int = 2000
    seed: int = 0
    eigen_tol: float = 1e-2

    def __post_init__(self) -> None:
        if self.directions not in DIRECTIONS:
            raise ConfigurationError(
                f"unknown directions {self.directions!r}; choose one of {', '.join(DIRECTIONS)}."
            )
        if self.samples < 1:
            raise ConfigurationError(f"samples = {self.samples} cannot be; pass a whole number ≥ 1.")

    def as_settings(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Surface:
    """Loss and accuracy over a plane of θ; NaN where the loss is not a number."""

    run: str
    epoch: int
    config: SurfaceConfig
    x: NDArray[np.float64]  # (X,)
    y: NDArray[np.float64]  # (Y,)
    loss: NDArray[np.float64]  # (X, Y) nats
    accuracy: NDArray[np.float64]  # (X, Y) percent
    lengths: tuple[float, float]  # of the directions, in θ
    cosine: float  # of the angle between them
    eigenvalues: tuple[float, ...]  # of the Hessian along them, where they are its eigenvectors
