"""Metrics of parameter space: in which units the distance between two parameter vectors is measured.

A metric is the diagonal D of ‖D⁻¹δ‖₂, one scale for each parameter. Where it is zero, a parameter stays as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from landscape.errors import ConfigurationError

METRICS = ("euclidean", "elementwise", "filter", "layer")


def parameter_metric(model: nn.Module, metric: str, biases: bool = True) -> Tensor:
    """Diagonal D of the metric ‖D⁻¹δ‖₂ on θ, ``(n,)`` in the order of `landscape.problem.network.ravel`.

    ``euclidean``: D = 1. ``elementwise``: D = |θ|, the only one that no rescaling of the units of a ReLU network
    changes (Dinh et al. 2017; Kwon et al. 2021); zeros stay where they are. ``filter``: ‖w_f‖₂ for all weights of
    an output filter or row f, so that ‖D⁻¹δ‖² = Σ_f ‖δ_f‖²/‖w_f‖² (Li et al. 2018). ``layer``: ‖W‖₂ for all
    entries of a parameter tensor (Stutz et al. 2021, where biases are layers of their own, too). In both, a
    one-dimensional parameter is one group. What has norm zero stays where it is.

    Args:
        model: Never changed.
        metric: A name of ``METRICS``.
        biases: Whether one-dimensional parameters, which are biases and the scales of normalisation, may move.

    Raises:
        ConfigurationError: If the name is unknown, or the scale vanishes everywhere.
    """
    if metric not in METRICS:
        raise ConfigurationError(f"unknown metric {metric!r} of parameters; choose one of {', '.join(METRICS)}.")
    parameters = [p.detach() for p in model.parameters()]
    scales = [_scale(p, metric) if biases or p.ndim > 1 else torch.zeros_like(p) for p in parameters]
    scale = torch.cat([s.reshape(-1) for s in scales]) if scales else torch.empty(0)
    if not (scale > 0).any():
        raise ConfigurationError(
            f"in the metric {metric!r} with biases = {biases} every parameter of the model has scale zero, so "
            "that none can move; choose another metric, or a model with weights other than zero."
        )
    return scale


def _scale(parameter: Tensor, metric: str) -> Tensor:
    """Scale of each entry of one parameter tensor, in its shape."""
    if metric == "euclidean":
        return torch.ones_like(parameter)
    if metric == "elementwise":
        return parameter.abs()
    if metric == "filter" and parameter.ndim > 1:
        norms: Tensor = torch.linalg.vector_norm(parameter.flatten(1), dim=1)
        return norms.reshape(-1, *[1] * (parameter.ndim - 1)).expand_as(parameter)
    norm: Tensor = torch.linalg.vector_norm(parameter)
    return norm.expand_as(parameter)
