"""Trace, diagonal, Frobenius norm and spectral density of symmetric operators, estimated with their errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from landscape.errors import ConfigurationError, ObjectiveError
from landscape.geometry.operators import SymmetricOperator, as_operator
from landscape.geometry.subspace import Subspace, random_like
from landscape.objectives import Objective

# Points of the grid on which a density is given, and how far it goes beyond the outermost nodes, in kernel widths.
_GRID, _BEYOND = 400, 4.0


@dataclass(frozen=True)
class Estimate:
    """A number (or a vector) of each of B operators, and its standard error."""

    value: Tensor  # (B, …) float64
    standard_error: Tensor  # (B, …) of the mean over probes; 0 where the value is exact
    num_products: int  # products with the operator per row


def trace(phi: Objective | SymmetricOperator, num_products: int = 40, seed: int = 0) -> Estimate:
    """Tr A by XTrace (Epperly, Tropp & Webber 2024, §2.4), ``(B,)``; exact from n products on.

    Half of the products find a subspace that holds most of A, the others what lies in it; each probe in turn looks
    at the rest. The standard error is that of these exchangeable estimates, σ/√m.

    Args:
        phi: An Objective, for its Hessian, or an operator.
        num_products: Products with A, for ``num_products // 2`` probes.
        seed: Of the probes.

    Raises:
        ConfigurationError: If there are less than 4 products.
    """
    operator, generator = as_operator(phi), Generator().manual_seed(seed)
    rows, size = operator.shape
    _check_probes(num_products, 4)
    if num_products >= size:
        diagonal = _exact_diagonal(operator)
        return Estimate(diagonal.sum(1), torch.zeros(rows, dtype=torch.float64, device=diagonal.device), size)
    probes = _spheres(operator, num_products // 2, generator)
    images = _images(operator, probes).transpose(0, 1).double()  # (B, m, n)
    omega = probes.transpose(0, 1).double()
    q, r = torch.linalg.qr(images.mT)
    inner = _images(operator, q.permute(2, 0, 1).to(operator.like)).permute(1, 2, 0).double()  # A Q, (B, n, m)
    estimates = _exchanged(omega, images, q, r, inner)
    spread = estimates.std(1) / math.sqrt(estimates.shape[1])
    return Estimate(estimates.mean(1), spread, 2 * len(probes))


def _exchanged(omega: Tensor, images: Tensor, q: Tensor, r: Tensor, inner: Tensor) -> Tensor:
    """One estimate of the trace for each probe left out of the subspace, ``(B, m)``."""
    _, count, size = omega.shape
    # Column i of R⁻ᵀ is orthogonal to all probes' images but the i-th: without it, Q loses this direction.
    pivots = r.diagonal(dim1=1, dim2=2)
    largest = pivots.abs().amax(1, keepdim=True)
    tiny = torch.where(largest > 0, torch.finfo(r.dtype).eps * largest, 1.0)  # of images that span less than Q
    r = r + torch.diag_embed(torch.where(pivots.abs() < tiny, tiny, 0.0))
    lost = torch.linalg.solve_triangular(r.mT, torch.eye(count, dtype=r.dtype, device=r.device), upper=False)
    lost = lost / torch.linalg.vector_norm(lost, dim=1, keepdim=True)  # (B, m, m), column i
    projected = omega @ q  # (B, m, m), row i: Qᵀω_i
    kept = projected - (projected * lost.mT).sum(-1, keepdim=True) * lost.mT
    rest = omega - kept @ q.mT
    rest_images = images - kept @ inner.mT
    small = q.mT @ inner
    share: Tensor = torch.einsum("bji,bjk,bki->bi", lost, small, lost)
    within = small.diagonal(dim1=1, dim2=2).sum(-1)[:, None] - share
    length = (rest * rest).sum(-1)
    outside = torch.where(length > 0, (size - count + 1) / length, 0.0) * (rest * rest_images).sum(-1)
    result: Tensor = within + outside
    return result


def diagonal(phi: Objective | SymmetricOperator, num_products: int = 40, seed: int = 0) -> Estimate:
    """Diag A by random signs, E[ω ∘ Aω] (Bekas et al. 2007), ``(B, n)``; exact from n products on.

    The variance of entry i is the sum of squares of the other entries of its row.
    """
    return _by_signs(as_operator(phi), num_products, seed, lambda entries: entries)


def block_traces(
    phi: Objective | SymmetricOperator, sizes: Sequence[int], num_products: int = 40, seed: int = 0
) -> Estimate:
    """Traces of consecutive diagonal blocks of the given sizes by random signs, ``(B, len(sizes))``.

    All blocks from the same products, such as those of all parameters of a network; exact from n products on.

    Raises:
        ConfigurationError: If the sizes do not add up to n, or there are less than 2 products.
    """
    operator = as_operator(phi)
    if sum(sizes) != operator.shape[1]:
        raise ConfigurationError(f"blocks of {sum(sizes)} variables do not make up {operator.shape[1]}.")

    def sums(entries: Tensor) -> Tensor:
        return torch.stack([part.sum(-1) for part in entries.split(list(sizes), -1)], -1)

    return _by_signs(operator, num_products, seed, sums)


def _by_signs(
    operator: SymmetricOperator, num_products: int, seed: int, reduce: Callable[[Tensor], Tensor]
) -> Estimate:
    """Mean and standard error of ``reduce(ω ∘ Aω)`` over random signs ω; exact from n products on."""
    generator = Generator().manual_seed(seed)
    _check_probes(num_products, 2)
    if num_products >= operator.shape[1]:
        exact = reduce(_exact_diagonal(operator))
        return Estimate(exact, torch.zeros_like(exact), operator.shape[1])
    mean = squares = torch.zeros((), dtype=torch.float64, device=operator.like.device)
    for number in range(num_products):
        signs = _signs(operator, generator)
        sample = reduce((signs * _images(operator, signs[None])[0]).double())
        difference = sample - mean
        mean = mean + difference / (number + 1)  # Welford 1962
        squares = squares + difference * (sample - mean)
    return Estimate(mean, (squares / (num_products - 1) / num_products).sqrt(), num_products)


def frobenius_norm(phi: Objective | SymmetricOperator, num_products: int = 40, seed: int = 0) -> Estimate:
    """‖A‖_F by random signs, √E‖Aω‖², ``(B,)``; exact from n products on.

    The standard error is carried over from ‖A‖_F² to first order.
    """
    operator, generator = as_operator(phi), Generator().manual_seed(seed)
    _check_probes(num_products, 2)
    rows, size = operator.shape
    if num_products >= size:
        squares = sum(_images(operator, unit[None])[0].double().square().sum(-1) for unit in _units(operator))
        norm = torch.as_tensor(squares).sqrt()
        return Estimate(norm, torch.zeros(rows, dtype=torch.float64, device=norm.device), size)
    samples = torch.stack(
        [
            _images(operator, _signs(operator, generator)[None])[0].double().square().sum(-1)
            for _ in range(num_products)
        ]
    )
    norm = samples.mean(0).sqrt()
    error = samples.std(0) / math.sqrt(num_products)
    return Estimate(norm, torch.where(norm > 0, error / (2 * norm), 0.0), num_products)


@dataclass(frozen=True)
class SpectralDensity:
    """The eigenvalue density of each of B operators, by stochastic Lanczos quadrature; its integral is 1."""

    nodes: Tensor  # (B, s, m) Ritz values of each probe, ascending
    weights: Tensor  # (B, s, m) their weights, which sum to 1 for each probe
    grid: Tensor  # (B, G) eigenvalues λ
    density: Tensor  # (B, G) mean over probes of Σ_j w_j N(λ; θ_j, σ²)
    standard_error: Tensor  # (B, G) of that mean
    width: Tensor  # (B,) σ of the kernel
    num_products: int  # products per row

    def moment(self, power: int) -> Estimate:
        """(1/n) tr A^power with its standard error, ``(B,)``; exact quadrature for powers up to 2 m − 1."""
        samples = (self.weights * self.nodes**power).sum(-1)
        return Estimate(samples.mean(1), samples.std(1) / math.sqrt(samples.shape[1]), self.num_products)


def spectral_density(
    phi: Objective | SymmetricOperator,
    steps: int = 60,
    num_probes: int = 8,
    width: float | None = None,
    seed: int = 0,
) -> SpectralDensity:
    """Density of eigenvalues by stochastic Lanczos quadrature (Golub & Meurant 1994; Lin, Saad & Yang 2016).

    Each probe's Krylov space gives a quadrature whose nodes are its Ritz values and whose weights are the squared
    first components of their vectors. Bases are orthogonalised in full, so that no Ritz value is a ghost.

    Args:
        phi: An Objective, for its Hessian, or an operator.
        steps: Lanczos steps of each probe, at most n.
        num_probes: Independent random probes; their spread is the error.
        width: σ of the Gaussian that smooths the density; by default 1 % of the spectrum's range.
        seed: Of the probes.

    Raises:
        ConfigurationError: If there are less than 2 probes or 1 step, or the width is not positive.
        ObjectiveError: If a product is not finite.
    """
    operator, generator = as_operator(phi), Generator().manual_seed(seed)
    _check_probes(num_probes, 2)
    if steps < 1 or (width is not None and not width > 0):
        raise ConfigurationError(f"steps = {steps}, width = {width} cannot be; pass positive numbers.")
    count = min(steps, operator.shape[1])
    pairs = [_quadrature(operator, count, generator) for _ in range(num_probes)]
    nodes, weights = (torch.stack(x, 1) for x in zip(*pairs, strict=True))
    low, high = nodes.amin((1, 2)), nodes.amax((1, 2))
    spread = torch.where(high > low, high - low, low.abs().clamp_min(1e-300))
    sigma = torch.full_like(low, width) if width is not None else 0.01 * spread
    share = torch.linspace(0, 1, _GRID, dtype=torch.float64, device=low.device)
    first, last = low - _BEYOND * sigma, high + _BEYOND * sigma
    grid = first[:, None] + share * (last - first)[:, None]
    smooth = _smoothed(nodes, weights, grid, sigma)
    error = smooth.std(1) / math.sqrt(num_probes)
    return SpectralDensity(nodes, weights, grid, smooth.mean(1), error, sigma, count * num_probes)


def _quadrature(operator: SymmetricOperator, steps: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Nodes and weights of one probe, ``(B, m), (B, m)``."""
    space = Subspace(operator.product, operator.like, steps, generator)
    space.expand(random_like(operator.like, generator)[None])
    while space.size < steps:
        space.expand(space.images[space.size - 1][None])
    values, vectors = torch.linalg.eigh(space.projected)
    weights: Tensor = vectors[:, 0].square()
    return values, weights


