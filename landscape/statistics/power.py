"""What a design can find."""

from __future__ import annotations

import math

from scipy.stats import norm


def detectable_correlation(degrees_of_freedom: int, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest |ρ| that a two-sided test at ``alpha`` finds with ``power``; NaN with fewer than 2 df.

    tanh((z_{1-α/2} + z_power) / sqrt(df - 1)): Fisher's z of a correlation with df + 2 free points.
    """
    if degrees_of_freedom < 2:
        return math.nan
    return math.tanh(float(norm.ppf(1 - alpha / 2) + norm.ppf(power)) / math.sqrt(degrees_of_freedom - 1))
