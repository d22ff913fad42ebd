"""φ over the parameters, one row a sample: the loss of each sample alone as a function of θ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, jvp, vmap

from landscape.objectives import HessianVectorProduct, Objective, over_leading_dimension
from landscape.problem.losses import POSITIVE_LOSSES, log_odds_level, loss_by_name
from landscape.problem.network import parameter_views

# Numbers alive at once in the parameters of the rows of one pass and in what is computed from them: as many rows
# go together as fit, each with its parameters, its gradient, and two vectors for what lies between.
_ALIVE = 2**26
_VECTORS = 4


@dataclass(frozen=True)
class SampleParameterObjective:
    """φ_i(θ) = loss of sample i; rows are points of parameter space, one a sample.

    Build it with ``parameter_objective(..., per_sample=True)``.
    """

    model: nn.Module
    x: Tensor  # (B, …)
    y: Tensor  # (B,)
    loss: str
    theta: Tensor  # (n,)

    @property
    def origin(self) -> Tensor:
        """θ for every sample, ``(B, n)``: a view of one vector."""
        return self.theta.expand(len(self.y), -1)

    @property
    def chunk(self) -> int:
        """Rows in one pass."""
        return max(1, _ALIVE // (_VECTORS * len(self.theta)))

    def value(self, z: Tensor) -> Tensor:
        """φ_i at each row, ``(B, n) -> (B,)``, float64."""
        if not len(z):
            return z.new_empty(0, dtype=torch.float64)
        with torch.no_grad():
            return torch.cat([vmap(self._loss)(*part).double() for part in self._chunks(z)])

    def value_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """φ_i and ∇φ_i at each row, ``(B, n) -> (B,), (B, n)``."""
        if not len(z):
            return self.value(z), z
        pairs = [vmap(grad_and_value(self._loss))(*part) for part in self._chunks(z.detach())]
        return torch.cat([v.detach().double() for _, v in pairs]), torch.cat([g.detach() for g, _ in pairs])

    def linearize(self, z: Tensor) -> HessianVectorProduct:
        """Hessian-vector product of every row at ``z``: B Hessians in one call.

        Each product passes through the network anew: to trace many networks at once takes longer than that.
        """
        parts = [(part.contiguous(), x, y) for part, x, y in self._chunks(z.detach())]

        def apply(vectors: Tensor) -> Tensor:
            pairs = zip(parts, vectors.split(self.chunk), strict=True)
            return torch.cat([self._product(*part, v) for part, v in pairs])

        return over_leading_dimension(apply, 2)

    def take(self, rows: Tensor) -> SampleParameterObjective:
        """Select or repeat samples."""
        return replace(self, x=self.x[rows], y=self.y[rows])

    def search_form(self) -> tuple[Objective, Callable[[Tensor], Tensor]]:
        """Log-odds for cross-entropy: {CE = c} = {LO = log(eᶜ − 1)}, which does not flatten out where CE does."""
        if self.loss in POSITIVE_LOSSES:
            return replace(self, loss="log_odds"), log_odds_level
        return self, lambda levels: levels

    def _chunks(self, z: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return zip(z.split(self.chunk), self.x.split(self.chunk), self.y.split(self.chunk), strict=True)

    def _loss(self, row: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Loss of one sample at one point, a scalar."""
        logits = functional_call(self.model, parameter_views(self.model, row), (x[None],))
        return loss_by_name(self.loss)(logits, y[None])[0]

    def _product(self, rows: Tensor, x: Tensor, y: Tensor, vectors: Tensor) -> Tensor:
        """Forward over reverse: ∂/∂t ∇φ_i(z + t v) at t = 0 (Pearlmutter 1994)."""
        gradient = vmap(grad(self._loss))
        product: Tensor = jvp(lambda z: gradient(z, x, y), (rows,), (vectors,))[1]
        return product.detach()
