"""The edge of convergence: the search on made-up outcomes, the rule, and real searches of small runs."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from small_runs import HERE, SMALL, small_config, stored_files

from landscape import engine
from landscape.engine import Outcome, local_executor
from landscape.errors import ConfigurationError, CorruptSnapshotError, RunConflictError, UnsupportedSchemaError
from landscape.snapshots import Role, open_run
from landscape.training import bracket
from landscape.training.bracket import REACH, bracket_of, is_monotone, next_rates
from landscape.training.config import TrainingConfig
from landscape.training.edge import (
    Confirmation,
    Edge,
    EdgeSearch,
    Probe,
    confirm_edge,
    edge_name,
    judge,
    search_edge,
)
from landscape.training.edge_files import (
    EDGE_FILE,
    command_for,
    rate_at_edge,
    read_edge,
    stored_or_searched,
    write_edge,
)
from landscape.training.forecast import Forecaster
from landscape.training.loop import train
from landscape.training.sweep import Cell, CellResult, sweep

pytestmark = pytest.mark.usefixtures("small_data")

# ---- the search, on made-up outcomes


def locate(outcome: Callable[[float], bool], start: float, tolerance: float) -> dict[float, bool]:
    """All that a search tries, with its outcomes; no rate may be tried twice."""
    tried: dict[float, bool] = {}
    while rates := next_rates(tried, start, tolerance):
        assert len(set(rates)) == len(rates) and not set(rates) & set(tried)
        tried |= {rate: outcome(rate) for rate in rates}
    return tried


def bisections(tolerance: float) -> int:
    return max(0, math.ceil(math.log2(math.log(2) / math.log(tolerance))))


@given(start=st.floats(1e-9, 1e9), octaves=st.floats(-REACH + 0.01, REACH - 0.01), tolerance=st.floats(1.01, 2.0))
def test_the_bracket_holds_the_edge(start: float, octaves: float, tolerance: float) -> None:
    edge = start * 2**octaves
    tried = locate(lambda rate: rate <= edge, start, tolerance)
    low, high = bracket_of(tried)
    assert low is not None and high is not None
    assert low <= edge < high and high / low <= tolerance
    # The ladder leads from the start to the edge, two at a time; rounding may cost one bisection.
    ladder = math.ceil(abs(octaves)) * (1 if octaves >= 0 else 2) + 3
    assert len(tried) <= ladder + bisections(tolerance) + 1
    assert is_monotone(tried)


@given(slow=st.floats(-REACH + 0.01, REACH - 1.01), width=st.floats(1.0, 2 * REACH), start=st.floats(1e-3, 1.0))
def test_rates_too_small_are_no_edge(slow: float, width: float, start: float) -> None:
    """Runs that are too slow fail as well; the edge is the upper end of what converges."""
    least, edge = start * 2**slow, start * 2 ** min(slow + width, REACH - 0.001)
    tried = locate(lambda rate: least <= rate <= edge, start, 1.25)
    low, high = bracket_of(tried)
    assert low is not None and high is not None
    assert least <= low <= edge < high <= 1.25 * low
    assert is_monotone(tried)


@pytest.mark.parametrize("converges", [True, False])
def test_no_edge_within_reach(converges: bool) -> None:
    tried = locate(lambda rate: converges, 0.1, 1.25)
    low, high = bracket_of(tried)
    assert (low, high) == ((0.1 * 2.0**REACH, None) if converges else (None, None))
    assert len(tried) == (REACH + 1 if converges else 2 * REACH + 1)


def test_outcomes_that_are_not_monotone() -> None:
    """The largest that converges is the edge, and what failed below it is not hidden."""
    tried = locate(lambda rate: rate in (0.1, 0.4, 0.8), 0.1, 1.25)
    assert tried[0.1] and not tried[0.2]
    assert bracket_of(tried)[0] == 0.1 and is_monotone(tried)
    holes = {0.1: True, 0.2: False, 0.4: True, 0.8: False}
    assert not is_monotone(holes) and bracket_of(holes) == (0.4, 0.8)
    assert is_monotone({0.1: False, 0.2: True, 0.4: True, 0.8: False})
    assert is_monotone({0.1: False}) and is_monotone({}) and is_monotone({0.1: True})


# ---- the rule


def test_a_loss_that_is_no_number_is_divergence() -> None:
    limit = math.log(10) / 2
    probe = judge(0.1, [limit, math.nextafter(limit, 2), math.nan, math.inf, 0.1], limit)
    assert (probe.converged, probe.converges) == (2, False)
    assert judge(0.1, [0.1, 0.2, math.nan], limit).converges
    assert not judge(0.1, [0.1, math.nan], limit).converges  # half of them are not most


def test_median_loss_counts_nan_as_largest() -> None:
    assert Probe(0.1, (math.nan, 0.3, 0.2), 2).median_loss == 0.3
    assert Probe(0.1, (0.2, 0.1), 2).median_loss == 0.2
    assert math.isnan(Probe(0.1, (math.nan, 0.3, math.nan), 1).median_loss)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 0}, "seeds = 0"),
        ({"seeds": True}, "seeds = True"),
        ({"tolerance": 1.0}, "tolerance = 1.0"),
        ({"tolerance": 2.5}, "tolerance = 2.5"),
        ({"tolerance": math.nan}, "tolerance = nan"),
        ({"config": TrainingConfig(learning_rate=1e10)}, "cannot start at the learning rate 10000000000"),
    ],
)
def test_impossible_searches(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        EdgeSearch(**changes)


# ---- real searches


def small_search(**changes: Any) -> EdgeSearch:
    """Networks of one hidden layer, two epochs of 32 steps: they stop to learn at a learning rate of about 1."""
    settings = {"model": "mlp", "model_args": {"hidden": [20, 20]}, "epochs": 2, "learning_rate": 0.4}
    return EdgeSearch(small_config(**(settings | changes)), seeds=3)


def in_threads(cells: Sequence[Cell]) -> Iterator[Outcome[Cell, CellResult]]:
    return sweep(cells, lambda: ThreadPoolExecutor(1), workers=1)


def no_training(cells: Sequence[Cell]) -> Iterator[Outcome[Cell, CellResult]]:
    pytest.fail(f"trained {len(cells)} runs")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Edge]:
    """A folder of edges with one in it."""
    from small_runs import small_mnist

    from landscape.problem.datasets import DATASETS

    output = tmp_path_factory.mktemp("edges")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, SMALL, small_mnist)
        return output, stored_or_searched(small_search(), output, in_threads)


def test_the_edge_of_small_runs(found: tuple[Path, Edge]) -> None:
    """Its evidence is what the runs beside it say, and those are as `train` makes them."""
    output, edge = found
    folder = output / edge_name(edge.search.config)
    assert folder.name == "sgd_b16_mlp_small_hidden=20,20_epochs2"
    assert edge.bracketed and edge.learning_rate is not None and edge.above is not None
    assert 1 < edge.above / edge.learning_rate <= 1.25
    assert edge.loss_limit == pytest.approx(math.log(10) / 2)
    for probe in edge.probes:
        for seed, loss in enumerate(probe.losses):
            run = open_run(folder / f"sgd_lr{probe.learning_rate:.12g}_b16_mlp_small_hidden=20,20_seed{seed}")
            assert run.outcome is not None
            diverged = run.outcome["outcome"] == "diverged"
            assert math.isnan(loss) if diverged else loss == run.metrics["train_loss"][-1]
            assert all(role & int(Role.EPOCH_END) for role in run.role)
        assert probe.converged == sum(loss <= edge.loss_limit for loss in probe.losses)
    tried = edge.converges
    assert tried[edge.learning_rate] and not any(does for rate, does in tried.items() if rate >= edge.above)


def test_a_probe_is_an_ordinary_run(found: tuple[Path, Edge], tmp_path: Path) -> None:
    output, edge = found
    run = next((output / edge_name(edge.search.config)).glob("*seed1"))
    config = open_run(run).description.config
    again = small_search().config
    train(TrainingConfig(again.model, again.model_args, **config), tmp_path)
    assert stored_files(run) == stored_files(tmp_path)


def test_what_was_found_is_read_back(found: tuple[Path, Edge]) -> None:
    output, edge = found
    assert stored_or_searched(small_search(), output, no_training) == edge
    assert rate_at_edge(output, small_search(seed=7, learning_rate=3.0).config).learning_rate == edge.learning_rate


def test_a_finer_search_uses_the_runs_that_are_there(found: tuple[Path, Edge], tmp_path: Path) -> None:
    output, edge = found
    finer = EdgeSearch(edge.search.config, seeds=3, tolerance=1.05)
    trained: list[str] = []

    def watched(cells: Sequence[Cell]) -> Iterator[Outcome[Cell, CellResult]]:
        trained.extend(cell.directory for cell in cells if not Path(cell.directory).exists())
        return in_threads(cells)

    result = search_edge(finer, output / edge_name(finer.config), watched)
    assert set(edge.converges) <= set(result.converges)
    assert len(trained) == 3 * (len(result.probes) - len(edge.probes)) > 0
    assert result.learning_rate and result.above and result.above / result.learning_rate <= 1.05


def test_other_seeds_confirm_it(found: tuple[Path, Edge], tmp_path: Path) -> None:
    _, edge = found
    trained: list[TrainingConfig] = []

    def watched(cells: Sequence[Cell]) -> Iterator[Outcome[Cell, CellResult]]:
        trained.extend(cell.config for cell in cells)
        return in_threads(cells)

    confirmed = confirm_edge(edge, 2, tmp_path, watched)
    assert edge.learning_rate is not None
    rates = (edge.learning_rate / 2, 2 * edge.learning_rate)
    assert [(c.learning_rate, c.seed) for c in trained] == [(rate, seed) for rate in rates for seed in (3, 4)]
    assert {(c.epochs, c.batch_size, c.model) for c in trained} == {(2, 16, "mlp")}
    assert (confirmed.half.learning_rate, confirmed.twice.learning_rate) == rates
    assert (confirmed.half.converged, confirmed.twice.converged) == (2, 0) and confirmed.separates


def test_all_seeds_must_separate() -> None:
    good, bad = Probe(0.1, (0.1, 0.2), 2), Probe(0.4, (2.3, math.nan), 0)
    mixed = Probe(0.4, (0.1, 2.3), 1)
    assert Confirmation(good, bad).separates
    assert not Confirmation(mixed, bad).separates and not Confirmation(good, mixed).separates


def test_nothing_to_confirm(tmp_path: Path) -> None:
    edge = Edge(EdgeSearch(seeds=1), 1.0, (judge(0.1, [0.1], 1.0),))
    with pytest.raises(ConfigurationError, match="find one first"):
        confirm_edge(edge, 5, tmp_path, no_training)
    assert list(tmp_path.iterdir()) == []


def test_a_search_that_finds_nothing_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far below all learning rates at which anything is learned."""
    monkeypatch.setattr(bracket, "REACH", 3)
    search = EdgeSearch(small_config(learning_rate=1e-9, epochs=1), seeds=1)
    edge = stored_or_searched(search, tmp_path, in_threads)
    assert (edge.learning_rate, edge.above, edge.bracketed) == (None, None, False)
    assert len(edge.probes) == 7
    assert read_edge(tmp_path / edge_name(search.config)) == edge
    with pytest.raises(ConfigurationError, match=r"_epochs1 \(not found\)"):
        rate_at_edge(tmp_path, search.config)


