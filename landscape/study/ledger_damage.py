"""Damaged ledgers: finding out, setting them aside, and saving what can still be trusted."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from landscape.errors import LedgerError
from landscape.study.record import Record

try:
    import fcntl
except ImportError:  # pragma: no cover  (not on Windows)
    fcntl = None  # type: ignore[assignment]

FIELDS = "key, status, subject, measured, provenance, seconds, npz_sha256, digest"
_SUFFIXES = ("-wal", "-shm", "-journal")
# What SQLite puts behind the name of another file at the end of a journal.
_END_OF_NAME = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"


@dataclass(frozen=True)
class Recovery:
    """What became of a damaged ledger."""

    reason: str
    moved_to: Path
    saved: int  # rows that are in the new ledger

    def __str__(self) -> str:
        return (
            f"the ledger was damaged ({self.reason}): it lies at {self.moved_to} now, {self.saved} rows of it are "
            "in a new one, and what is missing is measured again"
        )


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error tells of the file's contents, and not of locks, permissions or a full disk."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    text = isinstance(error, sqlite3.OperationalError) and "decode to UTF-8" in str(error)
    return text or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def refuse_reach(path: Path) -> None:
    """Raise LedgerError for a database or journal that is a link or a pipe, or a journal that names other files.

    SQLite would take such a journal for the end of a transaction over several files, and delete what it names.
    """
    for suffix in ("", *_SUFFIXES):
        file = Path(f"{path}{suffix}")
        with contextlib.suppress(FileNotFoundError):  # another process may end its transaction meanwhile
            if not stat.S_ISREG(os.lstat(file).st_mode):
                raise LedgerError(f"{file} is no plain file, as a ledger is made of: name another with --ledger.")
    journal = Path(f"{path}-journal")
    if _end_of(journal, len(_END_OF_NAME)) == _END_OF_NAME:
        raise LedgerError(
            f"{journal} names another file, which no ledger's does: it is made to have that deleted. Remove it, "
            f"and name another ledger with --ledger if {path} is not yours."
        )


def _end_of(path: Path, length: int) -> bytes:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - length))
        return file.read(length)
    return b""


def refuse_programs(path: Path, database: sqlite3.Connection) -> None:
    """Raise LedgerError for views, triggers and virtual tables, which may run for ever; sqlite3.Error."""
    database.execute("PRAGMA trusted_schema=OFF")
    found = database.execute("SELECT name FROM sqlite_master WHERE coalesce(rootpage, 0) < 1").fetchone()
    if found:
        raise LedgerError(
            f"the ledger {path} holds {found[0]!a}, which is no table: landscape makes no views, triggers or "
            f"virtual tables. Somebody else has made or changed it; name another with --ledger."
        )


def find_damage(database: sqlite3.Connection) -> str | None:
    """What is wrong with the structure of a ledger or with any of its rows; None if nothing is.

    Raises:
        sqlite3.Error: If it cannot be read at all.
    """
    (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        return " ".join(str(verdict).split())
    columns = {name for table in ("measurements", "arrays") for name in _columns(database, table)}
    missing = {*FIELDS.split(", "), "npz"} - columns
    if missing:
        return f"it lacks {', '.join(sorted(missing))}"
    wrong = sum(not _intact(fields) for fields in database.execute(f"SELECT {FIELDS} FROM measurements"))
    return f"{wrong} rows do not match their digests" if wrong else None


def _columns(database: sqlite3.Connection, table: str) -> list[str]:
    return [name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")]


def _intact(fields: tuple[object, ...]) -> bool:
    try:
        return Record(*fields).intact  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Let one process at a time set ledgers of a folder aside, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # some network file systems lock no folders
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def set_aside(path: Path) -> Path:
    """Rename a ledger, with the files that belong to it, to the first free ``…damaged-N``; the new name."""
    number = 1
    while any(os.path.lexists(f"{path}.damaged-{number}{suffix}") for suffix in ("", *_SUFFIXES)):
        number += 1
    target = Path(f"{path}.damaged-{number}")
    # The log first: without its database it is nothing, while beside a new one it would be taken for that one's.
    for suffix in (*_SUFFIXES, ""):
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", f"{target}{suffix}")
    return target


def salvage(path: Path) -> Iterator[tuple[Record, bytes | None]]:
    """Rows of a damaged ledger that can be trusted, with their arrays; each once.

    Read from both ends, since reading stops where a page is damaged. Rows without digests, from versions that
    wrote none, cannot be told from damaged ones, and are left out.
    """
    seen: set[str] = set()
    for direction in ("ASC", "DESC"):
        with contextlib.suppress(sqlite3.Error, LedgerError), closing(_open_damaged(path)) as database:
            refuse_programs(path, database)
            rows = database.execute(f"SELECT {FIELDS} FROM measurements ORDER BY key {direction}")
            for fields in rows:
                record = _record(fields)
                if record is None or record.key in seen:
                    continue
                npz = _arrays(database, record)
                if hashlib.sha256(npz or b"").hexdigest() == (record.npz_sha256 or hashlib.sha256().hexdigest()):
                    seen.add(record.key)
                    yield record, npz


def _open_damaged(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    database.text_factory = bytes  # what is no text any more must not end the reading
    return database


def _record(fields: tuple[object, ...]) -> Record | None:
    try:
        plain = [field.decode() if isinstance(field, bytes) else field for field in fields]
        record = Record(*plain)  # type: ignore[arg-type]
        return record if record.trustworthy else None
    except (TypeError, ValueError, OverflowError):
        return None


def _arrays(database: sqlite3.Connection, record: Record) -> bytes | None:
    if not record.npz_sha256:
        return None
    with contextlib.suppress(sqlite3.Error):
        found = database.execute("SELECT npz FROM arrays WHERE key = ?", (record.key,)).fetchone()
        return found[0] if found and isinstance(found[0], bytes) else None
    return None
