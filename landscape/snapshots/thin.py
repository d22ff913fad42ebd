"""Keeping a few snapshots of a run, with all of its metrics, in a new run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from landscape.errors import ConfigurationError
from landscape.snapshots.commit import beside, check_free, commit_bytes, make_directory
from landscape.snapshots.description import canonical_json
from landscape.snapshots.directory import (
    OUTCOME_FILE,
    RUN_FILE,
    SEGMENTS,
    RunInfo,
    run_info_bytes,
    segment_name,
)
from landscape.snapshots.image import segment_image
from landscape.snapshots.reader import Run, open_run
from landscape.snapshots.segment import COLUMNS, Segment
from landscape.snapshots.select import select_index


def _chosen(run: Run, rows: list[int]) -> Segment:
    columns = {name: getattr(run, name)[rows] for name in COLUMNS}
    weights = [run.read_weights(row) for row in rows]
    buffers = [stored for _, stored in weights if stored is not None]
    theta = np.stack([vector for vector, _ in weights])
    return Segment(theta, **columns, metrics=run.metrics, buffers=np.stack(buffers) if buffers else None)


def _fill(folder: Path, run: Run, positions: Sequence[str]) -> None:
    rows = sorted({select_index(run, position) for position in positions})
    thinned = {"snapshots": len(run), "keep": list(positions)}
    image = segment_image(run.description, 0, "", _chosen(run, rows))
    make_directory(folder / SEGMENTS)
    commit_bytes(folder / SEGMENTS / segment_name(0, hashlib.sha256(image).hexdigest()), image)
    if run.outcome is not None:
        commit_bytes(folder / OUTCOME_FILE, canonical_json(run.outcome).encode() + b"\n")
    commit_bytes(folder / RUN_FILE, run_info_bytes(RunInfo(run.description, run.provenance, thinned)))


def thin_run(source: str | Path, destination: str | Path, positions: Sequence[str]) -> Path:
    """New run with the chosen snapshots in the order of training, all metrics and no resume state.

    Raises RunConflictError when the destination exists, ConfigurationError for no or unknown positions,
    and the SnapshotError family for a source that cannot be read.
    """
    target = Path(destination)
    check_free(target)
    if isinstance(positions, str) or not positions:
        raise ConfigurationError(f"Got the positions {positions!r}; give a list such as ['last'].")
    run = open_run(source)
    with beside(target) as temporary:
        _fill(temporary, run, positions)
    return target
