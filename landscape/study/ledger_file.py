"""The file of a ledger: whose it is, its schema and journal, and a new one in place of one that is damaged."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from landscape.errors import LedgerError
from landscape.study.file_systems import on_network
from landscape.study.ledger_damage import (
    FIELDS,
    Recovery,
    find_damage,
    is_damage,
    only_one,
    refuse_programs,
    refuse_reach,
    salvage,
    set_aside,
)
from landscape.study.record import Record, decode, sealed

SCHEMA = 3
# Marks the file as ours in SQLite's header, so that no other program's database is taken for a ledger.
_APPLICATION = 0x6C616E64
_MAGIC, _APPLICATION_PLACE = b"SQLite format 3\0", slice(68, 72)
# How a file that is no database any more can be told from one that somebody named by mistake.
_SUFFIX = ".sqlite"

# Seconds to wait for another process that writes.
_PATIENCE = 30

_CREATE = """
CREATE TABLE IF NOT EXISTS measurements (
    key TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    subject TEXT NOT NULL,     -- what the key is the digest of, as JSON
    measured TEXT NOT NULL,    -- the row, as JSON; NaN as null
    provenance TEXT NOT NULL,
    seconds REAL NOT NULL,
    written_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
) WITHOUT ROWID
"""
# Beside the rows, so that reading those does not read these.
_CREATE_ARRAYS = """
CREATE TABLE IF NOT EXISTS arrays (
    key TEXT PRIMARY KEY,
    npz BLOB NOT NULL          -- what was measured of each sample, by name
)
"""
# Since schema 3: of the arrays, and of all other columns but `written_at`.
_DIGESTS = ("npz_sha256", "digest")

INSERT = f"INSERT OR REPLACE INTO measurements ({FIELDS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
INSERT_ARRAYS = "INSERT OR REPLACE INTO arrays (key, npz) VALUES (?, ?)"


class _DamagedError(Exception):
    """The file of a ledger does not hold what was written."""


def open_to_write(path: Path) -> tuple[sqlite3.Connection, Recovery | None]:
    """A ledger's file, made if there is none; in place of a damaged one a new one with what could be saved.

    Raises:
        LedgerError: If the file cannot be used, or is not a ledger of this version.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_reach(path)
        try:
            return _open_sound(path), None
        except _DamagedError as error:
            if not _is_ours(path):
                raise unusable(path, error) from error
            return _replace(path)
    except (sqlite3.Error, OSError) as error:
        raise unusable(path, error) from error


def open_to_read(path: Path) -> sqlite3.Connection:
    """A ledger's file as it is; an empty ledger in memory if there is none. Nothing is created or changed.

    Raises:
        LedgerError: If the file cannot be used, is not a ledger of this schema, or is damaged.
    """
    try:
        refuse_reach(path)
        if not path.exists():
            database = sqlite3.connect(":memory:")
            _create(database)
            return database
        # Without its log nobody writes, and SQLite need not make the files by which processes agree.
        alone = "" if Path(f"{path}-wal").exists() else "&immutable=1"
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{alone}", uri=True, timeout=_PATIENCE)
        with _closed_on_error(database):
            version = _check_identity(path, database)
            if version != SCHEMA:
                raise LedgerError(
                    f"the ledger {path} has schema {version}, this version writes {SCHEMA}: measure once, which "
                    f"takes its rows over, or name another with --ledger."
                )
            damage = find_damage(database)
            if damage:
                raise _DamagedError(damage)
        return database
    except (sqlite3.Error, OSError, _DamagedError) as error:
        if isinstance(error, OSError) or (isinstance(error, sqlite3.Error) and not is_damage(error)):
            raise unusable(path, error) from error
        raise LedgerError(
            f"the ledger {path} is damaged ({error}): whatever measures next sets it aside, saves what can be "
            f"trusted, and measures the rest again."
        ) from error


def unusable(path: Path, reason: object) -> LedgerError:
    """The error of a ledger that cannot be read or trusted."""
    return LedgerError(
        f"the ledger {path} cannot be used ({reason}). It holds nothing that cannot be measured again: move it "
        f"away, or name another with --ledger."
    )


