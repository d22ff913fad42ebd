"""Grids of runs: reading them, naming them, and training what is missing."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_runs import SMALL, interrupt, run_driver, segment_names, small_config, stored_files

from landscape.engine import Outcome
from landscape.errors import ConfigurationError, RunBusyError, RunConflictError
from landscape.problem.datasets import load_dataset
from landscape.problem.models import build_model
from landscape.snapshots import RunWriter, open_run
from landscape.training.config import TrainingConfig
from landscape.training.grid import read_sweep, run_name
from landscape.training.loop import describe, train
from landscape.training.sweep import Cell, CellResult, cells_of, sweep, train_cells

pytestmark = pytest.mark.usefixtures("small_data")


def read(folder: Path, text: str) -> list[TrainingConfig]:
    file = folder / "grid.toml"
    file.write_text(text, encoding="utf-8")
    return read_sweep(file)


# ---- reading


def test_a_grid_is_a_product(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
        [grid]
        learning_rate = [0.1, 1]
        batch_size = [16, 32]
        seed = [0, 1, 2]
        [fixed]
        model = "mlp"
        model_args.hidden = [20]
        epochs = 7
        """,
    )
    expected = [
        TrainingConfig(model="mlp", model_args={"hidden": [20]}, epochs=7, learning_rate=lr, batch_size=b, seed=s)
        for lr in (0.1, 1.0)
        for b in (16, 32)
        for s in range(3)
    ]
    assert found == expected


