"""The attack ladder: one network under every attack, from noise to the strongest, sample by sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from landscape.errors import ConfigurationError
from landscape.robustness.accuracy import BATCH
from landscape.robustness.balls import Ball, distances
from landscape.robustness.draws import Draws, draws_for
from landscape.robustness.rungs import Rung, ladder_rungs, measurable
from landscape.robustness.targets import AttackResult, target_of


@dataclass(frozen=True)
class Ladder:
    """Which samples stand under which attack at which radius; every rung is measured by itself."""

    rungs: tuple[Rung, ...]  # R
    eps: tuple[float, ...]  # E
    norm: float
    correct: Tensor  # (R, E, N) bool
    distance: Tensor  # (R, N) of the nearest wrong image that a rung has met, float64; infinity if none
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

    @property
    def nearest(self) -> Tensor:
        """Distance of the nearest wrong image that any rung has met, ``(N,)``: an upper bound of robustness."""
        return self.distance.amin(0)

    def accuracy_beyond(self, eps: Sequence[float]) -> Tensor:
        """Share of samples for which no rung has met a wrong image within each radius, ``(len(eps),)``.

        The radii need not be measured ones; between those it rests on the rungs that look for the nearest image.
        """
        radii = torch.tensor(list(eps), dtype=torch.float64)
        return (self.nearest[None] > radii[:, None]).double().mean(1)

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


@dataclass(frozen=True)
class Part:
    """A rung at some of the radii on a block of samples: what is measured at a time."""

    rung: Rung
    eps: tuple[float, ...]
    start: int
    stop: int

    def __len__(self) -> int:
        """Number of decisions."""
        return len(self.eps) * (self.stop - self.start)


@dataclass(frozen=True)
class Decisions:
    """What a part found, for E radii and n samples; on the CPU."""

    correct: Tensor  # (E, n) bool
    distance: Tensor  # (n,) float64
    num_gradients: Tensor  # (E,)
    num_queries: Tensor  # (E,)


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
        draws: Random numbers of the samples; only those of `nearest_boundary` depend on the batch.
        batch: Images attacked at a time. The mean in FGSM as published is over a batch.
        advance: Called with the number of decisions made, R E N in all.

    Raises:
        ObjectiveError: If shapes disagree, or the model is random or lets samples interact.
        ConfigurationError: If radii, norm, rungs or images cannot be used.
    """
    parts, left_out = ladder_parts(x, len(y), eps, norm, rungs, batch)
    target_of(model, x, y)
    draws = draws_for(x, draws)
    found = []
    for part in parts:
        found.append(decide(model, x, y, part, draws))
        if advance is not None:
            advance(len(part))
    return assemble(parts, found, eps, norm, left_out)


def ladder_parts(
    x: Tensor,
    count: int,
    eps: Sequence[float],
    norm: float = math.inf,
    rungs: Sequence[Rung] | None = None,
    batch: int = BATCH,
) -> tuple[list[Part], dict[str, str]]:
    """The parts of a ladder, rung by rung, and why rungs are left out; ConfigurationError as of `run_ladder`."""
    balls = [Ball(float(radius), float(norm)) for radius in eps]
    chosen, left_out = measurable(ladder_rungs(norm) if rungs is None else rungs, x, norm)
    if not balls or not chosen or batch < 1:
        raise ConfigurationError(
            f"{len(balls)} radii, {len(chosen)} rungs, batch {batch}: pass at least one of each."
        )
    radii = tuple(ball.eps for ball in balls)
    blocks = [(start, min(start + batch, count)) for start in range(0, count, batch)]
    parts = [
        Part(rung, group, *block)
        for rung in chosen
        for group in ([radii] if rung.at_once else [(radius,) for radius in radii])
        for block in blocks
    ]
    return parts, left_out


def decide(model: nn.Module, x: Tensor, y: Tensor, part: Part, draws: Draws) -> Decisions:
    """Measure one part; ``x``, ``y`` and ``draws`` are those of all samples."""
    rows = torch.arange(part.start, part.stop, device=x.device)
    balls = [Ball(radius, part.rung.norm) for radius in part.eps]
    results = part.rung.attack(model, x[rows], y[rows], balls, draws.take(rows))
    return Decisions(
        torch.stack([~result.fell for result in results]).cpu(),
        torch.stack([_reach(result, x[rows], ball) for result, ball in zip(results, balls, strict=True)]).amin(0),
        torch.stack([result.num_gradients.sum() for result in results]).cpu(),
        torch.stack([result.num_queries.sum() for result in results]).cpu(),
    )


def assemble(
    parts: Sequence[Part],
    found: Sequence[Decisions],
    eps: Sequence[float],
    norm: float,
    left_out: dict[str, str],
) -> Ladder:
    """The ladder of all its parts."""
    radii = [float(radius) for radius in eps]
    rungs = list({part.rung.name: part.rung for part in parts}.values())
    places = {rung.name: place for place, rung in enumerate(rungs)}
    count = max(part.stop for part in parts)
    correct = torch.zeros(len(rungs), len(radii), count, dtype=torch.bool)
    distance = torch.full((len(rungs), count), torch.inf, dtype=torch.float64)
    counts = torch.zeros(2, len(rungs), len(radii), dtype=torch.int64)
    for part, decisions in zip(parts, found, strict=True):
        r, rows = places[part.rung.name], slice(part.start, part.stop)
        distance[r, rows] = torch.minimum(distance[r, rows], decisions.distance)
        for i, radius in enumerate(part.eps):
            e = radii.index(radius)
            correct[r, e, rows] = decisions.correct[i]
            counts[:, r, e] += torch.stack([decisions.num_gradients[i], decisions.num_queries[i]])
    return Ladder(tuple(rungs), tuple(radii), float(norm), correct, distance, counts[0], counts[1], left_out)


def _reach(result: AttackResult, x: Tensor, ball: Ball) -> Tensor:
    """Distance of each wrong image, infinity where there is none, ``(n,)``."""
    if result.nearest is not None:
        return result.nearest.cpu()
    fell = result.fell.nonzero()[:, 0]
    # Rounding may put an image of the ball a hair outside of it.
    distance = distances(result.images[fell], x[fell], ball.norm).clamp_max(ball.eps)
    return distance.new_full((len(x),), torch.inf).index_copy(0, fell, distance).cpu()


def accumulate(correct: Tensor, eps: Sequence[float]) -> Tensor:
    """Samples that stand at a radius and at all smaller ones, ``(E, N) -> (E, N)``."""
    radii = torch.tensor(eps, dtype=torch.float64)
    within = (radii[None, :] <= radii[:, None])[..., None]
    return (correct[None] | ~within.to(correct.device)).all(1)


def _standard_error(share: Tensor, count: int) -> Tensor:
    return (share * (1 - share) / count).sqrt()
