"""Leading eigenpairs of the Hessian of any Objective, by Lanczos with full reorthogonalisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from landscape.errors import ConfigurationError, ObjectiveError
from landscape.objectives import HessianVectorProduct, Objective

WHICH = ("LA", "SA", "LM", "BE")

# Rows for which one tridiagonal eigenproblem a step is cheap beside the Hessian-vector product.
_FEW_ROWS = 4


@dataclass(frozen=True)
class Eigenpairs:
    """Eigenpairs of B Hessians, with the evidence that they are eigenpairs."""

    eigenvalues: Tensor  # (B, k) float64
    eigenvectors: Tensor  # (B, k, n)
    residuals: Tensor  # (B, k) true ‖Hv − λv‖ / |λ|
    converged: Tensor  # (B, k) bool
    num_hvp: int  # Hessian-vector products per row, those for the residuals included


def top_eigenpairs(
    phi: Objective,
    k: int = 5,
    which: str = "LA",
    tol: float = 1e-3,
    seed: int = 0,
    start: Tensor | None = None,
    max_steps: int | None = None,
) -> Eigenpairs:
    """Eigenpairs of ∇²φ at the origin, of all rows in lock-step (Lanczos 1950; Paige 1972).

    A pair has converged when its true residual obeys ‖Hv − λv‖ ≤ tol |λ|, or when it is zero to the working
    precision, ‖Hv − λv‖ ≤ 10 ε ‖H‖. What has not converged is returned, and marked. Of an eigenvalue that is
    exactly multiple, iterations from one vector see one copy unless the Krylov space is exhausted.

    Args:
        phi: Any Objective; its rows are B independent problems.
        k: Number of pairs; at most n.
        which: ``LA`` largest first, ``SA`` smallest first, ``LM`` largest magnitude first, ``BE`` k − k//2 from
            the upper end, then k//2 from the lower one, outermost first.
        tol: Relative residual at which to stop.
        seed: Of the random start vectors, drawn on the CPU so that every device starts alike.
        start: Start vectors ``(B, n)`` instead, for example an eigenvector of a neighbouring point.
        max_steps: Lanczos steps at most; by default min(n, max(20 k, 200)).

    Raises:
        ConfigurationError: If ``k``, ``which``, ``tol`` or ``max_steps`` make no sense.
        ObjectiveError: If a Hessian-vector product is not finite.
    """
    size = phi.origin.shape[1]
    _check_arguments(k, which, tol, size)
    if max_steps is not None and max_steps < k:
        raise ConfigurationError(f"max_steps = {max_steps} Lanczos steps cannot give {k} pairs; pass {k} or more.")
    generator = Generator().manual_seed(seed)
    first = _random_like(phi.origin, generator) if start is None else start.to(phi.origin)
    steps = min(size, max_steps or max(20 * k, 200))
    product = phi.linearize(phi.origin)
    basis, tridiagonal, used = _lanczos(product, first, k, which, tol, steps, generator)
    values, weights = torch.linalg.eigh(tridiagonal)
    chosen = _select(values, k, which)
    ritz = torch.gather(weights, 2, chosen[:, None].expand(-1, weights.shape[1], -1))
    vectors = torch.einsum("mbn,bmk->bkn", basis, ritz.to(basis.dtype))
    vectors = vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    scale = values.abs().amax(1, keepdim=True)
    return _with_evidence(product, vectors, scale, tol, used)


def _with_evidence(
    product: HessianVectorProduct, vectors: Tensor, scale: Tensor, tol: float, used: int
) -> Eigenpairs:
    """Rayleigh quotients and true residuals of unit vectors, ``(B, k, n)``."""
    images = _finite(product(vectors.transpose(0, 1))).transpose(0, 1)
    eigenvalues = (vectors.double() * images.double()).sum(-1)
    errors = torch.linalg.vector_norm(images.double() - eigenvalues[..., None] * vectors.double(), dim=-1)
    floor = 10 * torch.finfo(vectors.dtype).eps * scale
    residuals = torch.where(errors > 0, errors / eigenvalues.abs(), 0.0)
    converged = errors <= torch.maximum(tol * eigenvalues.abs(), floor)
    return Eigenpairs(eigenvalues, vectors, residuals, converged, used + vectors.shape[1])


def _lanczos(
    product: HessianVectorProduct,
    start: Tensor,
    k: int,
    which: str,
    tol: float,
    steps: int,
    generator: Generator,
) -> tuple[Tensor, Tensor, int]:
    """Orthonormal basis ``(m, B, n)`` and the projected matrix ``(B, m, m)``, grown until k pairs converge."""
    rows, eps = len(start), torch.finfo(start.dtype).eps
    basis = start.new_empty((0, *start.shape))
    vector = start / torch.linalg.vector_norm(start, dim=-1, keepdim=True)
    alphas = betas = start.new_empty((rows, 0), dtype=torch.float64)
    unconfirmed: Tensor | None = None
    while True:
        basis = torch.cat([basis, vector[None]])
        image = _finite(product(vector))
        alphas = torch.cat([alphas, (vector.double() * image.double()).sum(-1, keepdim=True)], 1)
        rest, beta = _orthogonalise(image, basis)
        tridiagonal = _tridiagonal(alphas, betas)
        size = len(basis)
        due = rows <= _FEW_ROWS or size % 5 == 0 or size == steps
        if size == steps:
            return basis, tridiagonal, size
        vector, beta = _next_vector(rest, beta, tridiagonal, basis, generator)
        if size >= k and due and _all_converged(tridiagonal, beta, k, which, tol, eps):
            # Within an exhausted Krylov space all is exact, but what lies outside counts too: look once more.
            if not (beta == 0).any() or _unchanged(unconfirmed, tridiagonal, k, which, tol, eps):
                return basis, tridiagonal, size
            unconfirmed = tridiagonal
        betas = torch.cat([betas, beta[:, None]], 1)


def _orthogonalise(vector: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Remove the basis from ``vector``; twice is enough (Giraud et al. 2005). Returns it with its norm."""
    for _ in range(2):
        coefficients = torch.einsum("mbn,bn->mb", basis, vector)
        vector = vector - torch.einsum("mbn,mb->bn", basis, coefficients)
    return vector, torch.linalg.vector_norm(vector.double(), dim=-1)


