"""Thousands of damaged files of every kind: no crash, no hang, and nothing that reads as something else."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mutations import KINDS, OTHER, REFUSED, SAME, Answer, tally

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

COUNT = int(os.environ.get("LANDSCAPE_MUTANTS", "2000"))
HEAD = ("file", "mutants", "refused", "identical", "silently different", "crashes, hangs", "slowest, s")
WIDTHS = (26, *(max(9, len(text) + 2) for text in HEAD[1:]))


def line(cells: tuple[object, ...]) -> str:
    first, *others = (str(cell) for cell in cells)
    return first.ljust(WIDTHS[0]) + "".join(
        text.rjust(width) for text, width in zip(others, WIDTHS[1:], strict=True)
    )


def counts(answers: list[Answer]) -> tuple[int, ...]:
    """Mutants, and of these the refused, the identical, the silently different, and all else."""
    found = Counter(outcome for _, outcome, _ in answers)
    known = [found[outcome] for outcome in (REFUSED, SAME, OTHER)]
    return len(answers), *known, len(answers) - sum(known)


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[Callable[[str, list[Answer]], None]]:
    """Gathers a line for each kind of file, and shows all at the end."""
    rows: list[tuple[object, ...]] = []
    yield lambda name, found: rows.append((name, *counts(found), f"{max(s for *_, s in found):.2f}"))
    plugins = request.config.pluginmanager
    reporter, capture = plugins.getplugin("terminalreporter"), plugins.getplugin("capturemanager")
    total = ("in all", *(sum(int(str(row[place])) for row in rows) for place in range(1, 6)), "")
    with capture.global_and_fixture_disabled():
        for row in ("", *map(line, (HEAD, *rows, total))) if reporter else ():
            reporter.write_line(row)


@pytest.mark.parametrize("name", KINDS)
def test_mutants(fast_disk: Path, table: Callable[[str, list[Answer]], None], name: str) -> None:
    answers = tally(name, fast_disk, COUNT)
    table(name, answers)
    assert [number for number, *_ in answers] == list(range(COUNT))
    allowed = {REFUSED, SAME} if KINDS[name].checked else {REFUSED, SAME, OTHER}
    assert [answer for answer in answers if answer[1] not in allowed] == []
    assert [answer for answer in answers if answer[2] > 1] == []
    assert counts(answers)[1] > COUNT // 2, "what damages hardly any file tests nothing"


SEEDED = """
import ctypes, mutations
from mutations import Kind

def read(path):
    number = path.read_bytes()[0]
    if number == 1:
        ctypes.string_at(0)
    if number == 2:
        while True:
            pass
    if number == 3:
        raise ValueError("not ours")
    return "wrong" if number == 4 else "true"

def write(folder):
    (folder / "x").write_bytes(b"0")
    return folder / "x"

mutations.KINDS["seeded"] = Kind(write, read)
mutations.LONGEST_RUN = 1
mutations.mutant = lambda image, number: bytes([number])
mutations.main()
"""


def test_what_must_not_happen_is_seen(fast_disk: Path) -> None:
    """Each of the four faults is counted once, and what comes behind it is read all the same."""
    answers = tally("seeded", fast_disk, 7, (sys.executable, "-c", SEEDED))
    outcomes = [SAME, "SIGSEGV", "SIGPROF", "ValueError: not ours", OTHER, SAME, SAME]
    assert [outcome for _, outcome, _ in answers] == outcomes
    assert counts(answers) == (7, 0, 3, 1, 3)
