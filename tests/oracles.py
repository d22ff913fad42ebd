"""Closed forms and brute force that know nothing of the code under test."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import scipy.optimize
import torch
from torch import Generator, Tensor, nn

from landscape.objectives import FunctionObjective, objective


def rotation(size: int, seed: int) -> Tensor:
    """Random orthogonal matrix, float64."""
    matrix = torch.randn(size, size, generator=Generator().manual_seed(seed), dtype=torch.float64)
    basis, _ = torch.linalg.qr(matrix)
    return torch.as_tensor(basis)


def symmetric(spectrum: Sequence[float] | Tensor, seed: int = 0) -> Tensor:
    """Symmetric matrix with the given eigenvalues in random directions, float64."""
    values = torch.as_tensor(spectrum, dtype=torch.float64)
    basis = rotation(len(values), seed)
    matrix = basis @ torch.diag(values) @ basis.T
    return (matrix + matrix.T) / 2


def quadratic(
    matrices: Tensor, linear: Tensor | None = None, dtype: torch.dtype = torch.float64
) -> FunctionObjective:
    """φ_i(z) = ½ zᵀH_i z + g_iᵀz at the origin 0, for matrices ``(B, n, n)`` and linear terms ``(B, n)``."""
    slope = torch.zeros(matrices.shape[:2]) if linear is None else linear
    return objective(
        lambda z, h, g: 0.5 * torch.einsum("bi,bij,bj->b", z, h, z) + (g * z).sum(-1),
        torch.zeros(matrices.shape[:2], dtype=dtype),
        matrices.to(dtype),
        slope.to(dtype),
    )


def wanted(spectrum: Tensor, k: int, which: str) -> Tensor:
    """The k eigenvalues that ``which`` asks for, in the order promised, by sorting all of them."""
    up = spectrum.sort().values
    down = up.flip(0)
    if which == "LA":
        return down[:k]
    if which == "SA":
        return up[:k]
    if which == "BE":
        return torch.cat([down[: k - k // 2], up[: k // 2]])
    return torch.stack(sorted(up, key=lambda value: -abs(float(value)))[:k])


def distance_to_quadric(matrix: Tensor, slope: Tensor, climb: float) -> float:
    """min ‖δ‖ with gᵀδ + ½ δᵀHδ = climb > 0, by the secular equation.

    Stationarity gives δ = μ (1 − μH)⁻¹ g, and the climb of that δ grows with μ on [0, 1/λ₁), where the second
    order condition 1 − μH ⪰ 0 of the global minimum holds.
    """
    values, basis = np.linalg.eigh(matrix.numpy())
    g = basis.T @ slope.numpy()

    def displacement(mu: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.asarray(mu * g / (1 - mu * values))

    def gap(mu: float) -> float:
        delta = displacement(mu)
        return float(g @ delta + 0.5 * (values * delta) @ delta - climb)

    end = (1 - 1e-13) / values[-1] if values[-1] > 0 else 1e9
    return float(np.linalg.norm(displacement(scipy.optimize.brentq(gap, 0.0, end, xtol=1e-15))))


def linear_model(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Linear classifier with given weights."""
    model = nn.Linear(weight.shape[1], weight.shape[0]).to(weight.dtype)
    with torch.no_grad():
        model.weight.copy_(weight)
        model.bias.copy_(bias)
    return model.eval()


def small_net(sizes: Sequence[int], activation: type[nn.Module], seed: int, gain: float = 1.0) -> nn.Sequential:
    """Dense network in float64 with normal weights of standard deviation gain/√fan_in."""
    random = Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        weight = torch.randn(fan_out, fan_in, generator=random, dtype=torch.float64)
        bias = torch.randn(fan_out, generator=random, dtype=torch.float64)
        layers += [linear_model(gain * weight / math.sqrt(fan_in), 0.5 * gain * bias), activation()]
    return nn.Sequential(*layers[:-1]).eval()


def dense_hessian(function: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    """Hessian of a scalar function by reverse-over-reverse autograd, ``(n,) -> (n, n)``."""
    return torch.autograd.functional.hessian(function, point).detach()  # type: ignore[no-any-return]


def with_parameters(model: nn.Module, vector: Tensor) -> nn.Module:
    """The model itself with its parameters replaced by slices of ``vector``, in order."""
    names = [name for name, _ in model.named_parameters()]
    sizes = [p.numel() for p in model.parameters()]
    for name, part in zip(names, vector.split(sizes), strict=True):
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        shape = getattr(module, leaf).shape
        delattr(module, leaf)
        setattr(module, leaf, part.reshape(shape))
    return model


def ray_scan(function: Callable[[Tensor], Tensor], origin: Tensor, level: float, reach: float) -> float:
    """Distance in the plane from ``origin`` to {φ = level}, by looking along rays; inf if beyond ``reach``.

    A polar grid finds the candidates; twice the neighbourhoods of the best angles are scanned more finely.
    """
    step = 2 * math.pi / 720
    angles = torch.arange(720, dtype=torch.float64) * step
    for _ in range(3):
        radii = _first_crossings(function, origin, level, reach, angles)
        best = angles[radii.argsort()[:8]]
        angles = (best[:, None] + torch.linspace(-1.2 * step, 1.2 * step, 41, dtype=torch.float64)).reshape(-1)
        shortest, step = float(radii.min()), step / 16
    return shortest


def _first_crossings(
    function: Callable[[Tensor], Tensor], origin: Tensor, level: float, reach: float, angles: Tensor
) -> Tensor:
    """First grid cell on each ray in which φ passes the level, then bisection inside it."""
    directions = torch.stack([angles.cos(), angles.sin()], 1)
    grid = torch.linspace(0, reach, 301, dtype=torch.float64)
    points = origin + grid[None, :, None] * directions[:, None]
    above = (function(points.reshape(-1, 2)) >= level).reshape(len(angles), -1)
    hit = above.any(1)
    index = above.to(torch.int64).argmax(1).clamp_min(1)
    low, high = grid[index - 1], grid[index]
    for _ in range(40):
        middle = (low + high) / 2
        over = function(origin + middle[:, None] * directions) >= level
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    return torch.where(hit, high, torch.inf)
