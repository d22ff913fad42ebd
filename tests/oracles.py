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


Bounds = tuple[float, float]


def ray_scan(
    function: Callable[[Tensor], Tensor],
    origin: Tensor,
    level: float,
    reach: float,
    norm: float = 2,
    box: Bounds = (-math.inf, math.inf),
) -> float:
    """Distance in the plane to {φ ≥ level} within a box, by looking along rays; inf if beyond ``reach``.

    A polar grid finds the candidates; twice the neighbourhoods of the best angles are scanned more finely.
    """

    def above(points: Tensor) -> Tensor:
        inside = ((points >= box[0]) & (points <= box[1])).all(-1)
        return (function(points) >= level) & inside

    step = 2 * math.pi / 720
    angles = torch.arange(720, dtype=torch.float64) * step
    for _ in range(3):
        radii = _first_crossings(above, origin, reach, angles, norm)
        best = angles[radii.argsort()[:8]]
        angles = (best[:, None] + torch.linspace(-1.2 * step, 1.2 * step, 41, dtype=torch.float64)).reshape(-1)
        shortest, step = float(radii.min()), step / 16
    return shortest


def _first_crossings(
    above: Callable[[Tensor], Tensor], origin: Tensor, reach: float, angles: Tensor, norm: float
) -> Tensor:
    """First grid cell on each ray in which φ passes the level, then bisection inside it."""
    directions = torch.stack([angles.cos(), angles.sin()], 1)
    directions = directions / torch.linalg.vector_norm(directions, norm, dim=1, keepdim=True)
    grid = torch.linspace(0, reach, 121, dtype=torch.float64)
    points = origin + grid[None, :, None] * directions[:, None]
    hits = above(points.reshape(-1, 2)).reshape(len(angles), -1)
    hit = hits.any(1)
    index = hits.to(torch.int64).argmax(1).clamp_min(1)
    low, high = grid[index - 1], grid[index]
    for _ in range(40):
        middle = (low + high) / 2
        over = above(origin + middle[:, None] * directions)
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    return torch.where(hit, high, torch.inf)


def distance_to_hyperplane(
    normal: Tensor, climb: float, norm: float, lower: Tensor | None = None, upper: Tensor | None = None
) -> float:
    """min ‖v‖ with g·v = climb > 0 and lower ≤ v ≤ upper, by duality or linear programming."""
    g = normal.numpy()
    if lower is None or upper is None:
        return climb / float(np.linalg.norm(g, ord={1: math.inf, 2: 2, math.inf: 1}[norm]))
    low, high = lower.numpy(), upper.numpy()
    if norm == 2:  # v = clip(μ g) by the conditions of Karush, Kuhn and Tucker
        end = 1.0
        while g @ np.clip(end * g, low, high) < climb:
            end *= 2
        mu = scipy.optimize.brentq(lambda mu: float(g @ np.clip(mu * g, low, high) - climb), 0.0, end, xtol=1e-15)
        return float(np.linalg.norm(np.clip(mu * g, low, high)))
    size = len(g)
    bounds = np.stack([low, high], 1)
    if norm == 1:  # v = p − q, p and q not negative
        found = scipy.optimize.linprog(  # type: ignore[call-overload]
            np.ones(2 * size),
            A_eq=np.concatenate([g, -g])[None],
            b_eq=[climb],
            bounds=np.concatenate([np.stack([0 * high, high], 1), np.stack([0 * low, -low], 1)]),
        )
    else:  # minimise t with −t ≤ v ≤ t
        one, identity = -np.ones((size, 1)), np.eye(size)
        found = scipy.optimize.linprog(  # type: ignore[call-overload]
            np.append(np.zeros(size), 1.0),
            A_ub=np.block([[identity, one], [-identity, one]]),
            b_ub=np.zeros(2 * size),
            A_eq=np.append(g, 0.0)[None],
            b_eq=[climb],
            bounds=np.concatenate([bounds, [[0, np.inf]]]),
        )
    return float(found.fun)


def distance_to_convex_quadric(matrix: Tensor, climb: float, norm: float) -> float:
    """min ‖v‖ with ½ vᵀHv = climb, for H ⪰ 0: a convex function is largest in a vertex of a polytope."""
    size = len(matrix)
    if norm == 2:
        top = float(torch.linalg.eigvalsh(matrix)[-1])
    elif norm == 1:
        top = float(matrix.diagonal().max())
    else:
        signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=matrix.dtype)] * size)
        top = float(torch.einsum("ki,ij,kj->k", signs, matrix, signs).max())
    return math.sqrt(2 * climb / top)


def distance_by_slsqp(phi: FunctionObjective, level: float, starts: int, seed: int) -> float:
    """min ‖v‖ with φ(origin + v) = level, by sequential quadratic programming from random starts."""
    origin = phi.origin[0]

    def excess(v: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
        return float(phi.value(origin + torch.from_numpy(v)[None])) - level

    def slope(v: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.asarray(phi.value_and_grad(origin + torch.from_numpy(v)[None])[1][0].numpy())

    random = np.random.default_rng(seed)
    best = math.inf
    for _ in range(starts):
        found = scipy.optimize.minimize(  # type: ignore[call-overload]
            lambda v: float(v @ v),
            random.standard_normal(len(origin)),
            jac=lambda v: 2 * v,
            method="SLSQP",
            constraints={"type": "eq", "fun": excess, "jac": slope},
            options={"maxiter": 300, "ftol": 1e-14},
        )
        if abs(excess(found.x)) < 1e-8:
            best = min(best, float(np.linalg.norm(found.x)))
    return best