def test_a_run_that_cannot_be_trained_ends_the_search(tmp_path: Path) -> None:
    search = small_search()
    folder = tmp_path / edge_name(search.config)
    train(small_config(epochs=1), folder / "sgd_lr0.4_b16_mlp_small_hidden=20,20_seed0")
    with pytest.raises(RunConflictError, match="other settings"):
        stored_or_searched(search, tmp_path, in_threads)
    assert not (folder / EDGE_FILE).exists()


# ---- the file


def made_up(config: TrainingConfig, rate: float = 0.3) -> Edge:
    probes = (judge(rate, [0.1], 1.0), judge(1.1 * rate, [math.nan], 1.0))
    return Edge(EdgeSearch(config, seeds=1), 1.0, probes)


def store(folder: Path, config: TrainingConfig, rate: float = 0.3) -> Path:
    write_edge(folder / edge_name(config), made_up(config, rate))
    return folder / edge_name(config) / EDGE_FILE


def test_of_several_lengths_the_longest(tmp_path: Path) -> None:
    for epochs, rate in ((2, 0.2), (11, 0.11), (1, 0.1)):
        store(tmp_path, TrainingConfig(epochs=epochs), rate)
    found = rate_at_edge(tmp_path, TrainingConfig(epochs=1, seed=9, epsilon=0.1))
    assert found == (0.11, tmp_path / "sgd_b16_epochs11")