def test_several_grids(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
        [[sweep]]
        grid.seed = [0, 1]
        fixed.optimizer = "adam"
        [[sweep]]
        grid.momentum = [0.5, 0.9]
        """,
    )
    assert found == [
        TrainingConfig(optimizer="adam", seed=0),
        TrainingConfig(optimizer="adam", seed=1),
        TrainingConfig(momentum=0.5),
        TrainingConfig(momentum=0.9),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[grid]\nlearning_rat = [0.1]", "did you mean 'learning_rate'"),
        ("[fixed]\nbatchsize = 3", "did you mean 'batch_size'"),
        ("[fixed]\nxyzzy = 3", "known are model, "),
        ("[grids]\nseed = [1]", "table 'grids'"),
        ("[grid]\nseed = []", "non-empty list"),
        ("[grid]\nseed = 3", "non-empty list"),
        ("[grid]\nseed = [1]\n[fixed]\nseed = 2", "both"),
        ("[grid]\nseed = [1, 1]", "more than once"),
        ("[grid]\nlearning_rate = [0.1, 0.10000000000000001]", "more than once"),
        ("[[sweep]]\nfixed.seed = 1\n[[sweep]]\ngrid.seed = [0, 1]", "more than once"),
        ("[fixed]\nepochs = 0", "epochs = 0"),
        ('[fixed]\nlearning_rate = "fast"', "learning_rate = 'fast'"),
        ("[fixed]\nbatch_size = 2.5", "batch_size = 2.5"),
        ("[fixed]\nbatch_size = [16]", r"batch_size = \[16\]"),
        ("[fixed]\nseed = true", "seed = True"),
        ("[fixed]\nlearning_rate = 2026-01-01", "learning_rate"),
        ("[fixed]\nlearning_rate = nan", "learning_rate = nan"),
        ('[fixed]\noptimizer = "lbfgs"', "lbfgs"),
        ("[grid]\nloss = [[1]]", r"loss = \[1\]"),
        ("grid = 3", "must be tables"),
        ("fixed = [1]", "must be tables"),
        ("sweep = 3", r"\[\[sweep\]\]"),
        ("sweep = [3]", r"\[\[sweep\]\]"),
        ("sweep = []", r"\[\[sweep\]\]"),
        ("[sweep]\ngrid.seed = [1]", r"\[\[sweep\]\]"),
        ("[fixed]\nepochs = 9\n[[sweep]]\ngrid.seed = [1]", "fixed .* inside"),
        ("[grid\nseed = [1]", "not valid TOML"),
        ("[grid]\nseed = [1]\nseed = [2]", "not valid TOML"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    """Each is refused by name of the file, before anything is trained."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        read(tmp_path, text)
    assert "grid.toml" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    cases = {"absent.toml": "No such file", ".": "Is a directory", "binary.toml": "not valid TOML"}
    for name, message in cases.items():
        with pytest.raises(ConfigurationError, match=message):
            read_sweep(tmp_path / name)


# ---- naming


def test_names_are_stable() -> None:
    """Folders of finished runs are found again by these names."""
    arguments = {"hidden": [20, 30], "image_size": 28}
    assert {run_name(c) for c in (TrainingConfig(), TrainingConfig(epochs=9, snapshot_every=7))} == {
        "sgd_lr0.1_b16_seed0"
    }
    assert run_name(TrainingConfig(optimizer="adam", learning_rate=3e-4, batch_size=128, seed=4)) == (
        "adam_lr0.0003_b128_seed4"
    )
    config = TrainingConfig(
        model="mlp", model_args=arguments, dataset="kmnist", momentum=0.9, loss="cross_entropy"
    )
    assert run_name(config) == (
        "sgd_lr0.1_b16_mlp_kmnist_momentum-0.9_cross_entropy_hidden=20,30,image_size=28_seed0"
    )
    reordered = TrainingConfig(model="mlp", model_args=dict(reversed(arguments.items())))
    assert run_name(reordered) == run_name(TrainingConfig(model="mlp", model_args=arguments))


def test_names_are_unique(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
        [grid]
        model = ["cnn", "mlp"]
        dataset = ["mnist", "kmnist"]
        loss = ["cross_entropy", "margin"]
        momentum = [0.0, 0.9]
        learning_rate = [0.1, 0.01]
        batch_size = [1, 16]
        seed = [0, 1]
        model_args = [{}, {image_size = 28}]
        """,
    )
    names = {run_name(config) for config in found}
    assert len(names) == len(found) == 256
    assert not any(set(name) & set("/\\ \"'{}") for name in names)


# ---- training

CONFIGS = [small_config(seed=seed, epochs=1) for seed in range(3)]


def trained(output: Path) -> list[Outcome[Cell, CellResult]]:
    outcomes = list(sweep(cells_of(CONFIGS, output), lambda: ThreadPoolExecutor(1), workers=1))
    return sorted(outcomes, key=lambda outcome: outcome.task.config.seed)


def test_every_cell_is_trained_and_then_left_alone(tmp_path: Path) -> None:
    first = trained(tmp_path)
    assert [outcome.result for outcome in first] == [
        CellResult(str(tmp_path / run_name(config)), "completed", "all 1 epochs", 1) for config in CONFIGS
    ]
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    before = {file: (file.stat().st_mtime_ns, file.stat().st_ino) for file in files}
    assert [outcome.result for outcome in trained(tmp_path)] == [outcome.result for outcome in first]
    assert {file: (file.stat().st_mtime_ns, file.stat().st_ino) for file in files} == before


def test_what_was_begun_goes_on(tmp_path: Path) -> None:
    path = tmp_path / run_name(CONFIGS[1])
    interrupt(CONFIGS[1], path, 1)
    assert segment_names(path) == []
    assert [outcome.error for outcome in trained(tmp_path)] == [None] * 3
    train(CONFIGS[1], tmp_path / "alone")
    assert stored_files(path) == stored_files(tmp_path / "alone")


def test_cells_that_fail_stop_no_others(tmp_path: Path) -> None:
    other = small_config(seed=0, epochs=2)
    train(other, tmp_path / run_name(CONFIGS[0]))
    description = describe(CONFIGS[1], build_model("logistic"), load_dataset(SMALL))
    with RunWriter(tmp_path / run_name(CONFIGS[1]), description):
        outcomes = trained(tmp_path)
    assert isinstance(outcomes[0].error, RunConflictError)
    assert isinstance(outcomes[1].error, RunBusyError)
    assert outcomes[2].error is None and len(open_run(tmp_path / run_name(CONFIGS[2]))) > 0


def test_a_cell_carries_its_number_of_threads(tmp_path: Path) -> None:
    train_cells([Cell(CONFIGS[0], str(tmp_path), 2)])
    provenance = open_run(tmp_path).provenance
    assert provenance is not None and provenance["threads"] == 2


SPAWNED = """
import json, multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from small_runs import register, small_config
from landscape.training.sweep import cells_of, sweep

configs = [small_config(seed=0, epochs=1), small_config(seed=1, epochs=1), small_config(seed=2, dataset="absent")]
context = multiprocessing.get_context("spawn")
make = lambda: ProcessPoolExecutor(1, mp_context=context, initializer=register)
for outcome in sweep(cells_of(configs, sys.argv[1]), make, workers=1):
    result = outcome.result and outcome.result.outcome
    print(json.dumps([outcome.task.config.seed, result, outcome.error and type(outcome.error).__name__]))
"""


@pytest.mark.thorough
def test_spawned_processes(tmp_path: Path) -> None:
    """Configurations, results and errors travel between processes, and the bytes are those of this one."""
    lines = sorted(json.loads(line) for line in run_driver(SPAWNED, tmp_path / "spawned").splitlines())
    assert lines == [[0, "completed", None], [1, "completed", None], [2, None, "DatasetError"]]
    train(CONFIGS[1], tmp_path / "here")
    assert stored_files(tmp_path / "spawned" / run_name(CONFIGS[1])) == stored_files(tmp_path / "here")


KILLING = """
import os, signal, sys
from pathlib import Path
from concurrent.futures import ProcessPoolExecutor
import multiprocessing
from small_runs import register, small_config
from landscape.training import loop
from landscape.training.sweep import cells_of, sweep


def register_and_kill():
    register()
    real = loop._open

    def opened(config, *arguments):
        if config.seed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(config, *arguments)

    loop._open = opened


if __name__ == "__main__":
    cells = cells_of([small_config(seed=seed, epochs=1) for seed in range(3)], sys.argv[1])
    context = multiprocessing.get_context("fork")
    make = lambda: ProcessPoolExecutor(1, mp_context=context, initializer=register_and_kill)
    for outcome in sweep(cells, make, workers=1):
        print(outcome.task.config.seed, outcome.result and outcome.result.outcome, type(outcome.error).__name__)
"""


@pytest.mark.thorough
def test_only_the_run_that_kills_its_process_fails(tmp_path: Path) -> None:
    """Three runs in one stack, one of which takes the process with it: the others are trained without it."""
    lines = sorted(run_driver(KILLING, tmp_path).splitlines())
    assert lines == ["0 completed NoneType", "1 None BrokenProcessPool", "2 completed NoneType"]
