"""Checks of a curve d(c) against itself: the envelope identity, and its inverse function S(ρ).

Both work in log (c − φ*), in which the curve of a power law, such as that of a quadratic minimum, is a line.
"""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.errors import ConfigurationError


def envelope_increments(levels: Tensor, value: Tensor, distance: Tensor, gradient_norm: Tensor) -> Tensor:
    """Deviation of d′(c)·‖∇φ‖ from 1 between neighbouring levels, ``(B, C − 1)``.

    By the envelope theorem d(c₂) − d(c₁) = ∫ dc/‖∇φ‖. With x = c − φ* and y = x/‖∇φ‖ = dd/d log x at both ends,
    the integral is log(x₂/x₁) times the logarithmic mean of y₁ and y₂: exact when ‖∇φ‖ is a power of x between
    the levels (quadratic minima, hyperplanes), else accurate to second order in log(x₂/x₁). Returned is the
    increment over that integral, minus 1. It is zero along any branch of stationary points, nearest or not: it
    reveals searches that stopped early, and levels between which the nearest point jumps.

    Args:
        levels: Levels c, ascending, ``(C,)``.
        value: φ* of each row, ``(B,)``.
        distance: d(c), ``(B, C)``; NaN where there is none.
        gradient_norm: Dual norm of the gradient at the nearest points, ``(B, C)``.

    Raises:
        ConfigurationError: If the levels do not ascend.
    """
    climb = _climb(levels, value)
    y = climb / gradient_norm.double()
    ratio = climb[:, 1:].log() - climb[:, :-1].log()
    return distance.double().diff(dim=1) / (ratio * _logarithmic_mean(y[:, :-1], y[:, 1:])) - 1


def envelope_deviation(levels: Tensor, value: Tensor, distance: Tensor, gradient_norm: Tensor) -> Tensor:
    """`envelope_increments` per level: that of the two neighbouring intervals which is larger in size, ``(B, C)``.

    NaN where a level has no neighbour.
    """
    steps = envelope_increments(levels, value, distance, gradient_norm)
    edge = torch.full_like(steps[:, :1], torch.nan)
    if not steps.shape[1]:
        return torch.full_like(distance, torch.nan, dtype=torch.float64)
    before, after = torch.cat([edge, steps], 1), torch.cat([steps, edge], 1)
    after_larger = (after.abs() > before.abs()) | before.isnan()
    return torch.where(after_larger & ~after.isnan(), after, before)


def distance_of_climb(
    levels: Tensor, value: Tensor, distance: Tensor, gradient_norm: Tensor, climbs: Tensor
) -> Tensor:
    """Distances at the levels φ* + ``climbs``, ``(B, R)``, read off the curve; NaN outside of it.

    Cubic Hermite interpolation of log d in log (c − φ*) with the slopes of the envelope identity, made monotone
    (Fritsch & Carlson 1980). A level above that is met nearer replaces a longer distance.
    """
    result = torch.full_like(climbs, torch.nan, dtype=torch.float64)
    climb = _climb(levels, value)
    nearer = torch.nan_to_num(distance.double(), torch.inf, torch.inf).flip(1).cummin(1).values.flip(1)
    for row in range(len(climb)):
        usable = torch.isfinite(distance[row]) & (climb[row] > 0)
        if int(usable.sum()) > 1:
            x, d = climb[row, usable], nearer[row, usable]
            slope = x / (d * gradient_norm[row, usable].double())
            result[row] = _hermite(x.log(), d.log(), slope, climbs[row].double().log()).exp()
    return result


def inverse_disagreement(
    levels: Tensor, value: Tensor, distance: Tensor, gradient_norm: Tensor, radii: Tensor, sharpness: Tensor
) -> Tensor:
    """By how much d(φ* + S(ρ)) exceeds ρ, as a share of ρ, ``(B, R)``; NaN outside of the curve.

    d and S are inverse functions of each other; a found d is an upper bound and a found S a lower one. Positive
    numbers say that d is too long: the point that gives S(ρ) lies beyond the level within a shorter distance.
    Negative ones say that S is too small: the nearest point found on a level above φ* + S(ρ) lies within ρ.
    """
    return distance_of_climb(levels, value, distance, gradient_norm, sharpness) / radii - 1


def distance_within(radii: Tensor, sharpness: Tensor, climbs: Tensor) -> Tensor:
    """An upper bound on d(φ* + climb): the smallest ρ with S(ρ) ≥ climb, ``(B, C)``; inf if there is none.

    Args:
        radii: ``(B, R)``.
        sharpness: S(ρ) as found, ``(B, R)``.
        climbs: c − φ*, ``(B, C)``.
    """
    enough = sharpness[:, None] >= climbs[..., None]
    return torch.where(enough, radii[:, None], torch.inf).amin(-1)


def _climb(levels: Tensor, value: Tensor) -> Tensor:
    """Climbs c − φ*, ``(B, C)``; NaN where it is not positive."""
    if not (levels.diff() > 0).all():
        raise ConfigurationError(f"levels {levels.tolist()} do not ascend; sort them first.")
    climb = levels.double() - value.double()[:, None]
    return torch.where(climb > 0, climb, torch.nan)


def _logarithmic_mean(first: Tensor, second: Tensor) -> Tensor:
    """(b − a) / log(b/a) = √(ab) sinh(t)/t with t = ½ log(b/a), which does not cancel at a = b."""
    half = (second / first).log() / 2
    near = half.abs() < 1e-3
    ratio = torch.where(near, 1 + half**2 / 6, half.sinh() / torch.where(near, 1.0, half))
    return (first * second).sqrt() * ratio


def _hermite(x: Tensor, y: Tensor, slope: Tensor, at: Tensor) -> Tensor:
    """Monotone cubic interpolation of ascending nodes ``(C,)`` with given slopes; NaN outside of them."""
    index = torch.searchsorted(x, at.contiguous()).clamp(1, len(x) - 1)
    x0, x1, y0, y1 = x[index - 1], x[index], y[index - 1], y[index]
    h = x1 - x0
    secant = (y1 - y0) / h
    # Slopes of at most three times the secant keep a cubic monotone; a secant of zero makes it flat.
    m0, m1 = (torch.minimum(slope[i].clamp_min(0), 3 * secant) for i in (index - 1, index))
    t = (at - x0) / h
    cubic = y0 + h * t * (m0 + t * (3 * secant - 2 * m0 - m1 + t * (m0 + m1 - 2 * secant)))
    # Rounding must not lose the end points.
    outside = (at < x[0] - 1e-9) | (at > x[-1] + 1e-9) | at.isnan()
    return torch.where(outside, torch.nan, cubic)
