"""Projected gradient ascent with a fixed step: PGD with restarts, and the momentum iterative method."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from landscape.errors import ConfigurationError
from landscape.robustness.balls import Ball, as_images
from landscape.robustness.draws import Draws, draws_for, random_points
from landscape.robustness.fgsm import EXACT
from landscape.robustness.targets import AttackResult, Standing, target_of, targeted_loss


@dataclass(frozen=True)
class Ascent:
    """How an ascent goes on."""

    loss: str = EXACT
    steps: int = 40
    step_size: float | None = None  # 2.5 ε / steps, which crosses the ball, if None
    restarts: int = 1  # random starts; 0: one start at the image itself
    decay: float = 0.0  # of the momentum

    def __post_init__(self) -> None:
        targeted_loss(self.loss)
        if self.steps < 1 or self.restarts < 0 or not (self.step_size is None or self.step_size > 0):
            raise ConfigurationError(
                f"{self.steps} steps of size {self.step_size} from {self.restarts} starts cannot be; pass at "
                "least one step, a positive size and no negative number of starts."
            )


def pgd(
    model: nn.Module, x: Tensor, y: Tensor, ball: Ball, ascent: Ascent = Ascent(), draws: Draws | None = None
) -> AttackResult:
    """Projected gradient ascent from random starts (Madry et al. 2018); a sample falls at any iterate.

    x_{t+1} = P(x_t + α u(∇ℓ(x_t))) with u the direction of steepest ascent. A sample that fell is attacked no
    further, hence the cost is that of samples that stand. One pass gives the decision at an iterate and the
    gradient of the next step.

    Args:
        model: In eval mode; never changed.
        x: Images ``(N, …)`` in [0, 1].
        y: Labels ``(N,)``.
        ball: Where to look.
        ascent: Loss, steps and starts.
        draws: Random numbers of the samples.

    Raises:
        ObjectiveError: If shapes disagree, or the model is random or lets samples interact.
        ConfigurationError: If images leave [0, 1].
    """
    target = target_of(model, x, y)
    if ball.eps == 0:
        return target.untouched()
    draws, standing = draws_for(x, draws), Standing(target)
    if not ascent.restarts:
        _ascend(standing, standing.rows(), target.x, ball, ascent)
        return standing.result()
    standing.judge_clean()
    for restart in range(ascent.restarts):
        rows = standing.rows()
        if len(rows):
            start = random_points(target.x[rows], ball, draws.take(rows), "start", restart)
            _ascend(standing, rows, start, ball, ascent)
    return standing.result()


def mim(
    model: nn.Module, x: Tensor, y: Tensor, ball: Ball, steps: int = 10, loss: str = EXACT, decay: float = 1.0
) -> AttackResult:
    """Momentum iterative method from the image itself (Dong et al. 2018, eqs. 6 and 7), steps of ε / T.

    g_{t+1} = μ g_t + ∇ℓ / ‖∇ℓ‖₁, x_{t+1} = P(x_t + α u(g_{t+1})). Arguments and errors as in `pgd`.
    """
    size = ball.eps / steps if ball.eps else None
    return pgd(model, x, y, ball, Ascent(loss, steps, size, restarts=0, decay=decay))


def _ascend(standing: Standing, rows: Tensor, points: Tensor, ball: Ball, ascent: Ascent) -> None:
    """Follow samples from given points ``(R, …)`` until they fall or the steps are used up."""
    target, loss = standing.target, targeted_loss(ascent.loss)
    size = ascent.step_size or 2.5 * ball.eps / ascent.steps
    direction = torch.zeros_like(points)
    for _ in range(ascent.steps):
        logits, _, gradient = standing.gradient(rows, points, loss, target.y[rows])
        keep = standing.judge(rows, points, logits)
        if not keep.any():
            return
        rows, points, gradient = rows[keep], points[keep], gradient[keep]
        direction = ascent.decay * direction[keep] + _unit(gradient) if ascent.decay else gradient
        points = ball.project(points + size * ball.steepest(direction), target.x[rows])
    standing.judge(rows, points, standing.query(rows, points))


def _unit(gradient: Tensor) -> Tensor:
    """Gradients of mean magnitude 1; 0 stays 0."""
    scale = gradient.flatten(1).abs().mean(1)
    return gradient / as_images(torch.where(scale > 0, scale, 1), gradient)
