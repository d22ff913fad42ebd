"""The values that one sealed file holds: snapshots, their positions, metrics and resume state."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Any

import numpy as np
import numpy.typing as npt

from landscape.errors import ConfigurationError, NotFiniteError

Array = npt.NDArray[Any]

# One value per snapshot, with the types in the file.
COLUMNS = {"samples_seen": "<i8", "step": "<i8", "epoch": "<i8", "role": "|u1", "batch_loss": "<f4"}
METRIC_TYPE = "<f8"
RESUME_TYPES = ("<f4", "<f8", "<i8", "|u1")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


class Role(IntFlag):
    """Why a snapshot was taken; 0 is a plain end of a segment."""

    BEFORE = 1
    AFTER = 2
    EPOCH_END = 4


_ALL_ROLES = int(Role.BEFORE | Role.AFTER | Role.EPOCH_END)


@dataclass(frozen=True, eq=False)
class Segment:
    """Snapshots theta float32 (n, P), their columns (n,), metrics (m,) per ended epoch, and resume state.

    Metrics are empty, or hold "epoch"; resume state belongs to the last row of theta. Buffers are bytes, uint8
    (n, B), of which most networks have none.
    """

    theta: Array
    samples_seen: Array
    step: Array
    epoch: Array
    role: Array
    batch_loss: Array
    metrics: dict[str, Array]
    resume: dict[str, Array] = field(default_factory=dict)
    buffers: Array | None = None


@dataclass(frozen=True, eq=False)
class Index:
    """All of a segment, or of a whole run, but weights and resume state."""

    samples_seen: Array
    step: Array
    epoch: Array
    role: Array
    batch_loss: Array
    theta_sha256: Array
    metrics: dict[str, Array]

    def __len__(self) -> int:
        return len(self.step)


def theta_digest(vector: Array, buffers: Array | None = None) -> bytes:
    """The 32 bytes of the sha256 of a vector (P,) as little-endian float32, and of the buffers (B,) behind it."""
    digest = hashlib.sha256(vector.astype("<f4", copy=False).tobytes())
    if buffers is not None:
        digest.update(buffers.tobytes())
    return digest.digest()


def digests_of(segment: Segment) -> Array:
    """Digest of each snapshot, uint8 (n, 32)."""
    buffers = [None] * len(segment.theta) if segment.buffers is None else segment.buffers
    digests = (theta_digest(*row) for row in zip(segment.theta, buffers, strict=True))
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def arrays_digest(arrays: Mapping[str, Array]) -> str:
    """Hex sha256 over names, types, shapes and little-endian contents."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        values = arrays[name]
        little = values.astype(values.dtype.newbyteorder("<"), copy=False)
        digest.update(json.dumps([name, little.dtype.str, list(little.shape)]).encode() + b"\n")
        digest.update(little.tobytes())
    return digest.hexdigest()


def columns_of(value: Segment | Index) -> dict[str, Array]:
    """The arrays with one value per snapshot, by name."""
    return {name: getattr(value, name) for name in COLUMNS}


def index_of(segment: Segment) -> Index:
    """Index of a segment; hashes every vector."""
    return Index(**columns_of(segment), theta_sha256=digests_of(segment), metrics=segment.metrics)


def index_arrays(index: Index) -> dict[str, Array]:
    """All arrays of an index by their names in the file."""
    metrics = {f"metrics/{name}": values for name, values in index.metrics.items()}
    return {**columns_of(index), "theta_sha256": index.theta_sha256, **metrics}


def take(index: Index, rows: Sequence[int]) -> Index:
    """The snapshots at ``rows``, with all metrics."""
    chosen = {name: values[list(rows)] for name, values in columns_of(index).items()}
    return Index(**chosen, theta_sha256=index.theta_sha256[list(rows)], metrics=index.metrics)


def join_indices(indices: Sequence[Index]) -> Index:
    """One index after the other; needs at least one."""
    joined = {name: np.concatenate([getattr(index, name) for index in indices]) for name in COLUMNS}
    digests = np.concatenate([index.theta_sha256 for index in indices])
    return Index(**joined, theta_sha256=digests, metrics=join_metrics([index.metrics for index in indices]))


