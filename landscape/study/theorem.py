"""Theorem 1 of the paper around a snapshot, as rows of a table."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from landscape.geometry.level_sets import LevelSetDistance
from landscape.geometry.theorem import check_theorem, even_rays, random_rays, slope_ratio, width_ratios
from landscape.objectives import Objective
from landscape.study.columns import Row

# Points on every ray that is not random.
_STEPS = 20
# Excess over a bound that is not counted, in units of the bound.
_TOLERANCE = 1e-4


def theorem_rows(
    phi: Objective, found: LevelSetDistance, eigenvectors: Tensor, num_points: int, seed: int
) -> list[Row]:
    """Theorem 1 around every row of ``phi``: a table row for each level and kind of point, pooled over rows.

    Args:
        phi: Over θ or X.
        found: Its Euclidean level-set distances.
        eigenvectors: Leading ones, ``(B, k, n)``; both signs are tried.
        num_points: Random points for each row and level.
        seed: Of the random points.
    """
    leading = eigenvectors.transpose(0, 1)
    gradient = phi.value_and_grad(phi.origin)[1][None]
    nearest = (found.points.to(phi.origin) - phi.origin[:, None]).transpose(0, 1)
    rays = {
        "random": random_rays(phi.origin, num_points, seed),
        "eigenvector": even_rays(torch.cat([leading, -leading]), _STEPS),
        "gradient": even_rays(torch.cat([gradient, -gradient]), _STEPS),
        "nearest": even_rays(nearest, _STEPS),
    }
    rows: list[Row] = []
    for kind, (directions, fractions) in rays.items():
        check = check_theorem(phi, found, directions, fractions, _TOLERANCE)
        for i, level in enumerate(found.levels.tolist()):
            weight = check.num_points[:, i].double()
            rows.append(
                {
                    "c": level,
                    "points": kind,
                    "num_points": int(weight.sum()),
                    "above_level": _mean(check.above_level[:, i], weight),
                    "above_cone": _mean(check.above_cone[:, i], weight),
                    "not_convex": _mean(check.not_convex[:, i], weight),
                    "worst_level": _largest(check.worst_level[:, i]),
                    "worst_ratio": _largest(check.worst_ratio[:, i]),
                }
            )
    return rows


def width_rows(found: LevelSetDistance) -> list[Row]:
    """Part 2 of Theorem 1 put exactly, w(c) ≤ w(c′) for all c′ < c, and how much steeper than 1/w(c) φ gets.

    Pooled over rows.
    """
    ratios, slopes = width_ratios(found), slope_ratio(found)
    rows: list[Row] = []
    for i, level in enumerate(found.levels.tolist()):
        pairs = ratios[:, :, i][~ratios[:, :, i].isnan()]
        rows.append(
            {
                "c": level,
                "pairs": len(pairs),
                "wider_above": (pairs > 1 + _TOLERANCE).double().mean().item(),
                "worst_ratio": _largest(pairs),
                "slope_median": slopes[:, i].nanmedian().item(),
                "slope_max": _largest(slopes[:, i]),
            }
        )
    return rows


def _mean(shares: Tensor, weight: Tensor) -> float:
    total = weight.sum().item()
    return (shares.nan_to_num() * weight).sum().item() / total if total else math.nan


def _largest(values: Tensor) -> float:
    known = values[~values.isnan()]
    return known.max().item() if len(known) else math.nan
