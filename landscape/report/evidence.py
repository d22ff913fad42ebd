"""The grade of a row's distance in θ: how much can be said for it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from landscape.study.columns import BELOW_MINIMUM, NOT_REACHED, Cell, flag_column, level_column, numbers

GRADES = ("strong", "fair", "weak", "saturated", NOT_REACHED, BELOW_MINIMUM, "unknown")
STRONG_ANGLE, FAIR_ANGLE, AGREEING = 0.1, 0.35, 0.01


def grade_of(row: Mapping[str, Cell], level: str) -> str:
    """One of ``GRADES`` for d_θ at ``level``, as defined in docs/method.md.

    A row that holds no ``d_theta_grade[level]`` is judged by what it does hold. The angle to the gradient is at
    least the angle at kinks, and a positive spread of at most 1 % means that all of several searches agree, so
    that the grade is never too high; it can be too low.
    """
    stored, flag = row.get(level_column("d_theta_grade", level)), row.get(flag_column(level))
    if stored or flag in (NOT_REACHED, BELOW_MINIMUM):
        return str(stored or flag)
    (angle,), (spread,) = (numbers([row], level_column(f"d_theta_{name}", level)) for name in ("angle", "spread"))
    if math.isnan(angle):
        return "unknown"
    if angle < STRONG_ANGLE and 0 < spread <= AGREEING:
        return "strong"
    return "fair" if angle < FAIR_ANGLE else "weak"
