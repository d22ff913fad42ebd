"""The ledger: measured rows in SQLite, keyed by content, written by one process."""

from __future__ import annotations

import hashlib
import io
import json
import math
import sqlite3
import time
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from landscape.errors import LedgerError
from landscape.provenance import provenance
from landscape.study.columns import OK, Row

SCHEMA = 2
# Marks the file as ours in SQLite's header, so that no other program's database is taken for a ledger.
_APPLICATION = 0x6C616E64

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


def content_key(subject: dict[str, Any]) -> str:
    """Digest of everything that a measurement depends on; floats enter with all their bits."""
    return hashlib.sha256(("landscape-row " + canonical(subject)).encode()).hexdigest()


def canonical(subject: dict[str, Any]) -> str:
    """JSON with sorted keys, in which equal contents have equal text."""
    return json.dumps(_exact(subject), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _exact(value: Any) -> Any:
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, dict):
        return {key: _exact(v) for key, v in value.items()}
    return [_exact(v) for v in value] if isinstance(value, list | tuple) else value


class Ledger:
    """Rows by key. Only the process that opened it writes; readers may come and go.

    Raises:
        LedgerError: If the file cannot be opened, is damaged, or was written by a newer version.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, timeout=_PATIENCE)
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self.close()
            raise self._unusable(error) from error
        except LedgerError:
            self.close()
            raise

    def _unusable(self, error: Exception) -> LedgerError:
        return LedgerError(
            f"the ledger {self.path} cannot be used ({error}). It holds nothing that cannot be "
            f"measured again: move it away, or name another with --ledger."
        )

    def _prepare(self) -> None:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        # In this order: whoever sees a table that another process has just made also sees whose it is.
        (tables,) = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (application,) = self._database.execute("PRAGMA application_id").fetchone()
        if tables and application != _APPLICATION:
            raise LedgerError(f"{self.path} is a database of another program; name another ledger with --ledger.")
        if version > SCHEMA:
            raise LedgerError(
                f"the ledger {self.path} has schema {version}, this version knows {SCHEMA}; update "
                f"landscape-torch, or name another ledger with --ledger."
            )
        self._database.execute("PRAGMA synchronous=FULL")
        deadline = time.monotonic() + _PATIENCE
        while version < SCHEMA:
            try:
                self._create()
                break
            except sqlite3.OperationalError as error:
                # Processes that turn a new file into a WAL at the same moment lock each other out, and SQLite
                # refuses them at once instead of waiting.
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _create(self) -> None:
        self._database.execute("PRAGMA busy_timeout=100")
        self._database.execute("PRAGMA journal_mode=WAL")
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute(_CREATE)
            self._database.execute(_CREATE_ARRAYS)
            self._database.execute(f"PRAGMA application_id={_APPLICATION}")
            self._database.execute(f"PRAGMA user_version={SCHEMA}")
        self._database.execute(f"PRAGMA busy_timeout={1000 * _PATIENCE}")

    def find(self, keys: Iterable[str]) -> dict[str, Row]:
        """The rows that were measured, by key; failures are not among them, so that they are tried again.

        Raises:
            LedgerError: If the file is damaged.
        """
        query = "SELECT measured FROM measurements WHERE key = ? AND status = ?"
        found = {}
        try:
            for key in keys:
                record = self._database.execute(query, (key, OK)).fetchone()
                if record is not None:
                    found[key] = _decode(record[0])
        except (sqlite3.Error, ValueError, AttributeError) as error:  # the last two: text that is no row
            raise self._unusable(error) from error
        return found

    def arrays(self, key: str) -> dict[str, NDArray[Any]]:
        """What was measured of each sample, by name; empty if nothing is stored.

        Raises:
            LedgerError: If the file is damaged.
        """
        try:
            record = self._database.execute("SELECT npz FROM arrays WHERE key = ?", (key,)).fetchone()
            return {} if record is None else _unpacked(record[0])
        except (sqlite3.Error, ValueError, OSError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise self._unusable(error) from error

    def write(
        self,
        key: str,
        subject: dict[str, Any],
        row: Row,
        seconds: float,
        arrays: Mapping[str, NDArray[Any]] | None = None,
    ) -> Row:
        """Store a row, failures included, with what was measured of each sample.

        Both are on disk when this returns, or neither; the row is returned as `find` would.
        """
        text = _encode(row)
        record = (key, row["status"], canonical(subject), text, json.dumps(provenance()), seconds)
        sql = (
            "INSERT OR REPLACE INTO measurements (key, status, subject, measured, provenance, seconds) "
            "VALUES (?, ?, ?, ?, ?, ?)"
        )
        try:
            with self._database:
                self._database.execute(sql, record)
                self._database.execute("DELETE FROM arrays WHERE key = ?", (key,))
                if arrays:
                    self._database.execute("INSERT INTO arrays (key, npz) VALUES (?, ?)", (key, _packed(arrays)))
        except sqlite3.Error as error:
            raise LedgerError(
                f"the ledger {self.path} cannot be written ({error}); what was measured before is safe. "
                f"Free the disk or name another with --ledger, and run the command again."
            ) from error
        return _decode(text)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _encode(row: Row) -> str:
    plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
    return json.dumps(plain, allow_nan=False)


def _decode(text: str) -> Row:
    return {k: math.nan if v is None else v for k, v in json.loads(text).items()}


def _packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    file = io.BytesIO()
    plain: dict[str, Any] = dict(arrays)
    np.savez_compressed(file, **plain)
    return file.getvalue()


def _unpacked(npz: bytes) -> dict[str, NDArray[Any]]:
    with np.load(io.BytesIO(npz), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
