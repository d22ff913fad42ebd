"""The ledger: what was written is found again, by what it is of, whatever happens to the process."""

from __future__ import annotations

import gc
import math
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import HERE

from landscape.errors import LedgerError
from landscape.study.columns import FAILED, OK, Row
from landscape.study.ledger import SCHEMA, Ledger, canonical, content_key, kind_of

SUBJECT: dict[str, Any] = {
    "measurement": "row",
    "version": 1,
    "config": {"levels": (0.5, math.log(2)), "seed": 0, "tol": 0.01},
    "theta_sha256": "ab" * 32,
    "model_args": {"hidden": [20, 30], "bias": True},
    "dataset": None,
}
ROW: Row = {
    "status": OK,
    "train_loss": 0.1 + 0.2,
    "d_theta[ln2]": math.nan,
    "tiny": 5e-324,
    "epoch": 3,
    "flag": "below_minimum",
    "d_θ": -0.0,
}


def same(a: Row, b: Row) -> bool:
    """Equal to the last bit, NaN included; 1 and 1.0 differ."""
    return {k: repr(v) for k, v in a.items()} == {k: repr(v) for k, v in b.items()}


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "rows.sqlite"
    with Ledger(path) as ledger:
        ledger.write("a", SUBJECT, ROW, 1.5)
        assert same(ledger.find(["a"])["a"], ROW)
    with Ledger(path) as ledger:
        assert list(ledger.find(["b", "a", "c"])) == ["a"]
        assert same(ledger.find(["a"])["a"], ROW)
        assert ledger.find([]) == {}


def test_arrays_of_samples_lie_beside_the_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.sqlite"
    stands, distance = np.array([[True, False, True]]), np.array([0.5, math.inf, math.nan], np.float32)
    with Ledger(path) as ledger:
        ledger.write("a", SUBJECT, ROW, 1.5, {"stands": stands, "distance": distance})
        ledger.write("b", SUBJECT, ROW, 1.5)
    with Ledger(path) as ledger:
        found = ledger.arrays("a")
        assert set(found) == {"stands", "distance"} and found["stands"].dtype == bool
        np.testing.assert_array_equal(found["stands"], stands)
        np.testing.assert_array_equal(found["distance"], distance)
        assert ledger.arrays("b") == {} == ledger.arrays("c")
        ledger.write("a", SUBJECT, ROW, 1.5)
        assert ledger.arrays("a") == {}, "arrays of an earlier measurement would not be those of the row"


def test_damaged_arrays_are_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.sqlite"
    with Ledger(path) as ledger:
        ledger.write("a", SUBJECT, ROW, 1.5, {"stands": np.zeros(300)})
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE arrays SET npz = substr(npz, 1, 60)")
    with Ledger(path) as ledger, pytest.raises(LedgerError, match="cannot be used"):
        ledger.arrays("a")


def test_a_ledger_without_arrays_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "rows.sqlite"
    with Ledger(path) as ledger:
        ledger.write("a", SUBJECT, ROW, 1.5)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DROP TABLE arrays")
        for name in ("npz_sha256", "digest"):
            database.execute(f"ALTER TABLE measurements DROP COLUMN {name}")
        database.execute("PRAGMA user_version=1")
    with Ledger(path) as ledger:
        assert same(ledger.find(["a"])["a"], ROW) and ledger.arrays("a") == {}
        ledger.write("b", SUBJECT, ROW, 1.5, {"stands": np.ones(3)})
        assert len(ledger.arrays("b")) == 1


def test_a_row_that_is_measured_again_with_other_values(tmp_path: Path) -> None:
    """The first stays, and the difference is told; an equal row, or a failure, is none."""
    with Ledger(tmp_path / "rows") as ledger:
        ledger.write("a", SUBJECT, ROW, 1.0)
        ledger.write("a", SUBJECT, ROW, 2.0)
        ledger.commit()
        ledger.write("a", SUBJECT, {"status": FAILED, "error": "no memory"}, 1.0)
        assert same(ledger.find(["a"])["a"], ROW) and ledger.conflicts == []
        ledger.write("a", SUBJECT, ROW | {"epoch": 4, "new": 1}, 1.0)
        assert same(ledger.find(["a"])["a"], ROW)
        (conflict,) = ledger.conflicts
        assert conflict.key == "a" and conflict.columns == ["epoch", "new"]
        assert (conflict.stored["epoch"], conflict.measured["epoch"]) == (3, 4)


