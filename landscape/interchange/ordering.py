"""The order of snapshots in training: from what the files say, else from numbers in their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from landscape.errors import UnsupportedFormatError

_NAMED = {
    "step": re.compile(r"steps?[=_\- ]?(\d+)", re.IGNORECASE),
    "epoch": re.compile(r"(?:epochs?|(?<![a-z0-9])e|(?<![a-z0-9])ep)[=_\- ]?(\d+)", re.IGNORECASE),
}
_NUMBER = re.compile(r"([a-z]*)[=_\- ]?(\d{1,18}(?:\.\d+)?)", re.IGNORECASE)
# What names call the settings of a run; files that differ in them are of several runs.
_SETTINGS = {"seed", "s", "lr", "wd", "bs", "batch", "run", "fold", "trial", "rep"}
_ADVICE = "Give the files in their order with --order given."


@dataclass(frozen=True)
class Place:
    """Where one snapshot is in training, 0 where that is unknown, and the number by which it is sorted."""

    number: int
    step: int
    epoch: int
    ends_epoch: bool
    step_known: bool


@dataclass(frozen=True)
class Order:
    """Places of all snapshots, and what told them."""

    kind: str
    places: tuple[Place, ...]

    @property
    def ranks(self) -> list[int]:
        """The snapshots in their order."""
        return sorted(range(len(self.places)), key=lambda i: self.places[i].number)


def order_of(names: Sequence[str], positions: Sequence[dict[str, int]], given: bool = False) -> Order:
    """Place of each snapshot; UnsupportedFormatError when the order is ambiguous or two have the same place.

    What does not say its epoch is placed in the last one that is known, without being its end.

    Args:
        names: Path of the file of each snapshot.
        positions: ``step`` and ``epoch`` as each file says.
        given: Whether the snapshots are in their order already.
    """
    if given:
        kind, numbers = "place in the list", list(range(len(names)))
    else:
        _check_one_run(names)
        kind, numbers = _numbers(names, positions)
    found = Order(kind, tuple(_place(kind, n, said) for n, said in zip(numbers, positions, strict=True)))
    _check_distinct(names, found)
    return _filled(names, found)


def _check_one_run(names: Sequence[str]) -> None:
    """Refuse names that differ in a setting: they are those of several runs."""
    for word in sorted(_SETTINGS):
        values = [[n for w, n in _NUMBER.findall(Path(name).name) if w.lower() == word] for name in names]
        for other, value in zip(names, values, strict=True):
            if value != values[0]:
                raise UnsupportedFormatError(
                    f"{names[0]} and {other} differ in {word!r}, as files of several runs do. Import each run by "
                    "itself; if they are one run, give the files in their order with --order given."
                )


def _check_distinct(names: Sequence[str], order: Order) -> None:
    for before, after in pairwise(order.ranks):
        if order.places[before].number == order.places[after].number:
            raise UnsupportedFormatError(
                f"{names[before]} and {names[after]} have the same {order.kind} {order.places[before].number}. "
                "Leave one out, or give the files in their order with --order given."
            )


def _filled(names: Sequence[str], order: Order) -> Order:
    """Unknown steps and epochs as the last known ones; UnsupportedFormatError where those known go backwards."""
    places, last, previous = list(order.places), (0, 0), ""
    for rank in order.ranks:
        place = places[rank]
        step = place.step if place.step_known else max(place.step, last[0])
        epoch = place.epoch if place.ends_epoch else last[1]
        if step < last[0] or epoch < last[1]:
            first, second = (f"(step {s}, epoch {e})" for s, e in (last, (step, epoch)))
            raise UnsupportedFormatError(
                f"{previous} {first} and {names[rank]} {second} are in one order by {order.kind}, in another by "
                "what they say. Leave one out."
            )
        places[rank], last, previous = replace(place, step=step, epoch=epoch), (step, epoch), names[rank]
    return replace(order, places=tuple(places))


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
    """The one whole number that differs among names, of the files or else of their folders."""
    for part in ([Path(name).name for name in names], [Path(name).parent.name for name in names]):
        rows = [[number for _, number in _NUMBER.findall(name)] for name in part]
        columns = list(zip(*rows, strict=False))
        if len({len(row) for row in rows}) != 1 or not columns:
            continue
        # A number with a point is a reading or a setting.
        whole = [[int(n) for n in column] for column in columns if all(map(str.isdigit, column))]
        varying = [column for column in whole if len(set(column)) > 1]
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
