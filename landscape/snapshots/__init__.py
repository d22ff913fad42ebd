"""The store of training runs: immutable HDF5 segments, written durably, read with suspicion."""

from landscape.snapshots.description import RunDescription
from landscape.snapshots.history import History, run_history
from landscape.snapshots.image import segment_size
from landscape.snapshots.layout import Layout, ParameterSlot, flatten, layout_of, num_parameters, unflatten
from landscape.snapshots.load import Position, Snapshot, load_snapshot, snapshot_of
from landscape.snapshots.locate import find_runs, is_run, resolve
from landscape.snapshots.pack import pack_run
from landscape.snapshots.reader import Run, open_run
from landscape.snapshots.segment import Role, Segment
from landscape.snapshots.select import BestRule, best_epochs, select_index
from landscape.snapshots.selection import check_selection, positions
from landscape.snapshots.status import RunStatus, run_status
from landscape.snapshots.thin import thin_run
from landscape.snapshots.verify import Verification, verify_run
from landscape.snapshots.writer import RunWriter

__all__ = [
    "BestRule",
    "History",
    "Layout",
    "ParameterSlot",
    "Position",
    "Role",
    "Run",
    "RunDescription",
    "RunStatus",
    "RunWriter",
    "Segment",
    "Snapshot",
    "Verification",
    "best_epochs",
    "check_selection",
    "find_runs",
    "flatten",
    "is_run",
    "layout_of",
    "load_snapshot",
    "num_parameters",
    "open_run",
    "pack_run",
    "positions",
    "resolve",
    "run_history",
    "run_status",
    "segment_size",
    "select_index",
    "snapshot_of",
    "thin_run",
    "unflatten",
    "verify_run",
]
