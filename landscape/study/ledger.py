"""The ledger: measured rows in SQLite, keyed by content, written by one process, in batches."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from numpy.typing import NDArray

from landscape.errors import LedgerError
from landscape.provenance import provenance
from landscape.study.columns import FAILED, OK, Row
from landscape.study.ledger_damage import FIELDS, Recovery
from landscape.study.ledger_file import INSERT, INSERT_ARRAYS, SCHEMA, open_to_read, open_to_write, unusable
from landscape.study.record import Record, canonical, content_key, decode, kind_of, make_record, pack, unpack

__all__ = ["SCHEMA", "Conflict", "Ledger", "canonical", "content_key", "kind_of"]

# A commit waits for the disk: some milliseconds each, a tenth of one a row in batches.
BATCH_ROWS = 50
BATCH_SECONDS = 1.0


@dataclass(frozen=True)
class Conflict:
    """A key that was measured again, with other values; the stored row stays."""

    key: str
    stored: Row
    measured: Row

    @property
    def columns(self) -> list[str]:
        """Names of the columns that differ."""
        names = dict.fromkeys([*self.stored, *self.measured])
        return [name for name in names if repr(self.stored.get(name)) != repr(self.measured.get(name))]


class Ledger:
    """Rows by key. Only the process that opened it writes; readers may come and go.

    A damaged file is set aside and what can be trusted is taken over: ``recovery`` tells of it. With
    ``read_only`` nothing is created or changed, and an absent file is an empty ledger.

    Raises:
        LedgerError: If the file cannot be opened, is another program's, or was written by a newer version; if
            it is damaged and must not be changed.
    """

    def __init__(self, path: Path | str, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self.conflicts: list[Conflict] = []
        self.recovery: Recovery | None = None
        self._batch: dict[str, tuple[Record, bytes | None]] = {}
        self._committed = -math.inf
        self._provenance = json.dumps(provenance())
        if read_only:
            self._database = open_to_read(self.path)
        else:
            self._database, self.recovery = open_to_write(self.path)

    def find(self, keys: Iterable[str]) -> dict[str, Row]:
        """The rows that were measured, by key; failures are not among them, so that they are tried again.

        Raises:
            LedgerError: If the file is damaged.
        """
        return {record.key: self._row(record) for record in self._records(keys) if record.status == OK}

    def failures(self, keys: Iterable[str]) -> dict[str, Row]:
        """The failed rows, by key; LedgerError if the file is damaged."""
        return {record.key: self._row(record) for record in self._records(keys) if record.status == FAILED}

    def arrays(self, key: str) -> dict[str, NDArray[Any]]:
        """What was measured of each sample, by name; empty if nothing is stored any more.

        Raises:
            LedgerError: If the file is damaged.
        """
        found = list(self._records([key]))
        if not found or not found[0].npz_sha256:
            return {}
        try:
            stored = self._database.execute("SELECT npz FROM arrays WHERE key = ?", (key,)).fetchone()
            if stored is None:
                return {}
            (npz,) = stored
            if hashlib.sha256(npz).hexdigest() != found[0].npz_sha256:
                raise ValueError("arrays do not match their digest")
            return unpack(npz)
        except Exception as error:  # an archive that another program made may raise anything
            raise unusable(self.path, error) from error

    def seconds(self) -> dict[str, float]:
        """Median time of what was measured, by `kind_of` its subject; LedgerError if the file is damaged."""
        self.commit()
        kinds: dict[str, list[float]] = {}
        try:
            rows = self._database.execute("SELECT subject, seconds FROM measurements WHERE status = ?", (OK,))
            for subject, seconds in rows:
                kinds.setdefault(kind_of(subject), []).append(seconds)
        except (sqlite3.Error, ValueError, AttributeError, TypeError) as error:
            raise unusable(self.path, error) from error
        return {kind: float(statistics.median(taken)) for kind, taken in kinds.items()}

    def _records(self, keys: Iterable[str]) -> Iterator[Record]:
        self.commit()
        try:
            for key in keys:
                stored = self._stored(key)
                if stored is not None:
                    yield stored
        except sqlite3.Error as error:
            raise unusable(self.path, error) from error

    def _row(self, record: Record) -> Row:
        try:
            if not record.intact:
                raise ValueError("a row does not match its digest")
            return decode(record.measured)
        except (ValueError, AttributeError, TypeError) as error:  # the last two: text that is no row
            raise unusable(self.path, error) from error

    def write(
        self,
        key: str,
        subject: dict[str, Any],
        row: Row,
        seconds: float,
        arrays: Mapping[str, NDArray[Any]] | None = None,
    ) -> Row:
        """Store a row, failures included, with what was measured of each sample; returns it as `find` would.

        Both are on disk after the next `commit`, or neither: it comes by itself with ``BATCH_ROWS`` rows, or with
        the first one that is written ``BATCH_SECONDS`` after the last.
        """
        npz = pack(arrays) if arrays else None
        record = make_record(key, subject, row, self._provenance, seconds, npz)
        self._batch[key] = (record, npz)
        if len(self._batch) >= BATCH_ROWS or time.monotonic() - self._committed >= BATCH_SECONDS:
            self.commit()
        return decode(record.measured)

    def commit(self) -> None:
        """Put what was written on disk.

        Raises:
            LedgerError: If it cannot be; the rows since the last commit are lost, and measured again.
        """
        if not self._batch:
            return
        try:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                conflicts = [c for record, npz in self._batch.values() if (c := self._store(record, npz))]
        except sqlite3.Error as error:
            self._batch.clear()
            raise LedgerError(
                f"the ledger {self.path} cannot be written ({error}); what was committed before is safe. "
                f"Free the disk or name another with --ledger, and run the command again."
            ) from error
        self._batch.clear()
        self._committed = time.monotonic()
        self.conflicts += conflicts

    def _store(self, record: Record, npz: bytes | None) -> Conflict | None:
        """Insert a record, unless another measurement of it is there: that stays, and differences are told."""
        stored = self._stored(record.key)
        if stored is not None and stored.status == OK and stored.intact and record.measured != stored.measured:
            failed = record.status == FAILED
            return None if failed else Conflict(record.key, decode(stored.measured), decode(record.measured))
        self._database.execute(INSERT, record)
        self._database.execute("DELETE FROM arrays WHERE key = ?", (record.key,))
        if npz:
            self._database.execute(INSERT_ARRAYS, (record.key, npz))
        return None

    def _stored(self, key: str) -> Record | None:
        fields = self._database.execute(f"SELECT {FIELDS} FROM measurements WHERE key = ?", (key,)).fetchone()
        return None if fields is None else Record(*fields)

    def close(self) -> None:
        """Commit, and close the file."""
        try:
            self.commit()
        finally:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
