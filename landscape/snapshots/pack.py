"""One file for a whole run, to archive it or to hand it on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import h5py

from landscape.errors import SnapshotError
from landscape.snapshots.buffers import num_bytes
from landscape.snapshots.commit import beside, check_free
from landscape.snapshots.contents import read_header, read_resume
from landscape.snapshots.description import canonical_json
from landscape.snapshots.hdf5 import open_hdf5
from landscape.snapshots.image import LIBVER, PACKED_FORMAT, Contents, write_contents
from landscape.snapshots.layout import num_parameters
from landscape.snapshots.reader import Run, open_run
from landscape.snapshots.segment import COLUMNS, Array, Index
from landscape.snapshots.verify import verify_run


def _resume_of(run: Run) -> dict[str, Array]:
    with open_hdf5(run.parts[-1].path) as file:
        return read_resume(file, read_header(file))


def _contents(run: Run) -> Contents:
    index = Index(**{name: getattr(run, name) for name in (*COLUMNS, "theta_sha256", "metrics")})
    documents = {"outcome": run.outcome, "provenance": run.provenance, "thinned_from": run.thinned_from}
    texts = {name: canonical_json(value).encode() for name, value in documents.items() if value is not None}
    return Contents(PACKED_FORMAT, -1, "", run.description, index, _resume_of(run), texts)


def _write(path: Path, run: Run) -> None:
    # Straight to the disk: a run may be larger than memory, and nobody sees the file before it is verified.
    with h5py.File(path, "w", libver=LIBVER, locking=False) as file:
        write_contents(file, _contents(run), run.read_all())
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_space(folder: Path, run: Run) -> None:
    """Refuse before HDF5 meets a full disk, which it may not survive; SnapshotError."""
    row = 4 * num_parameters(run.description.layout) + num_bytes(run.description.buffers)
    needed = len(run) * (row + 256) + 2**20
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SnapshotError(
            f"The packed file needs {needed / 1e6:.1f} MB, {folder} has {free / 1e6:.1f} MB free. Free "
            "space or use another path."
        )


def _check_copy(path: Path) -> None:
    found = verify_run(path)
    if not found.ok:
        raise SnapshotError(f"The packed file did not read back as written: {found.problems[0]} Check the disk.")


def pack_run(source: str | Path, destination_file: str | Path) -> Path:
    """One file with all of a run, verified by reading it back; RunConflictError if it exists, SnapshotError."""
    target = Path(destination_file)
    check_free(target)
    run = open_run(source)
    with beside(target) as temporary:
        _check_space(target.parent, run)
        _write(temporary, run)
        _check_copy(temporary)
    return target
