"""Ways to damage files, and a process that reads thousands of damaged ones and says what came of each."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sound_files import (
    ARRAYS,
    KEYS,
    ROWS,
    bits,
    contents,
    fill,
    image_of,
    segments,
    snapshot_to_export,
    write_logged,
    write_run,
)

from landscape.errors import LandscapeError, LedgerError
from landscape.interchange import child, export_snapshot
from landscape.interchange.frames import is_end, raise_error, read_header, read_state
from landscape.interchange.inspecting import describe
from landscape.interchange.state import State
from landscape.snapshots import pack_run, verify_run
from landscape.study.ledger import Ledger

# ---- ways to damage an image

Random = np.random.Generator
Way = Callable[[bytearray, Random], None]


def _place(image: bytearray, random: Random) -> int:
    """Anywhere, or half of the time among the first bytes, which are the most telling."""
    return int(random.integers(min(len(image), 512) if random.integers(2) else len(image)))


def _length(random: Random, most: int) -> int:
    """Short ones as often as long ones."""
    return int(2 ** random.uniform(0, np.log2(most)))


def flip_bit(image: bytearray, random: Random) -> None:
    image[_place(image, random)] ^= 1 << int(random.integers(8))


def change_byte(image: bytearray, random: Random) -> None:
    image[_place(image, random)] ^= int(random.integers(1, 256))


def change_bytes(image: bytearray, random: Random) -> None:
    place = _place(image, random)
    image[place : place + 16] = random.bytes(len(image[place : place + 16]))


def cut_off(image: bytearray, random: Random) -> None:
    del image[int(random.integers(len(image))) :]


def insert_bytes(image: bytearray, random: Random) -> None:
    place = _place(image, random)
    image[place:place] = random.bytes(_length(random, 64))


def repeat_block(image: bytearray, random: Random) -> None:
    source, target = _place(image, random), _place(image, random)
    image[target:target] = image[source : source + _length(random, 4096)]


def zero_block(image: bytearray, random: Random) -> None:
    place, length = _place(image, random), _length(random, 4096)
    image[place : place + length] = bytes(len(image[place : place + length]))


def swap_blocks(image: bytearray, random: Random) -> None:
    """Two blocks that do not overlap, in each other's place."""
    length = min(_length(random, 4096), len(image) // 3)
    first = int(random.integers(len(image) - 2 * length + 1))
    second = int(random.integers(first + length, len(image) - length + 1))
    image[first : first + length], image[second : second + length] = (
        image[second : second + length],
        image[first : first + length],
    )


def swap_pages(image: bytearray, random: Random) -> None:
    """Two pages of a database, each of which is sound by itself."""
    pages = [bytes(image[start : start + 4096]) for start in range(0, len(image), 4096)]
    first, second = (int(place) for place in random.integers(len(pages), size=2))
    pages[first], pages[second] = pages[second], pages[first]
    image[:] = b"".join(pages)


WAYS: tuple[Way, ...] = (
    flip_bit, change_byte, change_bytes, cut_off, insert_bytes, repeat_block, zero_block, swap_blocks, swap_pages,
)  # fmt: skip


def mutant(image: bytes, number: int) -> bytes:
    """The damaged file of this number: the same one each time."""
    random, changed = np.random.default_rng([7, number]), bytearray(image)
    WAYS[number % len(WAYS)](changed, random)
    return bytes(changed)


# ---- what is read

REFUSED, SAME, OTHER = "refused", "identical", "silently different"


@dataclass(frozen=True)
class Kind:
    """Sound files in a folder, of which one is damaged, and how all that they hold is read and compared."""

    write: Callable[[Path], Path]
    read: Callable[[Path], Any]
    compare: Callable[[Any, Any], str] = lambda found, true: SAME if found == true else OTHER
    checked: bool = True  # whether a difference in any byte that counts can be told


def _segment(folder: Path) -> Path:
    write_run(folder / "run")
    file = Path(shutil.copy(segments(folder / "run")[1], folder / "x.h5"))
    shutil.rmtree(folder / "run")
    return file


def _packed(folder: Path) -> Path:
    write_run(folder / "run")
    file = pack_run(folder / "run", folder / "x.h5")
    shutil.rmtree(folder / "run")
    return file


def _foreign(kind: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / f"x.{kind}").write_bytes(image_of(kind))
        return folder / f"x.{kind}"

    return write


def _exported(suffix: str) -> Callable[[Path], Path]:
    return lambda folder: export_snapshot(snapshot_to_export(folder), folder / f"x.{suffix}")


def _ledger(folder: Path) -> Path:
    fill(folder / "ledger.sqlite")
    return folder / "ledger.sqlite"


def _log(folder: Path) -> Path:
    write_logged(folder / "ledger.sqlite")
    return folder / "ledger.sqlite-wal"


def read_run(path: Path) -> list[bytes]:
    """Through the reader; that which verifies must say of the same file that it is damaged, and not fail."""
    verified = verify_run(path)
    with contextlib.suppress(LandscapeError):
        describe(path)
    found = contents(path)
    return found if verified.ok else [*found, b"resume"] if _only_resume(verified.problems) else []


def _only_resume(problems: tuple[str, ...]) -> bool:
    """Whether all that is wrong lies in what only resuming reads."""
    return all("resume" in problem for problem in problems)


def compare_runs(found: list[bytes], true: list[bytes]) -> str:
    """What verifying alone refuses counts as refused."""
    return REFUSED if found == [*true, b"resume"] else SAME if found == true else OTHER


def read_foreign(path: Path) -> list[Any]:
    """As the process with limits does it: looked at, then read."""
    list(_served(path, {"inspect": True}))
    states = _served(path, {"key": None, "mapped": []})
    return [(bits(state.tensors), state.position) for state in states if state]


def _served(path: Path, request: dict[str, Any]) -> Iterator[State | None]:
    stream = io.BytesIO()
    child.serve({**request, "files": [str(path)]}, stream)
    stream.seek(0)
    while not is_end(header := read_header(stream)):
        raise_error(header)
        yield None if "inspect" in request else read_state(stream, header, 1)[1]


Found = dict[str, tuple[str, bytes | None]]


def read_ledger(path: Path) -> Found:
    """Rows and arrays by key: looked at, read, then opened to write, which sets a damaged one aside."""
    path = Path(str(path).removesuffix("-wal"))
    with contextlib.suppress(LandscapeError):
        describe(path)
    with contextlib.suppress(LedgerError), Ledger(path, read_only=True) as ledger:
        _check_found(_rows(ledger))
    with Ledger(path) as ledger:
        return _rows(ledger)


def _rows(ledger: Ledger) -> Found:
    return {key: (repr(row), _arrays(ledger, key)) for key, row in ledger.find(KEYS).items()}


def _arrays(ledger: Ledger, key: str) -> bytes | None:
    try:
        stored = ledger.arrays(key)
    except LedgerError:
        return None  # told, not silent
    return stored["d_x"].tobytes() if stored else None


def _check_found(found: Found) -> None:
    if compare_ledgers(found, {}) == OTHER:
        raise AssertionError("a ledger that was only read gave other rows")


def compare_ledgers(found: Found, _: Found) -> str:
    """Rows may be absent, which is told or what a log that broke off means; others must be those written."""
    true = {key: (repr(row), arrays["d_x"].tobytes()) for key, row, arrays in zip(KEYS, ROWS, ARRAYS, strict=True)}
    if any(row != true[key][0] or arrays not in (None, true[key][1]) for key, (row, arrays) in found.items()):
        return OTHER
    return SAME if found == true else REFUSED


KINDS = {
    "segment": Kind(_segment, read_run, compare_runs),
    "packed run": Kind(_packed, read_run, compare_runs),
    "torch": Kind(_foreign("pt"), read_foreign),
    "npz": Kind(_foreign("npz"), read_foreign),
    "exported torch": Kind(_exported("pt"), read_foreign),
    "exported safetensors": Kind(_exported("safetensors"), read_foreign),
    "exported HDF5": Kind(_exported("h5"), read_foreign),
    "exported npz": Kind(_exported("npz"), read_foreign),
    "ledger": Kind(_ledger, read_ledger, compare_ledgers),
    "log of a ledger": Kind(_log, read_ledger, compare_ledgers),
    "foreign safetensors": Kind(_foreign("safetensors"), read_foreign, checked=False),
    "foreign HDF5, bare": Kind(_foreign("bare"), read_foreign, checked=False),
    "foreign HDF5, fletcher32": Kind(_foreign("h5"), read_foreign, checked=False),
    "npy": Kind(_foreign("npy"), read_foreign, checked=False),
    "torch before 1.6": Kind(_foreign("pth"), read_foreign, checked=False),
}

# ---- the process that reads them, and the one that counts

# Of processor time and of the clock: what hangs ends by a signal, wherever it hangs.
LONGEST_RUN, LONGEST_WAIT = 10, 60


def outcome_of(kind: Kind, path: Path, true: Any) -> str:
    """What reading the file at ``path`` came to; for what must not happen, the exception."""
    try:
        return kind.compare(kind.read(path), true)
    except LandscapeError:
        return REFUSED
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]


