"""Damaged ledgers are set aside and rebuilt: never a crash, and never a row that is not what was measured."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sound_files import ARRAYS, COUNT, KEYS, ROWS, SUBJECTS, fill, write_logged

from landscape.errors import LedgerError
from landscape.study.columns import FAILED
from landscape.study.file_systems import on_network
from landscape.study.ledger import Ledger
from landscape.study.ledger_damage import salvage, set_aside


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "ledger.sqlite"
    fill(path)
    return path


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger whose writer was killed: its rows lie in the log beside it."""
    path = tmp_path_factory.mktemp("killed") / "ledger.sqlite"
    write_logged(path)
    return path


def copied(source: Path, folder: Path) -> Path:
    return Path(shutil.copy(source, folder / "ledger.sqlite"))


def check(path: Path) -> int:
    """All that the ledger finds is what was measured; what it lacks can be written, and then it is whole."""
    with Ledger(path) as ledger:
        found = ledger.find(KEYS)
        for key, row, arrays in zip(KEYS, ROWS, ARRAYS, strict=True):
            if key in found:
                assert repr(found[key]) == repr(row)
                try:
                    stored = ledger.arrays(key)
                except LedgerError:
                    continue  # told, not silent
                np.testing.assert_array_equal(stored["d_x"], arrays["d_x"])
    fill(path)
    with Ledger(path) as ledger:
        assert ledger.recovery is None and len(ledger.find(KEYS)) == COUNT and ledger.conflicts == []
    return len(found)


Mutation = Callable[[bytearray], bytearray]


def flip(place: float, bit: int) -> Mutation:
    def apply(content: bytearray) -> bytearray:
        content[int(place * len(content))] ^= 1 << bit
        return content

    return apply


def overwrite(place: float, length: int, value: int) -> Mutation:
    def apply(content: bytearray) -> bytearray:
        begin = int(place * len(content))
        content[begin : begin + length] = bytes([value]) * len(content[begin : begin + length])
        return content

    return apply


def cut(place: float) -> Mutation:
    return lambda content: content[: int(place * len(content))]


def swap(first: int, second: int) -> Mutation:
    """Two pages in each other's place: each is sound by itself."""

    def apply(content: bytearray) -> bytearray:
        pages = [content[i : i + 4096] for i in range(0, len(content), 4096)]
        first_page, second_page = first % len(pages), second % len(pages)
        pages[first_page], pages[second_page] = pages[second_page], pages[first_page]
        return bytearray().join(pages)

    return apply


PLACE = st.floats(0, 1, exclude_max=True)
# Headers of the file and of its pages are a small part of the bytes, and the most telling.
EARLY = st.floats(0, 0.01)
MUTATIONS = st.one_of(
    st.builds(flip, PLACE | EARLY, st.integers(0, 7)),
    st.builds(overwrite, PLACE | EARLY, st.integers(1, 20_000), st.sampled_from([0, 0xFF, 0xA5, 0x41])),
    st.builds(cut, PLACE | EARLY),
    st.builds(swap, st.integers(0, 200), st.integers(0, 200)),
)


@pytest.mark.parametrize("suffix", ["", "-wal"])
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutations=st.lists(MUTATIONS, min_size=1, max_size=3))
@pytest.mark.thorough
def test_mutated(fast_disk: Path, original: Path, logged: Path, suffix: str, mutations: list[Mutation]) -> None:
    source, folder = (logged if suffix else original), fast_disk / "mutated"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source.parent, folder)
    path = folder / "ledger.sqlite"
    file = Path(f"{path}{suffix}")
    content = bytearray(file.read_bytes())
    for mutate in mutations:
        content = mutate(content) or content
    file.write_bytes(content)
    try:
        check(path)
    except LedgerError as error:
        assert str(path) in str(error)
    aside = Path(f"{path}.damaged-1")
    if aside.exists() and not suffix:
        assert aside.read_bytes() == content, "what is set aside is kept as it was"


def test_a_flipped_digit_in_a_row_is_found(original: Path, tmp_path: Path) -> None:
    """SQLite itself has no checksums: all it says is that its pages hold together."""
    path = copied(original, tmp_path)
    content = bytearray(path.read_bytes())
    place = content.index(b'"column3": ') + len(b'"column3": ')
    content[place + 2] = ord(b"9") if content[place + 2] != ord(b"9") else ord(b"8")
    path.write_bytes(content)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with Ledger(path) as ledger:
        assert ledger.recovery is not None and ledger.recovery.saved == COUNT - 1
        assert ledger.recovery.moved_to == tmp_path / "ledger.sqlite.damaged-1"
        assert "1 rows do not match" in str(ledger.recovery)
        assert len(ledger.find(KEYS)) == COUNT - 1
    assert check(path) == COUNT - 1


