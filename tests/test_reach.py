"""Hostile files of every kind that is opened: refused by each reader, and no other file is touched."""

from __future__ import annotations

import io
import shutil
import sqlite3
import struct
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import h5py
import pytest
from hostile_hdf5 import HOSTILE, group_of_filtered_links, texts
from reach import Reach, Task, watch
from sound_files import fill, image_of, segments, write_run

from landscape.errors import LedgerError, UnsafeFileError, UnsupportedFormatError
from landscape.snapshots import pack_run
from landscape.snapshots.hdf5 import open_hdf5
from landscape.study.columns import OK
from landscape.study.ledger import Ledger, canonical, content_key
from landscape.study.ledger_damage import salvage
from landscape.study.ledger_file import INSERT, INSERT_ARRAYS
from landscape.study.record import Record, sealed

pytestmark = pytest.mark.thorough

READERS = ("import_states", "describe")  # of foreign files
OWN = ("open_rows", "verify", "describe")  # of runs
FILTERED = "group_of_filtered_links"

# ---- what is in hostile ledgers


def written(folder: Path) -> Path:
    fill(folder / "ledger.sqlite")
    return folder / "ledger.sqlite"


FIELDS = ("key", "status", "subject", "measured", "provenance", "seconds", "npz_sha256", "digest")
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT {} FROM c WHERE x < 0"


