"""Loss and accuracy that are stored are found again, or it is said that they are not."""

from __future__ import annotations

import dataclasses
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from small_runs import SMALL, small_config, small_mnist

from landscape.problem.datasets import DATASETS
from landscape.study.given import Given
from landscape.study.reevaluation import Reevaluation, reevaluate
from landscape.training.loop import train


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(DATASETS, SMALL, small_mnist)
    train(small_config(), tmp_path / "run")
    return tmp_path / "run"


def invoke(*arguments: object) -> Result:
    (script,) = entry_points(group="console_scripts", name="landscape")
    return CliRunner().invoke(script.load(), ["snapshots", "verify", *map(str, arguments)])


def test_what_is_stored_is_found_again(run: Path) -> None:
    found = reevaluate(run, "cpu")
    assert found.agrees and found.epoch == 3 and found.accuracy > 0.2
    assert found.loss == pytest.approx(found.stored_loss, rel=1e-4)
    done = invoke(run, "--evaluate", "--device", "cpu")
    assert done.exit_code == 0 and f"{found.loss:.4g}" in done.stdout
    assert "stored_loss" not in invoke(run).stdout


def test_other_data_are_told(run: Path) -> None:
    assert reevaluate(run, "cpu", Given(dataset="mnist")).agrees is False
    done = invoke(run, "--evaluate", "--dataset", "mnist", "--device", "cpu")
    assert done.exit_code == 1 and "do not belong together" in done.stderr


def test_what_cannot_be_evaluated_is_a_problem(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(DATASETS, SMALL)
    done = invoke(run, "--evaluate", "--device", "cpu")
    assert done.exit_code == 1 and "unknown dataset 'small'" in done.stderr
    assert invoke(run).exit_code == 0


def test_differences_beyond_rounding() -> None:
    stored = Reevaluation(1, 0.5, 0.5, 0.9, 0.9)
    assert stored.agrees
    assert dataclasses.replace(stored, loss=0.502).agrees is False
    assert dataclasses.replace(stored, accuracy=0.897).agrees is False
    nothing = dataclasses.replace(stored, stored_loss=float("nan"), stored_accuracy=float("nan"))
    assert nothing.agrees is None
