"""Directions in parameter space that span the plane of a surface."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from landscape.errors import ConfigurationError

NORMALISATIONS = ("filter", "layer", "none")
# Keeps a filter of norm zero from dividing by it.
_TINY = 1e-10


def random_directions(
    model: nn.Module, count: int, normalisation: str = "filter", biases: bool = False, seed: int = 0
) -> Tensor:
    """Gaussian directions in θ, scaled like the weights, ``(count, n)`` (Li et al. 2018, §4).

    ``filter``: δ_f ← δ_f ‖w_f‖ / ‖δ_f‖ for all weights of an output filter or row f, so that a step of 1 changes
    each filter by its own norm. ``layer``: the same for whole tensors. ``none``: as they are drawn.

    Args:
        model: Never changed.
        count: Number of directions.
        normalisation: A name of ``NORMALISATIONS``.
        biases: Whether one-dimensional parameters move, each as one group; Li et al. leave them where they are.
        seed: Of the draws; the same on all devices.

    Raises:
        ConfigurationError: If the name is unknown.
    """
    if normalisation not in NORMALISATIONS:
        raise ConfigurationError(
            f"unknown normalisation {normalisation!r} of directions; choose one of {', '.join(NORMALISATIONS)}."
        )
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([_direction(model, normalisation, biases, generator) for _ in range(count)])


def _direction(model: nn.Module, normalisation: str, biases: bool, generator: torch.Generator) -> Tensor:
    parts = []
    for parameter in model.parameters():
        drawn = torch.randn(parameter.shape, generator=generator).to(parameter)
        moves = biases or parameter.ndim > 1
        parts.append(_scaled(drawn, parameter.detach(), normalisation) if moves else torch.zeros_like(drawn))
    return torch.cat([part.reshape(-1) for part in parts])


def _scaled(direction: Tensor, weights: Tensor, normalisation: str) -> Tensor:
    if normalisation == "none":
        return direction
    if normalisation == "filter" and weights.ndim > 1:
        factors = _norms(weights) / (_norms(direction) + _TINY)
        scaled: Tensor = direction * factors.reshape(-1, *[1] * (weights.ndim - 1))
        return scaled
    whole: Tensor = direction * (torch.linalg.vector_norm(weights) / (torch.linalg.vector_norm(direction) + _TINY))
    return whole


def _norms(tensor: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(tensor.flatten(1), dim=1)
    return norms