def _next_vector(
    rest: Tensor, beta: Tensor, tridiagonal: Tensor, basis: Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    """The next basis vector; where the Krylov space is exhausted, a random one that leaves it (β = 0)."""
    scale = torch.linalg.matrix_norm(tridiagonal, ord=torch.inf)
    exhausted = beta <= 10 * torch.finfo(rest.dtype).eps * scale
    if exhausted.any():
        fresh, _ = _orthogonalise(_random_like(rest, generator), basis)
        rest = torch.where(exhausted[:, None], fresh, rest)
        beta = torch.where(exhausted, 0.0, beta)
    return rest / torch.linalg.vector_norm(rest, dim=-1, keepdim=True), beta


def _all_converged(tridiagonal: Tensor, beta: Tensor, k: int, which: str, tol: float, eps: float) -> bool:
    """Whether the Ritz residuals β |s_m| of the wanted pairs are below half the tolerance in every row."""
    values, weights = torch.linalg.eigh(tridiagonal)
    chosen = _select(values, k, which)
    last = torch.gather(weights[:, -1], 1, chosen).abs() * beta[:, None]
    floor = eps * values.abs().amax(1, keepdim=True)
    return bool((last <= torch.maximum(0.5 * tol * torch.gather(values, 1, chosen).abs(), floor)).all())


def _unchanged(before: Tensor | None, now: Tensor, k: int, which: str, tol: float, eps: float) -> bool:
    """Whether the wanted eigenvalues are those of an earlier, smaller tridiagonal matrix."""
    if before is None:
        return False
    first, second = (
        torch.gather(values, 1, _select(values, k, which)) for values in map(torch.linalg.eigvalsh, (before, now))
    )
    scale = torch.linalg.matrix_norm(now, ord=torch.inf)[:, None]
    return bool(((first - second).abs() <= torch.maximum(tol * second.abs(), 10 * eps * scale)).all())


def _select(values: Tensor, k: int, which: str) -> Tensor:
    """Indices of the wanted eigenvalues among ascending ones, ``(B, m) -> (B, k)``."""
    size = values.shape[1]
    orders: dict[str, Callable[[], Tensor]] = {
        "LA": lambda: torch.arange(size - 1, size - 1 - k, -1),
        "SA": lambda: torch.arange(k),
        "BE": lambda: torch.cat([torch.arange(size - 1, size - 1 - (k - k // 2), -1), torch.arange(k // 2)]),
    }
    if which == "LM":
        return values.abs().argsort(dim=1, descending=True)[:, :k]
    return orders[which]().to(values.device).expand(len(values), -1)


def _tridiagonal(alphas: Tensor, betas: Tensor) -> Tensor:
    return torch.diag_embed(alphas) + torch.diag_embed(betas, 1) + torch.diag_embed(betas, -1)


def _random_like(tensor: Tensor, generator: Generator) -> Tensor:
    return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)


def _finite(vectors: Tensor) -> Tensor:
    if not torch.isfinite(vectors).all():
        raise ObjectiveError("a Hessian-vector product is not finite: φ is not twice differentiable here.")
    return vectors


def _check_arguments(k: int, which: str, tol: float, size: int) -> None:
    if not 1 <= k <= size:
        raise ConfigurationError(
            f"k = {k} eigenpairs of a {size} × {size} Hessian cannot be; pass 1 ≤ k ≤ {size}."
        )
    if which not in WHICH:
        raise ConfigurationError(f"which = {which!r} is unknown; choose one of {', '.join(WHICH)}.")
    if not tol > 0:
        raise ConfigurationError(f"tol = {tol} cannot be; pass a positive number such as 1e-3.")
