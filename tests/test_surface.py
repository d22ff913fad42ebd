"""Surfaces over planes of θ: values against a network moved by hand, the layout as its own program reads it."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from landscape.errors import ConfigurationError, CorruptSnapshotError, RunConflictError
from landscape.interchange.inspecting import describe
from landscape.interchange.surfaces import computed, read_surface
from landscape.problem.models import build_model, initialise
from landscape.problem.plane_directions import random_directions
from landscape.report.surface import draw_surface
from landscape.snapshots import load_snapshot
from landscape.study.problems import Problem, load_problem
from landscape.study.surface import Axis, Surface, SurfaceConfig
from landscape.study.surfaces import Plane, SurfaceFiles, compute, open_plane, save, surface_of

RUN = "embedded:runs/sgd_lr0.05_b16_seed0"
CONFIG = SurfaceConfig(x=Axis(-1, 1, 3), y=Axis(-0.5, 1, 4), samples=200)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return load_problem(load_snapshot(RUN), "cpu")


@pytest.fixture(scope="module")
def written(problem: Problem, tmp_path_factory: pytest.TempPathFactory) -> SurfaceFiles:
    files = SurfaceFiles.at(tmp_path_factory.mktemp("surface") / "s.h5")
    finish(open_plane(load_snapshot(RUN), problem, CONFIG, files), files)
    return files


def finish(plane: Plane, files: SurfaceFiles, points: int | None = None) -> Plane:
    for plane in itertools.islice(compute(plane), points):  # noqa: B020, PLR1704
        save(plane, files)
    return plane


@pytest.mark.parametrize("normalisation", ["filter", "layer", "none"])
@pytest.mark.parametrize("biases", [False, True])
def test_directions_have_the_norms_of_the_weights(normalisation: str, biases: bool) -> None:
    model = build_model("cnn", {"channels": [2, 3], "hidden": 10})
    initialise(model, torch.Generator().manual_seed(0))
    directions = random_directions(model, 2, normalisation, biases, seed=3)
    assert torch.equal(directions, random_directions(model, 2, normalisation, biases, seed=3))
    assert not torch.equal(directions, random_directions(model, 2, normalisation, biases, seed=4))
    sizes = [p.numel() for p in model.parameters()]
    for part, weights in zip(directions[1].split(sizes), model.parameters(), strict=True):
        groups = list(weights) if normalisation == "filter" and weights.ndim > 1 else [weights]
        for drawn, group in zip(part.chunk(len(groups)), groups, strict=True):
            if weights.ndim == 1 and not biases:
                assert not drawn.any()
            elif normalisation != "none":
                assert drawn.norm().item() == pytest.approx(group.detach().norm().item(), rel=1e-5)


def test_unknown_normalisation_and_axes() -> None:
    with pytest.raises(ConfigurationError, match="choose one of filter"):
        random_directions(build_model("logistic", {}), 2, "weight")
    for low, high, count in ((1, -1, 3), (0, 1, 1), (0, float("inf"), 3)):
        with pytest.raises(ConfigurationError, match="ascending"):
            Axis(low, high, count)


def read_list(file: h5py.File, name: str) -> list[NDArray[Any]]:
    """Directions as the other program takes them: by number, as many as there are."""
    group = file[name]
    return [group[str(i)][()] for i in range(len(group))]


def moved(model: nn.Module, changes: Sequence[Tensor]) -> nn.Module:
    with torch.no_grad():
        for parameter, change in zip(model.parameters(), changes, strict=True):
            parameter.add_(change)
    return model


def test_the_file_is_what_its_own_layout_says(written: SurfaceFiles, problem: Problem) -> None:
    """Loss and accuracy of a network moved tensor by tensor, from what the files hold and nothing else."""
    data = problem.train.subset(CONFIG.samples, CONFIG.seed)
    with h5py.File(written.directions) as file:
        first, second = read_list(file, "xdirection"), read_list(file, "ydirection")
    with h5py.File(written.surface) as file:
        assert Path(file["dir_file"][()].decode()) == written.directions
        x, y = file["xcoordinates"][:], file["ycoordinates"][:]
        loss, accuracy = file["train_loss"][:], file["train_acc"][:]
    assert x.tolist() == [-1, 0, 1] and y.tolist() == [-0.5, 0, 0.5, 1]
    assert loss.shape == accuracy.shape == (3, 4)
    for i, j in itertools.product(range(3), range(4)):
        changes = [torch.tensor(a * x[i] + b * y[j]).float() for a, b in zip(first, second, strict=True)]
        model = moved(load_problem(load_snapshot(RUN), "cpu").model, changes)
        with torch.no_grad():
            logits = model(data.images)
        assert loss[i, j] == pytest.approx(nn.functional.cross_entropy(logits, data.labels).item(), rel=1e-4)
        right = (logits.argmax(1) == data.labels).double().mean().item()
        assert accuracy[i, j] == pytest.approx(100 * right, abs=0.6)  # one sample may fall to the other side


def test_inspect_tells_what_the_files_hold(written: SurfaceFiles) -> None:
    surface = describe(written.surface).entries
    assert [entry.name for entry in surface] == [
        "dir_file",
        "train_acc",
        "train_loss",
        "xcoordinates",
        "ycoordinates",
    ]
    assert [entry.dtype for entry in surface] == ["text", *["float64"] * 4]
    assert len(describe(written.directions).entries) == 16


def test_going_on_gives_the_same_file(tmp_path: Path, written: SurfaceFiles, problem: Problem) -> None:
    files, snapshot = SurfaceFiles.at(tmp_path / "s.h5"), load_snapshot(RUN)
    finish(open_plane(snapshot, problem, CONFIG, files), files, points=5)
    half = read_surface(files.surface)
    assert computed(half).sum() == 5 and (half.accuracy[~computed(half)] == -1).all()
    plane = open_plane(snapshot, problem, CONFIG, files)
    assert len(plane.missing) == 7
    finish(plane, files)
    assert files.directions.read_bytes() == written.directions.read_bytes()
    ended, whole = read_surface(files.surface), read_surface(written.surface)
    assert np.array_equal(ended.loss, whole.loss) and np.array_equal(ended.accuracy, whole.accuracy)
    assert not open_plane(snapshot, problem, CONFIG, files).missing


def test_eigenvectors_curve_by_their_eigenvalues(tmp_path: Path, problem: Problem) -> None:
    """Along unit directions φ is nearly φ* + ∇φ·δ t + λ t² / 2; the second difference gives λ."""
    step = 1e-4  # within one piece of a network of pieces
    axis = Axis(-step, step, 3)
    config = SurfaceConfig(directions="eigenvectors", x=axis, y=axis, samples=100, eigen_tol=1e-3)
    files = SurfaceFiles.at(tmp_path / "e.h5")
    double = problem.double()
    plane = finish(open_plane(load_snapshot(RUN), double, config, files), files)
    surface = surface_of(plane, "run", 6, config)
    assert surface.lengths == pytest.approx((1, 1), rel=1e-5) and abs(surface.cosine) < 1e-3
    middle = surface.loss[1, 1]
    for line, expected in zip((surface.loss[:, 1], surface.loss[1, :]), surface.eigenvalues, strict=True):
        assert (line[0] + line[2] - 2 * middle) / step**2 == pytest.approx(expected, rel=1e-3)
    assert surface.eigenvalues[0] > surface.eigenvalues[1] > 0


def test_other_surfaces_are_not_mixed(tmp_path: Path, written: SurfaceFiles, problem: Problem) -> None:
    files, snapshot = SurfaceFiles.at(tmp_path / "s.h5"), load_snapshot(RUN)
    for file, target in ((written.surface, files.surface), (written.directions, files.directions)):
        target.write_bytes(file.read_bytes())
    before = files.surface.read_bytes()
    for config in (replace(CONFIG, seed=1), replace(CONFIG, x=Axis(-2, 1, 3)), replace(CONFIG, samples=100)):
        with pytest.raises(RunConflictError, match="Choose another output"):
            open_plane(snapshot, problem, config, files)
    with pytest.raises(RunConflictError, match="Choose another output"):
        open_plane(load_snapshot(RUN, "first"), problem, CONFIG, files)
    with h5py.File(files.directions, "r+") as file:
        file["ydirection/0"][0] *= 2
    with pytest.raises(RunConflictError, match="with other directions"):
        open_plane(snapshot, problem, CONFIG, files)
    with h5py.File(files.directions, "r+") as file:
        del file["ydirection/3"]
    with pytest.raises(CorruptSnapshotError, match="other shapes than the network"):
        open_plane(snapshot, problem, CONFIG, files)
    assert files.surface.read_bytes() == before
    files.surface.unlink()
    with pytest.raises(RunConflictError, match=r"without s\.h5"):
        open_plane(snapshot, problem, CONFIG, files)


def test_a_damaged_surface_is_refused(tmp_path: Path, written: SurfaceFiles, problem: Problem) -> None:
    files = SurfaceFiles.at(tmp_path / "s.h5")
    files.directions.write_bytes(written.directions.read_bytes())
    files.surface.write_bytes(written.surface.read_bytes()[:1500])
    with pytest.raises(CorruptSnapshotError, match=str(files.surface)):
        open_plane(load_snapshot(RUN), problem, CONFIG, files)


def test_figures_of_what_is_not_finite(tmp_path: Path) -> None:
    axis = Axis(-1, 1, 3)
    loss = np.array([[np.nan, 1, 2], [0, np.inf, 3], [1, 1, 1]])
    for values in (loss, np.full((3, 3), np.nan), np.ones((3, 3))):
        surface = Surface(
            "run", 1, CONFIG, axis.coordinates, axis.coordinates, values, np.full((3, 3), 10.0), (1, 1), 0, ()
        )
        (file,) = draw_surface(surface, tmp_path, "s", ["png"])
        assert file.stat().st_size > 1000


INTERRUPTIBLE = """
import signal
from landscape_cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # else ignored in jobs of the background
main()
"""


def console(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("landscape")), *arguments]


@pytest.mark.thorough
def test_the_command_is_killed_and_goes_on(tmp_path: Path) -> None:
    """Ctrl-C leaves what was computed; the same command computes the rest and draws."""
    target = tmp_path / "s.h5"
    arguments = ("surface", "--snapshot", RUN, "--samples", "2000", "--output", str(target), "--x=-1:1:40")
    command = [sys.executable, "-c", INTERRUPTIBLE, *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not target.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(2)
        process.communicate(timeout=30)
    done = int(computed(read_surface(target)).sum())
    assert 0 < done < 1000
    small = console("surface", "--snapshot", RUN, "--samples", "20", "--output", str(tmp_path / "t.h5"), "--json")
    first = subprocess.run([*small, "--x=-1:1:4", "--y=-1:1:3"], capture_output=True, text=True, check=True)
    document = json.loads(first.stdout)
    assert np.shape(document["results"]["loss"]) == (4, 3)
    assert all(Path(file).exists() for file in document["results"]["files"])
    wrong = subprocess.run([*small, "--x=1:-1:4"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and "--x=-1:1:25" in wrong.stderr
    other = subprocess.run([*small, "--x=-1:1:5"], capture_output=True, text=True, check=False)
    assert other.returncode == 1 and "Choose another output" in other.stderr
