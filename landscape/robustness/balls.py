"""The points that an attack may reach: a ball around each image, cut by the range of images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.errors import ConfigurationError

NORMS = (2.0, math.inf)


@dataclass(frozen=True)
class Ball:
    """{x' : ‖x' − x‖_p ≤ ε, 0 ≤ x' ≤ 1} for p in {2, ∞}."""

    eps: float
    norm: float = math.inf

    def __post_init__(self) -> None:
        if not 0 <= self.eps < math.inf:
            raise ConfigurationError(
                f"ε = {self.eps} cannot be an attack radius; pass a finite number ≥ 0, such as 0.3."
            )
        if self.norm not in NORMS:
            raise ConfigurationError(f"norm {self.norm} cannot be attacked in; pass 2 or math.inf.")

    def project(self, points: Tensor, x: Tensor) -> Tensor:
        """Points pulled back into the ball and then into the range, ``(N, …) -> (N, …)``.

        Cutting to the range after the ball does not leave the ball, as ``x`` lies in the range.
        """
        offset = points - x
        if self.norm == math.inf:
            return (x + offset.clamp(-self.eps, self.eps)).clamp(0, 1)
        length = lengths(offset, self.norm)
        return (x + offset * (self.eps / length.clamp_min(_TINY)).clamp_max(1)).clamp(0, 1)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Direction of norm 1 in which a linear function climbs most; 0 where the gradient is 0."""
        if self.norm == math.inf:
            return gradient.sign()
        # Scaled first, or the squares of a small gradient vanish in float32.
        scaled = gradient / as_images(gradient.flatten(1).abs().amax(1).clamp_min(_TINY), gradient)
        return scaled / lengths(scaled, self.norm).clamp_min(_TINY)


# Least divisor: far below any length that matters, and a normal number of float32.
_TINY = 1e-30


def lengths(offset: Tensor, norm: float) -> Tensor:
    """Norm of each row, shaped to broadcast over rows, ``(N, …) -> (N, 1, …)``."""
    return as_images(torch.linalg.vector_norm(offset.flatten(1), norm, dim=1), offset)


def distances(points: Tensor, x: Tensor, norm: float) -> Tensor:
    """Distance of each point from its image, in float64, ``(N, …), (N, …) -> (N,)``."""
    distance: Tensor = torch.linalg.vector_norm((points.double() - x.double()).flatten(1), norm, dim=1)
    return distance


def as_images(values: Tensor, images: Tensor) -> Tensor:
    """One value an image, shaped to broadcast over images, ``(N,) -> (N, 1, …)``."""
    return values.reshape(-1, *[1] * (images.ndim - 1))