def test_an_edge_is_of_its_settings(tmp_path: Path) -> None:
    store(tmp_path, TrainingConfig(model_args={"hidden": 25}))
    assert rate_at_edge(tmp_path, TrainingConfig(model_args={"hidden": 25})).learning_rate == 0.3
    others: list[dict[str, Any]] = [
        {"model": "mlp", "model_args": {"hidden": [3, 4]}},
        {"momentum": 0.9},
        {"batch_size": 128},
        {"optimizer": "adam"},
        {"dataset": "kmnist"},
        {"loss": "cross_entropy"},
    ]
    for changes in others:
        config = TrainingConfig(**({"model_args": {"hidden": 25}} | changes))
        with pytest.raises(ConfigurationError, match=r"sgd_b16_hidden=25_epochs5\. Find it with: landscape edge "):
            rate_at_edge(tmp_path, config)


def test_the_command_that_finds_an_edge() -> None:
    config = TrainingConfig("mlp", {"hidden": [3, 4]}, momentum=0.9, batch_size=128, seed=5, learning_rate=3)
    assert command_for(config, "edges") == (
        "landscape edge --model mlp --model-args '{\"hidden\": [3, 4]}' --optimizer sgd --momentum 0.9 "
        "--batch-size 128"
    )
    assert command_for(TrainingConfig(optimizer="adam"), "a b") == (
        "landscape edge --optimizer adam --batch-size 16 --output 'a b'"
    )


