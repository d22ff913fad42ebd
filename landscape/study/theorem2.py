"""Theorem 2 on families of solutions: the widths of each, and how they are ordered. Plain numbers, no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import scipy.stats

from landscape.study.columns import Row

# Widths that differ by less are the same: the searches are accurate to about this.
_SAME = 1e-3


@dataclass(frozen=True)
class Solution:
    """Widths of one θ, exact and by the paper's quadratic estimate d = √(2(c − L)/λ₁)."""

    num_samples: int
    num_features: int
    dim_kernel: int
    family: str
    loss: float
    norm: float  # ‖θ‖
    w_theta: float
    w_x: float  # of the whole matrix X
    w_x_median: float  # median over samples of the width of each sample's own loss
    w_theta_quadratic: float
    w_x_quadratic: float


def theorem2_rows(found: list[Solution]) -> list[Row]:
    """Part 3 of Theorem 2 for each design and family: rank correlations of the width in θ with those in X."""
    keys = dict.fromkeys((s.num_features, s.dim_kernel, s.family) for s in found)
    rows: list[Row] = []
    for d, kernel, family in keys:
        members = [s for s in found if (s.num_features, s.family) == (d, family)]
        w_theta, w_x = [s.w_theta for s in members], [s.w_x for s in members]
        rows.append(
            {
                "d": d,
                "dim_ker": kernel,
                "family": family,
                "solutions": len(members),
                "range_w_theta": max(w_theta) / min(w_theta),
                "range_w_x": max(w_x) / min(w_x),
                "rho": rank_correlation(w_theta, w_x),
                "rho_median": rank_correlation(w_theta, [s.w_x_median for s in members]),
                "rho_quadratic": rank_correlation(
                    [s.w_theta_quadratic for s in members], [s.w_x_quadratic for s in members]
                ),
                "rho_times_norm": rank_correlation(w_theta, [s.norm * s.w_x for s in members]),
                "pairs_ordered": pairs_ordered(w_theta, w_x),
            }
        )
    return rows


def rank_correlation(x: list[float], y: list[float]) -> float:
    """Spearman's ρ; NaN where either does not vary beyond the accuracy of the searches."""
    if len(x) < 3 or not (max(x) > (1 + _SAME) * min(x) and max(y) > (1 + _SAME) * min(y)):
        return math.nan
    return float(scipy.stats.spearmanr(x, y).statistic)


def pairs_ordered(x: list[float], y: list[float]) -> float:
    """Share of the pairs with different x in which the larger x has the larger y; NaN if there is none."""
    pairs = [
        (y[i] - y[j]) * (x[i] - x[j]) > 0
        for i in range(len(x))
        for j in range(i)
        if abs(x[i] - x[j]) > _SAME * max(x[i], x[j])
    ]
    return sum(pairs) / len(pairs) if pairs else math.nan
