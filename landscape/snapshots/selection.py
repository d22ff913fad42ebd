"""Choosing several snapshots of each run by words."""

from __future__ import annotations

from collections.abc import Callable

from landscape.errors import ConfigurationError
from landscape.snapshots.select import FORMS, is_count, parse_loss, parse_position

SEVERAL = "every:N, epochs:N,N,… or equal-loss:LOSS"


def positions(select: str, count: int) -> list[str]:
    """Positions, as `select_index` takes them, that ``select`` names in a run of ``count`` snapshots.

    ``every:8`` is each eighth stored snapshot and the last, ``epochs:1,2,5`` the ends of these epochs,
    ``equal-loss:0.01`` the snapshot with the nearest training loss; all else is one position.

    Raises:
        ConfigurationError: If ``select`` is none of these.
    """
    kind, colon, argument = select.partition(":")
    if colon and kind not in _SEVERAL:
        raise ConfigurationError(f"Got the selection {select!r}; it must be {SEVERAL}, or {FORMS}.")
    found = _SEVERAL[kind](argument, count) if colon else [select]
    for position in found:
        parse_position(position)
    return found


def check_selection(select: str) -> str:
    """``select`` as it is; ConfigurationError if `positions` would refuse it."""
    positions(select, 1)
    return select


def _every(argument: str, count: int) -> list[str]:
    step = int(argument) if is_count(argument) else 0
    if step < 1:
        raise ConfigurationError(
            f"Got every:{argument}; it must be a whole number of at least 1, such as every:8."
        )
    return [f"index={index}" for index in sorted({*range(0, count, step), count - 1})]


def _epochs(argument: str, _: int) -> list[str]:
    epochs = argument.split(",")
    if not all(map(is_count, epochs)):
        raise ConfigurationError(f"Got epochs:{argument}; it must be whole numbers, such as epochs:1,2,5.")
    return [f"epoch={epoch}" for epoch in dict.fromkeys(map(int, epochs))]


def _equal_loss(argument: str, _: int) -> list[str]:
    return [f"equal-loss={parse_loss(argument)!r}"]


_SEVERAL: dict[str, Callable[[str, int], list[str]]] = {
    "every": _every,
    "epochs": _epochs,
    "equal-loss": _equal_loss,
}