def _restore(folder: Path, files: dict[str, bytes]) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def answers(kind: Kind, folder: Path, numbers: range) -> Iterator[tuple[int, str, float]]:
    """Number, outcome and processor time of each mutant; ``folder`` must be empty."""
    path = kind.write(folder)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    true = kind.read(path)
    if kind.compare(true, true) != SAME:
        raise AssertionError(f"{path.name}: the sound file does not read as it was written")
    for number in numbers:
        _restore(folder, files | {path.name: mutant(files[path.name], number)})
        _clocks(LONGEST_RUN, LONGEST_WAIT)
        start = time.process_time()
        outcome = outcome_of(kind, path, true)
        seconds = time.process_time() - start
        _clocks(0, 0)
        yield number, outcome, seconds


def _clocks(run: float, wait: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, run)
    signal.setitimer(signal.ITIMER_REAL, wait)


def main() -> None:
    """Read mutants of a kind, in a folder, from one number to another by steps; a line each."""
    name, folder, start, stop, step = sys.argv[1:]
    for answer in answers(KINDS[name], Path(folder), range(int(start), int(stop), int(step))):
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


Answer = tuple[int, str, float]
HERE = Path(__file__).resolve().parent
COMMAND = (sys.executable, str(HERE / "mutations.py"))


def tally(
    name: str, folder: Path, count: int, command: Sequence[str] = COMMAND, processes: int = 2
) -> list[Answer]:
    """What came of each of ``count`` mutants, by several processes; those that end a process are counted too."""
    with ThreadPoolExecutor(processes) as pool:
        parts = [
            pool.submit(_share, [*command, name], folder / f"{name}-{first}", range(first, count, processes))
            for first in range(processes)
        ]
        return sorted(answer for part in parts for answer in part.result())


def _share(command: list[str], folder: Path, numbers: range) -> list[Answer]:
    """Answers to all numbers: a process that dies is followed by another, which goes on behind the culprit."""
    found: list[Answer] = []
    while len(found) < len(numbers):
        left = numbers[len(found) :]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        arguments = [str(folder), str(left.start), str(left.stop), str(left.step)]
        done = subprocess.run([*command, *arguments], cwd=HERE, capture_output=True, text=True, check=False)
        lines = done.stdout.splitlines()
        found += [tuple(json.loads(line)) for line in lines]
        if done.returncode >= 0 and len(lines) < len(left):
            raise RuntimeError(f"the process that reads {folder.name} ended by itself: {done.stderr}")
        if len(lines) < len(left):
            found.append((left[len(lines)], signal.Signals(-done.returncode).name, 0.0))
    return found


if __name__ == "__main__":
    main()
