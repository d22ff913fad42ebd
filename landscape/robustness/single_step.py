"""Attacks of one gradient or none: the fast gradient method in several readings, and random noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from landscape.robustness.balls import Ball
from landscape.robustness.draws import Draws, draws_for
from landscape.robustness.fgsm import EXACT, loss_gradient
from landscape.robustness.targets import AttackResult, Standing, Target, target_of, targeted_loss


def fast_gradient(
    model: nn.Module, x: Tensor, y: Tensor, balls: Sequence[Ball], loss: str = EXACT
) -> list[AttackResult]:
    """One step of the size of the ball along the steepest ascent of a loss, for several balls of one norm.

    x' = clip(x + ε u, 0, 1), u = sign ∇ℓ in ℓ∞ (Goodfellow et al. 2014) and ∇ℓ/‖∇ℓ‖₂ in ℓ2. All balls share the
    gradient, which is counted once.

    Args:
        model: In eval mode; never changed.
        x: Images ``(N, …)`` in [0, 1].
        y: Labels ``(N,)``.
        balls: Where to look.
        loss: What is differentiated, see `landscape.robustness.fgsm.fgsm`.

    Raises:
        ObjectiveError: If shapes disagree, or the model is random or lets samples interact.
        ConfigurationError: If images leave [0, 1].
    """
    target = target_of(model, x, y)
    gradient = loss_gradient(model, x, y, loss)
    return [_step(target, ball, gradient, int(i == 0)) for i, ball in enumerate(balls)]


def _step(target: Target, ball: Ball, gradient: Tensor, num_gradients: int) -> AttackResult:
    images = (target.x + ball.eps * ball.steepest(gradient)).clamp(0, 1)
    return target.result(
        images, torch.full_like(target.y, num_gradients), torch.full_like(target.y, 1 - num_gradients)
    )


def random_start_fast_gradient(
    model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws | None = None, loss: str = EXACT
) -> AttackResult:
    """A random half step and a half step along the gradient there (R+FGSM, Tramèr et al. 2018, eq. 7).

    x₁ = x + ½ε s with random signs s (ℓ2: a random direction), x' = x₁ + ½ε u(x₁), which never leaves the ball.
    Arguments and errors as in `fast_gradient`.
    """
    target, half = target_of(model, x, y), ball.eps / 2
    standing = Standing(target)
    start = (target.x + half * _direction(target.x, ball, draws, "half step")).clamp(0, 1)
    _, _, gradient = standing.gradient(standing.rows(), start, targeted_loss(loss), target.y)
    standing.images = ball.project(start + half * ball.steepest(gradient), target.x)
    return standing.result()


def random_noise(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws | None = None) -> AttackResult:
    """One random point as far away as the ball allows: a corner in ℓ∞, a point of the sphere in ℓ2.

    It uses nothing of the network: an attack that is weaker than this was misled. Arguments and errors as in
    `fast_gradient`.
    """
    target = target_of(model, x, y)
    images = (target.x + ball.eps * _direction(target.x, ball, draws, "noise")).clamp(0, 1)
    return target.result(images, torch.zeros_like(y), torch.ones_like(y))


def _direction(x: Tensor, ball: Ball, draws: Draws | None, purpose: str) -> Tensor:
    """Random signs in ℓ∞, a uniform direction in ℓ2."""
    return ball.steepest(draws_for(x, draws).normal(tuple(x.shape[1:]), purpose)).to(x.dtype)
