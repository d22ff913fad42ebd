"""The one writer of a run: everything it reports as stored survives a crash."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from landscape.errors import ConfigurationError, RunConflictError, SnapshotError
from landscape.provenance import provenance as current_provenance
from landscape.snapshots.buffers import num_bytes
from landscape.snapshots.claim import check_writable, stored_run, take_lock
from landscape.snapshots.commit import commit_bytes, make_directory, remove_orphans, sync_directory
from landscape.snapshots.contents import read_segment
from landscape.snapshots.description import RunDescription, canonical_json
from landscape.snapshots.directory import (
    LOG_FILE,
    OUTCOME_FILE,
    OUTCOMES,
    RUN_FILE,
    SEGMENTS,
    RunInfo,
    SegmentFile,
    check_end,
    checked_digest,
    read_outcome,
    run_info_bytes,
    segment_name,
)
from landscape.snapshots.hdf5 import open_hdf5
from landscape.snapshots.image import segment_image
from landscape.snapshots.layout import num_parameters
from landscape.snapshots.reader import read_segments
from landscape.snapshots.segment import Array, Segment, checked, join_metrics


class RunWriter:
    """Writes one run; holds its lock from construction until ``close`` or the end of the ``with`` block.

    Raises RunBusyError, RunConflictError, CorruptSnapshotError (damaged segments) or SnapshotError
    (not writable) before anything of the run is changed.
    """

    def __init__(
        self, path: str | Path, description: RunDescription, provenance: dict[str, Any] | None = None
    ) -> None:
        self.path = Path(path)
        self.description = description
        self._files: list[SegmentFile] = []
        self._metrics: list[dict[str, Array]] = []
        self._digest = ""
        self._position = (0, 0, 0)
        self._failed = False
        self._outcome: dict[str, Any] | None = None
        self._lock: int | None = None
        with self._failure_reported("The run could not be opened for writing"):
            check_writable(self.path)
            stored_run(self.path, description)
            make_directory(self.path)
            self._lock = take_lock(self.path)
        try:
            self._start(provenance)
        except BaseException:
            self.close()
            raise

    def _start(self, provenance: dict[str, Any] | None) -> None:
        with self._failure_reported("The run could not be opened for writing"):
            remove_orphans(self.path)
            # Asked again under the lock: another writer may have begun in between.
            info = stored_run(self.path, self.description)
            if info is None:
                info = RunInfo(self.description, current_provenance() if provenance is None else provenance)
                commit_bytes(self.path / RUN_FILE, run_info_bytes(info))
            make_directory(self.path / SEGMENTS)
            remove_orphans(self.path / SEGMENTS)
            # A writer killed after the rename has not made the last name durable.
            sync_directory(self.path)
            sync_directory(self.path / SEGMENTS)
        self._provenance = info.provenance
        self._load()

    def _load(self) -> None:
        self._outcome = read_outcome(self.path)
        for file, index in read_segments(self.path, self.description):
            self._files.append(file)
            self._metrics.append(index.metrics)
            self._position = (int(index.samples_seen[-1]), int(index.step[-1]), int(index.epoch[-1]))
        if self._files:
            self._digest = checked_digest(self._files[-1])
        check_end(self.path, self._outcome, self._position[0])

    @contextlib.contextmanager
    def _failure_reported(self, what: str) -> Iterator[None]:
        try:
            yield
        except SnapshotError:
            raise
        except OSError as error:
            self._failed = True
            raise SnapshotError(
                f"{what}: {error} ({self.path}). {self._sealed()} Free space on the disk or repair it, then start "
                "the same training again: it goes on from there."
            ) from error
        except BaseException:
            # An interrupt leaves it open whether the file got its name.
            self._failed = True
            raise

    def _sealed(self) -> str:
        if not self._files:
            return "Nothing was stored yet."
        return f"All is stored up to samples_seen={self._position[0]} (segment {self._files[-1].sequence})."

    @property
    def outcome(self) -> dict[str, Any] | None:
        """How training ended; None while it has not."""
        return self._outcome

    @property
    def provenance(self) -> dict[str, Any] | None:
        """What run.json says about the process that began the run."""
        return self._provenance

    @property
    def metrics(self) -> dict[str, Array]:
        """Metrics of all sealed segments, float64 (m,) each."""
        return join_metrics(self._metrics)

    @property
    def last_segment(self) -> Segment | None:
        """The last sealed segment, read back and verified; CorruptSnapshotError if it is damaged."""
        if not self._files:
            return None
        checked_digest(self._files[-1])
        with open_hdf5(self._files[-1].path) as file:
            return read_segment(file)

    def append(self, segment: Segment) -> Path:
        """Seal a segment durably; ConfigurationError, NotFiniteError, RunConflictError or SnapshotError."""
        self._check_open()
        if self._outcome is not None:
            raise RunConflictError(f"{self.path} has ended ({self._outcome['outcome']}). Use another directory.")
        lengths = num_parameters(self.description.layout), num_bytes(self.description.buffers)
        values = checked(segment, *lengths)
        start = (int(values.samples_seen[0]), int(values.step[0]), int(values.epoch[0]))
        if any(now < before for now, before in zip(start, self._position, strict=True)):
            raise ConfigurationError(
                f"Got a segment that begins at (samples_seen, step, epoch) = {start}; {self.path} is already at "
                f"{self._position}. Resume from last_segment."
            )
        image = segment_image(self.description, len(self._files), self._digest, values)
        return self._seal(image, values)

    def _seal(self, image: bytes, values: Segment) -> Path:
        digest = hashlib.sha256(image).hexdigest()
        path = self.path / SEGMENTS / segment_name(len(self._files), digest)
        with self._failure_reported(f"Segment {len(self._files)} could not be stored"):
            commit_bytes(path, image)
        self._files.append(SegmentFile(path, len(self._files), digest[:16]))
        self._metrics.append(values.metrics)
        self._digest = digest
        self._position = (int(values.samples_seen[-1]), int(values.step[-1]), int(values.epoch[-1]))
        return path

    def finish(
        self,
        outcome: str,
        reason: str = "",
        epochs: int | None = None,
        steps: int | None = None,
        samples_seen: int | None = None,
    ) -> None:
        """Record how training ended, by default at the last snapshot; RunConflictError if it ended otherwise."""
        self._check_open()
        if outcome not in OUTCOMES:
            raise ConfigurationError(f"Got the outcome {outcome!r}; it must be one of {OUTCOMES}.")
        counts = zip((samples_seen, steps, epochs), self._position, strict=True)
        numbers = dict(zip(("samples_seen", "steps", "epochs"), (int(b if a is None else a) for a, b in counts),
                           strict=True))  # fmt: skip
        value = {"outcome": outcome, "reason": reason, **numbers}
        if self._outcome not in (None, value):
            raise RunConflictError(f"{self.path} has already ended: {self._outcome}, not {value}. Keep the first.")
        with self._failure_reported("The outcome could not be stored"):
            commit_bytes(self.path / OUTCOME_FILE, canonical_json(value).encode() + b"\n")
        self._outcome = value

    def log(self, event: str, **facts: object) -> None:
        """Add a line to the human log; a log that cannot be written stops nothing."""
        line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event, **facts}, default=str)
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self.path / LOG_FILE, flags, 0o666)
            try:
                os.write(descriptor, line.encode() + b"\n")
            finally:
                os.close(descriptor)

    def _check_open(self) -> None:
        if self._lock is None:
            raise SnapshotError(f"The writer of {self.path} is closed. Open a new RunWriter.")
        if self._failed:
            raise SnapshotError(f"A write to {self.path} failed. {self._sealed()} Start the training again.")

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            with contextlib.suppress(OSError):  # nothing was written there; what went wrong before must be heard
                os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
