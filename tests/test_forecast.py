"""Grids that ship, and what is forecast of them: bytes against real runs, stacks against what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import COUNTS, StopHereError, small_config

from landscape.errors import ConfigurationError
from landscape.snapshots import Role, open_run, run_status
from landscape.training.config import TrainingConfig
from landscape.training.forecast import Forecaster, Speed, measure_speed, rows_of_segments, storage_of
from landscape.training.grid import PRESETS, find_grid, read_sweep
from landscape.training.loop import train
from landscape.training.sweep import cells_of, stacks_of

N = COUNTS["train"]


pytestmark = pytest.mark.usefixtures("small_data")


# ---- grids that ship


def test_the_papers_tables_are_whole() -> None:
    """Every cell of Tables 1 and 2: 8 batch sizes, 9 learning rates, 5 seeds, 120 epochs."""
    rates = {
        "adam": (0.0003, 0.0006, 0.001, 0.003, 0.006, 0.01, 0.03, 0.06, 0.1),
        "sgd": (0.003, 0.006, 0.01, 0.03, 0.06, 0.1, 0.3, 0.6, 1.0),
    }
    for optimizer, learning_rates in rates.items():
        found = read_sweep(find_grid(f"paper-{optimizer}"))
        expected = [
            TrainingConfig(
                model="cnn", optimizer=optimizer, learning_rate=rate, batch_size=2**i, seed=seed, epochs=120
            )
            for i in range(8)
            for rate in learning_rates
            for seed in range(5)
        ]
        assert found == expected


def test_every_preset_can_be_read() -> None:
    sizes = {name: len(read_sweep(find_grid(name))) for name in PRESETS}
    assert sizes == {"paper-adam": 360, "paper-sgd": 360, "paper-small": 66, "layer-width": 35}
    widths = {config.model_args["hidden"] for config in read_sweep(find_grid("layer-width"))}
    assert min(widths) == 25 and max(widths) == 1000


def test_a_file_comes_before_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paper-small").write_text("[grid]\nseed = [7]")
    assert [config.seed for config in read_sweep(find_grid("paper-small"))] == [7]
    with pytest.raises(ConfigurationError, match=r"no sweep file absent\.toml; give one, or one of paper-adam"):
        find_grid("absent.toml")


# ---- the disk


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": "adam", "epochs": 5, "snapshot_every": 100},
        {"momentum": 0.9, "batch_size": 7, "snapshot_every": 1, "epochs": 2},
        {"batch_size": 100, "snapshot_every": 100, "epochs": 4},
        {"batch_size": 1, "snapshot_every": 3, "epochs": 1},
        {"snapshot_every": 10**6, "epochs": 2},
        {"model": "cnn", "optimizer": "adam", "epochs": 2},
    ],
)
def test_bytes_and_snapshots_are_those_of_the_run(tmp_path: Path, settings: dict[str, Any]) -> None:
    config = small_config(**settings)
    train(config, tmp_path)
    forecast, run = storage_of(config), open_run(tmp_path)
    stored = sum(file.stat().st_size for file in (tmp_path / "segments").iterdir())
    assert forecast.snapshots == len(run)
    assert forecast.num_bytes == pytest.approx(stored, rel=0.01)


def test_segments_are_cut_as_they_will_be(tmp_path: Path) -> None:
    config = small_config(batch_size=1, snapshot_every=2, epochs=1)
    train(config, tmp_path)
    run = open_run(tmp_path)
    assert sum(rows_of_segments(config, 0, N)) == len(run)
    assert len(rows_of_segments(config, 0, N)) == len(list((tmp_path / "segments").iterdir()))


# ---- the time


def test_the_best_stack_is_the_smallest_of_the_fast() -> None:
    speed = Speed({1: 3.0, 2: 1.02, 5: 1.0, 10: 2.0}, 0.5)
    assert [speed.best(most) for most in (1, 2, 4, 5, 100)] == [1, 2, 2, 2, 2]
    config = TrainingConfig(batch_size=16, epochs=10)
    assert speed.of_run(config, 3, 100) == pytest.approx(10 * (7 * 1.02 + 0.5))


def test_a_measurement_tries_what_there_is() -> None:
    assert list(measure_speed(small_config(), 7).step) == [1, 2, 5]
    speed = measure_speed(small_config(), 1)
    assert list(speed.step) == [1] and 0 < speed.step[1] < 1 and 0 < speed.epoch_end < 10


def test_what_is_stored_is_not_forecast_again(tmp_path: Path) -> None:
    """Time counts what is left to train, bytes count all."""
    cells = cells_of([small_config(seed=seed) for seed in range(4)], tmp_path)
    forecaster = Forecaster()
    before = forecaster.forecast(stacks_of(cells, 2, forecaster.stack_size), 2)
    train(cells[0].config, cells[0].directory)
    stacks = stacks_of(cells, 2, forecaster.stack_size)
    after = forecaster.forecast(stacks, 2)
    assert 0 < after.seconds < before.seconds
    assert (after.num_bytes, after.snapshots) == (before.num_bytes, before.snapshots)
    for cell in cells:
        train(cell.config, cell.directory)
    assert forecaster.forecast(stacks_of(cells, 2, forecaster.stack_size), 2).seconds == 0


def test_what_has_ended_does_not_decide_about_stacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs of many have ended: the others are measured, and stacked, as if there were no such runs."""
    told: list[int] = []

    def measured(config: TrainingConfig, most: int) -> Speed:
        told.append(most)
        return Speed({size: 1 / size for size in (1, 2, 5, 10) if size <= most}, 0.0)

    monkeypatch.setattr("landscape.training.forecast.measure_speed", measured)
    cells = cells_of([small_config(seed=seed) for seed in range(12)], tmp_path)
    for cell in cells[:2]:
        train(cell.config, cell.directory)
    forecaster = Forecaster()
    stacks = stacks_of(cells, 1, forecaster.stack_size)
    assert [len(stack) for stack in stacks] == [2, 10] and told == [10]
    assert forecaster.forecast(stacks, 1).seconds == pytest.approx(10 * 3 * 32 / 10)
    again = Forecaster()
    assert again.stack_size([cell.config for cell in cells[:2]]) == 2
    assert again.stack_size([cell.config for cell in cells]) == 10


