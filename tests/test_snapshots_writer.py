"""The writer: what it refuses, what it survives, and that equal runs are equal files."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from landscape.errors import (
    ConfigurationError,
    CorruptSnapshotError,
    MissingSnapshotError,
    NotFiniteError,
    RunBusyError,
    RunConflictError,
    SnapshotError,
    UnsafeFileError,
)
from landscape.snapshots import ParameterSlot, Role, RunDescription, RunWriter, Segment, open_run, verify_run

P = 6


def describe(**config: Any) -> RunDescription:
    layout = (ParameterSlot("weight", (2, 3), 0, P),)
    return RunDescription("net", {}, layout, {"rate": 0.1, "adam": {"eps": 1e-8}, **config}, "ab" * 32)


def segment_at(start: int, **changes: Any) -> Segment:
    """Two snapshots; the weights are a function of the position."""
    count = np.arange(start, start + 2)
    segment = Segment(
        theta=np.outer(count + 1, np.arange(P)).astype(np.float32),
        samples_seen=count * 100,
        step=count * 10,
        epoch=count // 2,
        role=np.array([Role.BEFORE, Role.AFTER | Role.EPOCH_END]),
        batch_loss=np.ones(2, np.float32),
        metrics={"epoch": np.array([start // 2 + 1.0])},
        resume={"momentum": np.full(P, start, np.float32)},
    )
    return dataclasses.replace(segment, **changes)


def files_of(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def write(path: Path, starts: tuple[int, ...] = (0, 2)) -> list[Path]:
    with RunWriter(path, describe(), {"machine": "m"}) as writer:
        return [writer.append(segment_at(start)) for start in starts]


def test_a_run_from_first_to_last(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "a" / "run", describe(), {"machine": "m"}) as writer:
        writer.append(segment_at(0))
        writer.append(segment_at(2))
        writer.finish("completed")
        writer.log("finished", loss=0.5, path=tmp_path)
    run = open_run(tmp_path / "a" / "run")
    assert run.samples_seen.tolist() == [0, 100, 200, 300] and run.epoch.tolist() == [0, 0, 1, 1]
    assert run.provenance == {"machine": "m"}
    outcome = {"outcome": "completed", "reason": "", "epochs": 1, "steps": 30, "samples_seen": 300}
    assert run.outcome == outcome
    assert '"finished"' in (tmp_path / "a/run/log.jsonl").read_text()
    assert verify_run(run.path).ok


def test_equal_runs_are_equal_files_also_when_interrupted(tmp_path: Path) -> None:
    write(tmp_path / "one")
    write(tmp_path / "two", (0,))
    write(tmp_path / "two", (2,))
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_resume_sees_the_last_segment(tmp_path: Path) -> None:
    write(tmp_path / "run")
    with RunWriter(tmp_path / "run", describe()) as writer:
        last = writer.last_segment
        assert writer.provenance == {"machine": "m"}
        assert writer.metrics["epoch"].tolist() == [1, 2]
        assert writer.outcome is None
    assert last is not None
    assert last.theta.tobytes() == segment_at(2).theta.tobytes()
    assert last.resume["momentum"].tolist() == [2.0] * P


def test_provenance_is_filled_in(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", describe()) as writer:
        assert writer.provenance is not None and "versions" in writer.provenance


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"theta": np.zeros((2, P + 1), np.float32)}, "theta"),
        ({"theta": np.zeros((0, P), np.float32)}, "theta"),
        ({"theta": np.zeros(P, np.float32)}, "theta"),
        ({"theta": np.zeros((2, P))}, "float64"),
        ({"step": np.zeros(3, np.int64)}, "step has shape"),
        ({"step": np.zeros(2)}, "step is float64"),
        ({"step": np.array([5, 4])}, "goes back"),
        ({"samples_seen": np.array([-1, 4])}, "negative"),
        ({"role": np.array([0, 8])}, "Role"),
        ({"batch_loss": np.zeros(2, np.int64)}, "batch_loss"),
        ({"metrics": {"accuracy": np.zeros(1)}}, "epoch"),
        ({"metrics": {"epoch": np.zeros(1), "accuracy": np.zeros(2)}}, "one value"),
        ({"metrics": {"epoch": np.zeros(1), "../x": np.zeros(1)}}, "named"),
        ({"resume": {"x": np.array(["a"])}}, "types"),
        ({"resume": {"x": np.array([None])}}, "types"),
        ({"resume": {"a/b": np.zeros(1)}}, "named"),
    ],
)
def test_segments_that_do_not_fit_are_refused_unwritten(tmp_path: Path, changes: Any, text: str) -> None:
    with RunWriter(tmp_path / "run", describe(), {}) as writer:
        before = files_of(tmp_path)
        with pytest.raises(ConfigurationError, match=text):
            writer.append(segment_at(0, **changes))
        assert files_of(tmp_path) == before
        writer.append(segment_at(0))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_unwritten(tmp_path: Path, bad: float) -> None:
    theta = np.zeros((2, P), np.float32)
    theta[1, 4] = bad
    with RunWriter(tmp_path / "run", describe(), {}) as writer:
        before = files_of(tmp_path)
        with pytest.raises(NotFiniteError, match=r"row 1 .*samples_seen 100"):
            writer.append(segment_at(0, theta=theta))
        assert files_of(tmp_path) == before


def test_a_segment_from_the_past_is_refused(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", describe(), {}) as writer:
        writer.append(segment_at(2))
        with pytest.raises(ConfigurationError, match="already at"):
            writer.append(segment_at(0))


def test_another_run_in_the_directory(tmp_path: Path) -> None:
    write(tmp_path / "run")
    before = files_of(tmp_path)
    with pytest.raises(RunConflictError, match=r"config.adam.eps: stored 1e-08, asked for 0.1; config.rate: "):
        RunWriter(tmp_path / "run", describe(rate=0.5, adam={"eps": 0.1}))
    assert files_of(tmp_path) == before


def test_a_directory_that_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunConflictError, match=r"thesis\.tex"):
        RunWriter(tmp_path, describe())
    assert list(files_of(tmp_path)) == ["thesis.tex"]
    with pytest.raises(RunConflictError, match="not a directory"):
        RunWriter(tmp_path / "thesis.tex" / "run", describe())


def test_segments_without_their_run_file(tmp_path: Path) -> None:
    write(tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(RunConflictError, match=r"no run\.json"):
        RunWriter(tmp_path / "run", describe())


def test_a_link_in_place_of_the_segments(tmp_path: Path) -> None:
    write(tmp_path / "run")
    (tmp_path / "run/segments").rename(tmp_path / "elsewhere")
    (tmp_path / "run/segments").symlink_to(tmp_path / "elsewhere")
    for use in (lambda: RunWriter(tmp_path / "run", describe()), lambda: open_run(tmp_path / "run")):
        with pytest.raises(UnsafeFileError):
            use()


def test_only_one_writer_in_one_process(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", describe(), {}):
        with pytest.raises(RunBusyError):
            RunWriter(tmp_path / "run", describe())
        with pytest.raises(MissingSnapshotError, match="never finished its first segment"):
            open_run(tmp_path / "run")
    RunWriter(tmp_path / "run", describe()).close()


def test_an_ended_run_takes_nothing_more(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", describe(), {}) as writer:
        writer.append(segment_at(0))
        with pytest.raises(ConfigurationError, match="'exploded'"):
            writer.finish("exploded")
        writer.finish("diverged", "NaN after step 7", 0, 7, 70)
    with RunWriter(tmp_path / "run", describe()) as writer:
        assert writer.outcome is not None and writer.outcome["steps"] == 7
        writer.finish("diverged", "NaN after step 7", 0, 7, 70)
        with pytest.raises(RunConflictError, match="already ended"):
            writer.finish("completed")
        with pytest.raises(RunConflictError, match="has ended"):
            writer.append(segment_at(2))
    with pytest.raises(SnapshotError, match="closed"):
        writer.append(segment_at(2))


def test_orphans_are_removed_by_the_next_writer_only(tmp_path: Path) -> None:
    write(tmp_path / "run")
    orphans = [tmp_path / "run/.tmp-outcome.json", tmp_path / "run/segments/.tmp-seg-00000002-0123.h5"]
    for orphan in orphans:
        orphan.write_bytes(b"half")
    open_run(tmp_path / "run")
    assert verify_run(tmp_path / "run").ok and all(orphan.exists() for orphan in orphans)
    RunWriter(tmp_path / "run", describe()).close()
    assert not any(orphan.exists() for orphan in orphans)


def test_a_damaged_last_segment_stops_the_writer(tmp_path: Path) -> None:
    last = write(tmp_path / "run")[-1]
    image = bytearray(last.read_bytes())
    image[-1] ^= 1
    last.write_bytes(image)
    with pytest.raises(CorruptSnapshotError):
        RunWriter(tmp_path / "run", describe())
    last.unlink()
    with RunWriter(tmp_path / "run", describe()) as writer:
        writer.append(segment_at(2))
    assert verify_run(tmp_path / "run").ok


def test_a_directory_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SnapshotError, match="not writable"):
        RunWriter(tmp_path / "run", describe())
    assert files_of(tmp_path) == {} and not (tmp_path / "run").exists()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(fcntl.flock, 0, errno.ENOLCK))
    with pytest.raises(SnapshotError, match="could not be opened"):
        RunWriter(tmp_path / "run", describe())
    assert not (tmp_path / "run" / "run.json").exists()


def failing(
    call: Callable[..., Any], position: int, number: int, calls: list[str] | None = None
) -> Callable[..., Any]:
    """``call``, but its use with this number fails, counted over all that share ``calls``."""
    counted = [] if calls is None else calls

    def replacement(*arguments: Any) -> Any:
        counted.append(call.__name__)
        if len(counted) - 1 == position:
            raise OSError(number, os.strerror(number))
        return call(*arguments)

    return replacement


def test_errors_of_the_disk_at_every_call(tmp_path: Path) -> None:
    """ENOSPC or EIO at the n-th write, fsync or rename of a segment: a message, and nothing is lost."""
    seen: list[str] = []
    for position in range(8):
        path = tmp_path / str(position)
        write(path, (0, 2))
        with RunWriter(path, describe()) as writer:
            calls: list[str] = []
            with pytest.MonkeyPatch.context() as patch:
                for name in ("write", "fsync", "rename"):
                    number = errno.EIO if name == "fsync" else errno.ENOSPC
                    patch.setattr(os, name, failing(getattr(os, name), position, number, calls))
                if position >= 4:
                    writer.append(segment_at(4))
                    assert len(calls) == 4
                    continue
                with pytest.raises(SnapshotError, match=r"samples_seen=300 \(segment 1\).*start the same"):
                    writer.append(segment_at(4))
            seen.append(calls[-1])
            with pytest.raises(SnapshotError, match="failed"):
                writer.append(segment_at(4))
        assert verify_run(path).ok and not list(path.rglob(".tmp-*"))
        assert len(open_run(path)) >= 4
        with RunWriter(path, describe()) as writer:
            if len(writer.metrics["epoch"]) == 2:
                writer.append(segment_at(4))
        assert verify_run(path).ok and verify_run(path).num_snapshots == 6
    assert seen == ["write", "fsync", "rename", "fsync"]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole(descriptor, data[:1000]))
    write(tmp_path / "run")
    assert verify_run(tmp_path / "run").ok


def test_the_order_of_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    with RunWriter(tmp_path / "run", describe(), {}) as writer:
        for name in ("write", "fsync", "rename"):
            monkeypatch.setattr(os, name, failing(getattr(os, name), -1, 0, order))
        writer.append(segment_at(0))
    assert order == ["write", "fsync", "rename", "fsync"]


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", describe(), {}) as writer:
        (tmp_path / "run" / "log.jsonl").mkdir()
        writer.log("start")
        assert writer.append(segment_at(0)).exists()
