"""What a ledger keeps of a measurement: a row as text, its subject, and digests by which damage shows."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Mapping
from sys import intern
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from landscape.study.columns import Row

_DOMAIN = "landscape-row "


class Record(NamedTuple):
    """One line of the table ``measurements``; SQLite has no checksums, so it carries its own."""

    key: str  # digest of the subject
    status: str
    subject: str  # everything the row depends on, as JSON
    measured: str  # the row, as JSON; NaN as null
    provenance: str
    seconds: float
    npz_sha256: str  # of the arrays beside the row, empty if there are none
    digest: str  # of all before

    @property
    def intact(self) -> bool:
        """Whether it says what was written."""
        return self.digest == _digest(self[:-1])

    @property
    def trustworthy(self) -> bool:
        """Whether it is intact, holds a row, and its key is that of its subject."""
        try:
            decode(self.measured)
        except (ValueError, AttributeError):
            return False
        return self.intact and self.key == _key(self.subject)


def make_record(
    key: str, subject: dict[str, Any], row: Row, provenance: str, seconds: float, npz: bytes | None
) -> Record:
    """The record of a row."""
    arrays = hashlib.sha256(npz).hexdigest() if npz else ""
    fields = (key, str(row["status"]), canonical(subject), encode(row), provenance, float(seconds), arrays)
    return Record(*fields, digest=_digest(fields))


def sealed(record: Record, npz: bytes | None) -> Record:
    """A record of an older schema with the digests it lacks."""
    arrays = hashlib.sha256(npz).hexdigest() if npz else ""
    return record._replace(npz_sha256=arrays, digest=_digest((*record[:-2], arrays)))


def _digest(fields: tuple[Any, ...]) -> str:
    *texts, seconds, arrays = fields
    return hashlib.sha256(json.dumps([*texts, float(seconds).hex(), arrays]).encode()).hexdigest()


def content_key(subject: dict[str, Any]) -> str:
    """Digest of everything that a measurement depends on; floats enter with all their bits."""
    return _key(canonical(subject))


def _key(canonical_text: str) -> str:
    return hashlib.sha256((_DOMAIN + canonical_text).encode()).hexdigest()


def canonical(subject: dict[str, Any]) -> str:
    """JSON with sorted keys, in which equal contents have equal text."""
    return json.dumps(_exact(subject), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _exact(value: Any) -> Any:
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, dict):
        return {key: _exact(v) for key, v in value.items()}
    return [_exact(v) for v in value] if isinstance(value, list | tuple) else value


def kind_of(subject: str) -> str:
    """What measurements of equal cost have in common: their subject but for weights and data."""
    content = _parsed(subject)
    return json.dumps({k: v for k, v in content.items() if not k.endswith("sha256")}, sort_keys=True)


def encode(row: Row) -> str:
    """A row as JSON; numbers that are not finite become null."""
    plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
    return json.dumps(plain, allow_nan=False)


def decode(text: str) -> Row:
    """The row of `encode`, null as NaN; ValueError or AttributeError if it is none."""
    # A name is in memory once, not once a row: thousands of rows have the same names.
    return {intern(k): math.nan if v is None else v for k, v in _parsed(text).items()}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("its text is nested too deeply") from error


def pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays by name as the bytes of an NPZ file."""
    file = io.BytesIO()
    plain: dict[str, Any] = dict(arrays)
    np.savez_compressed(file, **plain)
    return file.getvalue()


def unpack(npz: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of `pack`."""
    with np.load(io.BytesIO(npz), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
