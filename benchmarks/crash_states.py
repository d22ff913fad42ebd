"""States that a crash may leave of a run: how many lose something, for the store as it is and with six mistakes.

python benchmarks/crash_states.py
"""

from __future__ import annotations

import functools
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import test_power_loss as crash


def report(name: str, found: tuple[int, int, list[str]]) -> None:
    count, distinct, complaints = found
    print(
        f"{name:40} {count:6} states, {distinct:5} distinct, {len(complaints):5} of these lose something",
        flush=True,
    )


def main() -> None:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        root = Path(folder)
        crash.train(root / "whole")
        reference, calls = crash.stored(root / "whole"), crash.recorded(root / "recorded", crash.train)
        look = functools.partial(crash.complaints, root / "state")
        report("as it is", look(calls, reference))
        for name, mistake in crash.MISTAKES.items():
            report(name, look(mistake(calls), reference))
        other = crash.train_with_a_second_file
        other(root / "split")
        calls, reference = crash.recorded(root / "split-recorded", other), crash.stored(root / "split")
        report("resume state in a second file", look(calls, reference, training=other))


if __name__ == "__main__":
    main()