def test_rows_are_committed_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first at once, then 50 together, or after a second."""
    clock = 100.0
    monkeypatch.setattr("time.monotonic", lambda: clock)
    with Ledger(tmp_path / "rows") as ledger, closing(sqlite3.connect(tmp_path / "rows")) as other:

        def on_disk() -> int:
            return int(other.execute("SELECT count(*) FROM measurements").fetchone()[0])

        seen = []
        for number in range(103):
            ledger.write(str(number), SUBJECT, ROW, 0.0)
            seen.append(on_disk())
        assert seen == [1] * 50 + [51] * 50 + [101] * 3
        clock += 1.0
        ledger.write("later", SUBJECT, ROW, 0.0)
        assert on_disk() == 104
        ledger.write("last", SUBJECT, ROW, 0.0)
        assert on_disk() == 104 and list(ledger.find(["last"])) == ["last"]
        assert on_disk() == 105


def test_closing_commits(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Ledger(tmp_path / "rows") as ledger:
        for name in "abc":
            ledger.write(name, SUBJECT, ROW, 0.0)
        raise KeyboardInterrupt
    with Ledger(tmp_path / "rows") as ledger:
        assert list(ledger.find("abc")) == ["a", "b", "c"]


def test_seconds_of_the_same_kind(tmp_path: Path) -> None:
    """Weights and data do not matter, settings do; failures do not count."""
    with Ledger(tmp_path / "rows") as ledger:
        assert ledger.seconds() == {}
        for number, seconds in enumerate((1.0, 9.0, 2.0)):
            ledger.write(str(number), changed(("theta_sha256",), str(number)), ROW, seconds)
        ledger.write("other", changed(("config", "seed"), 1), ROW, 100.0)
        ledger.write("failed", changed(("theta_sha256",), "x"), {"status": FAILED}, 100.0)
        kinds = [kind_of(canonical(subject)) for subject in (SUBJECT, changed(("config", "seed"), 1))]
        assert ledger.seconds() == dict(zip(kinds, (2.0, 100.0), strict=True))


def test_failures_are_kept_but_not_found(tmp_path: Path) -> None:
    """They are tried again, and a success takes their place."""
    path = tmp_path / "rows"
    with Ledger(path) as ledger:
        ledger.write("a", SUBJECT, {"status": FAILED, "error": "no memory"}, 0.0)
        assert ledger.find(["a"]) == {}
        with sqlite3.connect(path) as other:
            assert other.execute("SELECT status, measured FROM measurements").fetchall() == [
                (FAILED, '{"status": "failed", "error": "no memory"}')
            ]
        other.close()
        ledger.write("a", SUBJECT, ROW, 0.0)
        assert same(ledger.find(["a"])["a"], ROW)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinity_is_not_a_measurement(tmp_path: Path, value: float) -> None:
    with Ledger(tmp_path / "rows") as ledger:
        ledger.write("a", SUBJECT, {"status": OK, "x": value}, 0.0)
        assert math.isnan(float(ledger.find(["a"])["a"]["x"] or 0))


# ---- keys


def changed(path: tuple[str, ...], value: Any, subject: dict[str, Any] = SUBJECT) -> dict[str, Any]:
    head, *rest = path
    return subject | {head: changed(tuple(rest), value, subject[head]) if rest else value}


CHANGES: dict[tuple[str, ...], list[Any]] = {
    ("measurement",): ["rows"],
    ("version",): [2],
    ("config", "levels"): [
        (0.5,),
        (math.log(2), 0.5),
        (0.5, math.nextafter(math.log(2), 1)),
        ("0.5", math.log(2)),
    ],
    ("config", "seed"): [1],
    ("config", "tol"): [math.nextafter(0.01, 1)],
    ("config", "new"): [None],
    ("theta_sha256",): ["ac" * 32],
    ("model_args",): [{}, {"hidden": [20, 30]}],
    ("model_args", "hidden"): [[30, 20], [20], [2030]],
    ("model_args", "bias"): [False],
    ("dataset",): ["mnist", "None"],
}


def test_every_part_of_the_subject_is_in_the_key() -> None:
    subjects = [SUBJECT, *(changed(path, value) for path, values in CHANGES.items() for value in values)]
    assert len({content_key(subject) for subject in subjects}) == len(subjects) == 19


def test_spelling_is_not_in_the_key() -> None:
    reordered = {key: SUBJECT[key] for key in reversed(SUBJECT)}
    reordered["config"] = {
        **dict(reversed(SUBJECT["config"].items())),
        "levels": list(SUBJECT["config"]["levels"]),
    }
    assert list(reordered) != list(SUBJECT)
    assert content_key(reordered) == content_key(SUBJECT)
    assert canonical({"a": 0.5}) == '{"a":"0x1.0000000000000p-1"}'


def test_the_key_is_stable() -> None:
    """Ledgers outlive versions of this package: this value must never change."""
    assert content_key({"a": [1, 0.1, None, "x"], "b": {}}) == (
        "86ded2eeb21ffb39cf594887216ad81a07da91edaad352d789b77ed602289b4e"
    )


# ---- files that cannot be used


def newer(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version={SCHEMA + 1}")
    database.close()


UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("status,run\n" * 200), "move it away, or name another"),
    "image": (lambda path: path.write_bytes(bytes(range(256)) * 50), "move it away, or name another"),
    "directory": (lambda path: path.mkdir(), "name another"),
    "newer": (newer, "update landscape-torch"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_files_that_are_refused(tmp_path: Path, kind: str) -> None:
    """The message says what to do, the file stays, and no connection is left open."""
    make, advice = UNUSABLE[kind]
    path = tmp_path / "rows"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(LedgerError, match=advice) as caught:
        Ledger(path)
    assert str(path) in str(caught.value)
    assert (path.read_bytes() if path.is_file() else None) == before
    del caught
    gc.collect()  # an open connection would warn here


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="cannot be used"):
        Ledger(tmp_path / "file" / "rows.sqlite")


@pytest.mark.parametrize("text", ["{", "[1]", "3"])
def test_a_row_that_is_none(tmp_path: Path, text: str) -> None:
    with Ledger(tmp_path / "rows") as ledger:
        ledger.write("a", SUBJECT, ROW, 0.0)
        ledger._database.execute("UPDATE measurements SET measured = ?", (text,))
        with pytest.raises(LedgerError, match="move it away"):
            ledger.find(["a"])


def test_a_row_that_cannot_be_written(tmp_path: Path) -> None:
    with Ledger(tmp_path / "rows") as ledger:
        ledger.write("a", SUBJECT, ROW, 0.0)
        ledger._database.execute("PRAGMA query_only=1")
        ledger.write("b", SUBJECT, ROW, 0.0)
        with pytest.raises(LedgerError, match="what was committed before is safe"):
            ledger.commit()
        assert list(ledger.find("ab")) == ["a"]


# ---- several processes

WRITER = """
import itertools, sys
from landscape.study.ledger import Ledger

