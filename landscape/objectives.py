"""The one abstraction: a batch of independent scalar functions φ on Rⁿ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from landscape.errors import ObjectiveError
from landscape.traces import Traces

HessianVectorProduct = Callable[[Tensor], Tensor]


class Objective(Protocol):
    """B independent copies of a scalar function φ on Rⁿ, evaluated row by row.

    Row i of every result depends on row i of ``z`` only: that is what makes input space cheap.
    """

    @property
    def origin(self) -> Tensor:
        """The point whose landscape is looked at, ``(B, n)``."""

    def value(self, z: Tensor) -> Tensor:
        """φ at each row: ``(B, n) -> (B,)``, float64."""

    def value_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """φ and ∇φ at each row: ``(B, n) -> (B,), (B, n)``."""

    def linearize(self, z: Tensor) -> HessianVectorProduct:
        """Hessian-vector product at ``z``, ``(B, n) -> (B, n)`` or ``(m, B, n) -> (m, B, n)``.

        What depends on ``z`` alone is computed once and shared by all products.
        """

    def take(self, rows: Tensor) -> Objective:
        """The objective whose row i is row ``rows[i]`` of this one; rows may repeat, ``(R,)``."""


@runtime_checkable
class SearchForm(Protocol):
    """An objective that names a monotone map of itself in which level sets are easier to find.

    Level sets do not change under a monotone map s: {φ = c} = {s(φ) = s(c)}.
    """

    def search_form(self) -> tuple[Objective, Callable[[Tensor], Tensor]]:
        """The objective s(φ), and s itself for levels."""


@runtime_checkable
class GaussNewtonForm(Protocol):
    """An objective that is a loss of a model's outputs, and so has Gauss–Newton and Fisher matrices."""

    def gauss_newton(self, z: Tensor, kind: str) -> HessianVectorProduct:
        """Product with the matrix of that kind at ``z``, see `landscape.geometry.operators`."""


def search_form(phi: Objective) -> tuple[Objective, Callable[[Tensor], Tensor]]:
    """The monotone reformulation that ``phi`` offers, or ``phi`` itself with the identity."""
    if isinstance(phi, SearchForm):
        return phi.search_form()
    return phi, lambda levels: levels


@dataclass(frozen=True)
class FunctionObjective:
    """Objective over any torch function that treats rows independently."""

    function: Callable[..., Tensor]
    origin: Tensor
    data: tuple[Tensor, ...] = ()

    def value(self, z: Tensor) -> Tensor:
        """φ at each row, ``(B,)``."""
        with torch.no_grad():
            return self.function(z, *self.data).double()

    def value_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """φ and ∇φ at each row; rows are independent, so ∇Σφ holds every row's gradient."""
        with torch.enable_grad():
            point = z.detach().requires_grad_()
            value = self.function(point, *self.data)
            (gradient,) = torch.autograd.grad(value.sum(), point)
        return value.detach().double(), gradient

    def linearize(self, z: Tensor) -> HessianVectorProduct:
        """Hessian-vector product of every row at ``z``."""
        product = Traces().linearize(
            "value", lambda p, *data: self.function(p, *data).sum(), z.detach(), *self.data
        )
        return over_leading_dimension(product, 2)

    def take(self, rows: Tensor) -> FunctionObjective:
        """Select or repeat rows."""
        return FunctionObjective(self.function, self.origin[rows], tuple(d[rows] for d in self.data))


def objective(function: Callable[..., Tensor], origin: Tensor, *data: Tensor) -> FunctionObjective:
    """Objective of a torch function ``f(z, *data) -> (B,)`` for ``z`` of shape ``(B, n)``.

    Args:
        function: Treats each row of ``z`` (and of ``data``) independently.
        origin: Point to look at, ``(B, n)``.
        *data: Tensors with one row per row of ``origin``, such as labels.

    Raises:
        ObjectiveError: If ``origin`` is not a matrix, or f does not return one value per row, the same value when
            it is called again, and the same value for a row alone as for the same row among others.

    """
    if origin.ndim != 2:
        raise ObjectiveError(
            f"origin has shape {tuple(origin.shape)}; pass one row per point, shape (B, n): origin[None] for one."
        )
    phi = FunctionObjective(function, origin.detach(), data)
    value = phi.value(origin)
    if value.shape != origin.shape[:1]:
        raise ObjectiveError(
            f"the function returned shape {tuple(value.shape)} for {len(origin)} rows; "
            f"it must return one value per row, shape ({len(origin)},)."
        )
    first = torch.zeros(min(1, len(origin)), dtype=torch.long, device=origin.device)
    alone = phi.take(first)
    for other, mine, what in (
        (phi.value(origin), value, "when it is called again"),
        (alone.value(alone.origin), value[first], "for a row alone than for the same row among others"),
    ):
        scale = float(mine.abs().nan_to_num(0).amax()) if len(mine) else 0.0
        close = scale * torch.finfo(origin.dtype).eps ** 0.5
        if not torch.allclose(other, mine, rtol=0, atol=close, equal_nan=True):
            raise ObjectiveError(f"the function returns another value {what}; rows must be independent.")
    return phi


def over_leading_dimension(product: HessianVectorProduct, ndim: int) -> HessianVectorProduct:
    """Let a product for ``(B, n)`` also take ``(m, B, n)``, one vector block at a time."""

    def apply(vectors: Tensor) -> Tensor:
        if vectors.ndim == ndim:
            return product(vectors).detach()
        return torch.stack([product(v).detach() for v in vectors])

    return apply
