"""Products with Gauss–Newton and Fisher matrices, as programs that are linear in the vector."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.func import grad, jvp, vjp

from landscape.errors import ConfigurationError

Outputs = Callable[..., Tensor]


def gauss_newton_program(kind: str, outputs: Outputs, losses: Callable[[Tensor, Tensor], Tensor]) -> Outputs:
    """V ↦ Jᵀ (∇²ℓ) J v, or for ``empirical_fisher`` v ↦ Σ ∇ℓ_i (∇ℓ_i · v).

    Args:
        kind: ``gauss_newton``, ``fisher`` or ``empirical_fisher``.
        outputs: f(z, y, *data), of the model, ``(N, K)``.
        losses: ℓ(f, y), ``(N,)``.

    Returns:
        Program of (v, z, y, *data), unscaled.
    """

    def gauss_newton(vector: Tensor, z: Tensor, y: Tensor, *data: Tensor) -> Tensor:
        values, pullback, *_ = vjp(lambda point: outputs(point, y, *data), z)
        moved: Tensor = jvp(lambda point: outputs(point, y, *data), (z,), (vector,))[1]

        def total(f: Tensor) -> Tensor:
            return losses(f, y).sum()

        curved = jvp(grad(total), (values,), (moved,))[1]
        result: Tensor = pullback(curved)[0]
        return result

    def empirical_fisher(vector: Tensor, z: Tensor, y: Tensor, *data: Tensor) -> Tensor:
        def each(point: Tensor) -> Tensor:
            return losses(outputs(point, y, *data), y)

        result: Tensor = vjp(each, z)[1](jvp(each, (z,), (vector,))[1])[0]
        return result

    return empirical_fisher if kind == "empirical_fisher" else gauss_newton


def check_kind(kind: str, loss: str) -> None:
    """Refuse the Fisher matrix of what is no likelihood.

    Raises:
        ConfigurationError: If the loss is not cross-entropy.
    """
    if kind == "fisher" and not loss.startswith("cross_entropy"):
        raise ConfigurationError(
            f"the loss {loss!r} is no likelihood: only of cross-entropy is there a Fisher matrix."
        )