@contextlib.contextmanager
def _closed_on_error(database: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        database.close()
        raise


def _is_ours(path: Path) -> bool:
    """Whether a file that is damaged was a ledger; another program's must not be moved."""
    with path.open("rb") as file:
        header = file.read(100)
    if header.startswith(_MAGIC):
        return header[_APPLICATION_PLACE] == _APPLICATION.to_bytes(4, "big")
    return path.suffix == _SUFFIX


def _open_sound(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_PATIENCE)
    try:
        with _closed_on_error(database):
            version = _check_identity(path, database)
            database.execute("PRAGMA synchronous=FULL")
            if 0 < version < SCHEMA and database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise _DamagedError("its structure does not hold together")
            _bring_up_to_date(path, database, version)
            damage = find_damage(database)
            if damage:
                raise _DamagedError(damage)
    except sqlite3.Error as error:
        if is_damage(error):
            raise _DamagedError(str(error)) from error
        raise
    return database


def _check_identity(path: Path, database: sqlite3.Connection) -> int:
    """The schema of a ledger; LedgerError if it is none, or a newer one."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    # In this order: whoever sees a table that another process has just made also sees whose it is.
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = database.execute("PRAGMA application_id").fetchone()
    if tables and application != _APPLICATION:
        raise LedgerError(f"{path} is a database of another program; name another ledger with --ledger.")
    if version > SCHEMA:
        raise LedgerError(
            f"the ledger {path} has schema {version}, this version knows {SCHEMA}; update "
            f"landscape-torch, or name another ledger with --ledger."
        )
    refuse_programs(path, database)
    return int(version)


def _bring_up_to_date(path: Path, database: sqlite3.Connection, version: int) -> None:
    journal = "DELETE" if on_network(path) else "WAL"
    if version == SCHEMA and journal == "WAL":
        return
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            database.execute("PRAGMA busy_timeout=100")
            database.execute(f"PRAGMA journal_mode={journal}")
            _create(database)
            break
        except sqlite3.OperationalError as error:
            # Processes that turn a new file into a WAL at the same moment lock each other out, and SQLite
            # refuses them at once instead of waiting.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    database.execute(f"PRAGMA busy_timeout={1000 * _PATIENCE}")


def _create(database: sqlite3.Connection) -> None:
    """Make what a ledger of this schema has and this file lacks, in one transaction."""
    with database:
        database.execute("BEGIN IMMEDIATE")
        database.execute(_CREATE)
        database.execute(_CREATE_ARRAYS)
        present = {name for _, name, *_ in database.execute("PRAGMA table_info(measurements)")}
        for name in _DIGESTS:
            if name not in present:
                database.execute(f"ALTER TABLE measurements ADD COLUMN {name} TEXT NOT NULL DEFAULT ''")
        if not present.issuperset(_DIGESTS):
            _seal_all(database)
        database.execute(f"PRAGMA application_id={_APPLICATION}")
        database.execute(f"PRAGMA user_version={SCHEMA}")


def _seal_all(database: sqlite3.Connection) -> None:
    """Give the rows of an older schema their digests; what is no row goes."""
    for (key,) in database.execute("SELECT key FROM measurements").fetchall():
        fields = database.execute(f"SELECT {FIELDS} FROM measurements WHERE key = ?", (key,)).fetchone()
        npz = database.execute("SELECT npz FROM arrays WHERE key = ?", (key,)).fetchone()
        try:
            decode(fields[3])
            digests = sealed(Record(*fields), npz and npz[0])[-2:]
            database.execute("UPDATE measurements SET npz_sha256 = ?, digest = ? WHERE key = ?", (*digests, key))
        except (ValueError, AttributeError, TypeError):
            database.execute("DELETE FROM measurements WHERE key = ?", (key,))


def _replace(path: Path) -> tuple[sqlite3.Connection, Recovery | None]:
    with only_one(path.parent):
        try:
            return _open_sound(path), None  # another process was faster
        except _DamagedError as error:
            reason = str(error)
        moved_to = set_aside(path)
        database = _open_sound(path)
        with _closed_on_error(database), database:
            saved = 0
            for record, npz in salvage(moved_to):
                # What another process has measured meanwhile stays.
                sql = INSERT.replace("OR REPLACE", "OR IGNORE")
                saved += 1
                if database.execute(sql, record).rowcount and npz:
                    database.execute(INSERT_ARRAYS, (record.key, npz))
    return database, Recovery(reason, moved_to, saved)