DAMAGE: list[Callable[[dict[str, Any]], Any]] = [
    lambda d: d.pop("probes"),
    lambda d: d.update(edge=0.5),
    lambda d: d.update(search=3),
    lambda d: d["settings"].update(colour="red"),
    lambda d: d["settings"].update(batch_size="16"),
    lambda d: d["search"].update(seeds=2),
    lambda d: d["search"].update(tolerance="1.25"),
    lambda d: d["probes"][0].update(losses=["0.1"]),
    lambda d: d["probes"][0].update(losses=3),
    lambda d: d["probes"][0].update(learning_rate=None),
    lambda d: d["probes"].append(3),
    lambda d: d.pop("schema"),
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files(tmp_path: Path, damage: Callable[[dict[str, Any]], Any]) -> None:
    file = store(tmp_path, TrainingConfig())
    document = json.loads(file.read_text())
    damage(document)
    file.write_text(json.dumps(document))
    with pytest.raises(CorruptSnapshotError, match=r"edge\.json"):
        read_edge(file.parent)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_files_that_are_no_document(tmp_path: Path, content: bytes) -> None:
    file = store(tmp_path, TrainingConfig())
    file.write_bytes(content)
    with pytest.raises(CorruptSnapshotError, match=r"edge\.json"):
        rate_at_edge(tmp_path, TrainingConfig())


def test_a_file_of_a_newer_version(tmp_path: Path) -> None:
    file = store(tmp_path, TrainingConfig())
    file.write_text(file.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(UnsupportedSchemaError):
        read_edge(file.parent)


def test_what_a_killed_writer_left_is_no_obstacle(tmp_path: Path) -> None:
    file = store(tmp_path, TrainingConfig())
    file.with_name(".tmp-edge.json").write_bytes(b"{")
    assert store(tmp_path, TrainingConfig(), 0.7) == file
    assert sorted(path.name for path in file.parent.iterdir()) == ["edge.json"]
    assert rate_at_edge(tmp_path, TrainingConfig()).learning_rate == 0.7


# ---- the commands

FEW = ("--model", "mlp", "--model-args", '{"hidden": [20, 20]}', "--dataset", SMALL)


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command line, whose workers are threads of this process, which knows the small dataset."""
    (script,) = entry_points(group="console_scripts", name="landscape")
    main = script.load()
    monkeypatch.setattr(engine, "local_executor", lambda workers, threads: lambda: ThreadPoolExecutor(1))
    return lambda *arguments: CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def test_edge_and_then_train_at_it(
    invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    search = ("edge", *FEW, "--epochs", "2", "--seeds", "3", "--start", "0.4", "--workers", "1")
    first = invoke(*search)
    assert first.exit_code == 0
    header, *rows, last = first.stdout.splitlines()
    assert header.split() == ["learning_rate", "converged", "median_train_loss"]
    file = tmp_path / "edges" / "sgd_b16_mlp_small_hidden=20,20_epochs2" / EDGE_FILE
    edge = read_edge(file.parent)
    assert len(rows) == len(edge.probes) and last.startswith(f"edge {edge.learning_rate:.4g}: it converges")
    before = file.read_bytes()
    results = json.loads(invoke(*search, "--json").stdout)["results"]
    assert (results["edge"], results["above"], results["monotone"]) == (edge.learning_rate, edge.above, True)
    assert "confirmation" not in results
    confirmed = json.loads(invoke(*search, "--confirm", "2", "--json").stdout)["results"]["confirmation"]
    assert confirmed["separates"] and (confirmed["half"]["converged"], confirmed["twice"]["converged"]) == (2, 0)
    assert invoke(*search, "--confirm", "2").stdout.splitlines()[-1].split()[1:4] == ["0", "of", "2"]
    assert file.read_bytes() == before

    at_edge = ("train", *FEW, "--epochs", "1", "--seed", "11")
    trained = invoke(*at_edge, "--at-edge", "--output", tmp_path / "run")
    assert trained.exit_code == 0 and f"learning rate {edge.learning_rate}" in trained.stderr
    assert open_run(tmp_path / "run").description.config["learning_rate"] == edge.learning_rate
    document = json.loads(invoke(*at_edge, "--at-edge", "edges", "--output", tmp_path / "run", "--json").stdout)
    assert document["inputs"]["learning_rate"] == edge.learning_rate

    both = invoke(*at_edge, "--at-edge", "--lr", "0.1", "--output", tmp_path / "other")
    assert both.exit_code == 2 and "leave out --lr" in both.stderr
    none = invoke(*at_edge, "--batch-size", "32", "--at-edge", "--output", tmp_path / "other")
    assert none.exit_code == 1 and "--batch-size 32" in none.stderr and file.parent.name in none.stderr
    file.write_text("{")
    for command in (search, (*at_edge, "--at-edge", "--output", tmp_path / "other")):
        damaged = invoke(*command)
        assert damaged.exit_code == 1 and damaged.stderr.count("Error: ") == 1 and EDGE_FILE in damaged.stderr
    assert not (tmp_path / "other").exists()


def test_no_edge_is_exit_code_3(
    invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bracket, "REACH", 1)
    result = invoke(
        "edge", "--model", "logistic", *FEW[-2:], "--start", "1e-9", "--seeds", "1", "--output", tmp_path
    )
    assert result.exit_code == 3 and result.stdout.splitlines()[-1] == "no edge: no learning rate converges"


@pytest.mark.parametrize(
    "option",
    [("--tolerance", "1"), ("--tolerance", "nan"), ("--tolerance", "x"), ("--start", "0"), ("--start", "inf"),
     ("--seeds", "0"), ("--epochs", "0"), ("--batch-size", "0"), ("--model-args", "{"), ("--optimizer", "lion")],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_of_edge(
    invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: tuple[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke("edge", *option).exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "option",
    [("--model", "vgg"), ("--dataset", "nist"), ("--loss", "hinge"), ("--optimizer", "adam", "--momentum", "0.5")],
    ids=" ".join,
)
def test_unknown_parts_leave_no_folder(
    invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("edge", *option)
    assert result.exit_code == 1 and result.stderr.splitlines()[-1].startswith("Error: ")
    assert list(tmp_path.iterdir()) == []


SEARCHING = """
import signal, sys
from concurrent.futures import ThreadPoolExecutor
from small_runs import register
from landscape import engine
from landscape_cli.main import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # else ignored in jobs of the background
register()
engine.local_executor = lambda workers, threads: lambda: ThreadPoolExecutor(1)
main(sys.argv[1:])
"""


@pytest.mark.thorough
def test_interrupted_search_goes_on_to_the_same_file(tmp_path: Path, found: tuple[Path, Edge]) -> None:
    """A process that is killed in the middle of a run, and then again after another; the third one finishes."""
    search = ("edge", *FEW, "--epochs", "2", "--seeds", "3", "--start", "0.4", "--output", tmp_path)
    command = [sys.executable, "-c", SEARCHING, *map(str, search)]
    for number, sent in ((1, signal.SIGINT), (8, signal.SIGKILL)):
        process = subprocess.Popen(
            command, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        deadline = time.monotonic() + 120
        while process.poll() is None and len(list(tmp_path.glob("*/*/segments/*.h5"))) < number:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(process.pid, sent)
        _, errors = process.communicate(timeout=60)
        assert process.returncode != 0 and "Traceback" not in errors
    output, edge = found
    assert not (tmp_path / edge_name(edge.search.config) / EDGE_FILE).exists()
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1].startswith("edge ")
    name = edge_name(edge.search.config)
    assert (tmp_path / name / EDGE_FILE).read_bytes() == (output / name / EDGE_FILE).read_bytes()


# ---- the paper's network on MNIST


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("batch_size", [128, 16])
def test_the_edge_separates_what_converges(tmp_path: Path, batch_size: int) -> None:
    """Five seeds that the search did not see: all converge at half of the edge, none at twice the edge."""

    def in_processes(cells: Sequence[Cell]) -> Iterator[Outcome[Cell, CellResult]]:
        return sweep(cells, local_executor(2, threads=1), workers=2, stack_size=Forecaster().stack_size)

    search = EdgeSearch(TrainingConfig(batch_size=batch_size, epochs=1))
    edge = stored_or_searched(search, tmp_path, in_processes)
    assert edge.bracketed and edge.monotone
    confirmed = confirm_edge(edge, 5, tmp_path, in_processes)
    assert (confirmed.half.converged, confirmed.twice.converged) == (5, 0)
