"""The attack ladder: one network under every attack, from noise to the strongest, sample by sample."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import scipy.stats
import torch
from torch import Tensor, nn

from landscape.errors import ConfigurationError
from landscape.robustness.accuracy import BATCH
from landscape.robustness.apgd import apgd_targeted
from landscape.robustness.ascent import Ascent, mim, pgd
from landscape.robustness.balls import Ball
from landscape.robustness.draws import Draws, draws_for
from landscape.robustness.fgsm import AS_PUBLISHED, EXACT
from landscape.robustness.minimum_norm import carlini_wagner, fab
from landscape.robustness.single_step import fast_gradient, random_noise, random_start_fast_gradient
from landscape.robustness.square import square
from landscape.robustness.targets import AttackResult, target_of

Kind = Literal["clean", "random noise", "single step", "iterative", "black box", "minimum norm"]

# An attack for several balls of one norm: (model, x, y, balls, draws) to one result a ball.
LadderAttack = Callable[[nn.Module, Tensor, Tensor, Sequence[Ball], Draws], list[AttackResult]]

CLEAN, NOISE = "clean", "random_noise"
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


# For audits of many snapshots, and for tests.
QUICK = Effort(5, 10, 1, 10, 3, 5, 100, 20, 2)


@dataclass(frozen=True)
class Rung:
    """One attack of the ladder."""

    name: str
    description: str
    norm: float
    kind: Kind
    white_box: bool
    attack: LadderAttack = field(repr=False, compare=False)
    images_only: bool = False  # needs inputs (N, C, H, W)
    needs: str | None = None  # an optional library


@dataclass(frozen=True)
class Ladder:
    """Which samples stand under which attack at which radius; every rung is measured by itself."""

    rungs: tuple[Rung, ...]  # R
    eps: tuple[float, ...]  # E
    norm: float
    correct: Tensor  # (R, E, N) bool
    num_gradients: Tensor  # (R, E) backward passes of all samples together
    num_queries: Tensor  # (R, E) further forward passes
    left_out: dict[str, str]  # rungs that could not be measured, and why

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the rungs in order."""
        return tuple(rung.name for rung in self.rungs)

    @property
    def accuracy(self) -> Tensor:
        """Share of samples that stand, ``(R, E)``."""
        return self.correct.double().mean(2)

    @property
    def standard_error(self) -> Tensor:
        """Binomial standard error √(p (1 − p) / N) of each accuracy, ``(R, E)``."""
        return _standard_error(self.accuracy, self.correct.shape[2])

    @property
    def worst(self) -> Tensor:
        """Samples that stand under all rungs, ``(E, N)``.

        A smaller ball lies within a larger one: what fell in it has fallen in the larger one, too.
        """
        return accumulate(self.correct.all(0), self.eps)

    @property
    def worst_accuracy(self) -> Tensor:
        """Share of samples that stand under all rungs, ``(E,)``; falls with ε."""
        return self.worst.double().mean(1)

    @property
    def worst_standard_error(self) -> Tensor:
        """Binomial standard error of the worst accuracy, ``(E,)``."""
        return _standard_error(self.worst_accuracy, self.correct.shape[2])

    def of(self, name: str) -> Tensor:
        """Samples that stand under one rung, ``(E, N)``.

        Raises:
            ConfigurationError: If the rung was not measured.
        """
        if name not in self.names:
            reason = self.left_out.get(name, f"the rungs are {', '.join(self.names)}")
            raise ConfigurationError(f"rung {name!r} was not measured: {reason}.")
        return self.correct[self.names.index(name)]

    def at(self, eps: float) -> int:
        """Place of a radius.

        Raises:
            ConfigurationError: If it was not measured.
        """
        if eps not in self.eps:
            raise ConfigurationError(f"ε = {eps} was not measured; the radii are {list(self.eps)}.")
        return self.eps.index(eps)


def ladder_rungs(norm: float = math.inf, effort: Effort = Effort()) -> tuple[Rung, ...]:
    """All rungs of a norm in order, weakest idea first."""

    def rung(name: str, description: str, kind: Kind, attack: LadderAttack, white: bool = True) -> Rung:
        images_only, needs = name in ("fab", "square"), "torchattacks" if name == "fab" else None
        return Rung(name, description, norm, kind, white, attack, images_only, needs)

    def ascent(loss: str) -> LadderAttack:
        return _each(pgd, ascent=Ascent(loss, effort.pgd_steps, restarts=effort.pgd_restarts))

    steps = {
        PUBLISHED_STEP: ("FGSM as published: float32 cross-entropy, mean of a batch", AS_PUBLISHED),
        EXACT_STEP: ("FGSM exact: log-odds", EXACT),
        MARGIN_STEP: ("FGSM on the margin", "margin"),
    }
    table = [
        rung(CLEAN, "no attack", "clean", _clean, white=False),
        rung(NOISE, "one random point of the sphere", "random noise", _each(random_noise), white=False),
        *(rung(name, text, "single step", _fast_gradient(loss)) for name, (text, loss) in steps.items()),
        rung(
            "fgsm_random_start",
            "random half step, then FGSM on log-odds",
            "single step",
            _each(random_start_fast_gradient),
        ),
        rung("mim", "momentum iterative method on log-odds", "iterative", _plain(mim, steps=effort.mim_steps)),
        rung("pgd_log_odds", "PGD with restarts on log-odds", "iterative", ascent(EXACT)),
        rung("pgd_margin", "PGD with restarts on the margin", "iterative", ascent("margin")),
        rung(
            "apgd_targeted",
            "APGD towards each wrong class",
            "iterative",
            _each(apgd_targeted, steps=effort.apgd_steps, classes=effort.apgd_classes),
        ),
        rung(
            "fab", "fast adaptive boundary, by torchattacks", "minimum norm", _nearest(fab, steps=effort.fab_steps)
        ),
        rung("square", "random search on logits", "black box", _each(square, queries=effort.queries), white=False),
    ]
    if norm == 2:
        attack = _nearest(carlini_wagner, steps=effort.cw_steps, searches=effort.cw_searches)
        table.append(rung("carlini_wagner", "Carlini and Wagner's attack", "minimum norm", attack))
    return tuple(table)


