"""Attacks that look for the nearest adversarial image: Carlini–Wagner in ℓ2, and FAB of torchattacks.

One run says for every radius which samples fall: those whose adversarial image lies within it.
"""

from __future__ import annotations

import copy
import importlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType

import torch
from torch import Tensor, nn

from landscape.errors import ConfigurationError
from landscape.problem.losses import margin
from landscape.problem.network import channels_last
from landscape.robustness.balls import Ball, as_images, distances
from landscape.robustness.targets import AttackResult, Standing, Target, target_of, wrong

# Images are shrunk into (−1, 1), so that atanh is finite. The published code shrinks by 10⁻⁶; a black pixel then
# starts where tanh is so flat that Adam needs most of its steps to leave. This moves no pixel by more than 0.0005.
_INSIDE = 1 - 1e-3

# Adam's constants.
_BETA1, _BETA2, _ADAM_EPS = 0.9, 0.999, 1e-8

# Steps of FAB's first pass, which finds most samples; only those still standing get all steps.
_FAB_FIRST = 5


def carlini_wagner(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    balls: Sequence[Ball],
    steps: int = 100,
    searches: int = 5,
    learning_rate: float = 0.1,
    constant: float = 1.0,
) -> list[AttackResult]:
    """Carlini and Wagner's ℓ2 attack (2017, §V.A): min ‖x' − x‖² + c max(margin, 0), x' = (1 + tanh w) / 2.

    Adam on w; c grows tenfold for samples for which nothing was found, and is halved in between for the others, as
    published. A sample within the smallest radius asked for is searched no further.

    Args:
        model: In eval mode; never changed.
        x: Images ``(N, …)`` in [0, 1].
        y: Labels ``(N,)``.
        balls: Where to look; ℓ2.
        steps: Of Adam for each c.
        searches: Values of c.
        learning_rate: Of Adam.
        constant: First c.

    Raises:
        ObjectiveError: If shapes disagree, or the model is random or lets samples interact.
        ConfigurationError: If images leave [0, 1], balls are not ℓ2, or steps or searches are not positive.
    """
    if any(ball.norm != 2 for ball in balls) or steps < 1 or searches < 1:
        raise ConfigurationError(
            f"{steps} steps of {searches} searches in norms {[ball.norm for ball in balls]} cannot be; pass whole "
            "numbers ≥ 1 and balls of norm 2."
        )
    nearest = Nearest(target_of(model, x, y), balls)
    low, high = torch.zeros_like(nearest.distance), torch.full_like(nearest.distance, torch.inf)
    c = torch.full_like(nearest.distance, constant)
    for _ in range(searches):
        rows = nearest.open()
        if not len(rows):
            break
        found = _adam(nearest, rows, c[rows].to(x.dtype), steps, learning_rate)
        high[rows] = torch.where(found, c[rows], high[rows])
        low[rows] = torch.where(found, low[rows], c[rows])
        c = torch.where(high.isinf(), c * 10, (low + high) / 2)
    return nearest.results()


def _adam(nearest: Nearest, rows: Tensor, c: Tensor, steps: int, learning_rate: float) -> Tensor:
    """One search with given c, ``(R,)``; whether any point was adversarial."""
    x, y = nearest.target.x[rows], nearest.target.y[rows]
    w = torch.atanh((2 * x - 1) * _INSIDE)
    first, second = torch.zeros_like(w), torch.zeros_like(w)
    found = torch.zeros_like(rows, dtype=torch.bool)
    place = torch.arange(len(rows), device=rows.device)  # of the samples that are left, among the rows
    for step in range(1, steps + 1):
        points = (1 + torch.tanh(w)) / 2
        logits, _, gradient = nearest.standing.gradient(rows[place], points, _hinge, c[place])
        fell = wrong(logits, y[place])
        found[place[fell]] = True
        nearest.keep(rows[place[fell]], points[fell])
        left = ~nearest.done(rows[place])
        if not left.any():
            break
        place, points, gradient, w, first, second = (t[left] for t in (place, points, gradient, w, first, second))
        total = 2 * (points - x[place]) + gradient
        slope = total * 2 * points * (1 - points)  # dx'/dw = (1 − tanh²) / 2
        first = _BETA1 * first + (1 - _BETA1) * slope
        second = _BETA2 * second + (1 - _BETA2) * slope.square()
        size = learning_rate * math.sqrt(1 - _BETA2**step) / (1 - _BETA1**step)
        w = w - size * first / (second.sqrt() + _ADAM_EPS)
    return found