def _smoothed(nodes: Tensor, weights: Tensor, grid: Tensor, sigma: Tensor) -> Tensor:
    """Sums of Gaussians on the grid, one for each probe, ``(B, s, G)``."""
    scaled = (grid[:, None, :, None] - nodes[:, :, None, :]) / sigma[:, None, None, None]
    kernel = torch.exp(-0.5 * scaled**2) / (math.sqrt(2 * math.pi) * sigma[:, None, None, None])
    smooth: Tensor = torch.einsum("bsgm,bsm->bsg", kernel, weights)
    return smooth


def _images(operator: SymmetricOperator, vectors: Tensor) -> Tensor:
    images = operator.product(vectors)
    if not torch.isfinite(images).all():
        raise ObjectiveError("a product is not finite: φ is not twice differentiable here.")
    return images


def _spheres(operator: SymmetricOperator, count: int, generator: Generator) -> Tensor:
    """Probes that are uniform on the sphere of radius √n, ``(m, B, n)``."""
    probes = torch.stack([random_like(operator.like, generator) for _ in range(count)])
    scaled: Tensor = probes * (
        math.sqrt(operator.shape[1]) / torch.linalg.vector_norm(probes, dim=-1, keepdim=True)
    )
    return scaled


def _signs(operator: SymmetricOperator, generator: Generator) -> Tensor:
    return torch.where(random_like(operator.like, generator) > 0, 1.0, -1.0).to(operator.like)


def _units(operator: SymmetricOperator) -> list[Tensor]:
    """All unit vectors, each for every row ``(B, n)``."""
    identity = torch.eye(operator.shape[1], dtype=operator.like.dtype, device=operator.like.device)
    return [unit.expand(operator.shape[0], -1) for unit in identity]


def _exact_diagonal(operator: SymmetricOperator) -> Tensor:
    entries = [_images(operator, unit[None])[0, :, i] for i, unit in enumerate(_units(operator))]
    return torch.stack(entries, 1).double()


def _check_probes(given: int, least: int) -> None:
    if given < least:
        raise ConfigurationError(f"{given} probes or products are too few for an error; pass {least} or more.")
