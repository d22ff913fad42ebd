"""Auto-PGD: ascent whose steps shrink where they stop helping (Croce and Hein 2020, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from landscape.errors import ConfigurationError
from landscape.robustness.balls import Ball, as_images
from landscape.robustness.draws import Draws, draws_for, random_points
from landscape.robustness.fgsm import EXACT
from landscape.robustness.targets import AttackResult, Standing, target_of, targeted_loss

# Share of the last move that is kept as momentum, 1 − α; share of steps that must improve; both as published.
_MOMENTUM, _RHO = 0.25, 0.75
# Gaps between checkpoints: the first, by how much each is shorter, and the least; shares of all steps.
_FIRST, _SHORTER, _LEAST = 0.22, 0.03, 0.06


def apgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    draws: Draws | None = None,
    loss: str = EXACT,
    steps: int = 100,
    restarts: int = 1,
) -> AttackResult:
    """Auto-PGD on a loss from random starts (Croce and Hein 2020, algorithm 1).

    Args:
        model: In eval mode; never changed.
        x: Images ``(N, …)`` in [0, 1].
        y: Labels ``(N,)``.
        ball: Where to look.
        draws: Random numbers of the samples.
        loss: A name of `landscape.problem.losses`.
        steps: Gradient steps from each start; one gradient more is spent.
        restarts: Random starts.

    Raises:
        ObjectiveError: If shapes disagree, or the model is random or lets samples interact.
        ConfigurationError: If images leave [0, 1], or steps or restarts are not positive.
    """
    _check(steps, restarts)
    standing = Standing(target_of(model, x, y))
    if ball.eps == 0:
        return standing.target.untouched()
    standing.judge_clean()
    for restart in range(restarts):
        _from_random_start(standing, standing.target.y, ball, draws, loss, steps, restart)
    return standing.result()


def apgd_targeted(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    draws: Draws | None = None,
    steps: int = 100,
    classes: int | None = None,
) -> AttackResult:
    """Auto-PGD on the difference-of-logits ratio towards each wrong class in turn (APGD-T, same paper, eq. 7).

    Classes come in the order of the logits of the image, most likely first; ``classes`` of them, all if None.
    Other arguments and errors as in `apgd`.
    """
    _check(steps, 1)
    standing = Standing(target_of(model, x, y))
    if ball.eps == 0:
        return standing.target.untouched()
    rows = standing.rows()
    logits = standing.query(rows, standing.target.x)
    standing.judge(rows, standing.target.x, logits)
    for towards in ranked_classes(logits, y)[:classes]:
        _from_random_start(standing, towards, ball, draws, "difference_ratio", steps, 0)
    return standing.result()


def ranked_classes(logits: Tensor, y: Tensor) -> list[Tensor]:
    """Wrong classes from the most likely down, K − 1 tensors ``(N,)``."""
    order = logits.scatter(1, y[:, None], float("-inf")).argsort(1, descending=True)
    return list(order[:, :-1].unbind(1))


def _check(steps: int, restarts: int) -> None:
    if steps < 1 or restarts < 1:
        raise ConfigurationError(f"{steps} steps from {restarts} starts cannot be; pass whole numbers ≥ 1.")


def _from_random_start(
    standing: Standing, towards: Tensor, ball: Ball, draws: Draws | None, loss: str, steps: int, restart: int
) -> None:
    rows, x = standing.rows(), standing.target.x
    if len(rows):
        start = random_points(x[rows], ball, draws_for(x, draws).take(rows), "start", restart)
        _climb(standing, _State.at(rows, start, towards[rows], ball), ball, loss, steps)


@dataclass
class _State:
    """Samples on their way; all fields have one row a sample."""

    rows: Tensor
    towards: Tensor
    points: Tensor
    previous: Tensor
    gradient: Tensor
    best: Tensor
    best_gradient: Tensor
    loss: Tensor
    best_loss: Tensor
    best_before: Tensor  # the best loss at the last checkpoint
    size: Tensor
    improved: Tensor  # steps since the last checkpoint that raised the loss
    shrunk: Tensor  # whether the step shrank at the last checkpoint

    @classmethod
    def at(cls, rows: Tensor, points: Tensor, towards: Tensor, ball: Ball) -> _State:
        lowest = torch.full_like(points.flatten(1)[:, 0], -torch.inf)
        zero = torch.zeros_like(points)
        size = torch.full_like(lowest, 2 * ball.eps)
        count, no = torch.zeros_like(rows), torch.zeros_like(rows, dtype=torch.bool)
        values = (lowest, lowest, lowest, size, count, no)
        return cls(rows, towards, points, points, zero, points, zero, *values)

    def keep(self, which: Tensor) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[which])


def _climb(standing: Standing, state: _State, ball: Ball, loss: str, steps: int) -> None:
    checkpoints = dict(_checkpoints(steps))
    if not _look(standing, state, loss):
        return
    state.best_before, state.improved = state.best_loss.clone(), torch.zeros_like(state.improved)
    for step in range(1, steps + 1):
        _move(state, standing.target.x[state.rows], ball, first=step == 1)
        if not _look(standing, state, loss):
            return
        if step in checkpoints:
            _check_progress(state, checkpoints[step])


def _look(standing: Standing, state: _State, loss: str) -> bool:
    """Loss and gradient at the present points; whether any sample still stands."""
    logits, losses, gradient = standing.gradient(state.rows, state.points, targeted_loss(loss), state.towards)
    state.gradient = gradient
    state.improved = state.improved + (losses > state.loss)
    better = losses > state.best_loss
    spread = as_images(better, gradient)
    state.best = torch.where(spread, state.points, state.best)
    state.best_gradient = torch.where(spread, gradient, state.best_gradient)
    state.loss, state.best_loss = losses, torch.where(better, losses, state.best_loss)
    fell = ~standing.judge(state.rows, state.points, logits)
    standing.images[state.rows[~fell]] = state.best[~fell].to(standing.images.dtype)
    if fell.any():
        state.keep(~fell)
    return len(state.rows) > 0


def _move(state: _State, x: Tensor, ball: Ball, first: bool) -> None:
    step = as_images(state.size, x) * ball.steepest(state.gradient)
    moved = ball.project(state.points + step, x)
    if not first:
        kept = (1 - _MOMENTUM) * (moved - state.points) + _MOMENTUM * (state.points - state.previous)
        moved = ball.project(state.points + kept, x)
    state.previous, state.points = state.points, moved


def _check_progress(state: _State, gap: int) -> None:
    """Halve the step, and go back to the best point, where few steps or none of late have helped."""
    stuck = ~state.shrunk & (state.best_loss <= state.best_before)
    shrink = (state.improved <= _RHO * gap) | stuck
    state.size = torch.where(shrink, state.size / 2, state.size)
    spread = as_images(shrink, state.points)
    state.points = torch.where(spread, state.best, state.points)
    state.gradient = torch.where(spread, state.best_gradient, state.gradient)
    state.loss = torch.where(shrink, state.best_loss, state.loss)
    state.best_before, state.shrunk = state.best_loss.clone(), shrink
    state.improved = torch.zeros_like(state.improved)


def _checkpoints(steps: int) -> Iterator[tuple[int, int]]:
    """Steps after which progress is looked at, with the number of steps since the one before."""
    gap, at = max(int(_FIRST * steps), 1), 0
    shorter, least = max(int(_SHORTER * steps), 1), max(int(_LEAST * steps), 1)
    while at + gap <= steps:
        at += gap
        yield at, gap
        gap = max(gap - shorter, least)
