"""Multi-start search for the nearest point of one level set, for B origins and S starts in lock-step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from landscape.geometry.descent import descend
from landscape.geometry.rays import Rays, crossing, outer_bracket

# Starts are compared after a rough descent to this tangent; only those that can still win are refined.
_ROUGH = 0.1
# Rough radii are good to about a per cent: what is longer than the shortest by this factor is not refined.
_WINNING = 1.05
# Ends closer than this cosine, at radii closer than this ratio, are one local minimum.
_SAME_DIRECTION = 0.995
_SAME_RADIUS = 1.01
# Where to bracket a level first, in units of the radius of the level before.
_AHEAD = 1.2
# Accuracy of a crossing from which a descent starts, in units of the climb.
_LOOSE = 0.02


@dataclass(frozen=True)
class Starts:
    """Rays to descend from: unit directions in the metric's coordinates, and radii to bracket at."""

    direction: Tensor  # (S, B, n) float64; NaN for a start without a direction
    radius: Tensor  # (S, B)
    twin: Tensor  # (S, B) index of the start that this one has merged with, its own if none


@dataclass(frozen=True)
class Nearest:
    """Nearest points found on one level set."""

    direction: Tensor  # (B, n) unit, float64
    radius: Tensor  # (B,) inf where the level was not reached
    ends: Tensor  # (S, B) radii at which the starts ended; inf where one did not reach the level


def nearest(rays: Rays, starts: Starts, tol: float, budget: int) -> tuple[Nearest, Starts]:
    """Descend from all starts; return the nearest points, and the ends as starts for the next level.

    Args:
        rays: Rays of all starts of all origins, start-major, ``S B`` of them.
        starts: Where to begin.
        tol: Tangent of the angle between direction and gradient at which to stop.
        budget: Gradients per start at most.
    """
    count, rows, size = starts.direction.shape
    competition = torch.arange(rows, device=starts.radius.device).repeat(count)
    flat = starts.direction.reshape(-1, size)
    usable = torch.isfinite(flat).all(-1) & _unmerged(starts).reshape(-1) & (rays.height < rays.target)
    guess = torch.where(usable, starts.radius.reshape(-1), torch.inf)
    first = crossing(rays, flat, outer_bracket(rays, flat, guess), _LOOSE)
    rough = descend(rays, flat, first, _ROUGH, budget, competition)
    merged = _merge(starts, rough.direction.reshape(starts.direction.shape), rough.radius.reshape(count, rows))
    hopeful = _hopeful(merged).reshape(-1)
    fine = descend(rays, rough.direction, torch.where(hopeful, rough.radius, torch.inf), tol, budget, competition)
    radius = torch.where(hopeful, fine.radius, rough.radius).reshape(count, rows)
    found = _shortest(rays, fine.direction.reshape(count, rows, size), radius)
    ends = torch.gather(radius, 0, merged.twin)
    reached = torch.isfinite(merged.radius)
    onward = torch.where(reached, _AHEAD * merged.radius, starts.radius)
    return Nearest(*found, ends), replace(merged, radius=onward)


def refine(rays: Rays, direction: Tensor, radius: Tensor, tol: float, budget: int) -> tuple[Tensor, Tensor]:
    """Descend from one direction for every origin, and end on the level; rays ``(B,)``."""
    everything = torch.arange(len(radius), device=radius.device)
    fine = descend(rays, direction, radius, tol, budget, everything)
    return _shortest(rays, fine.direction[None], fine.radius[None])


def _shortest(rays: Rays, direction: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """The shortest of ``(S, B)`` radii, made exact on its ray."""
    best = radius.argmin(0)
    rows = torch.arange(radius.shape[1], device=radius.device)
    winner, length = direction[best, rows], radius[best, rows]
    some = rays.take(rows)
    return winner, crossing(some, winner, outer_bracket(some, winner, 1.001 * length))


def _unmerged(starts: Starts) -> Tensor:
    own = torch.arange(len(starts.twin), device=starts.twin.device)[:, None]
    return starts.twin == own


def _merge(starts: Starts, direction: Tensor, radius: Tensor) -> Starts:
    """Let starts that ended at the same point go on as one; the first of them does the work."""
    twin = starts.twin.clone()
    for later in range(1, len(direction)):
        for earlier in range(later):
            same = (direction[later] * direction[earlier]).sum(-1) > _SAME_DIRECTION
            ratio = radius[later] / radius[earlier]
            same &= (ratio < _SAME_RADIUS) & (ratio > 1 / _SAME_RADIUS)
            same &= (twin[later] == later) & (twin[earlier] == earlier)
            twin[later] = torch.where(same, earlier, twin[later])
    # Whoever had merged with a start that merges now follows it.
    twin = torch.gather(twin, 0, twin)
    return Starts(direction, radius, twin)


def _hopeful(starts: Starts) -> Tensor:
    shortest = starts.radius.amin(0)
    return _unmerged(starts) & torch.isfinite(starts.radius) & (starts.radius <= _WINNING * shortest)