def run_ladder(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: Sequence[float],
    norm: float = math.inf,
    rungs: Sequence[Rung] | None = None,
    draws: Draws | None = None,
    batch: int = BATCH,
    advance: Callable[[int], None] | None = None,
) -> Ladder:
    """Measure every rung at every radius; rungs know nothing of each other.

    Args:
        model: In eval mode; never changed.
        x: Images ``(N, …)`` in [0, 1].
        y: Labels ``(N,)``.
        eps: Radii in any order; 0 gives the clean decisions.
        norm: 2 or ``math.inf``.
        rungs: Of this norm; all of them if None.
        draws: Random numbers of the samples; results do not depend on the batch.
        batch: Images attacked at a time. The mean in FGSM as published is over a batch.
        advance: Called with the number of samples done, N for each rung in all.

    Raises:
        ObjectiveError: If shapes disagree, or the model is random or lets samples interact.
        ConfigurationError: If radii, norm, rungs or images cannot be used.
    """
    balls = [Ball(float(radius), float(norm)) for radius in eps]
    chosen, left_out = _measurable(ladder_rungs(norm) if rungs is None else rungs, x, norm)
    if not balls or not chosen or batch < 1:
        raise ConfigurationError(
            f"{len(balls)} radii, {len(chosen)} rungs, batch {batch}: pass at least one of each."
        )
    target_of(model, x, y)
    draws = draws_for(x, draws)
    correct = torch.zeros(len(chosen), len(balls), len(y), dtype=torch.bool)
    counts = torch.zeros(2, len(chosen), len(balls), dtype=torch.int64)
    for rows in torch.arange(len(y), device=x.device).split(batch):
        for r, rung in enumerate(chosen):
            results = rung.attack(model, x[rows], y[rows], balls, draws.take(rows))
            for e, result in enumerate(results):
                correct[r, e, rows.cpu()] = ~result.fell.cpu()
                counts[:, r, e] += torch.stack([result.num_gradients.sum(), result.num_queries.sum()]).cpu()
            if advance is not None:
                advance(len(rows))
    return Ladder(
        tuple(chosen), tuple(ball.eps for ball in balls), float(norm), correct, counts[0], counts[1], left_out
    )


def accumulate(correct: Tensor, eps: Sequence[float]) -> Tensor:
    """Samples that stand at a radius and at all smaller ones, ``(E, N) -> (E, N)``."""
    radii = torch.tensor(eps, dtype=torch.float64)
    within = (radii[None, :] <= radii[:, None])[..., None]
    return (correct[None] | ~within.to(correct.device)).all(1)


@dataclass(frozen=True)
class McNemar:
    """Two decisions on the same samples compared: only samples on which they differ tell anything."""

    only_first: int  # samples right in the first alone
    only_second: int
    p_value: float  # of both being right equally often, two-sided, exact


def mcnemar(first: Tensor, second: Tensor) -> McNemar:
    """McNemar's test with the exact binomial law (McNemar 1947), ``(N,), (N,)`` bool.

    Raises:
        ConfigurationError: If the vectors are not of the same samples.
    """
    if first.shape != second.shape or first.ndim != 1 or {first.dtype, second.dtype} != {torch.bool}:
        raise ConfigurationError(
            f"decisions of shapes {tuple(first.shape)} and {tuple(second.shape)} cannot be compared; pass two "
            "boolean vectors of the same samples."
        )
    only = int((first & ~second).sum()), int((second & ~first).sum())
    p_value = scipy.stats.binomtest(only[0], sum(only)).pvalue if sum(only) else 1.0
    return McNemar(*only, float(p_value))


def _measurable(rungs: Sequence[Rung], x: Tensor, norm: float) -> tuple[list[Rung], dict[str, str]]:
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


def _standard_error(share: Tensor, count: int) -> Tensor:
    return (share * (1 - share) / count).sqrt()


def _clean(model: nn.Module, x: Tensor, y: Tensor, balls: Sequence[Ball], draws: Draws) -> list[AttackResult]:
    return [target_of(model, x, y).untouched()] * len(balls)


def _fast_gradient(loss: str) -> LadderAttack:
    return lambda model, x, y, balls, draws: fast_gradient(model, x, y, balls, loss)


def _each(attack: Callable[..., AttackResult], **settings: object) -> LadderAttack:
    """An attack of one ball with random numbers, ball by ball."""
    run = partial(attack, **settings)
    return lambda model, x, y, balls, draws: [run(model, x, y, ball, draws=draws) for ball in balls]


def _plain(attack: Callable[..., AttackResult], **settings: object) -> LadderAttack:
    """An attack of one ball without random numbers, ball by ball."""
    run = partial(attack, **settings)
    return lambda model, x, y, balls, draws: [run(model, x, y, ball) for ball in balls]


def _nearest(attack: Callable[..., list[AttackResult]], **settings: object) -> LadderAttack:
    """An attack that serves all balls at once, without random numbers."""
    run = partial(attack, **settings)
    return lambda model, x, y, balls, draws: run(model, x, y, balls)
