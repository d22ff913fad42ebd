"""The order of snapshots in training: from what the files say, else from numbers in their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from landscape.errors import UnsupportedFormatError

_NAMED = {kind: re.compile(rf"{kind}s?[=_\- ]?(\d+)", re.IGNORECASE) for kind in ("step", "epoch")}
_ADVICE = "Give the files in their order with --order given."


@dataclass(frozen=True)
class Place:
    """Where one snapshot is in training, 0 where that is unknown, and the number by which it is sorted."""

    number: int
    step: int
    epoch: int
    ends_epoch: bool
    step_known: bool


def places(names: Sequence[str], positions: Sequence[dict[str, int]], given: bool = False) -> tuple[Place, ...]:
    """Place of each snapshot; UnsupportedFormatError when the order is ambiguous or two have the same place.

    Args:
        names: Path of the file of each snapshot.
        positions: ``step`` and ``epoch`` as each file says.
        given: Whether the snapshots are in their order already; what the files say is then passed over.
    """
    if given:
        return tuple(Place(place, place, 0, False, False) for place in range(len(names)))
    kind, numbers = _numbers(names, positions)
    found = tuple(_place(kind, number, position) for number, position in zip(numbers, positions, strict=True))
    ordered = sorted(range(len(found)), key=lambda i: found[i].number)
    for before, after in pairwise(ordered):
        first, second = found[before], found[after]
        if first.number == second.number:
            raise UnsupportedFormatError(
                f"{names[before]} and {names[after]} have the same {kind} {first.number}. "
                "Leave one out, or give the files in their order with --order given."
            )
        if first.step > second.step or first.epoch > second.epoch:
            raise UnsupportedFormatError(
                f"{names[before]} (step {first.step}, epoch {first.epoch}) and {names[after]} (step "
                f"{second.step}, epoch {second.epoch}) are in one order "
                f"by {kind}, in another by what they say. Leave one out."
            )
    return found


def _numbers(names: Sequence[str], positions: Sequence[dict[str, int]]) -> tuple[str, list[int]]:
    # Rows of one matrix are in the order of training.
    if len(set(names)) == 1 and not any(positions):
        return "place", list(range(len(names)))
    for kind in ("step", "epoch"):
        values = [position[kind] for position in positions if kind in position]
        # A number that is the same in all files, such as an epoch that was never counted up, tells no order.
        if len(values) == len(names) and (len(set(values)) > 1 or len(names) == 1):
            return kind, values
    for kind, pattern in _NAMED.items():
        matches = [_search(pattern, name) for name in names]
        if all(matches):
            return kind, [int(found) for found in matches if found]
    return "number in the name", [0] if len(names) == 1 else _varying(names)


def _search(pattern: re.Pattern[str], name: str) -> str | None:
    path = Path(name)
    for part in (path.name, path.parent.name):
        if found := pattern.findall(part):
            return str(found[-1])
    return None


def _varying(names: Sequence[str]) -> list[int]:
    """The one number that differs among names, of the files or else of their folders."""
    for part in ([Path(name).name for name in names], [Path(name).parent.name for name in names]):
        rows = [[int(number) for number in re.findall(r"\d{1,18}", name)] for name in part]
        columns = list(zip(*rows, strict=False))
        if len({len(row) for row in rows}) != 1 or not columns:
            continue
        varying = [list(column) for column in columns if len(set(column)) > 1]
        if len(varying) == 1:
            return varying[0]
        if varying:
            raise UnsupportedFormatError(
                f"The names differ in several numbers, as {part[0]} and {part[1]}. {_ADVICE}"
            )
    raise UnsupportedFormatError(f"Neither the {len(names)} snapshots nor their names tell their order. {_ADVICE}")


def _place(kind: str, number: int, position: dict[str, int]) -> Place:
    step = position.get("step", 0 if kind == "epoch" else number)
    epoch = position.get("epoch", number if kind == "epoch" else 0)
    ends = kind == "epoch" or "epoch" in position
    return Place(number, step, epoch, ends, kind == "step" or "step" in position)
