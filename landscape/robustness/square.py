"""The Square attack: random search with square patches, which sees logits only (Andriushchenko et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from landscape.errors import ConfigurationError
from landscape.problem.losses import margin
from landscape.robustness.balls import Ball, lengths
from landscape.robustness.draws import Draws, draws_for
from landscape.robustness.targets import AttackResult, Standing, target_of, wrong

# Share of the pixels that a patch covers at first, and after which of 10,000 queries it is halved, as published.
_SHARE = 0.8
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)

# Queries for which random numbers are drawn at a time.
_BLOCK = 256


def square(
    model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws | None = None, queries: int = 1000
) -> AttackResult:
    """Random search with square patches on the margin, without gradients (Andriushchenko et al. 2020, alg. 1–3).

    A patch of a random place is proposed, and kept where it lowers the margin. Places and signs are drawn for each
    sample; in torchattacks all samples of a batch share the place.

    Args:
        model: In eval mode; never changed.
        x: Images ``(N, C, H, W)`` in [0, 1].
        y: Labels ``(N,)``.
        ball: Where to look.
        draws: Random numbers of the samples.
        queries: Patches tried.

    Raises:
        ObjectiveError: If shapes disagree, or the model is random or lets samples interact.
        ConfigurationError: If images leave [0, 1] or are no images, or there are no queries.
    """
    if x.ndim != 4 or min(x.shape[2:]) < 5 or queries < 1:
        raise ConfigurationError(
            f"inputs of shape {tuple(x.shape)} and {queries} queries cannot be; pass images (N, C, H, W) of at "
            "least 5×5 pixels and a number of queries ≥ 1."
        )
    standing = Standing(target_of(model, x, y))
    if ball.eps == 0:
        return standing.target.untouched()
    standing.judge_clean()
    if len(rows := standing.rows()):
        _search(standing, rows, ball, draws_for(x, draws), queries)
    return standing.result()


def _search(standing: Standing, rows: Tensor, ball: Ball, draws: Draws, queries: int) -> None:
    images = standing.target.x
    begin, propose = (_stripes, _cube_patch) if ball.norm == math.inf else (_tiles, _ball_patch)
    x, y = images[rows], standing.target.y[rows]
    points = begin(x, ball, draws.take(rows))
    logits = standing.query(rows, points)
    loss = margin(logits, y)
    keep = standing.judge(rows, points, logits)
    rows, x, y, points, loss = (t[keep] for t in (rows, x, y, points, loss))
    for query in range(queries):
        if not len(rows):
            return
        if query % _BLOCK == 0:
            numbers, owner = _numbers(images, draws.take(rows), query), torch.arange(len(rows), device=rows.device)
        side = _side(query, queries, x.shape[-2:], odd=ball.norm == 2)
        proposed = propose(x, points, ball, side, numbers[owner, query % _BLOCK])
        logits = standing.query(rows, proposed)
        new = margin(logits, y)
        better = (new > loss).nonzero()[:, 0]
        points.index_copy_(0, better, proposed.index_select(0, better))
        loss[better] = new[better]
        fell = better[wrong(logits[better], y[better])]
        if len(fell):
            standing.judge(rows[fell], points[fell], logits[fell])
            keep = torch.ones_like(rows, dtype=torch.bool).index_fill(0, fell, False)
            rows, x, y, points, loss, owner = (t[keep] for t in (rows, x, y, points, loss, owner))
    standing.images[rows] = points


def _numbers(x: Tensor, draws: Draws, query: int) -> Tensor:
    """Uniform numbers of a block of queries, ``(R, block, 5 + C)``: two places, a turn, and signs."""
    return draws.uniform((_BLOCK, 5 + x.shape[1]), "square", query).to(x.dtype)


def _side(query: int, queries: int, shape: Sequence[int], odd: bool) -> int:
    """Side of the patch, by a schedule stretched over the queries."""
    passed = sum(int(query / queries * 10_000) > at for at in _HALVINGS)
    side: int = round(math.sqrt(_SHARE / 2**passed * shape[0] * shape[1]))
    if odd:  # at least 3, so that the patch has two halves
        side = max(side, 3) // 2 * 2 + 1
        return min(side, (min(shape) - 1) // 2 * 2 + 1)
    return min(max(side, 1), *shape)


def _stripes(x: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """Vertical stripes of random signs."""
    signs = draws.signs((x.shape[1], 1, x.shape[3]), "stripes").to(x.dtype)
    return (x + ball.eps * signs).clamp(0, 1)


def _cube_patch(x: Tensor, points: Tensor, ball: Ball, side: int, numbers: Tensor) -> Tensor:
    """Points with ε times a random sign in a square, one sign a channel."""
    place = _square_of(x.shape, side, numbers[:, 0], numbers[:, 1])[:, None].expand(-1, x.shape[1], -1)
    signs = torch.where(numbers[:, 5:] < 0.5, -1.0, 1.0).to(x.dtype)[:, :, None]
    patch = (x.flatten(2).gather(2, place) + ball.eps * signs).clamp_(0, 1)
    return points.flatten(2).scatter(2, place, patch).view_as(x)


def _corner(room: int, numbers: Tensor) -> Tensor:
    """A place from 0 to ``room`` for numbers uniform on [0, 1)."""
    return (numbers.double() * (room + 1)).long()


def _square_of(shape: torch.Size, side: int, down: Tensor, right: Tensor) -> Tensor:
    """Places of the pixels of a square of each sample in a row of all its pixels, ``(R, side²)``."""
    span = torch.arange(side, device=down.device)
    rows, columns = (
        _corner(length - side, number)[:, None] + span for length, number in ((shape[2], down), (shape[3], right))
    )
    return (rows[:, :, None] * shape[3] + columns[:, None]).flatten(1)


def _window(shape: torch.Size, side: int, down: Tensor, right: Tensor) -> Tensor:
    """Whether a pixel lies in a square of each sample, ``(R, 1, H, W)``."""
    masks = []
    for length, number in ((shape[2], down), (shape[3], right)):
        first = _corner(length - side, number)[:, None]
        place = torch.arange(length, device=number.device)
        masks.append((place >= first) & (place < first + side))
    return (masks[0][:, :, None] & masks[1][:, None, :])[:, None]


def _tiles(x: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """Tiles of bumps of random sign all over the image, of length ε in all."""
    side = min(x.shape[2:]) // 5
    counts = [length // side for length in x.shape[2:]]
    turns = draws.uniform((*counts,), "turns").to(x.dtype)
    signs = draws.signs((x.shape[1], *counts), "tiles").to(x.dtype)
    bumps = torch.where(turns[:, None, :, :, None, None] < 0.5, _bumps(side, x), _bumps(side, x).T)
    tiles = signs[..., None, None] * bumps
    filled = tiles.transpose(3, 4).reshape(len(x), x.shape[1], counts[0] * side, counts[1] * side)
    delta = torch.zeros_like(x)
    top, left = ((length - count * side) // 2 for length, count in zip(x.shape[2:], counts, strict=True))
    delta[:, :, top : top + filled.shape[2], left : left + filled.shape[3]] = filled
    return (x + ball.eps * ball.steepest(delta)).clamp(0, 1)


def _ball_patch(x: Tensor, points: Tensor, ball: Ball, side: int, numbers: Tensor) -> Tensor:
    """Points with a new bump in one square, paid for by the length in another, and scaled to length ε."""
    delta = points - x
    here = _window(x.shape, side, numbers[:, 0], numbers[:, 1])
    there = _window(x.shape, side, numbers[:, 2], numbers[:, 3])
    spent = ball.eps**2 - lengths(delta, 2.0) ** 2
    free = spent.clamp_min(0) / x.shape[1] + _energy(delta, here | there)
    signs = torch.where(numbers[:, 5:] < 0.5, -1.0, 1.0)[:, :, None, None]
    turned = numbers[:, 4, None, None] < 0.5
    bumps = torch.where(turned, _bumps(side, x), _bumps(side, x).T)[:, None] * signs
    old = delta[here.expand_as(delta)].reshape(len(x), x.shape[1], side, side)
    bumps = bumps + old / old.flatten(2).norm(dim=2)[..., None, None].clamp_min(1e-12)
    bumps = bumps / bumps.flatten(2).norm(dim=2)[..., None, None].clamp_min(1e-12) * free.sqrt()
    delta = torch.where(there, 0, delta).masked_scatter(here, bumps)
    return (x + ball.eps * ball.steepest(delta)).clamp(0, 1)


def _energy(delta: Tensor, where: Tensor) -> Tensor:
    """Squared length of each channel in a region, ``(R, C, 1, 1)``."""
    return torch.where(where, delta, 0).square().sum((2, 3), keepdim=True)


def _bumps(side: int, x: Tensor) -> Tensor:
    """Two bumps of opposite sign side by side, of length 1, ``(side, side)`` (same paper, eq. 2)."""
    half: Tensor = torch.cat([_bump(side // 2, side), -_bump(side - side // 2, side)])
    return half.div(half.norm()).to(x)


def _bump(height: int, width: int) -> Tensor:
    """Nested rectangles around the middle, each 1/(M + 1 − k)² higher than the one around it."""
    bump = torch.zeros(height, width)
    top, left = height // 2, width // 2
    for layer in range(max(height, width) // 2 + 1):
        rows = slice(max(top - layer, 0), min(top + layer + 1, height))
        columns = slice(max(left - layer, 0), min(left + layer + 1, width))
        bump[rows, columns] += 1 / (layer + 1) ** 2
    return bump
