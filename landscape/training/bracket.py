"""The search for the largest learning rate that converges: a bracket by powers of 2, then bisection."""

from __future__ import annotations

from collections.abc import Mapping

# Powers of 2 below and above the start that are tried at most.
REACH = 12
# Learning rates that are tried at once while there is no bracket.
_WAVE = 2
# Digits of a learning rate within the bracket, so that names of runs stay short.
_DIGITS = 4
# Ratios of the last bracket that can be asked for: rounding must move no rate out of it; at 2 none is bisected.
TOLERANCES = (1.01, 2.0)


def bracket_of(converges: Mapping[float, bool]) -> tuple[float | None, float | None]:
    """The largest learning rate that converges, and the smallest tried above it; None where there is none."""
    low = max((rate for rate, does in converges.items() if does), default=None)
    if low is None:
        return None, None
    return low, min((rate for rate in converges if rate > low), default=None)


def is_monotone(converges: Mapping[float, bool]) -> bool:
    """Whether no learning rate that fails lies between two that converge.

    Failures below all that converge are no contradiction: those rates were too small for so few steps.
    """
    outcomes = [converges[rate] for rate in sorted(converges)]
    return not outcomes.count(True) or all(outcomes[outcomes.index(True) :][: outcomes.count(True)])


def next_rates(converges: Mapping[float, bool], start: float, tolerance: float) -> tuple[float, ...]:
    """What to try next, given the outcomes so far; nothing once the search has ended.

    Powers of 2 around ``start``, upwards while the largest converges and on both sides while none does, until one
    converges and the next does not, or `REACH` ends the ladder. Then geometric means, until the ratio of the
    bracket is at most ``tolerance``: for a bracket of ratio 2 these are ⌈log₂(ln 2 / ln tolerance)⌉, give or take
    one by rounding.
    """
    low, high = bracket_of(converges)
    if low is not None and high is not None:
        return (_between(low, high),) if high / low > tolerance else ()
    ladder = [start * 2.0**power for power in range(-REACH, REACH + 1)]
    tried = [place for place, rate in enumerate(ladder) if rate in converges]
    if not tried:
        return tuple(ladder[REACH:][:_WAVE])
    if low is not None:
        return tuple(ladder[tried[-1] + 1 :][:_WAVE])
    return tuple(ladder[: tried[0]][-1:] + ladder[tried[-1] + 1 :][:1])


def _between(low: float, high: float) -> float:
    return float(f"{(low * high) ** 0.5:.{_DIGITS}g}")