def join_metrics(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Metrics one after the other; NaN where a part lacks a metric that another has."""
    names = sorted(set().union(*parts))
    return {name: np.concatenate([_metric(part, name) for part in parts]) for name in names}


def _metric(part: Mapping[str, Array], name: str) -> Array:
    length = len(part.get("epoch", ()))
    return part.get(name, np.full(length, np.nan))


def _refuse(problem: str, advice: str) -> ConfigurationError:
    return ConfigurationError(f"Got a segment whose {problem}. {advice}")


def _column(segment: Segment, name: str, length: int) -> Array:
    values = np.asarray(getattr(segment, name))
    wanted = np.dtype(COLUMNS[name])
    if values.shape != (length,):
        raise _refuse(f"{name} has shape {values.shape}", f"It needs one value per snapshot: ({length},).")
    if values.dtype.kind not in ("f" if wanted.kind == "f" else "iu"):
        raise _refuse(f"{name} is {values.dtype}", f"It must convert to {wanted}.")
    if wanted.kind == "u" and np.any((values < 0) | (values > _ALL_ROLES)):
        raise _refuse(f"{name} holds {values.max()}", "Combine the flags of Role.")
    return values.astype(wanted)


def _theta(segment: Segment, num_parameters: int) -> Array:
    theta = np.asarray(segment.theta)
    if theta.dtype != np.float32 or theta.ndim != 2 or theta.shape[1] != num_parameters or len(theta) == 0:
        raise _refuse(
            f"theta is {theta.dtype} of shape {theta.shape}",
            f"It must be float32 (n, {num_parameters}) with n >= 1, as flatten() makes it.",
        )
    return theta


def _check_finite(theta: Array, samples_seen: Array) -> None:
    bad = np.flatnonzero(~np.isfinite(theta).all(axis=1))
    if bad.size:
        raise NotFiniteError(
            f"Got NaN or infinite weights in row {bad[0]} of a segment (samples_seen {samples_seen[bad[0]]}). "
            "Nothing was written; finish the run as 'diverged'."
        )


def _check_names(names: Iterable[str], what: str) -> None:
    wrong = [name for name in names if not _NAME.fullmatch(name)]
    if wrong:
        raise _refuse(f"{what} are named {wrong}", "Use up to 200 letters, digits, '_', '.' and '-'.")


def _metrics(segment: Segment) -> dict[str, Array]:
    _check_names(segment.metrics, "metrics")
    given = segment.metrics or {"epoch": np.empty(0)}
    metrics = {name: np.asarray(values, METRIC_TYPE) for name, values in given.items()}
    shapes = {name: values.shape for name, values in metrics.items()}
    if "epoch" not in metrics or metrics["epoch"].ndim != 1 or len(set(shapes.values())) != 1:
        raise _refuse(f"metrics have shapes {shapes}", "Give 'epoch' and all others one value per ended epoch.")
    return metrics


def _resume(segment: Segment) -> dict[str, Array]:
    _check_names(segment.resume, "resume arrays")
    arrays = {name: np.asarray(values) for name, values in segment.resume.items()}
    wrong = {name: str(values.dtype) for name, values in arrays.items() if values.dtype.newbyteorder("<").str
             not in RESUME_TYPES}  # fmt: skip
    if wrong:
        raise _refuse(f"resume arrays have types {wrong}", f"Use one of {RESUME_TYPES}.")
    return arrays


def _buffers(segment: Segment, num_bytes: int) -> Array | None:
    if segment.buffers is None and not num_bytes:
        return None
    buffers = np.empty(0) if segment.buffers is None else np.asarray(segment.buffers)
    if buffers.dtype != np.uint8 or buffers.shape != (len(segment.theta), num_bytes):
        raise _refuse(
            f"buffers are {buffers.dtype} of shape {buffers.shape}",
            f"They must be uint8 ({len(segment.theta)}, {num_bytes}), as pack_buffers() makes them.",
        )
    return buffers if num_bytes else None


def checked(segment: Segment, num_parameters: int, num_bytes: int = 0) -> Segment:
    """Copy of a segment in the file's types; ConfigurationError on wrong shapes or types, NotFiniteError."""
    theta = _theta(segment, num_parameters)
    columns = {name: _column(segment, name, len(theta)) for name in COLUMNS}
    _check_finite(theta, columns["samples_seen"])
    for name in ("samples_seen", "step", "epoch"):
        if columns[name].min() < 0 or np.any(np.diff(columns[name]) < 0):
            raise _refuse(f"{name} is negative or goes back", "Store snapshots in the order of training.")
    buffers = _buffers(segment, num_bytes)
    return Segment(theta, **columns, metrics=_metrics(segment), resume=_resume(segment), buffers=buffers)
