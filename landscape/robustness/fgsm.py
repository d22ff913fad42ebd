"""The fast gradient sign method, exact and as published."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from landscape.errors import ConfigurationError
from landscape.problem.input_objective import input_objective
from landscape.problem.network import detached

AS_PUBLISHED = "cross_entropy_as_published"
EXACT = "log_odds"
READINGS: dict[Literal["published", "exact"], str] = {"published": AS_PUBLISHED, "exact": EXACT}


def fgsm(model: nn.Module, x: Tensor, y: Tensor, eps: float, loss: str = EXACT) -> Tensor:
    """Adversarial images clip(x + ε sign ∇_x loss, 0, 1), ``(B, …) -> (B, …)`` (Goodfellow et al. 2014).

    Args:
        model: In eval mode; never changed.
        x: Images in [0, 1].
        y: Labels ``(B,)``.
        eps: Radius in the maximum norm, in units of the image range; 0 returns a copy of ``x``.
        loss: ``log_odds`` is FGSM on cross-entropy in exact arithmetic, since ∇CE = (1 − p_y) ∇LO with a
            positive factor; ``margin`` is another attack; ``cross_entropy_as_published`` differentiates
            torch's cross-entropy, averaged over the batch, with the rounding of the model's precision.

    Raises:
        ConfigurationError: If ε is negative or not finite, or ``x`` leaves [0, 1].
    """
    if not 0 <= eps < float("inf"):
        raise ConfigurationError(f"ε = {eps} cannot be an attack radius; pass a finite number ≥ 0, such as 0.3.")
    check_range(x)
    return x.clone() if eps == 0 else perturbed(x, gradient_sign(model, x, y, loss), eps)


def gradient_sign(model: nn.Module, x: Tensor, y: Tensor, loss: str = EXACT) -> Tensor:
    """The direction of FGSM, sign ∇_x loss, which all radii share; arguments as in `fgsm`."""
    check_range(x)
    return loss_gradient(model, x, y, loss).sign()


def perturbed(x: Tensor, sign: Tensor, eps: float) -> Tensor:
    """Images clip(x + ε sign, 0, 1)."""
    return (x + eps * sign).clamp(0, 1)


def check_range(x: Tensor) -> None:
    """Refuse images outside of [0, 1] with a ConfigurationError; NaN is refused too."""
    if not (x.min() >= 0 and x.max() <= 1):
        raise ConfigurationError(
            f"images lie in [{x.min():.3g}, {x.max():.3g}]; attacks work on [0, 1]: normalise inside the model."
        )


def loss_gradient(model: nn.Module, x: Tensor, y: Tensor, loss: str = EXACT) -> Tensor:
    """∇_x of each sample's loss, ``(B, …) -> (B, …)``; arguments as in `fgsm`."""
    if loss == AS_PUBLISHED:
        return published_gradient(model, x, y)
    phi = input_objective(model, x, y, loss)
    return phi.value_and_grad(phi.origin)[1].reshape(x.shape)


def published_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Gradient of torch's mean cross-entropy with respect to the images, as attack libraries compute it."""
    with torch.enable_grad():
        images = x.detach().clone().requires_grad_()
        loss = functional.cross_entropy(functional_call(model, detached(model), (images,)), y)
        return torch.autograd.grad(loss, images)[0]
