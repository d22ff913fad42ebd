"""Many runs: what is known is read, what is missing is measured, and what is broken stops nothing else."""

from __future__ import annotations

import itertools
import shutil
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import pytest
from small_runs import SMALL, TINY, small_config, small_mnist

from landscape.errors import ConfigurationError, MissingSnapshotError
from landscape.problem.datasets import DATASETS
from landscape.snapshots import load_snapshot
from landscape.study.columns import COLUMNS, FAILED, OK, Row
from landscape.study.ledger import Ledger
from landscape.study.measure import measure
from landscape.study.measure_config import MeasureConfig
from landscape.study.survey import Plan, execute, make_plan
from landscape.training.loop import train

CONFIG = TINY
NAMES = ("a", "b", "c")
IDENTITY = {column.name for column in itertools.takewhile(lambda column: column.name != "repeat", COLUMNS)}


@pytest.fixture(scope="module", autouse=True)
def small_data() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, SMALL, small_mnist)
        yield


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("survey") / "runs"
    for seed, name in enumerate(NAMES):
        train(small_config(epochs=2, seed=seed), folder / name)
    return folder


@pytest.fixture
def runs(originals: Path, tmp_path: Path) -> Path:
    shutil.copytree(originals, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def plan_of(runs: Path, ledger: Ledger, at: str = "last", config: MeasureConfig = CONFIG) -> Plan:
    return make_plan([runs], at, config, ledger, "cpu")


def done(plan: Plan, ledger: Ledger) -> list[Row]:
    rows = execute(plan, ledger, lambda: ThreadPoolExecutor(1), workers=1)
    return sorted(rows, key=lambda row: str(row["path"]))


def text(rows: list[Row]) -> list[dict[str, str]]:
    return [{name: repr(value) for name, value in row.items()} for row in rows]


def sizes(plan: Plan) -> tuple[int, int, int]:
    return len(plan.known), len(plan.unreadable), len(plan.tasks)


def segment(run: Path, place: int = -1) -> Path:
    return sorted((run / "segments").iterdir())[place]


def flip(file: Path, name: str) -> None:
    """Change one byte of an array inside an HDF5 file."""
    with h5py.File(file, "r") as opened:
        offset = opened[name].id.get_chunk_info(opened[name].id.get_num_chunks() - 1).byte_offset
    content = bytearray(file.read_bytes())
    content[offset + 5] ^= 0x10
    file.write_bytes(content)


def test_measured_once(runs: Path, ledger: Ledger) -> None:
    """The first plan has all to do, the second nothing, and both give the same rows."""
    plan = plan_of(runs, ledger)
    assert sizes(plan) == (0, 0, 3)
    rows = done(plan, ledger)
    assert [row["run"] for row in rows] == list(NAMES)
    again = plan_of(runs, ledger)
    assert sizes(again) == (3, 0, 0)
    assert text(list(again.known)) == text(rows)
    assert done(again, ledger) == []


def test_a_row_is_identity_and_measurement(runs: Path, ledger: Ledger) -> None:
    row = done(plan_of(runs / "b", ledger), ledger)[0]
    snapshot = load_snapshot(runs / "b")
    identity = {name: row[name] for name in IDENTITY}
    assert identity == {
        "run": "b",
        "run_id": snapshot.run_id,
        "theta_sha256": snapshot.theta_sha256,
        "path": str(runs / "b"),
        "at": "last",
        "model": "logistic",
        "model_args": None,
        "optimizer": "sgd",
        "method": "plain",
        "method_args": None,
        "learning_rate": 0.1,
        "batch_size": 16,
        "other_settings": "dataset=small,epochs=2",
        "seed": 1,
        "epoch": 2,
        "step": 64,
        "samples_seen": 1024,
        "status": OK,
        "error": None,
    }
    measured = measure(snapshot, CONFIG, "cpu")
    assert text([{name: row[name] for name in measured}]) == text([measured])
    assert set(row) == IDENTITY | set(measured)


def test_a_row_names_the_method(runs: Path, ledger: Ledger) -> None:
    """With all of its arguments, given or not."""
    for name, arguments in {"one": {}, "two": {"random_start": True}}.items():
        train(small_config(epochs=1, method="fgsm-training", method_args=arguments), runs / name)
    plan = plan_of(runs, ledger)
    named = {task.identity["run"]: (task.identity["method"], task.identity["method_args"]) for task in plan.tasks}
    assert named["a"] == ("plain", None)
    assert named["one"] == ("fgsm-training", "epsilon=0.3,random_start=false")
    assert named["two"] == ("fgsm-training", "epsilon=0.3,random_start=true")


def test_what_changes_is_measured_anew(runs: Path, ledger: Ledger) -> None:
    done(plan_of(runs, ledger), ledger)
    assert sizes(plan_of(runs, ledger, at="epoch=1")) == (0, 0, 3)
    assert sizes(plan_of(runs, ledger, at="epoch=2")) == (3, 0, 0)  # the same weights by another name
    assert plan_of(runs, ledger, at="epoch=2").known[0]["at"] == "epoch=2"
    other = replace(CONFIG, theta_samples=21)
    assert sizes(plan_of(runs, ledger, config=other)) == (0, 0, 3)
    shutil.copytree(runs / "a", runs / "copy")
    assert sizes(plan_of(runs, ledger)) == (4, 0, 0)
    train(small_config(epochs=2, seed=7), runs / "new")
    assert sizes(plan_of(runs, ledger)) == (4, 0, 1)


def unfinished(runs: Path) -> None:
    shutil.rmtree(runs / "b" / "segments")
    (runs / "b" / "outcome.json").unlink()


DAMAGES: dict[str, tuple[Any, str]] = {
    "index": (lambda runs: flip(segment(runs / "b"), "samples_seen"), "samples_seen"),
    "weights": (lambda runs: flip(segment(runs / "b"), "theta"), "theta"),
    "truncated": (lambda runs: segment(runs / "b").write_bytes(segment(runs / "b").read_bytes()[:5000]), "b/segm"),
    "missing": (lambda runs: segment(runs / "b", 0).unlink(), "segment 0"),
    "unfinished": (unfinished, "holds no snapshot"),
    "description": (lambda runs: (runs / "b" / "run.json").write_text("{}"), "run.json"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_broken_run_is_a_failed_row(runs: Path, ledger: Ledger, kind: str) -> None:
    damage, reason = DAMAGES[kind]
    damage(runs)
    plan = plan_of(runs, ledger)
    rows = {row["run"]: row for row in [*plan.unreadable, *done(plan, ledger)]}
    assert {name: row["status"] for name, row in rows.items()} == {"a": OK, "b": FAILED, "c": OK}
    assert reason in str(rows["b"]["error"]) and "\n" not in str(rows["b"]["error"])
    assert rows["b"]["path"] == str(runs / "b")
    # Damage of weights shows only in the worker: what had failed is tried again.
    assert sizes(plan_of(runs, ledger)) == ((2, 0, 1) if kind == "weights" else (2, 1, 0))


def test_a_position_that_some_runs_lack(runs: Path, ledger: Ledger) -> None:
    train(small_config(epochs=3, seed=8), runs / "long")
    plan = plan_of(runs, ledger, at="epoch=3")
    assert sizes(plan) == (0, 3, 1)
    assert "epoch 3" in str(plan.unreadable[0]["error"])


def test_what_cannot_be_surveyed(runs: Path, ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, message in {"empty": "holds no runs", "absent": "does not exist"}.items():
        with pytest.raises(MissingSnapshotError, match=message):
            plan_of(tmp_path / path, ledger)
    with pytest.raises(ConfigurationError, match="position"):
        plan_of(runs, ledger, at="middle")


def test_a_model_that_is_not_known_here(runs: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(runs, ledger)
    monkeypatch.delitem(DATASETS, SMALL)
    rows = done(plan, ledger)
    assert [row["status"] for row in rows] == [FAILED] * 3
    assert all("unknown dataset" in str(row["error"]) for row in rows)
    assert sizes(plan_of(runs, ledger)) == (0, 0, 3)


def test_whoever_stops_loses_nothing_that_was_shown(runs: Path, ledger: Ledger) -> None:
    plan = plan_of(runs, ledger)
    rows = execute(plan, ledger, lambda: ThreadPoolExecutor(1), workers=1)
    first = next(rows)
    rows.close()  # type: ignore[attr-defined]
    with Ledger(ledger.path) as reader:
        assert len(reader.find(task.key for task in plan.tasks if task.identity["run"] == first["run"])) == 1
    known, unreadable, tasks = sizes(plan_of(runs, ledger))
    assert known >= 1 and (unreadable, known + tasks) == (0, 3)


class Fragile(ThreadPoolExecutor):
    """Breaks, as a pool of processes does, when it is given the run ``b``."""

    broken = False

    def submit(self, fn: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        self.broken = self.broken or arguments[0][0].identity["run"] == "b"
        if not self.broken:
            return super().submit(fn, *arguments, **options)
        future: Future[Any] = Future()
        future.set_exception(BrokenProcessPool("a worker died"))
        return future


def test_a_pool_that_breaks(runs: Path, ledger: Ledger) -> None:
    made: list[Executor] = []

    def make() -> Executor:
        made.append(Fragile(1))
        return made[-1]

    rows = {row["run"]: row for row in execute(plan_of(runs, ledger), ledger, make, workers=1)}
    assert {name: row["status"] for name, row in rows.items()} == {"a": OK, "b": FAILED, "c": OK}
    assert rows["b"]["error"] == "BrokenProcessPool: a worker died"
    assert len(made) >= 2
    assert sizes(plan_of(runs, ledger)) == (2, 0, 1)
