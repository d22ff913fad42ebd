"""Writing imported snapshots by the project's own writer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from landscape.interchange.ordering import Place
from landscape.snapshots import Role, RunDescription, RunWriter, Segment, num_parameters
from landscape.snapshots.buffers import num_bytes

_ROWS = 128
_BYTES = 2**26


def store(
    path: Path,
    description: RunDescription,
    facts: dict[str, Any],
    order: Sequence[Place],
    samples_seen: Sequence[int],
    rows: IO[bytes],
) -> None:
    """Write a run of the snapshots whose weights, float32 (P,), and buffers follow one another in ``rows``."""
    chosen = sorted(range(len(order)), key=lambda i: order[i].number)
    length, size = 4 * num_parameters(description.layout), num_bytes(description.buffers)
    with RunWriter(path, description, facts) as writer:
        for part in _parts(chosen, length + size):
            stored = np.stack([_row(rows, place, length + size) for place in part])
            theta = np.ascontiguousarray(stored[:, :length]).view(np.float32)
            segment = _segment(theta, [order[i] for i in part], [samples_seen[i] for i in part])
            writer.append(replace(segment, buffers=stored[:, length:]) if size else segment)
        writer.finish("completed", "imported; how training ended is not known")


def _parts(chosen: list[int], length: int) -> Iterator[list[int]]:
    count = max(1, min(_ROWS, _BYTES // length))
    for start in range(0, len(chosen), count):
        yield chosen[start : start + count]


def _row(rows: IO[bytes], place: int, length: int) -> np.ndarray:
    rows.seek(length * place)
    return np.frombuffer(rows.read(length), np.uint8)


def _segment(theta: np.ndarray, order: list[Place], samples_seen: list[int]) -> Segment:
    return Segment(
        theta=theta,
        samples_seen=np.array(samples_seen, np.int64),
        step=np.array([place.step for place in order], np.int64),
        epoch=np.array([place.epoch for place in order], np.int64),
        role=np.array([int(Role.EPOCH_END) if place.ends_epoch else 0 for place in order], np.uint8),
        batch_loss=np.full(len(order), np.nan, np.float32),
        metrics={},
    )
