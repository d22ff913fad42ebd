"""The masking audit: can the accuracies that rest on gradients be trusted?

It judges measurements, not networks: a network that no attack leaves standing is sound if its gradients say so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from landscape.errors import ConfigurationError
from landscape.robustness.accuracy import BATCH, predict
from landscape.robustness.balls import Ball
from landscape.robustness.draws import Draws
from landscape.robustness.ladder import Ladder, run_ladder
from landscape.robustness.masking import GradientHealth, gradient_health
from landscape.robustness.rungs import QUICK, ladder_rungs
from landscape.robustness.single_step import fast_gradient
from landscape.robustness.verdict import Comparison, Verdict, compare, verdict


@dataclass(frozen=True)
class MaskingAudit:
    """A verdict with its evidence."""

    verdict: Verdict
    health: GradientHealth
    ladder: Ladder
    comparisons: dict[str, Comparison]
    eps: float


def masking_audit(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float = 0.3,
    norm: float = math.inf,
    ladder: Ladder | None = None,
    sibling: nn.Module | None = None,
    draws: Draws | None = None,
) -> MaskingAudit:
    """Audit a network: are its gradients rounded, gone or misleading, and do attacks profit?

    Args:
        model: In eval mode; never changed.
        x: Images ``(N, …)`` in [0, 1].
        y: Labels ``(N,)``.
        eps: Radius at which is judged, above 0.
        norm: 2 or ``math.inf``.
        ladder: Measured on these samples with this norm and radius; a quick one is run if None.
        sibling: Another network for the same task, whose adversarial images are tried, too.
        draws: Random numbers of the samples.

    Raises:
        ObjectiveError: If shapes disagree, or the model is random or lets samples interact.
        ConfigurationError: If images leave [0, 1], or the ladder is of another norm, radius or number of samples.
    """
    ball = Ball(eps, norm)
    if not ball.eps:
        raise ConfigurationError("ε = 0 attacks nothing; audit at a radius above 0, such as 0.3.")
    if ladder is None:
        ladder = run_ladder(model, x, y, [eps], norm, ladder_rungs(norm, QUICK), draws)
    if ladder.norm != norm or ladder.correct.shape[2] != len(y):
        raise ConfigurationError(
            f"the ladder is of norm {ladder.norm} and {ladder.correct.shape[2]} samples, not of norm {norm} and "
            f"{len(y)}; pass the ladder of these samples."
        )
    health = gradient_health(model, x, y, ball, draws)
    transfer = None if sibling is None else transferred(model, sibling, x, y, ball)
    compared = compare(ladder, eps, transfer)
    return MaskingAudit(verdict(health, ladder, eps, transfer), health, ladder, compared, eps)


def transferred(
    model: nn.Module, sibling: nn.Module, x: Tensor, y: Tensor, ball: Ball, batch: int = BATCH
) -> Tensor:
    """Samples that stand under exact FGSM images of another network, ``(N,)`` bool."""
    stands = []
    for images, labels in zip(x.split(batch), y.split(batch), strict=True):
        (result,) = fast_gradient(sibling, images, labels, [ball])
        stands.append(predict(model, result.images) == labels)
    return torch.cat(stands).cpu()
