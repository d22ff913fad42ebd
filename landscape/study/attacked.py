"""What figures of attacks show, as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Line:
    """Accuracy against the radius."""

    eps: tuple[float, ...]
    accuracy: tuple[float, ...]


@dataclass(frozen=True)
class AccuracyCurves:
    """Accuracy against the radius under each rung."""

    norm: float
    num_samples: int
    rungs: Mapping[str, tuple[str, Line]]  # kind and line by name
    boundary: Line | None  # share beyond each radius of the decision boundary, also between measured radii
    worst: Line


@dataclass(frozen=True)
class Examples:
    """Images with their adversarial images by attack, ``(N, H, W)`` or ``(N, H, W, C)``, and predictions."""

    eps: float
    norm: float
    images: NDArray[Any]
    labels: tuple[int, ...]
    attacked: Mapping[str, NDArray[Any]]
    predictions: Mapping[str, tuple[int, ...]]