def test_a_damaged_page_costs_its_own_rows(original: Path, tmp_path: Path) -> None:
    """Those before and behind it are saved, unless it is one that leads to others."""
    path = copied(original, tmp_path)
    content = bytearray(path.read_bytes())
    place = content.rindex(b'"column3": ')
    content[place // 4096 * 4096 : (place // 4096 + 1) * 4096] = b"\xa5" * 4096
    path.write_bytes(content)
    with Ledger(path) as ledger:
        assert ledger.recovery is not None and COUNT // 2 < ledger.recovery.saved < COUNT
        saved = ledger.recovery.saved
    assert check(path) == saved


def test_rows_in_the_log_are_saved(logged: Path, tmp_path: Path) -> None:
    """The log moves with its database; left behind, it would be taken for that of the new one."""
    shutil.copytree(logged.parent, tmp_path / "copy")
    path = tmp_path / "copy" / "ledger.sqlite"
    log = Path(f"{path}-wal")
    content = log.read_bytes()
    assert content.count(b'"column3": ') >= COUNT
    with Ledger(path) as ledger:
        assert ledger.recovery is None and len(ledger.find(KEYS)) == COUNT
    shutil.copytree(logged.parent, tmp_path / "again")
    path = tmp_path / "again" / "ledger.sqlite"
    moved_to = set_aside(path)
    assert sorted(file.name for file in path.parent.iterdir()) == [
        f"ledger.sqlite.damaged-1{suffix}" for suffix in ("", "-shm", "-wal")
    ]
    assert sorted(record.key for record, _ in salvage(moved_to)) == sorted(KEYS)


def test_the_next_one_has_the_next_number(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    for number in (1, 2, 3):
        path.write_text(f"garbage {number}" * 100)
        with Ledger(path) as ledger:
            assert ledger.recovery is not None
            assert ledger.recovery.moved_to == Path(f"{path}.damaged-{number}")
    assert Path(f"{path}.damaged-2").read_text().startswith("garbage 2")


def test_a_row_with_the_key_of_another_is_not_saved(original: Path, tmp_path: Path) -> None:
    """Even if its digest fits: whoever wrote it, it is no measurement of that subject."""
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.write(KEYS[0], SUBJECTS[0], ROWS[0], 0.5)
        ledger.write(KEYS[1], SUBJECTS[2], ROWS[2], 0.5)
        ledger.write(KEYS[3], SUBJECTS[3], {"status": FAILED, "error": "no memory"}, 0.5)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE measurements SET seconds = 1 WHERE key = ?", (KEYS[0],))
    with Ledger(path) as ledger:
        assert ledger.recovery is not None and ledger.recovery.saved == 1
        assert ledger.find(KEYS) == {} and list(ledger.failures(KEYS)) == [KEYS[3]]


def newer(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA user_version = 99")


def foreign(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA application_id = 7")


@pytest.mark.parametrize("change", [newer, foreign])
def test_others_are_left_alone_though_damaged(
    original: Path, tmp_path: Path, change: Callable[[sqlite3.Connection], None]
) -> None:
    path = copied(original, tmp_path)
    with closing(sqlite3.connect(path)) as database, database:
        change(database)
    content = bytearray(path.read_bytes())
    content[8192:] = b"\xa5" * (len(content) - 8192)
    path.write_bytes(content)
    with pytest.raises(LedgerError):
        Ledger(path)
    assert path.read_bytes() == content and [file.name for file in tmp_path.iterdir()] == ["ledger.sqlite"]


# ---- reading only


def test_reading_creates_nothing(tmp_path: Path, original: Path) -> None:
    with Ledger(tmp_path / "new" / "ledger.sqlite", read_only=True) as ledger:
        assert ledger.find(KEYS) == {}
    assert list(tmp_path.iterdir()) == []
    path = copied(original, tmp_path)
    before = path.stat().st_mtime_ns
    with Ledger(path, read_only=True) as ledger:
        assert len(ledger.find(KEYS)) == COUNT
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.sqlite"] and path.stat().st_mtime_ns == before
    content = path.read_bytes()
    path.write_bytes(content[:5000])
    with pytest.raises(LedgerError, match=r"is damaged.*whatever measures next sets it aside"):
        Ledger(path, read_only=True)
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.sqlite"]


def test_reading_beside_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as writer:
        writer.write(KEYS[0], SUBJECTS[0], ROWS[0], 0.0)
        writer.commit()
        with Ledger(path, read_only=True) as reader:
            assert list(reader.find(KEYS)) == [KEYS[0]]


# ---- where the log cannot be had


MOUNTS = r"""
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/local\040disk xfs rw 0 0
sshfs /mnt/far fuse.sshfs rw 0 0
overlay /mnt/far/near tmpfs rw 0 0
none /mnt/far/near lustre rw 0 0
"""


def test_network_file_systems(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    kinds = {
        "/a": 0,
        "/home/a": 1,
        "/home": 1,
        "/homes": 0,
        "/home/local disk/a": 0,
        "/mnt/far/a": 1,
        "/mnt/far/near": 1,
    }
    assert {path: on_network(path, mounts) for path in kinds} == {path: bool(kind) for path, kind in kinds.items()}
    assert not on_network(tmp_path, tmp_path / "absent")


def test_the_journal_of_a_network_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that is copied there loses its log, and gets it back elsewhere."""
    path = tmp_path / "ledger.sqlite"

    def mode() -> str:
        with Ledger(path) as ledger:
            ledger.write(KEYS[0], SUBJECTS[0], ROWS[0], 0.0)
            return str(ledger._database.execute("PRAGMA journal_mode").fetchone()[0])

    assert mode() == "wal"
    with monkeypatch.context() as patch:
        patch.setattr("landscape.study.ledger_file.on_network", lambda _: True)
        assert mode() == "delete"
        with Ledger(path) as ledger:
            assert list(ledger.find(KEYS)) == [KEYS[0]]
        fresh = Ledger(tmp_path / "fresh.sqlite")
        assert fresh._database.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        fresh.close()


def test_a_full_disk(tmp_path: Path) -> None:
    """What was committed stays, the error says so, and with more room the rest is written."""
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path)
    ledger._database.execute("PRAGMA max_page_count = 30")
    written = 0
    with pytest.raises(LedgerError, match=r"full.*what was committed before is safe"), ledger:
        for key, subject, row, arrays in zip(KEYS, SUBJECTS, ROWS, ARRAYS, strict=True):
            ledger.write(key, subject, row, 0.5, arrays)
            ledger.commit()
            written += 1
    assert 0 < written < COUNT
    with Ledger(path) as again:
        assert list(again.find(KEYS)) == KEYS[:written] and again.recovery is None
    check(path)
