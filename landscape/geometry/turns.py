"""Search of one start after another, for large vectors: memory holds the best ends and one descent.

Starts that run side by side need the memory of a quasi-Newton method each. In turns, every start first runs a
short heat; the best ends of the heats run the final, to the end. So all compete for the budget, as side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from landscape.geometry.approach import approach
from landscape.geometry.contest import Contest
from landscape.geometry.descent import Ends, descend
from landscape.geometry.rays import Rays
from landscape.geometry.starts import Starts
from landscape.geometry.vectors import norm_of

# Ends that are kept, and those that run the final: after a step or two the radius tells which are worth it.
_KEPT = 4
_FINALISTS = 3
_HEAT_ROUNDS = 2
# Ends closer than this, relative to their length, belong to one minimum.
_SAME_DIRECTION = 0.1


def search_in_turns(rays: Rays, starts: Starts, tol: float, contest: Contest) -> tuple[Ends, Tensor]:
    """The best ends of S starts, and the radii of those that were given up, ``(S, B)``; inf for none."""
    origins = len(contest.left)
    kept = _nothing(rays.psi.origin[:origins], min(_KEPT, len(starts)))
    given_up = []
    for number in range(len(starts)):
        rows = number * origins + torch.arange(origins, device=rays.height.device)
        given_up.append(_keep(kept, _run(rays.take(rows), starts.makers[number], tol, contest, _HEAT_ROUNDS)))
    for rows in _ranked(kept, origins)[:_FINALISTS]:
        _final(rays, kept, rows, tol, contest)
    return kept, torch.stack(given_up)


def _run(rays: Rays, start: Callable[[], Tensor], tol: float, contest: Contest, rounds: float) -> Ends:
    """Ends of one start for each origin; what is made for it has no name here, so that it is freed on the way."""
    alone = Contest(torch.arange(len(rays.height), device=rays.height.device), contest.left)
    return descend(rays, approach(rays, start(), alone), tol, alone, rounds)


def _nothing(like: Tensor, places: int) -> Ends:
    """Ends without rays, ``places`` for each row of ``like``, to be filled in place."""
    rows = places * len(like)
    lost = torch.full((rows,), torch.inf, dtype=torch.float64, device=like.device)
    direction = like.new_full((rows, like.shape[1]), torch.nan)
    unknown = torch.zeros(rows, dtype=torch.bool, device=like.device)
    return Ends(direction, lost, lost.clone(), unknown, torch.arange(rows, device=like.device))


def _keep(kept: Ends, end: Ends) -> Tensor:
    """Put ends where they are shorter than the longest that is kept; the radii of what is given up, ``(B,)``."""
    origins = len(end.radius)
    longest, place = kept.radius.reshape(-1, origins).max(0)
    _put(kept, place * origins + torch.arange(origins, device=place.device), end, end.radius < longest)
    return torch.maximum(end.radius, longest)


def _put(kept: Ends, rows: Tensor, end: Ends, chosen: Tensor) -> None:
    for name in ("direction", "radius", "growth", "stationary"):
        getattr(kept, name)[rows[chosen]] = getattr(end, name)[chosen]


def _ranked(kept: Ends, origins: int) -> list[Tensor]:
    """Rows of the shortest ends of all origins, of the second shortest and so on, each ``(B,)``."""
    order = kept.radius.reshape(-1, origins).argsort(0)
    return list((order * origins + torch.arange(origins, device=order.device)).unbind())


def _final(rays: Rays, kept: Ends, rows: Tensor, tol: float, contest: Contest) -> None:
    """Descend from ends until they are stationary, unless they have come to the same point as a better one."""
    origins, some = len(rows), rays.take(rows)
    free = torch.isfinite(kept.radius[rows]) & (contest.left > 0)
    for better in _ranked(kept, origins):
        merged = free & (kept.radius[better] < kept.radius[rows])
        apart = norm_of(kept.direction[better] - kept.direction[rows], 2)
        merged &= apart < _SAME_DIRECTION * norm_of(kept.direction[rows], 2)
        kept.twin[rows[merged]] = better[merged]
        free &= ~merged
    radius = torch.where(free, kept.radius[rows], torch.nan)
    end = _run(some, lambda: some.displacement(kept.direction[rows], radius), tol, contest, math.inf)
    _put(kept, rows, end, end.radius < kept.radius[rows])
