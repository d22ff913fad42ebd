"""Multi-start search for the nearest point of one level set, for B origins and S starts in lock-step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from landscape.geometry.approach import approach
from landscape.geometry.climb import LONG, MANY, climb_out, climb_within
from landscape.geometry.contest import Contest
from landscape.geometry.descent import Ends, descend
from landscape.geometry.rays import Rays, crossing, outer_bracket, polished
from landscape.geometry.restarts import annealed, corners, smoothed
from landscape.geometry.starts import Starts
from landscape.geometry.turns import search_in_turns
from landscape.geometry.vectors import is_large, norm_of

# With restarts, the share of the budget that searches from the starts may use. A restart needs some gradients to
# be worth it; all but the last one end after some rounds, at most this share of the budget, since most is gained
# in the first.
_FIRST_SHARE = 0.35
_WORTH_RESTARTING = 8
_ROUNDS, _ROUNDS_SHARE = 12, 1 / 8
# Rounds of a descent from a neighbouring level's nearest point, which is not far.
_REFINING = 8
# Gradients that are kept for following kinks at the end.
_POLISHING = 10
# Radii of the balls to climb in, in turn, where no end is known; in units of the longest start.
_REACHES = (1.0, 2.0, 0.5, 4.0, 0.25)
# So many ends are looked at exactly at the most, until the best is one of them.
_CANDIDATES = 20
# Cosine of the angle below which two starts count as one.
_ALIKE = 0.995
# From this restart on, every other one begins at one of so many ends, the best and the next ones, by large steps.
_FAR_FROM, _RANKS = 4, 8
# Numbers in the displacements of rays that are searched together; origins beyond it wait for their turn.
TOGETHER = 2**26


@dataclass(frozen=True)
class Effort:
    """What a search may cost."""

    tol: float  # tangent of the angle between displacement and gradient at which a descent stops
    budget: int  # gradients for each origin and level
    restarts: int  # searches that begin anew from the best points found


@dataclass(frozen=True)
class Nearest:
    """Nearest points found on one level set, and where all searches ended."""

    direction: Tensor  # (B, n) of length 1
    radius: Tensor  # (B,) inf where the level was not reached
    ends: Ends  # of S B rays, start-major
    radii: Tensor  # (K, B) at which all searches ended, merged ones with their twin; inf where there was none

    def without_ends(self) -> Nearest:
        """The same without the ends, which take memory."""
        return replace(self, ends=self.ends.take(torch.zeros(0, dtype=torch.int64, device=self.radius.device)))

    def with_point(self, direction: Tensor, radius: Tensor) -> Nearest:
        """One more search has ended, ``(B, n), (B,)``; inf where there was none."""
        nearer = radius < self.radius
        return replace(
            self,
            direction=torch.where(nearer[:, None], direction, self.direction),
            radius=torch.where(nearer, radius, self.radius),
            radii=torch.cat([self.radii, radius[None]]),
        )

    def split(self, origins: int) -> list[Nearest]:
        """Parts of so many origins each, without the ends."""
        none = self.without_ends().ends
        parts = zip(
            self.direction.split(origins), self.radius.split(origins), self.radii.split(origins, 1), strict=True
        )
        return [Nearest(direction, radius, none, radii) for direction, radius, radii in parts]


def nearest(rays: Rays, starts: Starts, effort: Effort, generator: Generator) -> Nearest:
    """Search from all starts, then restart from the best points while the budget lasts.

    Args:
        rays: Rays of all starts of all origins, start-major, ``S B`` of them.
        starts: S displacements to look at first, ``(B, n)``; NaN for a start that is not there.
        effort: An approach that has begun is ended, even beyond the budget.
        generator: Of the noise with which restarts look around.
    """
    count, where = len(starts), rays.height.device
    origins = len(rays.height) // count
    first = math.ceil((_FIRST_SHARE if effort.restarts else 1) * effort.budget)
    left = torch.full((origins,), first, dtype=torch.int64, device=where)
    contest = Contest(torch.arange(origins, device=where).repeat(count), left)
    ends, others = _from_starts(rays, starts, effort.tol, contest)
    ends = _confirmed(rays, ends, origins)
    alone = replace(contest, number=contest.number[:origins])
    ends = _rescue(rays, ends, starts, alone, effort.tol)
    ends = _corners(rays, ends, alone, effort.tol)
    spared = min(_POLISHING, effort.budget // 10)
    left += effort.budget - first - spared
    radii = [ends.radius[ends.twin].reshape(-1, origins), others]
    for number in range(effort.restarts):
        if not (left >= _WORTH_RESTARTING).any():
            break
        ends, radius = _restart(rays, ends, alone, effort, number, generator)
        radii.append(radius[None])
    if not is_large(rays.psi.origin):  # climbers run side by side
        ends = _climbs(rays, ends, alone, effort, starts, radii, generator)
    left += spared
    ends = _polish(rays, ends, alone, effort.tol)
    return Nearest(*_shortest(ends, origins), ends, torch.cat(radii))


def refine(rays: Rays, direction: Tensor, radius: Tensor, effort: Effort) -> tuple[Tensor, Tensor]:
    """Descend from one direction for every origin; rays ``(B,)``."""
    start = rays.displacement(direction, torch.where(torch.isfinite(radius), radius, torch.nan))
    origins = torch.arange(len(radius), device=radius.device)
    contest = Contest(origins, torch.full_like(origins, effort.budget))
    ends = descend(rays, approach(rays, start, contest), effort.tol, contest, _REFINING)
    return on_level(rays, ends.direction, ends.radius)


def _from_starts(rays: Rays, starts: Starts, tol: float, contest: Contest) -> tuple[Ends, Tensor]:
    """Ends of all starts; of large vectors only the best ones, and the radii of the others, ``(K, B)``."""
    if is_large(rays.psi.origin):
        return search_in_turns(rays, starts, tol, contest)
    displacements = _distinct(torch.stack(list(starts)))
    count, origins, size = displacements.shape
    everything = torch.arange(count * origins, device=displacements.device).reshape(count, origins)
    parts, places = [], []
    for some in everything.split(max(1, TOGETHER // max(1, count * size)), dim=1):
        rows, left = some.reshape(-1), contest.left[some[0]]
        part, competing = rays.take(rows), Contest((rows % origins) - some[0, 0], left)
        ends = descend(part, approach(part, displacements.reshape(-1, size)[rows], competing), tol, competing)
        contest.left[some[0]] = left
        parts.append(replace(ends, twin=rows[ends.twin]))
        places.append(rows)
    ends = parts[0] if len(parts) == 1 else _joined(parts, torch.cat(places))
    return ends, ends.radius.new_empty(0, origins)


def _distinct(starts: Tensor) -> Tensor:
    """The same starts ``(S, B, n)`` without those that point where an earlier one points; NaN in their place."""
    unit = starts / norm_of(starts, 2)[..., None].to(starts.dtype)
    alike = torch.einsum("sbn,tbn->bst", unit, unit).tril(-1) > _ALIKE
    return torch.where(alike.any(-1).T[..., None], torch.nan, starts)


def _joined(parts: list[Ends], places: Tensor) -> Ends:
    """One from several, whose rays belong at the given places."""
    order = torch.argsort(places)
    names = ("direction", "radius", "growth", "stationary", "twin")
    return Ends(*(torch.cat([getattr(part, name) for part in parts])[order] for name in names))


def _rescue(rays: Rays, ends: Ends, starts: Starts, contest: Contest, tol: float) -> Ends:
    """Climb to the level where no ray through a start has met it."""
    rows, best = _best_rows(ends, len(contest.left))
    some = rays.take(rows)
    lost = torch.isinf(best) & (some.height < some.target)
    if is_large(rays.psi.origin) or not lost.any():
        return ends
    return _improve(some, ends, rows, climb_out(some, lost, starts, contest), contest, tol, math.inf)[0]


def _corners(rays: Rays, ends: Ends, contest: Contest, tol: float) -> Ends:
    """In the 1-norm, search once more from corners of the ball within which each origin's best end lies."""
    if rays.gauge.norm != 1 or is_large(rays.psi.origin):
        return ends
    rows, best = _best_rows(ends, len(contest.left))
    some = rays.take(rows)
    v = some.displacement(ends.direction[rows], torch.where(torch.isfinite(best), best, torch.nan))
    return _improve(some, ends, rows, corners(some, v, contest), contest, tol, math.inf)[0]