def _hinge(logits: Tensor, y: Tensor, c: Tensor) -> Tensor:
    return c * (-margin(logits, y)).clamp_min(0)


def fab(model: nn.Module, x: Tensor, y: Tensor, balls: Sequence[Ball], steps: int = 50) -> list[AttackResult]:
    """Fast adaptive boundary attack towards the nearest class (Croce and Hein 2020), by torchattacks, no restart.

    Without a random start it is deterministic, and samples do not interact. It works in float32 on a frozen copy
    of the network. K gradients a step. A sample that falls within the smallest radius in the first few steps is
    not searched further. Arguments and errors as in `carlini_wagner`, for ℓ2 and ℓ∞.

    Raises:
        ConfigurationError: If torchattacks is not installed.
    """
    norms = {ball.norm for ball in balls}
    if len(norms) > 1 or steps < 1 or x.ndim != 4:
        raise ConfigurationError(
            f"{steps} steps on inputs of shape {tuple(x.shape)} in norms {sorted(norms)} cannot be; pass images "
            "(N, C, H, W), one norm and a number of steps ≥ 1."
        )
    library = load_torchattacks()
    nearest = Nearest(target_of(model, x, y), balls)
    norm = {2.0: "L2", math.inf: "Linf"}[nearest.norm]
    network = _Frozen(model)
    for count in sorted({min(_FAB_FIRST, steps), steps}):
        rows = nearest.open()
        if len(rows):
            attack = library.FAB(network, norm=norm, steps=count)
            images = attack.attack_single_run(nearest.target.x[rows], y[rows]).to(x.dtype)
            nearest.standing.num_gradients[rows] += count * network.classes
            nearest.standing.num_queries[rows] += count
            fell = wrong(nearest.standing.query(rows, images), y[rows])
            nearest.keep(rows[fell], images[fell])
    return nearest.results()


def load_torchattacks() -> ModuleType:
    """The optional library.

    Raises:
        ConfigurationError: If it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its dependencies
            return importlib.import_module("torchattacks")
    except ImportError as error:
        raise ConfigurationError(
            "torchattacks is not installed, and FAB needs it; pip install 'landscape-torch[attacks]', or leave "
            "FAB out."
        ) from error


class _Frozen(nn.Module):
    """A copy of a network that torchattacks may do with what it likes, in float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(model).float().requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)
        self.classes = 0

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(channels_last(x))
        self.classes = logits.shape[1]
        return logits


class Nearest:
    """The nearest adversarial image of each sample so far."""

    def __init__(self, target: Target, balls: Sequence[Ball]) -> None:
        if not balls:
            raise ConfigurationError("there is no ball to attack in; pass at least one.")
        self.target, self.balls, self.norm = target, balls, balls[0].norm
        self.standing = Standing(target)
        self.standing.judge_clean()
        self.images = target.x.clone()
        self.distance = torch.where(self.standing.fell, 0.0, math.inf).double()
        self.enough = min((ball.eps for ball in balls if ball.eps > 0), default=math.inf)

    def done(self, rows: Tensor) -> Tensor:
        """Which samples lie within the smallest radius."""
        return self.distance[rows] <= self.enough

    def open(self) -> Tensor:
        """Samples that may be searched further."""
        return (self.distance > self.enough).nonzero()[:, 0]

    def keep(self, rows: Tensor, points: Tensor) -> None:
        """Take note of adversarial images."""
        distance = distances(points, self.target.x[rows], self.norm)
        nearer = distance < self.distance[rows]
        self.distance[rows[nearer]] = distance[nearer]
        self.images[rows[nearer]] = points[nearer]

    def results(self) -> list[AttackResult]:
        """Results for each radius; all cost is counted at the first."""
        results = []
        for place, ball in enumerate(self.balls):
            within = as_images(self.distance <= ball.eps, self.images)
            images = torch.where(within, self.images, self.target.x)
            counts = self.standing.num_gradients, self.standing.num_queries
            if place:
                counts = torch.zeros_like(counts[0]), torch.zeros_like(counts[1])
            results.append(replace(self.target.result(images, *counts), nearest=self.distance))
        return results
