"""Symmetric operators that are known by their products: the Hessian of an Objective and its relatives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from landscape.errors import ConfigurationError, ObjectiveError
from landscape.objectives import GaussNewtonForm, HessianVectorProduct, Objective

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

# uᵀHv and vᵀHu differ by rounding, far below so many √ε.
_ASYMMETRIC = 3

KINDS = ("hessian", "gauss_newton", "fisher", "empirical_fisher")


@dataclass(frozen=True)
class SymmetricOperator:
    """B symmetric matrices A on Rⁿ, in lock-step."""

    product: HessianVectorProduct  # (B, n) -> (B, n), or (m, B, n) -> (m, B, n)
    like: Tensor  # (B, n) of the dtype and on the device of the vectors

    @property
    def shape(self) -> tuple[int, int]:
        """B and n."""
        return len(self.like), self.like.shape[1]

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """A v for ``(B, n)`` or ``(m, B, n)``."""
        return self.product(vectors)

    def restricted(self, variables: slice | Tensor) -> SymmetricOperator:
        """The diagonal block of some variables, such as the parameters of one layer; costs whole products."""
        chosen = variables.cpu() if isinstance(variables, Tensor) else variables
        index = torch.arange(self.like.shape[1])[chosen].to(self.like.device)
        if not len(index):
            raise ConfigurationError(
                f"the variables {variables} are none of {self.like.shape[1]}; name at least one."
            )

        def product(vectors: Tensor) -> Tensor:
            whole = vectors.new_zeros((*vectors.shape[:-1], self.like.shape[1]))
            return self.product(whole.index_copy(-1, index, vectors)).index_select(-1, index)

        return replace(self, product=product, like=self.like[:, index])

    def asymmetry(self, seed: int = 0) -> Tensor:
        """|uᵀAv − vᵀAu| / (‖Au‖ ‖v‖ + ‖Av‖ ‖u‖) for random u and v, ``(B,)``; rounding if A is symmetric."""
        generator = torch.Generator().manual_seed(seed)
        pair = torch.randn((2, *self.like.shape), generator=generator, dtype=torch.float64).to(self.like)
        images = self.product(pair)
        (u, v), (au, av) = pair.double(), images.double()
        size = au.norm(dim=-1) * v.norm(dim=-1) + av.norm(dim=-1) * u.norm(dim=-1)
        difference = ((u * av).sum(-1) - (v * au).sum(-1)).abs()
        return torch.where(difference > 0, difference / size, 0.0)

    def to_scipy(self, row: int = 0) -> LinearOperator:
        """One of the B matrices as a `scipy.sparse.linalg.LinearOperator`, for ``eigsh``, ``cg`` and the like.

        Raises:
            ConfigurationError: If there is no such row.
        """
        from scipy.sparse.linalg import LinearOperator  # noqa: PLC0415

        rows, size = self.shape
        if not -rows <= row < rows:
            raise ConfigurationError(f"row {row} of {rows} cannot be; pass 0 to {rows - 1}.")

        def matvec(vector: Any) -> Any:
            vectors = torch.zeros_like(self.like)
            vectors[row] = torch.as_tensor(vector.reshape(-1)).to(self.like)
            return self.product(vectors)[row].cpu().numpy()

        dtype = torch.empty((), dtype=self.like.dtype).numpy().dtype
        return LinearOperator((size, size), matvec=matvec, rmatvec=matvec, dtype=dtype)


def check_symmetry(asymmetry: Tensor, dtype: torch.dtype) -> None:
    """Refuse products that are not those of a symmetric matrix.

    Raises:
        ObjectiveError: If the asymmetry of some row is beyond rounding.
    """
    if (asymmetry > _ASYMMETRIC * torch.finfo(dtype).eps ** 0.5).any():
        raise ObjectiveError(
            f"the products are not those of a symmetric matrix: uᵀHv and vᵀHu differ by {asymmetry.max():.1e} of "
            f"its size. φ is random, or some second derivative is wrong."
        )


def curvature_operator(phi: Objective, kind: str = "hessian") -> SymmetricOperator:
    """A curvature matrix of φ at its origin, with the forward pass paid once.

    For φ = mean or sum over samples of ℓ(f(z)), with J the Jacobian of f:

    - ``hessian``: ∇²φ.
    - ``gauss_newton``: Jᵀ (∇²ℓ) J, positive semidefinite where ℓ is convex (Schraudolph 2002).
    - ``fisher``: E over labels that the model itself draws of ∇ℓ ∇ℓᵀ. Of cross-entropy it is the Gauss–Newton
      matrix (Martens 2020), and only there it is defined.
    - ``empirical_fisher``: ∇ℓ ∇ℓᵀ with the labels of the data, averaged as φ averages ℓ. Not the Fisher matrix
      (Kunstner et al. 2019).

    Raises:
        ConfigurationError: If the kind is unknown, or φ does not know it.
    """
    if kind not in KINDS:
        raise ConfigurationError(f"kind = {kind!r} is unknown; choose one of {', '.join(KINDS)}.")
    if kind == "hessian":
        return SymmetricOperator(phi.linearize(phi.origin), phi.origin)
    if not isinstance(phi, GaussNewtonForm):
        raise ConfigurationError(
            f"this objective is no loss of a model's outputs, so that it has no {kind} matrix."
        )
    return SymmetricOperator(phi.gauss_newton(phi.origin, kind), phi.origin)


def as_operator(phi: Objective | SymmetricOperator) -> SymmetricOperator:
    """The Hessian of an objective, or the operator itself."""
    return phi if isinstance(phi, SymmetricOperator) else curvature_operator(phi)
