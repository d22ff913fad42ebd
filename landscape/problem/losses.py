"""Per-sample losses of logits ``(N, K)`` and labels ``(N,)``, exact where float32 cross-entropy rounds.

With LO = logsumexp_{k≠y} z_k − z_y, cross-entropy is softplus(LO) and ∇CE = (1 − p_y) ∇LO. In torch's
formulation p_y rounds to 1 at margins above 16 in float32 (37 in float64), and the gradient loses its
true-class term; in this one it does not.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from landscape.errors import ConfigurationError

Loss = Callable[[Tensor, Tensor], Tensor]

# exp(80) is finite in float32, so softplus never switches to its linear branch too early.
_SOFTPLUS_THRESHOLD = 80.0


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-odds against the true class: LO = logsumexp_{k≠y} z_k − z_y, ``(N, K), (N,) -> (N,)``."""
    others, true = _split(logits, labels)
    return torch.logsumexp(others, dim=1) - true


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative margin max_{k≠y} z_k − z_y; 0 is the decision boundary, ``(N, K), (N,) -> (N,)``."""
    others, true = _split(logits, labels)
    return others.amax(dim=1) - true


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy as softplus(LO), without rounding on confident samples, ``(N, K), (N,) -> (N,)``."""
    return functional.softplus(log_odds(logits, labels), threshold=_SOFTPLUS_THRESHOLD)


def cross_entropy_as_published(logits: Tensor, labels: Tensor) -> Tensor:
    """Torch's own cross-entropy, with its rounding, ``(N, K), (N,) -> (N,)``."""
    return functional.cross_entropy(logits, labels, reduction="none")


LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "log_odds": log_odds,
    "margin": margin,
    "cross_entropy_as_published": cross_entropy_as_published,
}

# Losses that are positive everywhere, so that their logarithm exists.
POSITIVE_LOSSES = ("cross_entropy", "cross_entropy_as_published")


def loss_by_name(name: str) -> Loss:
    """Look up a loss; raises ConfigurationError for an unknown name."""
    if name not in LOSSES:
        raise ConfigurationError(f"unknown loss {name!r}; choose one of {', '.join(LOSSES)}.")
    return LOSSES[name]


def loss_and_logit_gradient(loss: Callable[..., Tensor], logits: Tensor, *labels: Tensor) -> tuple[Tensor, Tensor]:
    """A loss ``(N,)`` and its gradient by the logits ``(N, K)``, in the same bits as autograd has them.

    ∂LO/∂z_k = exp(z_k − logsumexp_{j≠y} z_j) for k ≠ y, and −1 for k = y. Other losses are left to autograd.
    """
    if loss is log_odds:
        others, true = _split(logits.detach(), *labels)
        total = torch.logsumexp(others, dim=1)
        return total - true, (others - total[:, None]).exp().scatter(1, labels[0][:, None], -1.0)
    with torch.enable_grad():
        point = logits.detach().requires_grad_()
        losses = loss(point, *labels)
        (gradient,) = torch.autograd.grad(losses.sum(), point)
    return losses.detach(), gradient


def log_odds_level(levels: Tensor) -> Tensor:
    """Level of log-odds at which cross-entropy is c: LO = log(eᶜ − 1).

    Written as c + log(1 − e⁻ᶜ), which neither overflows for large c nor cancels for small c.
    """
    return levels + torch.log(-torch.expm1(-levels))


def _split(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits with the true class masked by −∞, and the true logit."""
    index = labels[:, None]
    return logits.scatter(1, index, float("-inf")), logits.gather(1, index)[:, 0]