with Ledger(sys.argv[1]) as ledger:
    for number in itertools.count():
        ledger.write(f"{sys.argv[2]}-{number}", {"number": number}, {"status": "ok", "number": number}, 0.0)
        ledger.commit()
        print(number, flush=True)
"""


def test_killed_while_writing(tmp_path: Path) -> None:
    """Whatever `commit` returned for is there after SIGKILL, with two processes writing to one file."""
    path = tmp_path / "rows"
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, cwd=HERE) for name in "ab"]
    acknowledged = {}
    for name, writer, count in zip("ab", writers, (20, 35), strict=True):
        with writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(count)]
            writer.kill()
            lines += writer.stdout.readlines()
        assert writer.returncode == -signal.SIGKILL
        acknowledged[name] = sum(line.endswith(b"\n") for line in lines)
        assert acknowledged[name] >= count
    with Ledger(path) as ledger:
        for name, count in acknowledged.items():
            found = ledger.find(f"{name}-{number}" for number in range(count))
            assert [row["number"] for row in found.values()] == list(range(count))


def test_a_reader_beside_a_writer(tmp_path: Path) -> None:
    with Ledger(tmp_path / "rows") as writer, Ledger(tmp_path / "rows") as reader:
        for number in range(5):
            writer.write(str(number), SUBJECT, ROW, 0.0)
            writer.commit()
            assert len(reader.find(map(str, range(5)))) == number + 1


@pytest.mark.parametrize("attempt", range(5))
def test_opened_at_once(tmp_path: Path, attempt: int) -> None:
    """A new file that eight writers open, and create, at the same moment."""
    together = threading.Barrier(8)

    def work(name: str) -> int:
        together.wait()
        with Ledger(tmp_path / "rows") as ledger:
            ledger.write(name, SUBJECT, ROW, 0.0)
            return len(ledger.find([name]))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, "abcdefgh")) == [1] * 8
    with Ledger(tmp_path / "rows") as ledger:
        assert len(ledger.find("abcdefgh")) == 8


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE notes (text TEXT)")
    database.close()
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="another program"):
        Ledger(path)
    assert path.read_bytes() == before
