"""Choosing, loading, finding, thinning and packing stored runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from landscape.errors import (
    ConfigurationError,
    CorruptSnapshotError,
    MissingSnapshotError,
    RunConflictError,
    SnapshotError,
    UnsafeFileError,
)
from landscape.snapshots import (
    Role,
    RunDescription,
    RunWriter,
    Segment,
    find_runs,
    is_run,
    layout_of,
    load_snapshot,
    open_run,
    pack_run,
    resolve,
    select_index,
    thin_run,
    verify_run,
)
from landscape.snapshots import pack as pack_module

MODEL = torch.nn.Linear(2, 1)
LAYOUT = layout_of(MODEL.named_parameters())
CLEAN = np.array([0.90, 0.985, 0.98, 0.979, 0.984])
ROBUST = np.array([0.99, 0.10, 0.30, 0.95, 0.30])
NO_METRICS: dict[str, Any] = {"epoch": np.arange(1.0, 6)}


def store(path: Path, metrics: dict[str, Any] | None = None, seed: int = 0) -> Path:
    """Five epochs of three snapshots each; rows 2, 5, 8, 11, 14 end the epochs 1 to 5."""
    values = {"epoch": np.arange(1.0, 6), "clean_accuracy": CLEAN, "fgsm_accuracy_published": ROBUST}
    values = values if metrics is None else metrics
    description = RunDescription("linear", {"inputs": 2}, LAYOUT, {"seed": seed}, "cd" * 32)
    with RunWriter(path, description, {"machine": "m"}) as writer:
        for epoch in range(1, 6):
            rows = np.arange(3 * epoch - 3, 3 * epoch)
            writer.append(
                Segment(
                    theta=rows[:, None].astype(np.float32) + np.array([0.25, 0.5, 0.75], np.float32),
                    samples_seen=rows * 1024 + 1024,
                    step=rows + 1,
                    epoch=np.array([epoch - 1, epoch - 1, epoch]),
                    role=np.array([Role.BEFORE, Role.AFTER, Role.EPOCH_END]),
                    batch_loss=np.zeros(3, np.float32),
                    metrics={name: column[epoch - 1 : epoch] for name, column in values.items()},
                    resume={"momentum": np.zeros(3, np.float32)},
                )
            )
        writer.finish("completed", epochs=5)
    return path


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store(tmp_path_factory.mktemp("choose") / "run")


@pytest.mark.parametrize(
    ("at", "index"),
    [
        ("last", 14),
        ("first", 0),
        ("best", 8),
        ("epoch=1", 2),
        ("epoch=5", 14),
        ("samples=2048", 1),
        ("index=12", 12),
    ],
)
def test_positions(stored: Path, at: str, index: int) -> None:
    assert select_index(open_run(stored), at) == index


@pytest.mark.parametrize(
    ("at", "epoch"),
    [
        ("best=published", 3),
        ("best=exact", 2),
        ("best=published,1", 1),
        ("best=published,0", 2),
        ("best=exact,1", 4),
    ],
)
def test_the_rule_of_the_best(tmp_path: Path, at: str, epoch: int) -> None:
    metrics = {**NO_METRICS, "clean_accuracy": CLEAN, "fgsm_accuracy_published": ROBUST,
               "fgsm_accuracy_exact": np.array([0.2, 0.3, 0.1, 0.5, 0.1])}  # fmt: skip
    run = open_run(store(tmp_path / "run", metrics))
    assert run.epoch[select_index(run, at)] == epoch


@pytest.mark.parametrize(
    "at", ["best=", "best=median", "best=exact,", "best=exact,-1", "best=exact,nan", "best=exact,1,2"]
)
def test_rules_that_mean_nothing(stored: Path, at: str) -> None:
    with pytest.raises(ConfigurationError, match=r"choose published or exact|tolerance"):
        select_index(open_run(stored), at)


@pytest.mark.parametrize(
    ("at", "what"),
    [("best=nope", "reading 'nope' is unknown"), ("best=exact,2", "tolerance 2.0 cannot be"),
     ("best=exact,x", "tolerance 'x' is no number")],
)  # fmt: skip
def test_wrong_rules_are_told_by_their_fault(stored: Path, at: str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        select_index(open_run(stored), at)


@pytest.mark.parametrize(
    ("at", "available"),
    [("epoch=9", r"\[2, 3, 4, 5\]"), ("epoch=0", r"\[1, 2, 3, 4\]"), ("samples=2049", r"\[1024, 2048, 3072, 4096"),
     ("index=15", "0 to 14"), ("samples=123456789012345678", r"15360\]")],
)  # fmt: skip
def test_positions_that_are_not_there(stored: Path, at: str, available: str) -> None:
    with pytest.raises(MissingSnapshotError, match=available):
        select_index(open_run(stored), at)


@pytest.mark.parametrize(
    "at", ["", "Last", "epoch", "epoch=", "epoch=-1", "epoch=1.0", "epoch=²", "row=1", "index=9999999999999999999"]
)
def test_words_that_mean_nothing(stored: Path, at: str) -> None:
    with pytest.raises(ConfigurationError, match="epoch=N"):
        select_index(open_run(stored), at)


def test_best_needs_its_metrics(tmp_path: Path) -> None:
    with pytest.raises(MissingSnapshotError, match="clean_accuracy"):
        select_index(open_run(store(tmp_path / "a", NO_METRICS)), "best")
    nothing = {**NO_METRICS, "clean_accuracy": CLEAN * np.nan, "fgsm_accuracy_published": ROBUST}
    with pytest.raises(MissingSnapshotError, match="clean_accuracy"):
        select_index(open_run(store(tmp_path / "b", nothing)), "best")
    holes = {**NO_METRICS, "clean_accuracy": CLEAN, "fgsm_accuracy_published": np.array([1, 1, np.nan, 1, 0.5])}
    assert select_index(open_run(store(tmp_path / "c", holes)), "best") == 5


def test_best_looks_only_at_stored_epochs(stored: Path, tmp_path: Path) -> None:
    thinned = thin_run(stored, tmp_path / "thin", ["first", "epoch=2", "epoch=4"])
    assert open_run(thinned).epoch[select_index(open_run(thinned), "best")] == 2
    with pytest.raises(MissingSnapshotError, match=r"best epochs \[3, 5, 2\].*\[1, 4\]"):
        select_index(open_run(thin_run(stored, tmp_path / "other", ["epoch=1", "epoch=4"])), "best")


def test_a_loaded_snapshot_says_all(stored: Path) -> None:
    snapshot = load_snapshot(stored, "epoch=3")
    assert {name: tensor.flatten().tolist() for name, tensor in snapshot.parameters.items()} == {
        "weight": [8.25, 8.5], "bias": [8.75]}  # fmt: skip
    MODEL.load_state_dict(snapshot.parameters)
    assert (snapshot.model, snapshot.model_args, snapshot.config) == ("linear", {"inputs": 2}, {"seed": 0})
    assert snapshot.position.index == 8 and snapshot.position.samples_seen == 9 * 1024
    assert (
        snapshot.position.step == 9 and snapshot.position.epoch == 3 and snapshot.position.role == Role.EPOCH_END
    )
    assert snapshot.metrics == {"clean_accuracy": 0.98, "fgsm_accuracy_published": 0.3}
    assert snapshot.data_sha256 == "cd" * 32 and snapshot.provenance == {"machine": "m"} and snapshot.buffers == {}
    assert snapshot.theta_sha256 == open_run(stored).digest(8) and snapshot.path == str(stored)
    assert load_snapshot(stored, "index=7").metrics == {}


def test_one_segment_alone_is_a_run(stored: Path) -> None:
    file = sorted((stored / "segments").iterdir())[1]
    snapshot = load_snapshot(file, "first")
    assert (
        snapshot.position.index == 0 and snapshot.position.step == 4 and snapshot.run_id == open_run(stored).run_id
    )
    assert snapshot.provenance is None and open_run(file).outcome is None
    assert verify_run(file).ok


@pytest.mark.parametrize("index", [-1, 15, 10**30])
def test_reading_out_of_range(stored: Path, index: int) -> None:
    with pytest.raises(MissingSnapshotError):
        open_run(stored).read(index)


def test_thinning(stored: Path, tmp_path: Path) -> None:
    thinned = open_run(thin_run(stored, tmp_path / "a" / "thin", ["last", "epoch=2", "best", "index=5"]))
    whole = open_run(stored)
    assert thinned.step.tolist() == [6, 9, 15]
    assert [thinned.read(row).tolist() for row in range(3)] == [whole.read(row).tolist() for row in (5, 8, 14)]
    assert thinned.metrics["clean_accuracy"].tolist() == CLEAN.tolist()
    assert thinned.description == whole.description and thinned.outcome == whole.outcome
    assert thinned.provenance == whole.provenance
    assert thinned.thinned_from == {"snapshots": 15, "keep": ["last", "epoch=2", "best", "index=5"]}
    found = verify_run(thinned.path)
    assert found.ok and (found.num_segments, found.num_snapshots) == (1, 3)
    assert not list((tmp_path / "a").glob(".tmp-*"))
    with pytest.raises(RunConflictError, match="thinned run, which cannot be resumed"):
        RunWriter(thinned.path, thinned.description)


def test_thinning_is_repeatable(stored: Path, tmp_path: Path) -> None:
    files = [list((thin_run(stored, tmp_path / name, ["last"]) / "segments").iterdir()) for name in "ab"]
    assert files[0][0].name == files[1][0].name


def test_thinning_refuses(stored: Path, tmp_path: Path) -> None:
    with pytest.raises(RunConflictError, match="exists"):
        thin_run(stored, tmp_path, ["last"])
    nothing: list[str] = []
    for positions in (nothing, "last"):
        with pytest.raises(ConfigurationError, match="list"):
            thin_run(stored, tmp_path / "new", positions)
    with pytest.raises(MissingSnapshotError):
        thin_run(stored, tmp_path / "new", ["epoch=77"])
    assert list(tmp_path.iterdir()) == []


def test_packing(stored: Path, tmp_path: Path) -> None:
    file = pack_run(stored, tmp_path / "new" / "run.h5")
    packed, whole = open_run(file), open_run(stored)
    for name in ("samples_seen", "step", "epoch", "role", "batch_loss", "theta_sha256"):
        assert getattr(packed, name).tolist() == getattr(whole, name).tolist()
    assert all(packed.read(row).tobytes() == whole.read(row).tobytes() for row in range(15))
    assert [row.tobytes() for row, _ in whole.read_all()] == [packed.read(row).tobytes() for row in range(15)]
    assert (packed.description, packed.outcome) == (whole.description, whole.outcome)
    assert packed.provenance == whole.provenance
    assert {name: values.tolist() for name, values in packed.metrics.items()} == {
        name: values.tolist() for name, values in whole.metrics.items()}  # fmt: skip
    assert load_snapshot(file, "best").theta_sha256 == load_snapshot(stored, "best").theta_sha256
    assert verify_run(file).ok and verify_run(file).num_snapshots == 15
    with pytest.raises(RunConflictError, match="exists"):
        pack_run(stored, file)
    with pytest.raises(RunConflictError, match="not a directory"):
        RunWriter(file, whole.description)


def test_a_thinned_run_stays_one_when_packed(stored: Path, tmp_path: Path) -> None:
    thinned = thin_run(stored, tmp_path / "thin", ["last"])
    assert open_run(pack_run(thinned, tmp_path / "thin.h5")).thinned_from == {"snapshots": 15, "keep": ["last"]}


def test_a_pack_that_reads_back_wrong_is_no_file(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pack_module._write

    def write_wrong(path: Path, run: Any) -> None:
        whole(path, run)
        image = bytearray(path.read_bytes())
        image[image.index(np.float32(14.25).tobytes())] ^= 1
        path.write_bytes(image)

    monkeypatch.setattr(pack_module, "_write", write_wrong)
    with pytest.raises(SnapshotError, match="did not read back"):
        pack_run(stored, tmp_path / "run.h5")
    assert list(tmp_path.iterdir()) == []


def test_finding_runs(stored: Path, tmp_path: Path) -> None:
    one, two = store(tmp_path / "grid" / "a" / "b" / "c" / "one"), store(tmp_path / "grid" / "two", seed=1)
    packed = pack_run(stored, tmp_path / "grid" / "packed.h5")
    (tmp_path / "grid" / "data.h5").write_bytes(b"no run")
    (tmp_path / "grid" / "loop").symlink_to(tmp_path)
    store(tmp_path / "grid" / "a" / "b" / "c" / "d" / "too_deep")
    assert find_runs([tmp_path / "grid"]) == sorted([one, two, packed])
    assert find_runs([str(two), tmp_path / "grid", two]) == sorted([one, two, packed])
    assert is_run(one) and is_run(packed) and not is_run(tmp_path) and not is_run(tmp_path / "grid/data.h5")
    assert not is_run(tmp_path / "nothing")


def test_finding_nothing(tmp_path: Path) -> None:
    with pytest.raises(MissingSnapshotError, match="holds no runs"):
        find_runs([tmp_path])
    with pytest.raises(MissingSnapshotError, match="does not exist"):
        find_runs([tmp_path / "nothing"])
    (tmp_path / "data.h5").write_bytes(b"no run")
    with pytest.raises(CorruptSnapshotError):
        find_runs([tmp_path / "data.h5"])


def test_installed_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "landscape_data"
    store(package / "runs" / "one")
    (package / "__init__.py").write_text("")
    for name in [name for name in sys.modules if name.startswith("landscape_data")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve("embedded:runs") == package / "runs"
    assert find_runs(["embedded:runs"]) == [package / "runs" / "one"]
    assert load_snapshot("embedded:runs/one").position.index == 14
    assert verify_run("embedded:runs/one").ok
    for name in ("nothing", "", "../other", "/etc/passwd", "runs/../../x"):
        with pytest.raises(MissingSnapshotError):
            resolve(f"embedded:{name}")
    assert resolve("a/b") == Path("a/b")


def test_opening_what_is_no_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "nothing/x.h5"):
        with pytest.raises(MissingSnapshotError):
            open_run(path)
    (tmp_path / "link.h5").symlink_to(tmp_path / "x.h5")
    with pytest.raises(UnsafeFileError, match="symbolic link"):
        open_run(tmp_path / "link.h5")


def test_an_outcome_must_be_one(tmp_path: Path) -> None:
    path = store(tmp_path / "run")
    (path / "outcome.json").write_text(json.dumps({"outcome": "fine"}))
    with pytest.raises(CorruptSnapshotError, match="not an outcome"):
        open_run(path)