def test_a_grid_that_cannot_be_measured_is_left_to_its_runs(tmp_path: Path) -> None:
    configs = [small_config(dataset="absent", seed=seed) for seed in range(3)]
    assert Forecaster().stack_size(configs) == 1


# ---- stacks


@pytest.mark.parametrize(
    ("count", "workers", "size", "expected"),
    [
        (6, 1, 6, [6]),
        (6, 2, 6, [3, 3]),
        (7, 2, 3, [2, 2, 3]),
        (3, 8, 5, [1, 1, 1]),
        (1, 2, 9, [1]),
        (5, 1, 1, [1] * 5),
    ],
)
def test_alike_runs_are_divided(tmp_path: Path, count: int, workers: int, size: int, expected: list[int]) -> None:
    cells = cells_of([small_config(seed=seed) for seed in range(count)], tmp_path)
    stacks = stacks_of(cells, workers, lambda configs: size)
    assert [len(stack) for stack in stacks] == expected
    assert [cell for stack in stacks for cell in stack] == cells


def test_only_alike_runs_are_stacked(tmp_path: Path) -> None:
    """Batch size, optimizer, model and data keep runs apart, and so does that one has ended."""
    changes: list[dict[str, Any]] = [
        {"seed": 0},
        {"learning_rate": 0.3},
        {"batch_size": 8},
        {"optimizer": "adam"},
        {"model": "mlp"},
        {"seed": 5},
    ]
    cells = cells_of([small_config(**change) for change in changes], tmp_path)
    train(cells[5].config, cells[5].directory)
    stacks = stacks_of(cells, 1, len)
    found = [sorted(cells.index(cell) for cell in stack) for stack in stacks]
    assert sorted(found) == [[0, 1], [2], [3], [4], [5]]


# ---- how far a run has come


def test_status_of_a_run(tmp_path: Path) -> None:
    def stop(metrics: dict[str, float]) -> None:
        if metrics["epoch"] == 2:
            raise StopHereError

    assert run_status(tmp_path / "absent").state == "absent"
    with pytest.raises(StopHereError):
        train(small_config(), tmp_path / "run", report=stop)
    begun = run_status(tmp_path / "run")
    assert (begun.state, begun.epochs, begun.ended) == ("begun", 2, False)
    train(small_config(), tmp_path / "run")
    ended = run_status(tmp_path / "run")
    assert (ended.state, ended.epochs, ended.reason, ended.ended) == ("completed", 3, "all 3 epochs", True)
    train(small_config(learning_rate=1e37), tmp_path / "diverged")
    diverged = run_status(tmp_path / "diverged")
    assert diverged.state == "diverged" and diverged.ended and "became inf" in diverged.reason


def test_status_of_a_damaged_run(tmp_path: Path) -> None:
    train(small_config(), tmp_path)
    (tmp_path / "outcome.json").unlink()
    last = sorted((tmp_path / "segments").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:200])
    status = run_status(tmp_path)
    assert status.state == "damaged" and last.name in status.reason and not status.ended


def test_roles_agree_with_the_forecast(tmp_path: Path) -> None:
    """Where a pair begins with the end of the one before, there is one row, not two."""
    config = small_config(batch_size=16, snapshot_every=16, epochs=1)
    train(config, tmp_path)
    run = open_run(tmp_path)
    both = np.flatnonzero((run.role & int(Role.BEFORE)) & ((run.role & int(Role.AFTER)) >> 1))
    assert len(both) == N // 16 - 1
    assert sum(rows_of_segments(config, 0, N)) == len(run)
