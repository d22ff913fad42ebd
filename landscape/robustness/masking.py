"""What float32 makes of the gradients that attacks follow, sample by sample, and how far they can be followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional

from landscape.problem.losses import log_odds, margin
from landscape.robustness.accuracy import BATCH
from landscape.robustness.balls import Ball
from landscape.robustness.draws import Draws, draws_for
from landscape.robustness.fgsm import EXACT, loss_gradient, published_gradient
from landscape.robustness.targets import Target, target_of

# A logit gradient whose components do not cancel to this share of the largest is rounded: healthy ones cancel to
# 10⁻³ at worst, and in float32 it is 0.2 at margin 15 and above 1 from margin 17 on.
ROUNDED = 0.1


@dataclass(frozen=True)
class GradientHealth:
    """Gradients of N samples as the published attack sees them, in the precision of the model."""

    margin: Tensor  # z_y − max_{k≠y} z_k
    balance: Tensor  # |Σ_k g_k| / max_k |g_k| of torch's cross-entropy, 0 in exact arithmetic; NaN where g = 0
    vanished: Tensor  # bool: the logit gradient is 0
    loss_is_zero: Tensor  # bool: torch's cross-entropy is exactly 0
    cosine: Tensor  # between published and exact input gradient; NaN where one of them is 0
    zero_published: Tensor  # share of components of the published input gradient that are 0
    zero_exact: Tensor  # the same of the exact one
    step_deviation: Tensor  # |ℓ(x + δ) − ℓ(x) − δ·∇ℓ| / (ε ‖∇ℓ‖_q) along FGSM's step, on log-odds; NaN: ∇ℓ = 0
    random_deviation: Tensor  # the same along a random step of the same length
    step_climb: Tensor  # ℓ(x + δ) − ℓ(x) along FGSM's step
    random_climb: Tensor  # the same along the random step

    @property
    def rounded(self) -> Tensor:
        """Samples whose logit gradient lost its true-class term, ``(N,)`` bool."""
        return self.balance > ROUNDED

    @property
    def unreliable(self) -> Tensor:
        """Samples whose published gradient is rounded or gone, ``(N,)`` bool."""
        return self.rounded | self.vanished

    @property
    def exact_is_zero(self) -> Tensor:
        """Samples whose exact input gradient is 0, ``(N,)`` bool."""
        return self.zero_exact == 1

    def margin_quantiles(self, q: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95)) -> tuple[float, ...]:
        """Quantiles of the margins."""
        return tuple(torch.quantile(self.margin, torch.tensor(q, dtype=torch.float64)).tolist())


def gradient_health(
    model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws | None = None, batch: int = BATCH
) -> GradientHealth:
    """Measure the gradients of every sample, at the price of three gradients and three forward passes.

    Σ_k ∂CE/∂z_k = p_1 + … + p_K − 1 = 0 in exact arithmetic. Once p_y rounds to 1 the true-class term is gone and
    the others are not: the balance leaves 0, while no gradient is 0. All results are on the CPU.

    Args:
        model: In eval mode; never changed.
        x: Images ``(N, …)`` in [0, 1].
        y: Labels ``(N,)``.
        ball: Where the linear model is tried; its radius must not be 0.
        draws: Random numbers of the samples.
        batch: Samples over which the published reading takes its mean.

    Raises:
        ObjectiveError: If shapes disagree, or the model is random or lets samples interact.
        ConfigurationError: If images leave [0, 1].
    """
    return gradient_health_by_ball(model, x, y, [ball], draws, batch)[0]


def gradient_health_by_ball(
    model: nn.Module, x: Tensor, y: Tensor, balls: Sequence[Ball], draws: Draws | None = None, batch: int = BATCH
) -> list[GradientHealth]:
    """The same for several balls, which share the gradients; arguments and errors as in `gradient_health`."""
    target_of(model, x, y)
    draws = draws_for(x, draws)
    parts: list[list[dict[str, Tensor]]] = [[] for _ in balls]
    for rows in torch.arange(len(y), device=x.device).split(batch):
        target = target_of(model, x[rows], y[rows])
        exact = loss_gradient(model, target.x, target.y, EXACT)
        columns = _logit_columns(target) | _input_columns(target, exact)
        for ball, found in zip(balls, parts, strict=True):
            found.append(columns | _linearity_columns(target, exact, ball, draws.take(rows)))
    return [_joined(found) for found in parts]


def _joined(parts: Sequence[dict[str, Tensor]]) -> GradientHealth:
    return GradientHealth(
        **{f.name: torch.cat([part[f.name] for part in parts]).cpu() for f in fields(GradientHealth)}
    )


def _logit_columns(target: Target) -> dict[str, Tensor]:
    logits = target.logits(target.x)
    with torch.enable_grad():
        point = logits.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(functional.cross_entropy(point, target.y), point)
    gradient = gradient.double()
    largest = gradient.abs().amax(1)
    return {
        "margin": -margin(logits, target.y).double(),
        "balance": gradient.sum(1).abs() / largest,
        "vanished": largest == 0,
        "loss_is_zero": functional.cross_entropy(logits, target.y, reduction="none") == 0,
    }


def _input_columns(target: Target, exact: Tensor) -> dict[str, Tensor]:
    published = published_gradient(target.model, target.x, target.y)
    a, b = (g.flatten(1).double() for g in (published, exact))
    # Divided by the largest component first: squares of 10⁻²⁰⁰ vanish even in float64.
    a, b = (g / g.abs().amax(1, keepdim=True) for g in (a, b))
    return {
        "cosine": (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)),
        "zero_published": (published.flatten(1) == 0).double().mean(1),
        "zero_exact": (exact.flatten(1) == 0).double().mean(1),
    }


def _linearity_columns(target: Target, gradient: Tensor, ball: Ball, draws: Draws) -> dict[str, Tensor]:
    noise = ball.steepest(draws.normal(tuple(target.x.shape[1:]), "linearity")).to(target.x.dtype)
    start = log_odds(target.logits(target.x), target.y).double()
    dual = {2.0: 2.0, float("inf"): 1.0}[ball.norm]
    most = ball.eps * torch.linalg.vector_norm(gradient.flatten(1).double(), dual, dim=1)
    columns = {}
    for name, direction in (("step", ball.steepest(gradient)), ("random", noise)):
        points = (target.x + ball.eps * direction).clamp(0, 1)
        climb = log_odds(target.logits(points), target.y).double() - start
        predicted = ((points - target.x).double() * gradient.double()).flatten(1).sum(1)
        columns[f"{name}_climb"] = climb
        columns[f"{name}_deviation"] = torch.where(most > 0, (climb - predicted).abs() / most, torch.nan)
    return columns
