"""The rungs of the attack ladder, and how hard they try."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Literal

from torch import Tensor, nn

from landscape.errors import ConfigurationError
from landscape.robustness.apgd import apgd_targeted
from landscape.robustness.ascent import Ascent, mim, pgd
from landscape.robustness.balls import Ball
from landscape.robustness.boundary import nearest_boundary
from landscape.robustness.draws import Draws
from landscape.robustness.fgsm import AS_PUBLISHED, EXACT
from landscape.robustness.minimum_norm import carlini_wagner, fab
from landscape.robustness.single_step import fast_gradient, random_noise, random_start_fast_gradient
from landscape.robustness.square import square
from landscape.robustness.targets import AttackResult, target_of

Kind = Literal["clean", "random noise", "single step", "iterative", "black box", "minimum norm"]

# An attack for several balls of one norm: (model, x, y, balls, draws) to one result a ball.
LadderAttack = Callable[[nn.Module, Tensor, Tensor, Sequence[Ball], Draws], list[AttackResult]]

CLEAN, NOISE, BOUNDARY = "clean", "random_noise", "nearest_boundary"
PUBLISHED_STEP, EXACT_STEP, MARGIN_STEP = "fgsm_published", "fgsm_exact", "fgsm_margin"


@dataclass(frozen=True)
class Effort:
    """How hard the rungs try; its cost is in gradient passes a sample that stands."""

    mim_steps: int = 10
    pgd_steps: int = 40
    pgd_restarts: int = 5
    apgd_steps: int = 100  # towards each class
    apgd_classes: int | None = None  # wrong classes, most likely first; all if None
    fab_steps: int = 50  # of one gradient for each class
    queries: int = 1000  # of the Square attack, forward passes
    cw_steps: int = 100  # of each search
    cw_searches: int = 5
    boundary_budget: int = 85  # of the search for the nearest boundary, gradients
    boundary_restarts: int = 2
    boundary_classes: int = 4  # wrong classes towards which it starts


FULL = Effort()
# For audits of many snapshots, and for tests.
QUICK = Effort(5, 10, 1, 10, 3, 5, 100, 20, 2, 40, 0)


@dataclass(frozen=True)
class Rung:
    """One attack of the ladder."""

    name: str
    description: str
    norm: float
    kind: Kind
    white_box: bool
    settings: Mapping[str, object]  # of the attack
    at_once: bool  # whether one call of the attack serves all radii
    attack: LadderAttack = field(repr=False, compare=False)
    images_only: bool = False  # needs inputs (N, C, H, W)
    needs: str | None = None  # an optional library


def ladder_rungs(norm: float = math.inf, effort: Effort = FULL) -> tuple[Rung, ...]:
    """All rungs of a norm in order, weakest idea first."""
    return (
        Rung(CLEAN, "no attack", norm, "clean", False, {}, True, _clean),
        _each(NOISE, "one random point of the sphere", norm, "random noise", random_noise, white_box=False),
        *_single_steps(norm),
        *_iterative(norm, effort),
        *_minimum_norm(norm, effort),
        _black_box(norm, effort),
        *([_carlini_wagner(effort)] if norm == 2 else []),
    )


def _single_steps(norm: float) -> list[Rung]:
    start = "random half step, then FGSM on log-odds"
    return [
        _step(PUBLISHED_STEP, "FGSM as published: float32 cross-entropy, mean of a batch", norm, AS_PUBLISHED),
        _step(EXACT_STEP, "FGSM exact: log-odds", norm, EXACT),
        _step(MARGIN_STEP, "FGSM on the margin", norm, "margin"),
        _each("fgsm_random_start", start, norm, "single step", random_start_fast_gradient),
    ]


def _iterative(norm: float, effort: Effort) -> list[Rung]:
    pgd_effort = {"steps": effort.pgd_steps, "restarts": effort.pgd_restarts}
    apgd_effort = {"steps": effort.apgd_steps, "classes": effort.apgd_classes}
    table: list[tuple[str, str, Callable[..., AttackResult], dict[str, object]]] = [
        ("mim", "momentum iterative method on log-odds", _mim, {"steps": effort.mim_steps}),
        ("pgd_log_odds", "PGD with restarts on log-odds", _pgd, {"loss": EXACT, **pgd_effort}),
        ("pgd_margin", "PGD with restarts on the margin", _pgd, {"loss": "margin", **pgd_effort}),
        ("apgd_targeted", "APGD towards each wrong class", apgd_targeted, {**apgd_effort}),
    ]
    return [
        _each(name, text, norm, "iterative", attack, settings=settings) for name, text, attack, settings in table
    ]


def _minimum_norm(norm: float, effort: Effort) -> list[Rung]:
    text, settings = "fast adaptive boundary, by torchattacks", {"steps": effort.fab_steps}
    search = {
        "budget": effort.boundary_budget,
        "restarts": effort.boundary_restarts,
        "classes": effort.boundary_classes,
    }
    return [
        _nearest("fab", text, norm, fab, settings, images_only=True, needs="torchattacks"),
        _nearest(BOUNDARY, "distance to the decision boundary", norm, nearest_boundary, search),
    ]


def _black_box(norm: float, effort: Effort) -> Rung:
    settings, text = {"queries": effort.queries}, "random search on logits"
    return _each("square", text, norm, "black box", square, settings=settings, white_box=False, images_only=True)


def _carlini_wagner(effort: Effort) -> Rung:
    settings = {"steps": effort.cw_steps, "searches": effort.cw_searches}
    return _nearest("carlini_wagner", "Carlini and Wagner's attack", 2.0, carlini_wagner, settings)


def measurable(rungs: Sequence[Rung], x: Tensor, norm: float) -> tuple[list[Rung], dict[str, str]]:
    """Rungs that can run on these inputs here, and why others cannot."""
    chosen, left_out = [], {}
    for rung in rungs:
        if rung.norm != norm:
            raise ConfigurationError(
                f"rung {rung.name!r} is of norm {rung.norm}, not {norm}; pass rungs of one norm."
            )
        if rung.needs is not None and importlib.util.find_spec(rung.needs) is None:
            left_out[rung.name] = f"{rung.needs} is not installed; pip install 'landscape-torch[attacks]'"
        elif rung.images_only and x.ndim != 4:
            left_out[rung.name] = f"it needs images (N, C, H, W), not inputs of shape {tuple(x.shape)}"
        else:
            chosen.append(rung)
    return chosen, left_out


def _clean(model: nn.Module, x: Tensor, y: Tensor, balls: Sequence[Ball], draws: Draws) -> list[AttackResult]:
    result = target_of(model, x, y).untouched()
    return [result, *[replace(result, num_queries=0 * result.num_queries)] * (len(balls) - 1)]


def _step(name: str, description: str, norm: float, loss: str) -> Rung:
    """One step along the gradient of a loss; all radii share the gradient."""

    def attack(model: nn.Module, x: Tensor, y: Tensor, balls: Sequence[Ball], draws: Draws) -> list[AttackResult]:
        return fast_gradient(model, x, y, balls, loss)

    return Rung(name, description, norm, "single step", True, {"loss": loss}, True, attack)


def _each(
    name: str,
    description: str,
    norm: float,
    kind: Kind,
    attack: Callable[..., AttackResult],
    *,
    settings: Mapping[str, object] = MappingProxyType({}),
    white_box: bool = True,
    images_only: bool = False,
) -> Rung:
    """An attack of one ball, ball by ball."""
    run = partial(attack, **settings)

    def each(model: nn.Module, x: Tensor, y: Tensor, balls: Sequence[Ball], draws: Draws) -> list[AttackResult]:
        return [run(model, x, y, ball, draws=draws) for ball in balls]

    return Rung(name, description, norm, kind, white_box, settings, False, each, images_only)


def _nearest(
    name: str,
    description: str,
    norm: float,
    attack: Callable[..., list[AttackResult]],
    settings: Mapping[str, object],
    *,
    images_only: bool = False,
    needs: str | None = None,
) -> Rung:
    """An attack that serves all balls at once, without random numbers."""
    run = partial(attack, **settings)

    def nearest(model: nn.Module, x: Tensor, y: Tensor, balls: Sequence[Ball], draws: Draws) -> list[AttackResult]:
        return run(model, x, y, balls)

    return Rung(name, description, norm, "minimum norm", True, settings, True, nearest, images_only, needs)


def _mim(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws, steps: int) -> AttackResult:
    return mim(model, x, y, ball, steps=steps)


def _pgd(
    model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws, loss: str, steps: int, restarts: int
) -> AttackResult:
    return pgd(model, x, y, ball, Ascent(loss, steps, restarts=restarts), draws)
