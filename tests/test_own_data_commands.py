"""Commands on data of the user's own: named on the command line, proven by its digest, never opened by a run."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result

from landscape.errors import DatasetError
from landscape.snapshots import load_snapshot, open_run
from landscape.study.given import NOTHING, Given
from landscape.study.ledger import Ledger
from landscape.study.measure import measure
from landscape.study.measure_config import MeasureConfig
from landscape.study.survey import Plan, make_plan, measure_chunk

MODEL = ["--model", "logistic", "--model-args", '{"image_size": 6, "num_classes": 3}']


def run(*arguments: str | Path, code: int = 0) -> Result:
    (script,) = entry_points(group="console_scripts", name="landscape")
    result = CliRunner().invoke(script.load(), [str(argument) for argument in arguments])
    assert result.exit_code == code, result.stderr
    return result


def write(path: Path, seed: int = 0, test_seed: int = 1) -> Path:
    """Three classes of noise around three images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        centres = np.random.default_rng(7).random((3, 6, 6))
        for split, draw in (("train", seed), ("test", test_seed)):
            labels = np.arange(60) % 3
            noise = np.random.default_rng(draw).random((60, 6, 6))
            file[f"{split}/x"] = ((centres[labels] + noise) / 2).astype(np.float32)
            file[f"{split}/y"] = labels
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    write(folder / "d.h5")
    run("train", "--dataset", folder / "d.h5", *MODEL, "--epochs", "2", "--output", folder / "runs/a")
    return folder


def test_a_run_stores_the_name_and_both_digests(trained: Path) -> None:
    config = open_run(trained / "runs/a").description.config
    assert config["dataset"] == "d.h5"
    assert str(trained) not in json.dumps(config)
    # From elsewhere it is the same run: nothing is trained again.
    again = write(trained / "elsewhere/d.h5")
    result = run("train", "--dataset", again, *MODEL, "--epochs", "2", "--output", trained / "runs/a")
    assert "completed" in result.stderr


@pytest.mark.parametrize("command", ["hessian", "width", "spectrum", "attack", "theory"])
def test_what_a_run_names_is_not_opened(trained: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)  # where d.h5 lies
    assert "name that data by --dataset" in run(command, "--snapshot", "runs/a", code=1).stderr


def test_the_same_data_is_proven_by_its_digest(trained: Path) -> None:
    arguments = ("hessian", "--snapshot", trained / "runs/a", "--top-k", "1", "--dataset")
    moved = write(trained / "moved/renamed.hdf5")
    same = run(*arguments, moved)
    assert "not the data" not in same.stderr
    assert run(*arguments, trained / "d.h5").stdout == same.stdout
    other = write(trained / "other/d.h5", seed=5)
    assert "trained on other data" in run(*arguments, other, code=1).stderr


@pytest.mark.thorough
def test_other_data_are_measured_with_a_note(trained: Path) -> None:
    """A run of unknown data may be measured on any, and that is said."""
    exported = trained / "a.npy"
    run("snapshots", "export", trained / "runs/a", "--to", exported)
    run("snapshots", "import", exported, *MODEL, "--output", trained / "foreign")
    result = run("attack", "--snapshot", trained / "foreign", "--dataset", trained / "d.h5", "--eps", "0.1")
    assert "not the data stored" in result.stderr
    every = ("hessian", "--snapshot", trained / "foreign", "--every", "1", "--top-k", "1", "--samples", "20")
    result = run(*every, "--dataset", trained / "d.h5", "--output", trained / "trajectory")
    assert "not the data stored" in result.stderr
    curve = ("width", "--snapshot", trained / "foreign", "--curve", "--samples", "20", "--x-samples", "2")
    result = run(*curve, "--dataset", trained / "d.h5", "--output", trained / "curves")
    assert "not the data stored" in result.stderr
    run("snapshots", "import", exported, *MODEL, "--dataset", trained / "d.h5", "--output", trained / "known")
    description = open_run(trained / "known").description
    assert description.config["dataset"] == "d.h5"
    assert description.data_sha256 == open_run(trained / "runs/a").description.data_sha256


@pytest.mark.parametrize("command", ["hessian", "width --curve", "attack", "hessian --every 1"])
def test_a_model_that_is_not_the_snapshots_is_refused(trained: Path, command: str) -> None:
    given = ("--dataset", trained / "d.h5", "--model", "os:getcwd")
    result = run(*command.split(), "--snapshot", trained / "runs/a", *given, code=2)
    assert "is of the model 'logistic', not of 'os:getcwd'; leave it out" in result.stderr


def test_rows_know_their_data(trained: Path, tmp_path: Path) -> None:
    """Equal data give equal keys, whatever file they come from; other test images give other ones."""

    def plan(dataset: Path | None) -> Plan:
        given = NOTHING if dataset is None else Given(dataset=str(dataset))
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            return make_plan([trained / "runs"], "last", MeasureConfig(), ledger, "cpu", given)

    (stored,) = plan(None).tasks
    (same,) = plan(write(trained / "copy/e.h5")).tasks
    (other_test,) = plan(write(trained / "tests/d.h5", test_seed=9)).tasks
    assert stored.key == same.key != other_test.key
    # A worker whose file holds other data must not measure them under this key.
    assert same.given.dataset == str(trained / "copy/e.h5")
    write(trained / "copy/e.h5", seed=5)
    ((measured, _),) = measure_chunk((same,))
    assert "holds other data here" in str(measured.row["error"])
    ((measured, _),) = measure_chunk((stored,))
    assert "name that data by --dataset" in str(measured.row["error"])


@pytest.mark.parametrize("command", ["measure", "correlate", "report"])
def test_a_study_that_lacks_a_name_is_refused_once(trained: Path, tmp_path: Path, command: str) -> None:
    """Not once for each of its snapshots."""
    target = () if command == "measure" else ("--output", tmp_path / "out.html")
    result = run(command, trained / "runs", *target, "--ledger", tmp_path / "l.sqlite", code=1)
    assert result.stderr.strip().endswith("which is not built in; name that data by --dataset.")
    assert "failed" not in result.stderr and not list(tmp_path.glob("out.html/*"))
    assert not (tmp_path / "out.html").is_file()


def test_from_python(trained: Path) -> None:
    snapshot = load_snapshot(trained / "runs/a")
    with pytest.raises(DatasetError, match="not built in"):
        measure(snapshot, device="cpu")


def test_a_sweep_file_opens_nothing(trained: Path) -> None:
    (trained / "grid.toml").write_text('[grid]\nseed = [0]\n[fixed]\ndataset = "os:getcwd"\n')
    result = run("sweep", trained / "grid.toml", "--output", trained / "swept", "--dry-run", code=1)
    assert "unknown dataset 'os:getcwd'" in result.stderr
