"""Metrics in which distances are measured: ‖D⁻¹(x − origin)‖₂ with a diagonal D."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.errors import ConfigurationError

METRICS = ("euclidean", "elementwise")


def metric_scale(origin: Tensor, metric: str | Tensor) -> Tensor:
    """The metric D as a matrix of one row for all origins, or one for each, float64."""
    if isinstance(metric, Tensor):
        scale = _broadcast(metric, origin)
    elif metric == "euclidean":
        scale = torch.ones((1, 1), dtype=torch.float64, device=origin.device).expand(1, origin.shape[1])
    elif metric == "elementwise":
        scale = origin.double().abs()
    else:
        raise ConfigurationError(
            f"unknown metric {metric!r}; choose one of {', '.join(METRICS)} or pass a tensor."
        )
    if not (torch.isfinite(scale).all() and (scale >= 0).all() and (scale > 0).any(-1).all()):
        raise ConfigurationError("the metric must be finite, non-negative, and positive somewhere in every row.")
    return scale


def _broadcast(metric: Tensor, origin: Tensor) -> Tensor:
    try:
        return metric.to(origin.device, torch.float64).broadcast_to(origin.shape)
    except RuntimeError as error:
        raise ConfigurationError(
            f"a metric of shape {tuple(metric.shape)} does not fit origins of shape {tuple(origin.shape)}."
        ) from error
