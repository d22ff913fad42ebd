"""Methods beside plain training: plain loops of PyTorch, closed forms, the company of others, and resuming."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from small_runs import COUNTS, SMALL, interrupt, segment_names, small_config, stored_files
from torch import Generator, Tensor
from torch.nn import functional

from landscape.errors import ConfigurationError, CorruptSnapshotError, RunConflictError
from landscape.problem.datasets import load_dataset
from landscape.problem.losses import log_odds
from landscape.problem.model_sources import model_with
from landscape.problem.models import build_model, initialise
from landscape.problem.network import ravel
from landscape.snapshots import Role, open_run, snapshot_of, unflatten, verify_run
from landscape.study.columns import PLAIN as PLAIN_IN_TABLES
from landscape.training import progress
from landscape.training.averaging import RunningMean, split_state, state_with
from landscape.training.config import TrainingConfig, generator
from landscape.training.engines import MODULE, STACKED, Standpoint, make_engine
from landscape.training.evaluate import evaluate
from landscape.training.forecast import rows_of_segments, storage_of
from landscape.training.grid import read_sweep, run_name
from landscape.training.loop import TrainingResult, describe, epoch_order, make_bench, train, train_together
from landscape.training.methods import (
    METHODS,
    PLAIN,
    FgsmTraining,
    Flooding,
    SharpnessAware,
    WeightAveraging,
    ascend,
    gradient_norms,
    make_method,
)
from landscape.training.progress import beginning

N = COUNTS["train"]
ENGINES = (STACKED, MODULE)


pytestmark = pytest.mark.usefixtures("small_data")


def use_engine(patch: pytest.MonkeyPatch, name: str) -> None:
    patch.setattr("landscape.training.engines.stackable", lambda *arguments: name == STACKED)


def last_weights(path: Path) -> np.ndarray:
    run = open_run(path)
    return run.read(len(run) - 1)


# ---- against plain loops


class Reference:
    """A run as one writes it from a paper: modules, autograd, torch.optim."""

    def __init__(self, config: TrainingConfig) -> None:
        self.config, self.data = config, load_dataset(SMALL)
        self.model = build_model(config.model, config.model_args)
        initialise(self.model, generator(config.seed, "parameters"))
        self.parameters = list(self.model.parameters())
        self.optimizer: torch.optim.Optimizer = torch.optim.SGD(
            self.parameters, config.learning_rate, config.momentum
        )
        if config.optimizer == "adam":
            self.optimizer = torch.optim.Adam(self.parameters, config.learning_rate)
        self.seen = 0

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(self.model(x), y)

    def run(self, step: Callable[[Reference, Tensor, Tensor], None]) -> list[np.ndarray]:
        """The weights at the ends of epochs."""
        ends = []
        for epoch in range(self.config.epochs):
            for batch in epoch_order(self.config, epoch, N).split(self.config.batch_size):
                self.optimizer.zero_grad()
                step(self, self.data.images[batch], self.data.labels[batch])
                self.optimizer.step()
                self.seen += len(batch)
            ends.append(ravel(self.model).numpy().copy())
        return ends


def sam_step(run: Reference, x: Tensor, y: Tensor) -> None:
    gradients = torch.autograd.grad(run.loss(x, y), run.parameters)
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
    before = [p.detach().clone() for p in run.parameters]
    with torch.no_grad():
        for p, g in zip(run.parameters, gradients, strict=True):
            p.add_(0.2 / norm * g)
    run.loss(x, y).backward()
    with torch.no_grad():
        for p, old in zip(run.parameters, before, strict=True):
            p.copy_(old)


def flooding_step(run: Reference, x: Tensor, y: Tensor) -> None:
    ((run.loss(x, y) - 1.2).abs() + 1.2).backward()


def fgsm_step(run: Reference, x: Tensor, y: Tensor) -> None:
    images = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(run.loss(images, y), images)
    run.loss((x + 0.1 * gradient.sign()).clamp(0, 1), y).backward()


def random_fgsm_step(run: Reference, x: Tensor, y: Tensor) -> None:
    """From a random point of ball and box, 1.25 ε along the slope, and back to both."""
    drawn = torch.rand(x.shape, generator=generator(run.config.seed, "perturbation", run.seen))
    delta = ((x + 0.1 * (2 * drawn - 1)).clamp(0, 1) - x).requires_grad_()
    (gradient,) = torch.autograd.grad(run.loss(x + delta, y), delta)
    moved = (delta.detach() + 0.125 * gradient.sign()).clamp(-0.1, 0.1)
    run.loss((x + moved).clamp(0, 1), y).backward()


def pgd_step(run: Reference, x: Tensor, y: Tensor) -> None:
    """δ is projected on the ball, x + δ on the box; the gradient is that of cross-entropy, in float64."""
    exact = build_model(run.config.model, run.config.model_args).double()
    exact.load_state_dict(run.model.state_dict())
    drawn = torch.rand(x.shape, generator=generator(run.config.seed, "perturbation", run.seen))
    clean = x.double()
    delta = ((clean + 0.1 * (2 * drawn - 1)).clamp(0, 1) - clean).detach()
    for _ in range(3):
        delta.requires_grad_()
        (gradient,) = torch.autograd.grad(functional.cross_entropy(exact(clean + delta), y), delta)
        delta = (delta + 0.05 * gradient.sign()).clamp(-0.1, 0.1).detach()
        delta = (clean + delta).clamp(0, 1) - clean
    run.loss((clean + delta).float(), y).backward()


LOOPS: list[tuple[dict[str, Any], Callable[[Reference, Tensor, Tensor], None]]] = [
    ({"method": "sam", "method_args": {"rho": 0.2}}, sam_step),
    ({"method": "flooding", "method_args": {"level": 1.2}}, flooding_step),
    ({"method": "fgsm-training", "method_args": {"epsilon": 0.1}}, fgsm_step),
    ({"method": "fgsm-training", "method_args": {"epsilon": 0.1, "random_start": True}}, random_fgsm_step),
    ({"method": "pgd-training", "method_args": {"epsilon": 0.1, "steps": 3, "step_size": 0.05}}, pgd_step),
]
OPTIMIZERS: list[dict[str, Any]] = [
    {"momentum": 0.9, "learning_rate": 0.02},
    {"optimizer": "adam", "learning_rate": 0.002, "batch_size": 48},
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("settings", "step"), LOOPS)
def test_a_run_is_a_plain_loop(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    step: Callable[[Reference, Tensor, Tensor], None],
    engine: str,
    optimizer: dict[str, Any],
) -> None:
    use_engine(monkeypatch, engine)
    config = small_config(**settings, **optimizer)
    train(config, tmp_path / "run")
    train(small_config(**optimizer), tmp_path / "plain")
    assert (open_run(tmp_path / "run").provenance or {})["engine"] == engine
    found, expected = last_weights(tmp_path / "run"), Reference(config).run(step)[-1]
    # A pixel's slope that is rounding may have either sign; what the method changes is far more than that.
    effect = np.linalg.norm(found - last_weights(tmp_path / "plain"))
    assert effect > 0.01 and np.linalg.norm(found - expected) < 0.01 * effect


@pytest.mark.parametrize("engine", ENGINES)
def test_an_average_is_the_mean_of_iterates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    """Of those of a plain run, at the ends of epochs 2, 3 and 4 of 4; a row apart from that of the iterate."""
    use_engine(monkeypatch, engine)
    settings: dict[str, Any] = {"epochs": 4, "snapshot_every": N, "momentum": 0.9, "learning_rate": 0.02}
    train(small_config(**settings), tmp_path / "plain")
    config = small_config(**settings, method="swa", method_args={"start": 0.5})
    train(config, tmp_path / "swa")
    plain, run = open_run(tmp_path / "plain"), open_run(tmp_path / "swa")
    ends = [plain.read(int(row)) for row in np.flatnonzero(plain.role & int(Role.EPOCH_END))]
    means = [run.read(int(row)) for row in np.flatnonzero(run.role & int(Role.EPOCH_END))]
    pairs = [run.read(int(row)) for row in np.flatnonzero(run.role & int(Role.AFTER))]
    assert np.array_equal(pairs, ends) and np.array_equal(means[0], ends[0])
    for last in (2, 3, 4):
        mean = np.mean(ends[1:last], axis=0, dtype=np.float64)
        np.testing.assert_allclose(means[last - 1], mean, rtol=1e-7, atol=1e-9)
    assert run.role.tolist() == [1, 6, 1, 2, 4, 1, 2, 4, 1, 2, 4]
    assert run.metrics["step_norm"].tolist() == plain.metrics["step_norm"].tolist()
    assert np.isnan(run.batch_loss[run.role == int(Role.EPOCH_END)]).all()
    assert run.batch_loss[run.role & int(Role.AFTER) > 0].tolist() == plain.batch_loss[plain.role == 6].tolist()
    assert verify_run(tmp_path / "swa").ok
    np.testing.assert_allclose(Reference(config).run(plain_step)[-1], ends[-1], rtol=1e-4, atol=1e-5)


def plain_step(run: Reference, x: Tensor, y: Tensor) -> None:
    run.loss(x, y).backward()


@pytest.mark.parametrize("engine", ENGINES)
def test_metrics_are_those_of_the_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    use_engine(monkeypatch, engine)
    settings: dict[str, Any] = {"model": "cnn", "optimizer": "adam", "learning_rate": 0.003}
    train(small_config(**settings, method="swa", method_args={"start": 0.5}), tmp_path / "swa")
    train(small_config(**settings), tmp_path / "plain")
    run = open_run(tmp_path / "swa")
    for place, row in enumerate(np.flatnonzero(run.role & int(Role.EPOCH_END))):
        snapshot = snapshot_of(run, int(row))
        model = model_with(snapshot.model, snapshot.model_args, snapshot.parameters)
        again = evaluate(model, load_dataset(SMALL), load_dataset(SMALL, "test"), 0.3)
        stored = {name: run.metrics[name][place] for name in again}
        assert stored.pop("train_loss") == pytest.approx(again.pop("train_loss"), rel=1e-6)
        assert stored == pytest.approx(again, abs=2 / COUNTS["test"])
    plain = open_run(tmp_path / "plain").metrics["train_loss"]
    assert run.metrics["train_loss"][0] == plain[0] and run.metrics["train_loss"][2] != plain[2]


@pytest.mark.parametrize(
    ("start", "epochs", "first"),
    [(0.75, 4, 3), (0.75, 5, 4), (0.75, 1, 1), (0, 3, 1), (1, 3, 3), (0.1, 30, 3), (0.7, 10, 7), (0.55, 100, 55)],
)
def test_where_averaging_begins(start: float, epochs: int, first: int) -> None:
    method = WeightAveraging(start)
    assert [epoch for epoch in range(epochs + 1) if method.averages(epoch, epochs)] == list(
        range(first, epochs + 1)
    )
    assert not any(make_method(name, {}).averages(epochs, epochs) for name in METHODS if name != "swa")


# ---- both engines

EVERY: list[dict[str, Any]] = [
    {"method": "sam", "method_args": {"rho": 0.1}},
    {"method": "flooding", "method_args": {"level": 1.5}},
    {"method": "swa", "method_args": {"start": 0}},
    {"method": "fgsm-training", "method_args": {"epsilon": 0.05, "random_start": True}},
    {"method": "fgsm-training", "method_args": {"epsilon": 0.05}},
    {"method": "pgd-training", "method_args": {"epsilon": 0.05, "steps": 2}},
    {"method": "pgd-training", "method_args": {"epsilon": 0.05, "steps": 2, "random_start": False}},
]


@pytest.mark.parametrize("settings", EVERY)
def test_engines_agree(settings: dict[str, Any]) -> None:
    """Ten steps with the losses before them, to rounding.

    Of the paper's network unless images are attacked where they stand: windows on their black ground tie, so that
    rounding decides which pixel the slope goes to.
    """
    tied = settings in (EVERY[4], EVERY[6])
    config = small_config(model="mlp" if tied else "cnn", learning_rate=0.05, **settings)
    bench = make_bench(config)
    engines = [make_engine(name, [config], bench, [beginning(config, bench.layout)]) for name in ENGINES]
    for number, batch in enumerate(epoch_order(config, 0, N)[:160].split(16)):
        losses = [engine.step(batch[None], 16 * number) for engine in engines]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    stacked, module = (engine.parameters()[0] for engine in engines)
    way = np.linalg.norm(stacked - beginning(config, bench.layout).theta)
    assert np.linalg.norm(stacked - module) < 0.01 * way


TOGETHER: list[list[dict[str, Any]]] = [
    [{"seed": 0}, {"seed": 1, "learning_rate": 0.5, "epochs": 2}, {"seed": 2, "momentum": 0.9}],
    [{"model": "cnn", "optimizer": "adam", "epochs": 1, "seed": s, "batch_size": 31} for s in range(3)],
    [{"model": "mlp", "epochs": epochs, "batch_size": 73} for epochs in (1, 2)],
    [{"learning_rate": rate, "epochs": 1, "snapshot_every": 16} for rate in (0.1, 1e37, 0.2)],
]


@pytest.mark.parametrize("settings", EVERY)
@pytest.mark.parametrize("together", TOGETHER)
def test_together_as_alone(tmp_path: Path, settings: dict[str, Any], together: list[dict[str, Any]]) -> None:
    """Every byte of a run is that of the run by itself, whoever diverges beside it."""
    configs = [small_config(**settings, **changes) for changes in together]
    results = train_together([(config, tmp_path / f"together-{i}") for i, config in enumerate(configs)])
    for i, (config, result) in enumerate(zip(configs, results, strict=True)):
        alone = train(config, tmp_path / f"alone-{i}")
        assert isinstance(result, TrainingResult) and result.outcome == alone.outcome
        if segment_names(tmp_path / f"alone-{i}"):
            assert stored_files(tmp_path / f"together-{i}") == stored_files(tmp_path / f"alone-{i}")


def test_methods_are_not_stacked_with_each_other(tmp_path: Path) -> None:
    configs = [small_config(), small_config(method="sam"), small_config(method="sam", method_args={"rho": 1})]
    with pytest.raises(ConfigurationError, match="differ in method, method_args"):
        train_together([(config, tmp_path / str(i)) for i, config in enumerate(configs)])
    with pytest.raises(ConfigurationError, match="differ in method_args"):
        train_together([(config, tmp_path / str(i)) for i, config in enumerate(configs[1:])])
    assert not list(tmp_path.iterdir())


# ---- resuming

RESUMED: list[dict[str, Any]] = [
    {"method": "swa", "method_args": {"start": 0.5}, "epochs": 4},
    {"method": "swa", "method_args": {"start": 0.5}, "epochs": 4, "snapshot_every": 64, "momentum": 0.9},
    {"method": "swa", "method_args": {"start": 0}, "epochs": 4, "snapshot_every": N, "optimizer": "adam"},
    {"method": "pgd-training", "method_args": {"steps": 2}, "momentum": 0.5},
    {"method": "fgsm-training", "method_args": {"random_start": True}},
    {"method": "sam"},
]


@pytest.mark.parametrize("settings", RESUMED)
@pytest.mark.parametrize("engine", ENGINES)
def test_resumed_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], engine: str
) -> None:
    """Within epochs and at their ends, before averaging and in it; and cut twice."""
    monkeypatch.setattr(progress, "SEGMENT_SNAPSHOTS", 4)
    use_engine(monkeypatch, engine)
    config = small_config(**settings)
    train(config, tmp_path / "whole")
    places = (N, N + 300, 2 * N + 16, 3 * N + 300, config.epochs * N) if config.method == "swa" else (150, N + 300)
    for after in places:
        path = tmp_path / str(after)
        interrupt(config, path, after)
        train(config, path)
        assert stored_files(path) == stored_files(tmp_path / "whole")
    for after in (N + 150, 2 * N + 400):
        interrupt(config, tmp_path / "twice", after)
    train(config, tmp_path / "twice")
    assert stored_files(tmp_path / "twice") == stored_files(tmp_path / "whole")


@pytest.mark.parametrize("settings", RESUMED)
def test_stopped_one_by_one_and_resumed_together(tmp_path: Path, settings: dict[str, Any]) -> None:
    configs = [small_config(**({"snapshot_every": 16} | settings), seed=seed) for seed in range(3)]
    runs = [(config, tmp_path / f"cut-{config.seed}") for config in configs]
    for (config, path), after in zip(runs, (0, 700, 1300), strict=True):
        interrupt(config, path, after)
    assert all(isinstance(result, TrainingResult) for result in train_together(runs))
    for config, path in runs:
        train(config, tmp_path / f"whole-{config.seed}")
        assert stored_files(path) == stored_files(tmp_path / f"whole-{config.seed}")


def test_a_mean_goes_through_resume_state() -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    mean = RunningMean(np.zeros(7))
    for vector in vectors:
        mean = mean.include(vector)
    np.testing.assert_allclose(mean.mean, vectors.mean(0, dtype=np.float64), rtol=1e-14)
    state, again, iterate = split_state(state_with({"step": vectors[0]}, mean, vectors[4]), vectors[1])
    assert list(state) == ["step"] and again is not None and again.count == 5
    assert np.array_equal(again.mean, mean.mean) and np.array_equal(iterate, vectors[4])
    state, again, iterate = split_state(state_with({}, mean, None), vectors[1])
    assert again is not None and np.array_equal(iterate, vectors[1])
    assert split_state({"step": vectors[0]}, vectors[1])[1] is None
    whole = state_with({}, mean, vectors[4])
    for name, value in {
        "swa_mean": np.zeros(6),
        "swa_count": np.array([0]),
        "swa_iterate": np.zeros(6, np.float32),
    }.items():
        with pytest.raises(CorruptSnapshotError, match="stored"):
            split_state(whole | {name: value}, vectors[1])
    for name in ("swa_mean", "swa_count"):
        with pytest.raises(CorruptSnapshotError, match="stored mean"):
            split_state({key: value for key, value in whole.items() if key != name}, vectors[1])


# ---- what a step descends


def quadratic(matrices: Tensor, theta: Tensor, gradient: Tensor) -> Callable[[], tuple[Tensor, list[Tensor]]]:
    """½ θᵀ A θ for each member, ``(M, n, n), (M, n)``; its gradient goes where the optimizer will find it."""

    def differentiate() -> tuple[Tensor, list[Tensor]]:
        gradient.copy_(torch.einsum("mij,mj->mi", matrices, theta))
        return (theta * gradient).sum(1) / 2, [gradient]

    return differentiate


def test_the_sharpness_aware_gradient_of_a_quadratic(generator: Generator) -> None:
    """A (θ + ρ Aθ/‖Aθ‖), each member for itself; a member without a gradient has none, and θ is put back."""
    matrices = torch.randn((3, 4, 4), generator=generator, dtype=torch.float64)
    matrices = matrices + matrices.mT
    theta = torch.randn((3, 4), generator=generator, dtype=torch.float64)
    theta[1] = 0
    before, gradient = theta.clone(), torch.zeros_like(theta)
    losses = SharpnessAware(0.3).descend([theta], quadratic(matrices, theta, gradient))
    assert torch.equal(theta, before)
    torch.testing.assert_close(losses, torch.einsum("mi,mij,mj->m", theta, matrices, theta) / 2)
    for member in (0, 2):
        slope = matrices[member] @ theta[member]
        torch.testing.assert_close(
            gradient[member], matrices[member] @ (theta[member] + 0.3 * slope / slope.norm())
        )
    assert torch.equal(gradient[1], torch.zeros(4, dtype=torch.float64))


def test_steps_begin_exactly_at_the_iterate() -> None:
    """(θ + e) − e would not be θ: 1e8 swallows any e."""
    theta = torch.tensor([[1e8, 1.0, 1e-9]])
    before, gradient = theta.clone(), torch.zeros_like(theta)
    SharpnessAware(0.5).descend([theta], quadratic(torch.eye(3)[None] * 2, theta, gradient))
    assert torch.equal(theta, before)


@pytest.mark.parametrize("size", [1e-44, 1e-30, 1.0, 1e30])
def test_a_gradient_of_any_size_has_a_direction(size: float) -> None:
    gradients = [torch.tensor([[3.0, 0], [0, 0]]) * size, torch.tensor([[[4.0]], [[0]]]) * size]
    theta = [torch.zeros_like(g) for g in gradients]
    seen: list[Tensor] = []

    def differentiate() -> tuple[Tensor, Iterator[Tensor]]:
        seen.append(torch.cat([t.flatten(1) for t in theta], 1))
        return torch.zeros(2), iter(gradients)

    SharpnessAware(1.0).descend(theta, differentiate)
    torch.testing.assert_close(seen[1], torch.tensor([[0.6, 0, 0.8], [0, 0, 0]]), rtol=0.1, atol=0)


def test_norms_keep_what_is_not_a_number() -> None:
    norms = gradient_norms([torch.tensor([[3.0, 4.0], [torch.nan, 1], [0, 0]])])
    assert norms[0] == 5 and norms[1].isnan() and norms[2] == 1


def test_flooding_turns_back_below_the_level() -> None:
    """The gradient of |L − b| + b, each member for itself; the loss is L."""
    theta = torch.tensor([[3.0, 1.0], [0.1, 0.2], [0.0, 1.0]], dtype=torch.float64)
    gradient = torch.zeros_like(theta)
    losses = Flooding(0.5).descend([theta], quadratic(torch.eye(2).double().expand(3, 2, 2), theta, gradient))
    reference = theta.clone().requires_grad_()
    (expected,) = torch.autograd.grad(((reference.square().sum(1) / 2 - 0.5).abs() + 0.5).sum(), reference)
    assert torch.equal(gradient, expected) and losses.tolist() == pytest.approx([5, 0.025, 0.5])


# ---- images


@given(st.integers(0, 9), st.floats(0.01, 0.9), st.floats(0.001, 2), st.integers(1, 4), st.booleans())
def test_steps_stay_in_ball_and_box(seed: int, epsilon: float, size: float, steps: int, wild: bool) -> None:
    """From anywhere, whatever the gradient; one step of ε from x is FGSM to the bit."""
    generator = Generator().manual_seed(seed)
    x = torch.rand((2, 6), generator=generator)
    start = 5 * torch.randn((2, 6), generator=generator) if wild else x
    slope = torch.randn((2, 6), generator=generator)
    z = ascend(x, start, lambda images: slope, epsilon, size, steps)
    assert (z - x).abs().max() <= epsilon + 1e-6 and z.min() >= 0 and z.max() <= 1
    fgsm = FgsmTraining(epsilon).images(x, lambda images: slope, lambda radius: pytest.fail("drew"))
    assert torch.equal(fgsm, (x + epsilon * slope.sign()).clamp(0, 1))


ADVERSARIAL: list[tuple[str, dict[str, Any]]] = [
    ("fgsm-training", {"epsilon": 0.2}),
    ("fgsm-training", {"epsilon": 0.2, "random_start": True}),
    ("pgd-training", {"epsilon": 0.2, "steps": 4}),
    ("pgd-training", {"epsilon": 0.2, "steps": 4, "random_start": False}),
]


def images_of_a_step(
    patch: pytest.MonkeyPatch, engine: str, config: TrainingConfig, theta: np.ndarray, seen: int = 0
) -> tuple[Tensor, Tensor, Tensor, list[float]]:
    """Images before and after, labels, and the losses of a step from θ on the first 32 samples."""
    bench, told = make_bench(config), list[tuple[Tensor, Tensor]]()
    kind = METHODS[config.method]
    real = kind.images

    def spy(method: Any, x: Tensor, *others: Any) -> Tensor:
        z = real(method, x, *others)
        told.append((x.clone(), z.clone()))
        return z

    with patch.context() as inner:
        inner.setattr(kind, "images", spy)
        standpoint = Standpoint(theta)
        batch = torch.arange(32)[None]
        losses = make_engine(engine, [config], bench, [standpoint]).step(batch, seen)
    ((x, z),) = told
    if engine == STACKED:  # of one layer, so that features are pixels
        x, z = (t[0].mT.reshape(32, 1, 28, 28) for t in (x, z))
    return x, z, bench.data.labels[:32], losses


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("method", "arguments"), ADVERSARIAL)
def test_adversarial_images_raise_the_loss(
    monkeypatch: pytest.MonkeyPatch, engine: str, method: str, arguments: dict[str, Any]
) -> None:
    """The loss of a linear model is convex in the images, so that no step from x along its slope lowers it."""
    config = small_config(method=method, method_args=arguments)
    theta = beginning(config, make_bench(config).layout).theta
    x, z, y, losses = images_of_a_step(monkeypatch, engine, config, theta)
    assert torch.equal(x, load_dataset(SMALL).images[:32])
    assert (z - x).abs().max() <= 0.2 + 1e-6 and z.min() >= 0 and z.max() <= 1
    model = model_with("logistic", {}, unflatten(make_bench(config).layout, theta))
    clean, attacked = (functional.cross_entropy(model(images), y, reduction="none") for images in (x, z))
    assert (attacked > clean).all() if not arguments.get("random_start", method == "pgd-training") else True
    assert attacked.mean() > 1.5 * clean.mean()
    assert losses[0] == pytest.approx(attacked.mean().item(), rel=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("loss", ["cross_entropy", "cross_entropy_as_published"])
def test_confident_samples_are_attacked_too(monkeypatch: pytest.MonkeyPatch, engine: str, loss: str) -> None:
    """Where float32 cross-entropy has no gradient left: each pixel moves as log-odds say."""
    config = small_config(method="fgsm-training", method_args={"epsilon": 0.1}, loss=loss)
    train_set = load_dataset(SMALL)
    weights = torch.zeros(10, 784)
    for label in range(10):  # class means, as steep as it takes
        weights[label] = train_set.images[train_set.labels == label].mean(0).flatten()
    theta = torch.cat([300 * weights.flatten(), -150 * weights.square().sum(1)]).numpy()
    x, z, y, _ = images_of_a_step(monkeypatch, engine, config, theta)
    model = model_with("logistic", {}, unflatten(make_bench(config).layout, theta))
    images = x.double().requires_grad_()
    (slope,) = torch.autograd.grad(log_odds(model.double()(images), y).sum(), images)
    single = x.clone().requires_grad_()
    published = functional.cross_entropy(model.float()(single), y, reduction="none")
    (rounded,) = torch.autograd.grad(published.sum(), single)
    lost = (rounded.flatten(1) == 0).all(1)
    assert lost.float().mean() > 0.3
    moved, wanted = z[lost], (x + 0.1 * slope.sign()).clamp(0, 1)[lost]
    clear = slope[lost].abs() > 1e-3 * slope[lost].abs().amax((1, 2, 3), keepdim=True)
    assert (moved - wanted)[clear].abs().max() < 1e-6 and clear.float().mean() > 0.5


def test_noise_depends_on_seed_and_position(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = []
    for seed, seen in ((0, 0), (0, 32), (1, 0)):
        config = small_config(method="pgd-training", method_args={"steps": 1, "step_size": 1e-6}, seed=seed)
        theta = beginning(small_config(), make_bench(config).layout).theta
        draws.append([images_of_a_step(monkeypatch, engine, config, theta, seen)[1] for engine in ENGINES])
    for stacked, module in draws:
        torch.testing.assert_close(stacked, module, atol=3e-6, rtol=0)
    assert all((draws[0][0] - other[0]).abs().mean() > 0.05 for other in draws[1:])


# ---- what is refused


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("entropy-sgd", {}, "unknown method 'entropy-sgd'; choose one of plain, sam, flooding, swa"),
        ("plain", {"rho": 0.1}, "method 'plain' takes no argument rho; it takes none"),
        ("sam", {"radius": 0.1}, "method 'sam' takes no argument radius; it takes rho"),
        ("pgd-training", {"eps": 0.1}, "takes no argument eps; it takes epsilon, steps, step_size, random_start"),
        ("sam", {"rho": 0}, "rho = 0.0 cannot be; pass a number > 0"),
        ("sam", {"rho": math.nan}, "rho = nan of method 'sam' cannot be; pass a finite number"),
        ("sam", {"rho": "0.1"}, "rho = '0.1' of method 'sam'"),
        ("sam", {"rho": True}, "rho = True of method 'sam'"),
        ("flooding", {"level": -0.1}, "level = -0.1"),
        ("flooding", {"level": math.inf}, "level = inf"),
        ("swa", {"start": 1.5}, "start = 1.5 cannot be; pass a share"),
        ("swa", {"start": -0.5}, "start = -0.5"),
        ("fgsm-training", {"epsilon": 0}, "epsilon = 0"),
        ("fgsm-training", {"random_start": 1}, "random_start = 1 of method .* pass true or false"),
        ("pgd-training", {"steps": 0}, "steps = 0"),
        ("pgd-training", {"steps": 2.5}, "steps = 2.5 of method .* pass a whole number"),
        ("pgd-training", {"step_size": 0}, "step_size = 0"),
        ("pgd-training", {"step_size": None}, "step_size = None"),
        (3, {}, "method = 3"),
        ("sam", [0.1], r"method_args = \[0.1\]"),
    ],
)
def test_impossible_methods(method: Any, arguments: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        small_config(method=method, method_args=arguments)


def command_line(*arguments: object) -> Result:
    (script,) = entry_points(group="console_scripts", name="landscape")
    return CliRunner().invoke(script.load(), list(map(str, arguments)))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--method", "adversarial"),
        ("--method", "sam", "--method-args", '{"radius": 1}'),
        ("--method", "sam", "--method-args", '{"rho": -1}'),
        ("--method", "sam", "--method-args", "[1]"),
        ("--method", "sam", "--method-args", "{"),
        ("--method-args", '{"rho": 0.1}'),
    ],
)
def test_the_command_refuses_before_it_writes(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = command_line("train", *arguments, "--output", tmp_path / "run")
    assert result.exit_code != 0 and not list(tmp_path.iterdir())


def test_the_command_trains_by_a_method(tmp_path: Path) -> None:
    path = tmp_path / "run"
    arguments = ["--dataset", SMALL, "--model", "logistic", "--epochs", "1", "--method", "sam", "--method-args"]
    result = command_line("train", *arguments, '{"rho": 0.2}', "--json", "--output", path)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["inputs"]["method_args"] == {"rho": 0.2}
    assert open_run(path).description.config["method_args"] == {"rho": 0.2}
    refused = command_line("train", "--method", "adversarial", "--output", tmp_path / "other")
    assert all(f"'{name}'" in refused.stderr for name in METHODS)


def test_another_method_in_the_same_directory(tmp_path: Path) -> None:
    train(small_config(method="sam"), tmp_path)
    before = stored_files(tmp_path)
    for other in (small_config(), small_config(method="sam", method_args={"rho": 0.1})):
        with pytest.raises(RunConflictError, match="other settings"):
            train(other, tmp_path)
    assert stored_files(tmp_path) == before


# ---- settings and names


def test_stored_runs_are_what_they_were() -> None:
    """The plain runs that ship have the identity that their settings have now, without a key more."""
    for name in ("sgd_lr0.2_b16_seed0", "adam_lr0.0015_b128_seed4"):
        run = open_run(f"embedded:runs/{name}")
        config = TrainingConfig(run.description.model, run.description.model_args, **run.description.config)
        assert not {"method", "method_args"} & set(config.as_settings())
        described = describe(config, build_model(config.model, config.model_args), load_dataset(config.dataset))
        assert described.run_id == run.run_id and run_name(config) == name
    assert PLAIN == PLAIN_IN_TABLES


def test_settings_hold_all_arguments() -> None:
    """Given or not, whole or not: the same training has the same settings, and makes itself again."""
    spellings: list[dict[str, Any]] = [
        {},
        {"epsilon": 0.3},
        {"steps": 7, "random_start": True},
        {"step_size": 2.5 * 0.3 / 7},
    ]
    settings = [small_config(method="pgd-training", method_args=each).as_settings() for each in spellings]
    assert all(each == settings[0] for each in settings)
    assert set(settings[0]["method_args"]) == {"epsilon", "steps", "step_size", "random_start"}
    assert TrainingConfig(model="logistic", **settings[0]).as_settings() == settings[0]
    whole, point = (small_config(method="sam", method_args={"rho": rho}) for rho in (1, 1.0))
    assert json.dumps(whole.as_settings()) == json.dumps(point.as_settings()) and whole == point


def test_names_hold_the_arguments_that_were_given() -> None:
    names = {
        "sgd_lr0.1_b16_sam_seed0": TrainingConfig(method="sam"),
        "sgd_lr0.1_b16_sam_rho=0.05_seed0": TrainingConfig(method="sam", method_args={"rho": 0.05}),
        "sgd_lr0.1_b16_mlp_hidden=20_pgd-training_epsilon=0.1,random_start=false_seed3": TrainingConfig(
            model="mlp",
            model_args={"hidden": [20]},
            method="pgd-training",
            method_args={"random_start": False, "epsilon": 0.1},
            seed=3,
        ),
    }
    assert {name: run_name(config) for name, config in names.items()} == {name: name for name in names}


def test_a_grid_of_methods(tmp_path: Path) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(
        """
        [[sweep]]
        grid.method = ["plain", "sam", "swa"]
        [[sweep]]
        grid.method_args = [{rho = 0.1}, {rho = 0.2}]
        fixed.method = "sam"
        """
    )
    assert [(c.method, dict(c.method_args)) for c in read_sweep(file)] == [
        ("plain", {}),
        ("sam", {}),
        ("swa", {}),
        ("sam", {"rho": 0.1}),
        ("sam", {"rho": 0.2}),
    ]
    file.write_text('fixed.method = "sam"\nfixed.method_args.rh = 1')
    with pytest.raises(ConfigurationError, match=r"grid\.toml: method 'sam' takes no argument rh"):
        read_sweep(file)


# ---- what is forecast


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 4},
        {"epochs": 3, "snapshot_every": N, "method_args": {"start": 0}},
        {"epochs": 4, "optimizer": "adam", "snapshot_every": 1, "batch_size": 3, "method_args": {"start": 0.5}},
        {"epochs": 2, "momentum": 0.9, "snapshot_every": 64, "batch_size": 100},
    ],
)
def test_bytes_and_snapshots_are_those_of_the_run(tmp_path: Path, settings: dict[str, Any]) -> None:
    config = small_config(method="swa", **settings)
    train(config, tmp_path)
    forecast, run = storage_of(config), open_run(tmp_path)
    files = sorted((tmp_path / "segments").iterdir())
    assert forecast.snapshots == len(run)
    assert forecast.num_bytes == pytest.approx(sum(file.stat().st_size for file in files), rel=0.002)
    assert sum(len(rows_of_segments(config, epoch, N)) for epoch in range(config.epochs)) == len(files)
