"""Upper bounds of logit differences on a ball of inputs by linear bound propagation (CROWN, Zhang et al. 2018)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from landscape.errors import ModelError
from landscape.problem.normalisation import Normalised
from landscape.robustness.perturbation import Perturbation
from landscape.robustness.relaxations import AFFINE, Affine, Substitution, check_supported, relax

# Numbers in one block of coefficients; a few such blocks are alive at a time (32 MB each in float64).
BLOCK = 2**22

# Every bound is widened by this, absolutely and relatively: far more than the rounding of float64 sums.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Network:
    """A feed-forward network as a list of layers, in float64."""

    layers: tuple[nn.Module, ...]
    shapes: tuple[tuple[int, ...], ...]  # of one input of each layer, and of the logits

    @property
    def width(self) -> int:
        """Size of the largest layer."""
        return max(torch.Size(shape).numel() for shape in self.shapes)


def as_network(model: nn.Module, x: Tensor) -> Network:
    """A float64 copy of a model as a list of layers that fits inputs ``(B, …)``; the model is not changed.

    Raises:
        ModelError: If a layer is not supported, or does not treat each sample for itself.
    """
    layers = tuple(_flatten(copy.deepcopy(model).double().requires_grad_(False)))
    shapes, point = [tuple(x.shape[1:])], x[:1].double()
    for layer in layers:
        check_supported(layer)
        if isinstance(layer, nn.MaxPool2d) and point.ndim != 4:
            raise ModelError(
                f"{layer} is applied to inputs of shape {shapes[-1]}; it needs (channels, height, width)."
            )
        point = layer(point.clone())
        if len(point) != 1:
            raise ModelError(f"{layer} maps one sample to {len(point)}; use layers that keep samples apart.")
        shapes.append(tuple(point.shape[1:]))
    return Network(layers, tuple(shapes))


def _flatten(module: nn.Module) -> Iterator[nn.Module]:
    if type(module) in (nn.Sequential, Normalised):  # each child takes what the one before gives
        for child in module.children():
            yield from _flatten(child)
    else:
        yield module


def difference_bounds(network: Network, y: Tensor, around: Perturbation) -> Tensor:
    """u_k ≥ z_k(x') − z_y(x') for all x' of the perturbation set, ``(B, K)``; exactly 0 for k = y.

    Bounds of the inputs of each non-linear layer come from the same propagation, started at that layer.
    """
    steps: list[Substitution] = []
    interval: tuple[Tensor, Tensor] | None = None
    for layer, shape in zip(network.layers, network.shapes, strict=False):
        if type(layer) in AFFINE:
            steps.append(Affine(layer, shape))
            interval = None
            continue
        if interval is None:
            interval = _interval(network, steps, shape, around)
        steps.append(relax(layer, *interval))
        interval = _widen(layer(interval[0]), layer(interval[1]))
    identity = torch.eye(network.shapes[-1][0], dtype=torch.float64, device=y.device)
    bound = upper_bound(steps, identity - identity[y][:, None], around)
    return torch.where(identity[y] > 0, 0.0, bound + ROUNDING * (1 + bound.abs()))


def upper_bound(steps: Sequence[Substitution], coefficients: Tensor, around: Perturbation) -> Tensor:
    """Maximum over the perturbation set of linear functions of the last step's outputs, from above.

    Args:
        steps: The layers from the inputs to those outputs.
        coefficients: Of M functions, ``(B, M, *outputs)`` or, the same for all samples, ``(1, M, *outputs)``.
        around: The perturbation set.

    Returns:
        Bounds ``(B, M)``.
    """
    constant = torch.zeros(coefficients.shape[:2], dtype=coefficients.dtype, device=coefficients.device)
    for step in reversed(steps):
        coefficients, added = step(coefficients)
        constant = constant + added
    return constant + around.maximum(coefficients.flatten(2))


def _interval(
    network: Network, steps: Sequence[Substitution], shape: tuple[int, ...], around: Perturbation
) -> tuple[Tensor, Tensor]:
    """Bounds of every output of the last step, ``(B, *shape)`` each; a block of outputs at a time."""
    size = torch.Size(shape).numel()
    identity = torch.eye(size, dtype=torch.float64, device=around.center.device)
    lower, upper = [], []
    for rows in identity.split(max(1, BLOCK // (2 * len(around.center) * network.width))):
        coefficients = torch.cat([-rows, rows]).reshape(1, -1, *shape)
        below, above = upper_bound(steps, coefficients, around).chunk(2, dim=1)
        lower.append(-below)
        upper.append(above)
    return _widen(torch.cat(lower, 1).reshape(-1, *shape), torch.cat(upper, 1).reshape(-1, *shape))


def _widen(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    return lower - ROUNDING * (1 + lower.abs()), upper + ROUNDING * (1 + upper.abs())