def _restart(
    rays: Rays, ends: Ends, contest: Contest, effort: Effort, number: int, generator: Generator
) -> tuple[Ends, Tensor]:
    """Search once more from an end of each origin: what is shorter replaces it. Returns the radii, too.

    From the best end, led by gradients averaged over its wide surroundings; every other time from the next ones in
    turn, by large steps. All but the last restart end after some rounds, since most is gained in the first.
    """
    far = number >= _FAR_FROM and number % 2 == 0
    rows, best = _best_rows(ends, len(contest.left), (number // 2 - 1) % _RANKS if far else 0)
    some = rays.take(rows)
    usable = torch.isfinite(best) & (contest.left >= _WORTH_RESTARTING)
    v = some.displacement(ends.direction[rows], torch.where(usable, best, torch.nan))
    start = annealed(some, v, contest, generator) if far else smoothed(some, v, contest, generator)
    last = number == effort.restarts - 1
    rounds = math.inf if last else min(_ROUNDS, math.ceil(_ROUNDS_SHARE * effort.budget))
    return _improve(some, ends, rows, start, contest, effort.tol, rounds)


def _climbs(
    rays: Rays,
    ends: Ends,
    contest: Contest,
    effort: Effort,
    starts: Starts,
    radii: list[Tensor],
    generator: Generator,
) -> Ends:
    """Climb to points nearer than each origin's best end, and search once more from there, while budgets last.

    Where there is no end yet, look about as far as the starts went.
    """
    reach = torch.stack([rays.gauge.length(v).nan_to_num() for v in starts]).amax(0)
    for number in range(effort.restarts):
        climbers = (MANY, LONG)[number % 2]
        if not (contest.left >= climbers.cost).any():
            break
        rows, best = _best_rows(ends, len(contest.left))
        some = rays.take(rows)
        within = torch.where(torch.isinf(best), _REACHES[number % len(_REACHES)] * reach, best)
        able = (contest.left >= climbers.cost) & (some.height < some.target)
        start = climb_within(some, torch.where(able, within, torch.inf), contest, climbers, generator)
        ends, radius = _improve(some, ends, rows, start, contest, effort.tol, math.inf)
        radii.append(radius[None])
    return ends


def _polish(rays: Rays, ends: Ends, contest: Contest, tol: float) -> Ends:
    """Follow kinks from the best ends by cutting planes, as quasi-Newton steps cannot; not where there is none."""
    rows, best = _best_rows(ends, len(contest.left))
    some = rays.take(rows)
    due = contest.open & ~ends.stationary[rows]
    v = some.displacement(ends.direction[rows], torch.where(due, best, torch.nan))
    return _improve(some, ends, rows, v, contest, tol, _POLISHING, at_kinks=True)[0]


def _improve(
    rays: Rays,
    ends: Ends,
    rows: Tensor,
    start: Tensor,
    contest: Contest,
    tol: float,
    rounds: float,
    at_kinks: bool = False,
) -> tuple[Ends, Tensor]:
    """Search from new starts ``(B, n)``; what is shorter replaces the ends in ``rows``. Returns the radii, too."""
    found = descend(rays, approach(rays, start, contest), tol, contest, rounds, at_kinks)
    shorter = torch.nonzero(found.radius < ends.radius[rows])[:, 0]
    direction, radius = on_level(rays.take(shorter), found.direction[shorter], found.radius[shorter])
    better = replace(found.take(shorter), direction=direction, radius=radius)
    still = radius < ends.radius[rows[shorter]]
    radii = found.radius.index_copy(0, shorter, radius)
    return ends.replaced(rows[shorter[still]], better.take(torch.nonzero(still)[:, 0])), radii


def _confirmed(rays: Rays, ends: Ends, origins: int) -> Ends:
    """Ends of which each origin's best is on its level, not only to first order.

    A hill that ends just below the level looks, to first order, as if it met it.
    """
    seen = torch.zeros_like(ends.stationary)
    for _ in range(_CANDIDATES):
        rows, best = _best_rows(ends, origins)
        due = ~seen[rows]
        rows, best = rows[due], best[due]
        if not len(rows):
            break
        direction, exact = on_level(rays.take(rows), ends.direction[rows], best)
        ends = ends.replaced(rows, replace(ends.take(rows), direction=direction, radius=exact))
        seen[rows] = True
    return ends


def _best_rows(ends: Ends, origins: int, rank: int = 0) -> tuple[Tensor, Tensor]:
    """Each origin's ray with the shortest radius or one of the next, and that radius, ``(B,), (B,)``.

    Beyond the shortest, rays that have merged with another do not count.
    """
    radius = ends.radius if not rank else torch.where(ends.single, ends.radius, torch.inf)
    radius, order = radius.reshape(-1, origins).sort(dim=0, stable=True)
    place = min(rank, len(order) - 1)
    return order[place] * origins + torch.arange(origins, device=order.device), radius[place]


def _shortest(ends: Ends, origins: int) -> tuple[Tensor, Tensor]:
    """Direction and radius of each origin's shortest ray."""
    rows, radius = _best_rows(ends, origins)
    return ends.direction[rows], radius


def on_level(rays: Rays, direction: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """The points of rays that are on their level, from radii nearby; inf where there is none.

    Secant steps first; where they do not arrive, the level is bracketed.
    """
    exact = polished(rays, direction, radius)
    rows = torch.nonzero(torch.isinf(exact) & torch.isfinite(radius))[:, 0]
    if len(rows):
        some = rays.take(rows)
        upper = outer_bracket(some, direction[rows], 1.001 * radius[rows])
        exact[rows] = crossing(some, direction[rows], upper)
    found = torch.isfinite(exact)
    unit, length = rays.gauge.polar(rays.displacement(direction, torch.where(found, exact, 0.0)))
    return torch.where(found[:, None], unit, direction), torch.where(found, length, torch.inf)
