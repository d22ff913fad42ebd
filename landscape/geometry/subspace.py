"""A growing subspace of each row, its images under a symmetric operator, and what they say of eigenpairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from landscape.errors import ObjectiveError

# A direction whose part outside the subspace is below this many units of rounding is nothing but rounding.
_ROUNDING = 10
# Share of a direction that must be left for it to be orthogonal to working precision after two passes.
_CANCELLED = 0.01


@dataclass(frozen=True)
class RitzPairs:
    """The best approximations of wanted eigenpairs within a subspace."""

    values: Tensor  # (B, k) float64
    vectors: Tensor  # (B, k, n) of length 1
    residuals: Tensor  # (B, k, n) H v − θ v
    errors: Tensor  # (B, k) their norms, float64


class Subspace:
    """Orthonormal bases V ``(m, B, n)`` of B rows in lock-step, with HV and Vᵀ H V."""

    def __init__(
        self, product: Callable[[Tensor], Tensor], like: Tensor, capacity: int, generator: Generator
    ) -> None:
        self.product, self.generator = product, generator
        self.basis = like.new_empty((capacity, *like.shape))
        self.images = torch.empty_like(self.basis)
        self.projected = like.new_empty((len(like), 0, 0), dtype=torch.float64)
        self.size = self.num_products = 0

    @property
    def scale(self) -> Tensor:
        """About the norm of H, ``(B,)``."""
        return self.projected.abs().sum(-1).amax(-1)

    def asymmetry(self) -> Tensor:
        """Largest entry of |Vᵀ H V − (Vᵀ H V)ᵀ| in units of that of |Vᵀ H V|, ``(B,)``."""
        whole = torch.einsum("mbn,sbn->bms", self.basis[: self.size], self.images[: self.size]).double()
        difference = (whole - whole.mT).abs().amax((1, 2))
        return torch.where(difference > 0, difference / whole.abs().amax((1, 2)), 0.0)

    def expand(self, directions: Tensor) -> Tensor:
        """Add directions ``(s, B, n)``; one that lies in the subspace is replaced by a random one.

        Returns:
            Which rows had a direction replaced, ``(B,)`` bool.
        """
        replaced = torch.zeros(directions.shape[1], dtype=torch.bool, device=directions.device)
        first = self.size
        for direction in directions:
            unit, new = self._outside(direction)
            self.basis[self.size] = unit
            self.size += 1
            replaced |= ~new
        added = self.basis[first : self.size]
        self.images[first : self.size] = _finite(self.product(added))
        self.num_products += len(added)
        self._project(first)
        return replaced

    def _outside(self, direction: Tensor) -> tuple[Tensor, Tensor]:
        """The part of a direction outside of the subspace, of length 1, ``(B, n)``, and where there was one."""
        known = self.basis[: self.size]
        length = torch.linalg.vector_norm(direction, dim=-1, keepdim=True)
        rest, left = _orthogonalised(direction / torch.where(length > 0, length, 1.0), known)
        new = left > _ROUNDING * torch.finfo(rest.dtype).eps * known.shape[2] ** 0.5
        if not new.all():
            fresh, _ = _orthogonalised(random_like(rest, self.generator), known)
            rest = torch.where(new[:, None], rest, fresh)
        if not (left > _CANCELLED).all():  # what is left of nearly nothing is not orthogonal enough
            rest, _ = _orthogonalised(rest / torch.linalg.vector_norm(rest, dim=-1, keepdim=True), known)
        return rest / torch.linalg.vector_norm(rest, dim=-1, keepdim=True), new

    def _project(self, first: int) -> None:
        """Extend Vᵀ H V by what has been added since ``first``."""
        added = torch.einsum("mbn,sbn->bms", self.basis[: self.size], self.images[first : self.size]).double()
        grown = added.new_zeros((len(added), self.size, self.size))
        grown[:, :first, :first] = self.projected
        grown[:, :, first:] = added
        grown[:, first:, :first] = added[:, :first].mT
        corner = grown[:, first:, first:]
        grown[:, first:, first:] = (corner + corner.mT) / 2
        self.projected = grown

    def ritz(self, select: Callable[[Tensor], Tensor]) -> RitzPairs:
        """Pairs chosen among ascending Ritz values, ``(B, m) -> (B, k)`` indices."""
        values, weights = torch.linalg.eigh(self.projected)
        chosen = select(values)
        theta = torch.gather(values, 1, chosen)
        mix = torch.gather(weights, 2, chosen[:, None].expand(-1, self.size, -1)).to(self.basis.dtype)
        vectors, images = (torch.einsum("mbn,bmk->bkn", x[: self.size], mix) for x in (self.basis, self.images))
        residuals = images - theta[..., None].to(images.dtype) * vectors
        return RitzPairs(theta, vectors, residuals, torch.linalg.vector_norm(residuals, dim=-1).double())

    def restart(self, select: Callable[[Tensor], Tensor]) -> None:
        """Keep only the Ritz vectors of the chosen Ritz values (thick restart, Wu & Simon 2000)."""
        values, weights = torch.linalg.eigh(self.projected)
        chosen = select(values)
        mix = torch.gather(weights, 2, chosen[:, None].expand(-1, self.size, -1)).to(self.basis.dtype)
        kept = chosen.shape[1]
        for x in (self.basis, self.images):
            x[:kept] = torch.einsum("mbn,bmk->kbn", x[: self.size], mix)
        self.size, self.projected = kept, self.projected[:, :0, :0]
        self._project(0)


def random_like(tensor: Tensor, generator: Generator) -> Tensor:
    """Standard normal numbers, drawn on the CPU so that every device starts alike."""
    return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)


def _orthogonalised(vector: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Remove the basis from ``vector``; twice is enough (Giraud et al. 2005). Returns it with its norm."""
    for _ in range(2):
        coefficients = torch.einsum("mbn,bn->mb", basis, vector)
        vector = vector - torch.einsum("mbn,mb->bn", basis, coefficients)
    return vector, torch.linalg.vector_norm(vector.double(), dim=-1)


def _finite(vectors: Tensor) -> Tensor:
    if not torch.isfinite(vectors).all():
        raise ObjectiveError("a Hessian-vector product is not finite: φ is not twice differentiable here.")
    return vectors
