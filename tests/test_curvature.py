"""Eigenvalues along a run and spectra of stored snapshots, through the commands, on real runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner, Result

from landscape.geometry.eigenpairs import top_eigenpairs
from landscape.geometry.operators import curvature_operator
from landscape.report.curvature import draw_spectrum, draw_trajectory
from landscape.snapshots import load_snapshot, open_run
from landscape.snapshots.locate import resolve
from landscape.study import spectra
from landscape.study.curvature import (
    NamedEstimate,
    Spectrum,
    Trajectory,
    TrajectoryConfig,
    TrajectoryPoint,
    append_point,
    every_index,
    read_points,
    trajectory_key,
)
from landscape.study.problems import load_problem, theta_objective, x_objective
from landscape.study.spectra import theta_operator

RUN = "embedded:runs/sgd_lr0.2_b16_seed0"
Invoke = Callable[..., Result]


@pytest.fixture
def invoke() -> Iterator[Invoke]:
    command: click.Group = next(iter(entry_points(group="console_scripts", name="landscape"))).load()
    threads = torch.get_num_threads()
    yield lambda *arguments: CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)
    torch.set_num_threads(threads)


def trace_run(invoke: Invoke, output: Path, *options: str) -> Result:
    arguments = ("hessian", "--snapshot", RUN, "--top-k", 2, "--every", 3, "--samples", 60, "--tol", "1e-3")
    return invoke(*arguments, "--threads", 1, "--output", output, *options)


def test_eigenvalues_along_a_run_are_those_of_its_snapshots(invoke: Invoke, tmp_path: Path) -> None:
    result = trace_run(invoke, tmp_path, "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    points, count = document["results"]["points"], len(open_run(resolve(RUN)))
    assert [p["index"] for p in points] == every_index(count, 3)
    for point in points:
        snapshot = load_snapshot(RUN, f"index={point['index']}")
        phi = theta_objective(load_problem(snapshot, "cpu"), 60, 0)
        truth = top_eigenpairs(phi, 2, tol=1e-5, seed=9)
        assert point["eigenvalues"] == pytest.approx(truth.eigenvalues[0].tolist(), rel=1e-3)
        assert point["loss"] == pytest.approx(float(phi.value(phi.origin)), rel=1e-5)
        assert max(point["residuals"]) <= 1e-3
        assert point["samples_seen"] == snapshot.position.samples_seen
    assert document["results"]["edge"] == pytest.approx(2 / 0.2)


@pytest.mark.thorough
def test_points_are_kept_and_lost_ones_computed_again(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = trace_run(invoke, tmp_path)
    assert first.exit_code == 0
    file = tmp_path / "hessian-sgd_lr0.2_b16_seed0.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    searched: list[object] = []

    def counted(phi, *arguments, **settings):  # type: ignore[no-untyped-def]
        searched.append(phi)
        return top_eigenpairs(phi, *arguments, **settings)

    monkeypatch.setattr(spectra, "top_eigenpairs", counted)
    again = trace_run(invoke, tmp_path)
    assert again.stdout == first.stdout
    assert not searched
    # A line that a full disk has cut short, and one that is no JSON.
    file.write_text("".join(lines[:-2]) + "{]\n" + lines[-1][:40])
    mended = trace_run(invoke, tmp_path)
    assert mended.exit_code == 0
    assert len(searched) == 2
    assert len(read_points(file, json.loads(lines[0])["key"])) == len(lines)
    # Other settings do not take these points for theirs.
    searched.clear()
    assert trace_run(invoke, tmp_path, "--seed", "1").exit_code == 0
    assert len(searched) == len(lines)


def test_a_run_that_grows_keeps_its_points(tmp_path: Path) -> None:
    run = open_run(resolve(RUN))
    key = trajectory_key(run.run_id, TrajectoryConfig())
    assert key != trajectory_key(run.run_id, TrajectoryConfig(k=4))
    assert key != trajectory_key("another", TrajectoryConfig())
    point = TrajectoryPoint(3, 1, 64, 0.5, (2.0, float("nan")), (0.1, 0.2), (True, False), 9)
    append_point(tmp_path / "points.jsonl", key, point)
    found = read_points(tmp_path / "points.jsonl", key)
    assert found[3].converged == (True, False)
    assert found[3].eigenvalues[0] == 2.0
    assert found[3].eigenvalues[1] != found[3].eigenvalues[1]  # NaN stays NaN
    assert read_points(tmp_path / "points.jsonl", "other") == {}
    assert read_points(tmp_path / "absent.jsonl", key) == {}


def test_unconverged_pairs_are_marked(invoke: Invoke, tmp_path: Path) -> None:
    result = trace_run(invoke, tmp_path, "--max-steps", "3")
    assert result.exit_code == 3
    assert "NO" in result.stdout
    assert (tmp_path / "hessian-sgd_lr0.2_b16_seed0.png").exists()


def test_a_run_goes_along_in_parameters_only(invoke: Invoke, tmp_path: Path) -> None:
    assert trace_run(invoke, tmp_path / "out", "--space", "x").exit_code == 2
    assert invoke("hessian", "--snapshot", RUN, "--every", 0).exit_code == 2
    assert trace_run(invoke, tmp_path / "out", "--at", "first").exit_code == 2
    assert trace_run(invoke, tmp_path / "out", "--top-k", "99999").exit_code == 1
    assert not (tmp_path / "out").exists()


def test_every_index_ends_with_the_last() -> None:
    assert every_index(10, 4) == [0, 4, 8, 9]
    assert every_index(9, 4) == [0, 4, 8]
    assert every_index(1, 50) == [0]


@pytest.mark.parametrize(
    ("config", "edge"),
    [
        ({"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.0}, 20.0),
        ({"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9}, 38.0),
        ({"optimizer": "adam", "learning_rate": 0.1}, None),
        ({"optimizer": "sgd", "learning_rate": 0.1, "method": "sam"}, None),
        ({}, None),
        ({"imported": {}, "optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9}, 38.0),
        ({"imported": {}, "optimizer": "sgd", "learning_rate": 0.1}, None),
        ({"imported": {}, "optimizer": "sgd", "learning_rate": None, "momentum": 0.0}, None),
    ],
)
def test_edge_of_stability(config: dict[str, object], edge: float | None) -> None:
    assert Trajectory("run", config, "LA", ()).edge == (None if edge is None else pytest.approx(edge))


def test_spectrum_agrees_with_the_hessian(invoke: Invoke, tmp_path: Path) -> None:
    arguments = ("--snapshot", RUN, "--samples", 60, "--threads", 1)
    result = invoke(
        "spectrum", *arguments, "--products", 20, "--steps", 25, "--probes", 2, "--output", tmp_path, "--json"
    )
    assert result.exit_code == 0
    found = json.loads(result.stdout)["results"]
    phi = theta_objective(load_problem(load_snapshot(RUN), "cpu"), 60, 0)
    pairs = top_eigenpairs(phi, 2, "BE", tol=1e-4)
    largest, smallest = pairs.eigenvalues[0].tolist()
    assert found["largest"] == pytest.approx(largest, rel=1e-3)
    assert found["smallest"] == pytest.approx(smallest, rel=2e-2)
    whole = found["estimates"][0]
    blocks = [e for e in found["estimates"] if e["what"].startswith("trace of")]
    assert sum(e["size"] for e in blocks) == phi.origin.shape[1]
    error = whole["standard_error"] + sum(e["standard_error"] for e in blocks)
    assert sum(e["value"] for e in blocks) == pytest.approx(whole["value"], abs=4 * error)
    assert found["num_products"] == 20 + 20 + 20 + 2 * 25 + 2
    assert len(found["files"]) == 3
    assert all(Path(file).stat().st_size > 1000 for file in found["files"])


@pytest.mark.parametrize("kind", ["gauss_newton", "fisher", "empirical_fisher"])
def test_other_matrices_are_positive(invoke: Invoke, kind: str) -> None:
    arguments = ("--samples", 30, "--products", 4, "--steps", 8, "--probes", 2, "--threads", 1)
    result = invoke("spectrum", "--snapshot", RUN, "--kind", kind, *arguments, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)["results"]
    assert found["smallest"] > -1e-5 * found["largest"]
    assert found["files"] == []


@pytest.mark.thorough
def test_figures_have_the_same_bytes(tmp_path: Path) -> None:
    points = tuple(
        TrajectoryPoint(i, i, 100 * i, 1.0, (3.0 + i, 2.0), (0.0, 0.1), (True, i != 1), 5) for i in range(3)
    )
    trajectory = Trajectory("run", {"optimizer": "sgd", "learning_rate": 0.5}, "LA", points)
    spectrum = Spectrum(
        "run", 3, "hessian", 0.1, (NamedEstimate("trace", 9, 1.0, 0.1),), 0.0, 2.0,
        (0.0, 1.0, 2.0), (1.0, 0.0, 1e-3), (0.1, 0.0, 1e-3), 0.1, 40,
    )  # fmt: skip
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        draw_trajectory(trajectory, tmp_path / folder)
        draw_spectrum(spectrum, tmp_path / folder)
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert len(names) == 6
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.thorough
def test_blocks_of_some_parameters_are_those_of_the_dense_matrix(invoke: Invoke, tmp_path: Path) -> None:
    """The Hessian over all biases, from all of its rows, against what the commands say of it."""
    chosen = ("--snapshot", RUN, "--samples", 40, "--parameters", "*.bias", "--threads", 1, "--json")
    phi = theta_objective(load_problem(load_snapshot(RUN), "cpu"), 40, 0)
    block = theta_operator(phi, "hessian", ("[03].bias", "7.bias", "9.b*"))
    size = block.shape[1]
    assert size == 4 + 10 + 100 + 10
    truth = torch.linalg.eigvalsh((block @ torch.eye(size)[:, None])[:, 0].double())
    result = invoke("hessian", *chosen, "--top-k", 3)
    assert result.exit_code == 0
    found = json.loads(result.stdout)["results"]
    assert found["eigenvalues"][0] == pytest.approx(truth.flip(0)[:3].tolist(), rel=1e-4)
    assert found["asymmetry"][0] < 1e-5
    along = invoke("hessian", *chosen, "--top-k", 1, "--every", 1000, "--output", tmp_path)
    assert json.loads(along.stdout)["results"]["points"][-1]["eigenvalues"] == pytest.approx(
        [truth[-1].item()], rel=1e-2
    )
    assert all("bias" in file.name for file in tmp_path.iterdir())
    estimates = json.loads(invoke("spectrum", *chosen, "--steps", 15, "--probes", 2).stdout)["results"][
        "estimates"
    ]
    assert [e["what"] for e in estimates[2:]] == [f"trace of {i}.bias" for i in (0, 3, 7, 9)]
    assert estimates[0]["value"] == pytest.approx(truth.sum().item(), abs=5 * estimates[0]["standard_error"])


@pytest.mark.parametrize("kind", ["gauss_newton", "empirical_fisher"])
@pytest.mark.parametrize("space", ["theta", "x"])
def test_pairs_of_other_matrices(invoke: Invoke, kind: str, space: str) -> None:
    arguments = ("--snapshot", RUN, "--samples", 4, "--space", space, "--kind", kind, "--top-k", 1, "--json")
    result = invoke("hessian", *arguments)
    problem = load_problem(load_snapshot(RUN), "cpu")
    phi = theta_objective(problem, 4, 0) if space == "theta" else x_objective(problem, 4, 0)
    truth = top_eigenpairs(curvature_operator(phi, kind), 1, tol=1e-4)
    found = json.loads(result.stdout)["results"]["eigenvalues"]
    assert torch.allclose(torch.tensor(found).double(), truth.eigenvalues, rtol=1e-3)


def test_little_memory_gives_the_same_eigenvalues(invoke: Invoke) -> None:
    arguments = ("hessian", "--snapshot", RUN, "--samples", 200, "--top-k", 2, "--json", "--memory")
    little, much = (json.loads(invoke(*arguments, size).stdout) for size in ("4M", "1.5 GiB"))
    assert little["inputs"]["memory"] == 4_000_000
    assert much["inputs"]["memory"] == 1.5 * 2**30
    assert little["results"]["eigenvalues"][0] == pytest.approx(much["results"]["eigenvalues"][0], rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--memory", "0"), "no amount of memory"),
        (("--memory", "much"), "no amount of memory"),
        (("--memory", "1.2.3G"), "no amount of memory"),
        (("--parameters", "12.*"), "no parameter matches '12.*'; the model has 0.weight"),
        (("--parameters", "9.*", "--space", "x"), "in θ only"),
    ],
)
def test_what_cannot_be_is_refused(invoke: Invoke, arguments: tuple[str, ...], message: str) -> None:
    result = invoke("hessian", "--snapshot", RUN, *arguments)
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.output.split())


def test_nothing_is_written_for_a_spectrum_that_is_refused(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("spectrum", "--snapshot", tmp_path / "none", "--output", tmp_path / "figures")
    assert result.exit_code == 1
    assert not (tmp_path / "figures").exists()