def changed(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


def endless_rows(path: Path, victim: Path) -> None:
    columns = ", ".join(f"x AS {name}" for name in FIELDS)
    changed(path, "DROP TABLE measurements", f"CREATE VIEW measurements AS {ENDLESS.format(columns)}")


def endless_arrays(path: Path, victim: Path) -> None:
    changed(path, "DROP TABLE arrays", f"CREATE VIEW arrays AS {ENDLESS.format('x AS key, x AS npz')}")


def loading_view(path: Path, victim: Path) -> None:
    columns = ", ".join(f"load_extension('{victim}') AS {name}" for name in FIELDS)
    changed(path, "DROP TABLE measurements", f"CREATE VIEW measurements AS SELECT {columns}")


def trigger(path: Path, victim: Path) -> None:
    changed(path, "CREATE TRIGGER t BEFORE INSERT ON measurements BEGIN DELETE FROM measurements; END")


def virtual_table(path: Path, victim: Path) -> None:
    """Of a module that need not be there: its statement is put where SQLite keeps those that made tables."""
    changed(
        path,
        "PRAGMA writable_schema=ON",
        "INSERT INTO sqlite_master VALUES ('table', 'other', 'other', 0, "
        f"'CREATE VIRTUAL TABLE other USING csv(filename=''{victim}'')')",
    )


def journal_naming(path: Path, victim: Path) -> None:
    """SQLite takes the named file for that of a transaction over several databases, which has ended: it goes."""
    magic, name = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7", str(victim).encode()
    head = magic + struct.pack(">5I", 0, 1, path.stat().st_size // 4096, 512, 4096)
    tail = struct.pack(">I", 2**30 // 4096 + 1) + name + struct.pack(">2I", len(name), sum(name)) + magic
    Path(f"{path}-journal").write_bytes(head.ljust(512, b"\0") + tail)


def linked(suffix: str) -> Callable[[Path, Path], None]:
    def make(path: Path, victim: Path) -> None:
        Path(f"{path}{suffix}").unlink(missing_ok=True)
        Path(f"{path}{suffix}").symlink_to(victim)

    return make


LEDGERS: dict[str, Callable[[Path, Path], None]] = {
    "endless_rows": endless_rows,
    "endless_arrays": endless_arrays,
    "loading_view": loading_view,
    "trigger": trigger,
    "virtual_table": virtual_table,
    "journal": journal_naming,
    **{f"link{suffix}": linked(suffix) for suffix in ("", "-wal", "-shm", "-journal")},
}

# ---- all files, in folders of their own


def write_sound(folder: Path) -> list[Task]:
    folder.mkdir()
    write_run(folder / "run")
    pack_run(folder / "run", folder / "packed.h5")
    fill(folder / "ledger.sqlite")
    tasks = [(reader, name) for reader in OWN for name in ("run", "packed.h5")]
    for kind in ("pt", "pth", "safetensors", "h5", "npz", "npy"):
        (folder / f"x.{kind}").write_bytes(image_of(kind))
        tasks += [(reader, f"x.{kind}") for reader in READERS]
    tasks += [(reader, "ledger.sqlite") for reader in ("describe", "read_ledger", "write_ledger")]
    return [(reader, str(folder / name)) for reader, name in tasks]


def write_hostile_hdf5(folder: Path, secret: Path) -> None:
    """Each thing in a file of weights, and in a segment, there in place of the weights."""
    folder.mkdir()
    write_run(folder / "run")
    for make in HOSTILE:
        foreign, own = folder / f"foreign_{make.__name__}.h5", folder / f"own_{make.__name__}.h5"
        foreign.write_bytes(image_of("h5"))
        shutil.copy(segments(folder / "run")[0], own)
        with h5py.File(foreign, "r+") as file:
            make(file, "w", secret)
        with h5py.File(own, "r+") as file:
            del file["theta"]
            make(file, "theta", secret)
    shutil.copy(segments(folder / "run")[0], folder / f"own_{FILTERED}.h5")
    with h5py.File(folder / f"own_{FILTERED}.h5", "r+") as file:
        del file["metrics"]
        if not group_of_filtered_links(file, "metrics"):
            pytest.skip("this HDF5 cannot be told to write what is tested")


def write_ledgers(folder: Path, secret: Path) -> None:
    for name, make in LEDGERS.items():
        (folder / name).mkdir(parents=True)
        make(written(folder / name), secret)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reach")


@pytest.fixture(scope="module")
def reached(place: Path) -> dict[Task, Reach]:
    """What each reader did with each file; with a file in the folder from which HDF5 loads what it lacks."""
    (place / "bait").mkdir()
    (place / "bait" / "libfilter.so").write_bytes(b"no code")
    secret = place / "secret.h5"
    secret.write_bytes(image_of("h5"))
    loading, sound = write_sound(place / "loading"), write_sound(place / "sound")
    write_hostile_hdf5(place / "hdf5", secret)
    write_ledgers(place / "ledgers", secret)
    foreign, own = ([str(file) for file in (place / "hdf5").glob(f"{kind}_*")] for kind in ("foreign", "own"))
    ledgers = [str(place / "ledgers" / name / "ledger.sqlite") for name in LEDGERS]
    careless = [str(place / "hdf5" / f"{name}.h5") for name in ("foreign_stored_outside", f"own_{FILTERED}")]
    tasks = [
        *sound,
        *((reader, path) for path in foreign for reader in READERS),
        *((reader, path) for path in own for reader in (*OWN, "import_states")),
        *((reader, path) for path in ledgers for reader in ("describe", "read_ledger", "write_ledger")),
        *(("without_care", path) for path in careless),
    ]
    found = watch(tasks, loading, place / "calls", {"HDF5_PLUGIN_PATH": str(place / "bait")})
    return dict(zip(tasks, found, strict=True))


def outside(paths: list[str], given: str) -> list[str]:
    """Paths but the given one, what lies in it or is named like it, its folder, and the system's own."""
    folder = str(Path(given).parent)
    return [
        path for path in paths if not path.startswith((given, "/proc/self/", "/dev/urandom")) and path != folder
    ]


def test_nothing_outside_is_touched(reached: dict[Task, Reach], place: Path) -> None:
    """By what Python itself opens, imports and runs."""
    assert len(reached) > 200
    for (reader, path), reach in reached.items():
        assert reader == "without_care" or outside(reach.by_python, path) == [], (reader, path)
    assert (place / "secret.h5").read_bytes() == image_of("h5")


def test_nothing_outside_is_touched_by_any_library(reached: dict[Task, Reach], place: Path) -> None:
    """By any call to the kernel that opens, makes, moves or removes a file, failed ones too."""
    careless = [reach.by_kernel for (reader, _), reach in reached.items() if reader == "without_care"]
    if None in careless:
        pytest.skip("strace is not there")
    for (reader, path), reach in reached.items():
        assert reader == "without_care" or outside(reach.by_kernel or [], path) == [], (reader, path)
    assert [str(path) in (paths or []) for path in (place / "secret.h5", place / "bait" / "libfilter.so")
            for paths in careless] == [True, False, False, True], "what must be seen is not"  # fmt: skip


def test_sound_files_are_read(reached: dict[Task, Reach], place: Path) -> None:
    sound = {
        task: reach.outcome for task, reach in reached.items() if Path(task[1]).is_relative_to(place / "sound")
    }
    assert len(sound) == 21 and set(sound.values()) == {"read"}


@pytest.mark.parametrize("make", HOSTILE)
def test_both_readers_refuse(reached: dict[Task, Reach], place: Path, make: Callable[..., None]) -> None:
    foreign, own = HOSTILE[make]
    for reader in READERS:
        path = str(place / "hdf5" / f"foreign_{make.__name__}.h5")
        # What only weights cannot be called, or cannot be, may be looked at.
        harmless = reader == "describe" and (foreign is UnsupportedFormatError or make is texts)
        wanted = "read" if harmless else f"{foreign.__name__}: {path}"
        assert reached[reader, path].outcome.startswith(wanted), reader
    for reader in OWN if own else ():
        path = str(place / "hdf5" / f"own_{make.__name__}.h5")
        outcome = reached[reader, path].outcome
        if reader == "open_rows":
            assert own and outcome.startswith(f"{own.__name__}: {path}")
        elif reader == "verify":
            assert outcome.startswith(f"LandscapeError: {path}")


def test_links_behind_a_filter(reached: dict[Task, Reach], place: Path) -> None:
    """Listing them would have HDF5 load the filter, from a folder that others may write to."""
    path = str(place / "hdf5" / f"own_{FILTERED}.h5")
    for reader in (*OWN, "import_states"):
        assert reached[reader, path].outcome.startswith(("CorruptSnapshotError", "LandscapeError")), reader


@pytest.mark.parametrize("name", LEDGERS)
def test_hostile_ledgers(reached: dict[Task, Reach], place: Path, name: str) -> None:
    """None is set aside either: the work of others is not ours to move."""
    path = place / "ledgers" / name / "ledger.sqlite"
    for reader in ("read_ledger", "write_ledger"):
        assert reached[reader, str(path)].outcome.startswith("LedgerError: "), reader
    assert not reached["describe", str(path)].outcome.startswith("not ours")
    assert not list(path.parent.glob("*.damaged-*"))


def test_nothing_is_saved_from_a_damaged_view(tmp_path: Path) -> None:
    """A file in which nothing else can be read is set aside like any damaged ledger."""
    endless_rows(written(tmp_path), tmp_path)
    assert list(salvage(tmp_path / "ledger.sqlite")) == []
    with (tmp_path / "ledger.sqlite").open("r+b") as file:
        file.truncate(3 * 4096)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.recovery is not None and ledger.recovery.saved == 0


def sealed_row(measured: str, npz: bytes) -> Record:
    """What a program can write that knows how digests are made."""
    subject = canonical({"measurement": "row"})
    return sealed(Record(content_key({"measurement": "row"}), OK, subject, measured, "{}", 0.5, "", ""), npz)


@pytest.mark.parametrize("measured", ["[" * 100_000, '{"x":' * 100_000])
def test_rows_that_are_nested_without_end(tmp_path: Path, measured: str) -> None:
    path = written(tmp_path)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(INSERT, sealed_row(measured, b""))
    with Ledger(path) as ledger, pytest.raises(LedgerError, match="nested too deeply"):
        ledger.find([sealed_row(measured, b"").key])


def arrays_of(text: str, data: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of one array with this header."""
    buffer, padded = io.BytesIO(), text.encode() + b" " * 100 + b"\n"
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("d.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + data)
    return buffer.getvalue()


ARCHIVES = {
    "no archive": b"PK\x03\x04",
    "large": arrays_of("{'descr':'<f8','fortran_order':False,'shape':(2**50,)}".replace("2**50", str(2**50)), b""),
    "objects": arrays_of("{'descr':'|O','fortran_order':False,'shape':(1,)}", b""),
    "code": arrays_of("__import__('os').mkdir('proof')", b""),
    "nested": arrays_of("(" * 9000, b""),
    "method": arrays_of("{}", b"").replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x00\x00",
                                          b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x63\x00"),
    "encrypted": arrays_of("{}", b"").replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00",
                                             b"PK\x01\x02\x14\x03\x14\x00\x01\x00"),
    "broken stream": arrays_of("{}", bytes(9999), zipfile.ZIP_DEFLATED).replace(b"\xed", b"\xff"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_arrays_that_are_not_plain(tmp_path: Path, name: str) -> None:
    """With the digest that belongs to them, so that they are looked at."""
    path, row = written(tmp_path), sealed_row('{"status": "ok"}', ARCHIVES[name])
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(INSERT, row)
        database.execute(INSERT_ARRAYS, (row.key, ARCHIVES[name]))
    with Ledger(path) as ledger:
        assert ledger.recovery is None and ledger.find([row.key])
        with pytest.raises(LedgerError, match="cannot be used"):
            ledger.arrays(row.key)


def test_plugins_are_off_only_while_files_are_read(tmp_path: Path) -> None:
    before = [h5py.h5pl.get(place) for place in range(h5py.h5pl.size())]
    (tmp_path / "x.h5").write_bytes(image_of("h5"))
    with open_hdf5(tmp_path / "x.h5"):
        with open_hdf5(tmp_path / "x.h5"):
            assert h5py.h5pl.size() == 0
        assert h5py.h5pl.size() == 0
    with pytest.raises(UnsafeFileError), open_hdf5(tmp_path / "x.h5"):
        raise UnsafeFileError
    assert [h5py.h5pl.get(place) for place in range(h5py.h5pl.size())] == before and before
