"""The ledger: measured rows in SQLite, keyed by content, written by one process."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from landscape.errors import LedgerError
from landscape.provenance import provenance
from landscape.study.columns import OK, Row

SCHEMA = 1

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
            self._database = sqlite3.connect(self.path, timeout=30)
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(
                f"the ledger {self.path} cannot be used ({error}). It holds nothing that cannot be "
                f"measured again: move it away, or name another with --ledger."
            ) from error

    def _prepare(self) -> None:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA:
            raise LedgerError(
                f"the ledger {self.path} has schema {version}, this version knows {SCHEMA}; update "
                f"landscape-torch, or name another ledger with --ledger."
            )
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute(_CREATE)
        self._database.execute(f"PRAGMA user_version={SCHEMA}")
        self._database.commit()

    def find(self, keys: Iterable[str]) -> dict[str, Row]:
        """The rows that were measured, by key; failures are not among them, so that they are tried again."""
        query = "SELECT measured FROM measurements WHERE key = ? AND status = ?"
        found = {}
        for key in keys:
            record = self._database.execute(query, (key, OK)).fetchone()
            if record is not None:
                found[key] = _decode(record[0])
        return found

    def write(self, key: str, subject: dict[str, Any], row: Row, seconds: float) -> None:
        """Store a row, failures included; it is on disk when this returns."""
        record = (key, row["status"], canonical(subject), _encode(row), json.dumps(provenance()), seconds)
        sql = (
            "INSERT OR REPLACE INTO measurements (key, status, subject, measured, provenance, seconds) "
            "VALUES (?, ?, ?, ?, ?, ?)"
        )
        try:
            with self._database:
                self._database.execute(sql, record)
        except sqlite3.Error as error:
            raise LedgerError(
                f"the ledger {self.path} cannot be written ({error}); what was measured before is safe. "
                f"Free the disk or name another with --ledger, and run the command again."
            ) from error

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
