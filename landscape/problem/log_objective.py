"""The logarithm of a positive objective: same level sets, evenly spaced."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from landscape.objectives import HessianVectorProduct, Objective


@dataclass(frozen=True)
class LogObjective:
    """log φ of a positive objective: ∇ log φ = ∇φ/φ and ∇² log φ = ∇²φ/φ − ∇φ∇φᵀ/φ²."""

    phi: Objective

    @property
    def origin(self) -> Tensor:
        """The point of φ."""
        return self.phi.origin

    def value(self, z: Tensor) -> Tensor:
        """Log φ at each row."""
        return self.phi.value(z).log()

    def value_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Log φ and its gradient at each row."""
        value, gradient = self.phi.value_and_grad(z)
        return value.log(), gradient / value[:, None].to(gradient.dtype)

    def linearize(self, z: Tensor) -> HessianVectorProduct:
        """Hessian-vector product of log φ at ``z``."""
        value, gradient = self.phi.value_and_grad(z)
        product, scale = self.phi.linearize(z), value[:, None].to(gradient.dtype)
        slope = gradient / scale

        def apply(vectors: Tensor) -> Tensor:
            return product(vectors) / scale - slope * (slope * vectors).sum(-1, keepdim=True)

        return apply

    def take(self, rows: Tensor) -> LogObjective:
        """Select or repeat rows."""
        return LogObjective(self.phi.take(rows))
