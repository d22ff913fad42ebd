"""What a level-set distance in θ is usually taken from: formula, lines, rays, and the path of steepest ascent.

Each function takes an objective φ of one row and ascending levels above φ there, and returns one distance a level,
NaN where it has none. All but the quadratic estimate are lengths of displacements that end on the level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import scipy.optimize
import torch
from torch import Generator, Tensor, nn

from landscape.objectives import Objective

# A ray is followed by factors of this size until it is above the level.
_GROWTH = 1.25


def quadratic_estimates(value: float, eigenvalue: float, levels: Sequence[float]) -> list[float]:
    """√(2 (c − φ*)/λ₁) for each level; a formula, not a point of the level set."""
    if not eigenvalue > 0:
        return [math.nan] * len(levels)
    return [math.sqrt(2 * (c - value) / eigenvalue) if c > value else math.nan for c in levels]


def ray_crossings(phi: Objective, direction: Tensor, levels: Sequence[float], first: float) -> list[float]:
    """Where the ray in ``direction`` ``(n,)`` meets each level, from radius ``first`` outwards."""
    unit = direction.double() / torch.linalg.vector_norm(direction.double())

    def excess(radius: float, level: float) -> float:
        point = (phi.origin[0].double() + radius * unit)[None].to(phi.origin.dtype)
        value = float(phi.value(point)[0])
        return 700.0 if not math.isfinite(value) else math.log(max(value, 1e-300) / level)

    low = first
    while excess(low, levels[0]) >= 0 and low > 1e-9:
        low /= 2
    found: list[float] = []
    for level in levels:
        high = _GROWTH * low
        while excess(high, level) < 0 and high < 1e9:
            low, high = high, _GROWTH * high
        if high >= 1e9:
            return found + [math.nan] * (len(levels) - len(found))
        low = float(scipy.optimize.brentq(excess, low, high, args=(level,), rtol=1e-6, xtol=1e-300))
        found.append(low)
    return found


def shortest_ray(
    phi: Objective, directions: Sequence[Tensor], levels: Sequence[float], first: float
) -> tuple[list[float], list[float]]:
    """For each level the shortest, and the median, of the crossings of several rays."""
    table = torch.tensor([ray_crossings(phi, d, levels, first) for d in directions], dtype=torch.float64)
    table = torch.where(torch.isnan(table), torch.inf, table)
    shortest, middle = table.amin(0), table.sort(0).values[(len(table) - 1) // 2]
    return _or_nan(shortest), _or_nan(middle)


def steepest_ascent(phi: Objective, levels: Sequence[float], step: float, most: int = 2000) -> list[float]:
    """Distance from the origin at which the path of steepest ascent passes each level.

    Steps of length ``step`` at first, then of 2 % of the distance already covered, along the gradient.
    """
    origin = phi.origin[0].double()
    z, found = origin.clone(), [math.nan] * len(levels)
    height, covered = float(phi.value(phi.origin)[0]), 0.0
    for _ in range(most):
        _, gradient = phi.value_and_grad(z[None].to(phi.origin.dtype))
        slope = gradient[0].double()
        z = z + max(step, 0.02 * covered) * slope / torch.linalg.vector_norm(slope)
        above, away = (
            float(phi.value(z[None].to(phi.origin.dtype))[0]),
            float(torch.linalg.vector_norm(z - origin)),
        )
        for i, level in enumerate(levels):
            if height < level <= above and math.isnan(found[i]):
                found[i] = covered + (away - covered) * (level - height) / (above - height)
        height, covered = above, away
        if not math.isnan(found[-1]) or not math.isfinite(above):
            break
    return found


def random_directions(phi: Objective, count: int, seed: int) -> list[Tensor]:
    """Isotropic random directions, ``(n,)`` each."""
    generator, size = Generator().manual_seed(seed), phi.origin.shape[1]
    return [
        torch.randn(size, generator=generator, dtype=torch.float64).to(phi.origin.device) for _ in range(count)
    ]


def filter_normalised(directions: Sequence[Tensor], model: nn.Module) -> list[Tensor]:
    """d_f ← d_f ‖θ_f‖/‖d_f‖ for each filter or neuron f; biases stay where they are (Li et al. 2018, §4)."""
    return [_per_filter(d, model) for d in directions]


def _per_filter(direction: Tensor, model: nn.Module) -> Tensor:
    parts = []
    parameters = list(model.parameters())
    for part, weight in zip(direction.split([p.numel() for p in parameters]), parameters, strict=True):
        if weight.ndim < 2:
            parts.append(torch.zeros_like(part))
            continue
        rows, filters = part.reshape(len(weight), -1), weight.detach().double().reshape(len(weight), -1)
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        parts.append((rows * torch.linalg.vector_norm(filters, dim=1, keepdim=True) / norms).reshape(-1))
    return torch.cat(parts)


def _or_nan(values: Tensor) -> list[float]:
    return [float(v) if math.isfinite(v) else math.nan for v in values]
