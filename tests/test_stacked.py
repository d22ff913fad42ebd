"""Networks as one stack: gradients of autograd, bits that do not depend on the company, runs trained together."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import COUNTS, SMALL, interrupt, segment_names, small_config, small_mnist, stored_files
from torch import Generator, Tensor, nn

from landscape.errors import ConfigurationError, CorruptSnapshotError, LandscapeError, ModelError, SnapshotError
from landscape.problem.datasets import DATASETS, load_dataset
from landscape.problem.losses import LOSSES, loss_by_name
from landscape.problem.models import build_model, initialise
from landscape.problem.network import ravel
from landscape.problem.stacked_network import Samples, StackedNetwork, stackable
from landscape.snapshots import RunWriter, open_run
from landscape.training.engines import MODULE, STACKED
from landscape.training.evaluate import evaluate
from landscape.training.loop import TrainingResult, train, train_together
from landscape.training.optimizers import build_optimizer, optimizer_state
from landscape.training.stacked import evaluate_stacked, losses_and_gradient
from landscape.training.stacked_optimizers import restore_state, stacked_optimizer, state_of

N = COUNTS["train"]


pytestmark = pytest.mark.usefixtures("small_data")


def initialised(name: str, arguments: dict[str, Any], seed: int) -> nn.Sequential:
    model = build_model(name, arguments)
    initialise(model, Generator().manual_seed(seed))
    return model


def stacked(models: list[nn.Sequential], image: tuple[int, ...]) -> tuple[StackedNetwork, Tensor]:
    network = StackedNetwork(models[0], image)
    return network, network.stack(torch.stack([ravel(model) for model in models]))


def flat(network: StackedNetwork, x: Tensor) -> Tensor:
    """Images of each member ``(M, B, C, H, W)`` as layers take them."""
    return network.features(x.flatten(0, 1)).view(len(x), x.shape[1], -1).mT.contiguous()


# ---- gradients


@st.composite
def networks(draw: st.DrawFn) -> tuple[str, dict[str, Any], tuple[int, ...]]:
    name = draw(st.sampled_from(["cnn", "mlp", "logistic"]))
    channels, size = draw(st.integers(1, 3)), draw(st.sampled_from([16, 20, 28]))
    arguments: dict[str, Any] = {"in_channels": channels, "image_size": size}
    arguments["num_classes"] = draw(st.integers(2, 7))
    width = st.integers(1, 9)
    if name == "cnn":
        arguments |= {"channels": [draw(width), draw(width)], "hidden": draw(width)}
    if name == "mlp":
        arguments["hidden"] = draw(st.lists(width, max_size=3))
    return name, arguments, (channels, size, size)


@given(networks(), st.integers(1, 4), st.integers(1, 5), st.sampled_from(sorted(LOSSES)), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_gradients_are_those_of_autograd(
    network: tuple[str, dict[str, Any], tuple[int, ...]], members: int, batch: int, loss: str, seed: int
) -> None:
    """By parameters and by images, in float64."""
    name, arguments, image = network
    generator = Generator().manual_seed(seed)
    models = [initialised(name, arguments, seed + i).double() for i in range(members)]
    x = torch.rand((members, batch, *image), generator=generator, dtype=torch.float64)
    y = torch.randint(arguments["num_classes"], (members, batch), generator=generator)
    stack, theta = stacked(models, image)
    with torch.no_grad():
        losses, flowing = losses_and_gradient(stack.logits(theta, flat(stack, x)), y, loss_by_name(loss))
        by_image = stack.input_gradient(flowing).clone()
        by_theta = torch.full_like(theta, torch.nan)
        stack.logits(theta, flat(stack, x))
        stack.backward(flowing, into=by_theta)
    for i, model in enumerate(models):
        images = x[i].clone().requires_grad_()
        expected = loss_by_name(loss)(model(images), y[i])
        *parts, last = torch.autograd.grad(expected.sum(), [*model.parameters(), images])
        gradient = torch.cat([part.reshape(-1) for part in parts])
        torch.testing.assert_close(losses[i], expected.detach())
        torch.testing.assert_close(by_theta[i, : stack.num_parameters], gradient)
        torch.testing.assert_close(by_image[i].T, stack.features(last))


def pooled(convolution: nn.Module, pool: nn.Module, features: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.ReLU(), pool, nn.Flatten(), nn.Linear(features, 3))


OTHERS: dict[str, tuple[nn.Module, int]] = {
    "odd image": (pooled(nn.Conv2d(1, 2, 5), nn.MaxPool2d(2), 242), 27),
    "even kernel": (pooled(nn.Conv2d(1, 2, 4), nn.MaxPool2d(2), 288), 28),
    "stride": (pooled(nn.Conv2d(1, 2, 5, 2), nn.MaxPool2d(2), 72), 28),
    "padding": (pooled(nn.Conv2d(1, 2, 5, padding=2), nn.MaxPool2d(2), 392), 28),
    "convolution without bias": (pooled(nn.Conv2d(1, 2, 5, bias=False), nn.MaxPool2d(2), 288), 28),
    "pool of 3": (pooled(nn.Conv2d(1, 2, 5), nn.MaxPool2d(3), 128), 28),
    "overlapping pool": (pooled(nn.Conv2d(1, 2, 5), nn.MaxPool2d(2, 1), 1058), 28),
    "no pool": (nn.Sequential(nn.Conv2d(1, 2, 5), nn.ReLU(), nn.Flatten(), nn.Linear(1152, 3)), 28),
    "tanh": (nn.Sequential(nn.Flatten(), nn.Linear(784, 5), nn.Tanh(), nn.Linear(5, 3)), 28),
    "no bias": (nn.Sequential(nn.Flatten(), nn.Linear(784, 5, bias=False)), 28),
    "no layer": (nn.Sequential(nn.Flatten()), 28),
    "no sequence": (nn.Flatten(), 28),
}


def test_pooling_takes_the_first_among_equals() -> None:
    """Of an empty image all windows are equal, and autograd's gradient goes to the first."""
    model = pooled(nn.Conv2d(1, 2, 5), nn.MaxPool2d(2), 288).double()
    images = torch.zeros((1, 1, 28, 28), dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        initialise(model, Generator().manual_seed(0))
        next(model.parameters()).abs_()
        model[0].bias.fill_(1)  # type: ignore[operator]
    logits = model(images)
    (expected,) = torch.autograd.grad(logits[:, 0].sum(), images)
    with torch.no_grad():
        network, theta = stacked([model], (1, 28, 28))
        network.logits(theta, flat(network, images[None]))
        found = network.input_gradient(torch.tensor([[[1.0, 0, 0]]], dtype=torch.float64))
    torch.testing.assert_close(found[0].T, network.features(expected))


@torch.no_grad()
def test_values_leave_nothing_that_a_backward_pass_could_take_for_its_own() -> None:
    model = pooled(nn.Conv2d(1, 2, 5), nn.MaxPool2d(2), 288)
    network, theta = stacked([model], (1, 28, 28))
    x = flat(network, torch.rand(1, 3, 1, 28, 28, generator=Generator().manual_seed(0)))
    logits = network.logits(theta, x)
    assert torch.allclose(network.logits(theta, x, differentiable=False), logits)
    with pytest.raises(ValueError, match="unpack"):
        network.input_gradient(torch.ones_like(logits))


@pytest.mark.parametrize("name", OTHERS)
def test_other_layers_are_not_stacked(name: str) -> None:
    model, size = OTHERS[name]
    image = (1, size, size)
    model(torch.zeros(1, *image))
    assert not stackable(model, image)
    with pytest.raises(ModelError, match="one at a time"):
        StackedNetwork(model, image)


@pytest.mark.parametrize("loss", ["cross_entropy", "cross_entropy_as_published"])
@pytest.mark.parametrize("batch", [1, 2, 5, 7, 16, 31, 96, 128])
def test_bits_do_not_depend_on_the_company(batch: int, loss: str) -> None:
    models = [initialised("cnn", {}, seed) for seed in range(6)]
    data = load_dataset("mnist")
    chosen = torch.randint(len(data), (6, batch), generator=Generator().manual_seed(batch))
    losses, gradients = gradients_of(models, data.images[chosen], data.labels[chosen], loss)
    for company in ([0], [3], [5, 1], [2, 0, 4]):
        some = [models[i] for i in company]
        again = gradients_of(some, data.images[chosen[company]], data.labels[chosen[company]], loss)
        assert torch.equal(again[0], losses[company]) and torch.equal(again[1], gradients[company])


@torch.no_grad()
def gradients_of(models: list[nn.Sequential], x: Tensor, y: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    network, theta = stacked(models, tuple(x.shape[2:]))
    losses, flowing = losses_and_gradient(network.logits(theta, flat(network, x)), y, LOSSES[loss])
    gradient = torch.zeros_like(theta)
    network.backward(flowing, into=gradient)
    return losses, gradient


def test_metrics_are_those_of_the_network_by_itself() -> None:
    """In float64, where no rounding decides about the sign of a gradient."""
    data, test = load_dataset(SMALL).double(), load_dataset(SMALL, "test").double()
    for name in ("cnn", "mlp"):
        model = initialised(name, {}, 1).double()
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(40):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data.images), data.labels).backward()
            optimizer.step()
        network, theta = stacked([model], (1, 28, 28))
        of_train, of_test = (Samples(network.features(d.images), d.labels) for d in (data, test))
        found, expected = (
            evaluate_stacked(network, theta, of_train, of_test, 0.1),
            evaluate(model, data, test, 0.1),
        )
        assert 0.1 < expected["fgsm_accuracy_exact"] < expected["clean_accuracy"] < 1
        assert found == pytest.approx(expected, rel=1e-12)


# ---- optimizers

RATES = [
    [{"learning_rate": 0.1}, {"learning_rate": 0.003}],
    [{"momentum": 0.9}, {"learning_rate": 0.02}, {"learning_rate": 0.5, "momentum": 0.5}],
    [{"optimizer": "adam", "learning_rate": rate} for rate in (0.001, 0.1, 0.02)],
]


@pytest.mark.parametrize("changes", RATES)
def test_steps_are_those_of_pytorch(changes: list[dict[str, Any]]) -> None:
    """Twenty steps in float64, with gradients of many sizes, and the state after them."""
    configs = [small_config(**change) for change in changes]
    generator = Generator().manual_seed(5)
    theta = torch.randn((len(configs), 12), generator=generator, dtype=torch.float64)
    rows = [nn.Parameter(row.clone()) for row in theta]
    ours, theirs = (
        stacked_optimizer(configs, theta),
        [build_optimizer(c, [r]) for c, r in zip(configs, rows, strict=True)],
    )
    for number in range(20):
        gradient = torch.randn(theta.shape, generator=generator, dtype=torch.float64) * 10 ** (number % 7 - 4)
        for row, optimizer, part in zip(rows, theirs, gradient.clone(), strict=True):
            row.grad = part
            optimizer.step()
        ours.step(theta, gradient)
    torch.testing.assert_close(theta, torch.stack([row.detach() for row in rows]), rtol=1e-11, atol=1e-13)
    for member, (config, optimizer) in enumerate(zip(configs, theirs, strict=True)):
        found, expected = state_of(ours, member, config, [5, 7]), optimizer_state(optimizer)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], np.repeat(values, 2) if name == "step" else values, rtol=1e-11)


@pytest.mark.parametrize("changes", RATES)
def test_state_goes_back_to_any_place(changes: list[dict[str, Any]]) -> None:
    configs = [small_config(**change) for change in changes]
    theta = torch.randn((len(configs), 12), generator=Generator().manual_seed(5))
    optimizer = stacked_optimizer(configs, theta)
    optimizer.step(theta.clone(), theta.clone())
    states = [state_of(optimizer, member, config, [5, 7]) for member, config in enumerate(configs)]
    other = stacked_optimizer(configs[::-1], theta)
    for place, (config, state) in enumerate(zip(configs[::-1], states[::-1], strict=True)):
        restore_state(other, place, config, [5, 7], state)
        again = state_of(other, place, config, [5, 7])
        assert again.keys() == state.keys()
        assert all(np.array_equal(again[name], state[name]) for name in state)
    adam = small_config(optimizer="adam")
    for damaged in ({"exp_avg": np.zeros(12)}, {name: np.zeros(3) for name in ("exp_avg", "exp_avg_sq", "step")}):
        with pytest.raises(CorruptSnapshotError, match="optimizer state"):
            restore_state(stacked_optimizer([adam], theta[:1]), 0, adam, [5, 7], damaged)


# ---- runs that are trained together

TOGETHER: dict[str, list[dict[str, Any]]] = {
    "sgd": [{"seed": 0}, {"seed": 1, "learning_rate": 0.5}, {"seed": 2, "momentum": 0.9}],
    "adam": [{"optimizer": "adam", "learning_rate": rate, "seed": 3} for rate in (0.001, 0.01)],
    "cnn": [{"model": "cnn", "epochs": 1, "seed": seed} for seed in range(3)],
    "one after another": [
        {"model": "cnn", "batch_size": 1, "epochs": epochs, "snapshot_every": 100} for epochs in (1, 2)
    ],
    "last batch of one": [{"batch_size": 73, "seed": seed} for seed in (1, 2)],
    "one diverges": [{"model": "cnn", "learning_rate": rate, "snapshot_every": 16} for rate in (0.1, 1e4, 0.2)],
    "all diverge": [{"learning_rate": rate, "snapshot_every": 16} for rate in (1e37, 3e38)],
}


_LONG = ("one after another", "one diverges")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.thorough) if name in _LONG else name for name in TOGETHER]
)
def test_together_as_alone(tmp_path: Path, name: str) -> None:
    """Every byte of a run is that of the run by itself, and so is what is returned."""
    configs = [small_config(**changes) for changes in TOGETHER[name]]
    results = train_together([(config, tmp_path / f"together-{i}") for i, config in enumerate(configs)])
    for i, (config, result) in enumerate(zip(configs, results, strict=True)):
        alone = train(config, tmp_path / f"alone-{i}")
        assert isinstance(result, TrainingResult) and result.outcome == alone.outcome
        assert (result.reason, result.samples_seen) == (alone.reason, alone.samples_seen)
        assert stored_files(tmp_path / f"together-{i}") == stored_files(tmp_path / f"alone-{i}")
        assert (open_run(tmp_path / f"alone-{i}").provenance or {})["engine"] == STACKED


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9}, {"optimizer": "adam", "learning_rate": 0.002}])
def test_stopped_one_by_one_and_resumed_together(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Runs that stand at different samples meet, and end in the bytes that they would have had."""
    configs = [small_config(seed=seed, snapshot_every=16, **settings) for seed in range(3)]
    runs = [(config, tmp_path / f"cut-{config.seed}") for config in configs]
    for (config, path), after in zip(runs, (0, 700, 1300), strict=True):
        interrupt(config, path, after)
    told: list[int] = []
    epochs: list[tuple[str, float]] = []
    results = train_together(
        runs, advance=told.append, report=lambda path, metrics: epochs.append((path.name, metrics["epoch"]))
    )
    assert all(isinstance(result, TrainingResult) for result in results)
    assert sum(told) == 3 * 3 * N and len(set(epochs)) == len(epochs) == 6
    for config, path in runs:
        train(config, tmp_path / f"whole-{config.seed}")
        assert stored_files(path) == stored_files(tmp_path / f"whole-{config.seed}")


def test_other_settings_are_not_stacked(tmp_path: Path) -> None:
    configs = [small_config(), small_config(batch_size=8, snapshot_every=64)]
    with pytest.raises(ConfigurationError, match="batch_size, snapshot_every"):
        train_together([(config, tmp_path / str(i)) for i, config in enumerate(configs)])
    assert not list(tmp_path.iterdir())


def test_an_error_of_one_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cannot be opened, one meets a full disk in its second epoch."""
    train(small_config(seed=9), tmp_path / "0")
    real = RunWriter.append

    def append(writer: RunWriter, segment: Any) -> Path:
        if writer.path.name == "1" and len(segment_names(writer.path)) == 1:
            with monkeypatch.context() as patch:

                def fail(*arguments: object) -> None:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

                patch.setattr(os, "fsync", fail)
                return real(writer, segment)
        return real(writer, segment)

    runs = [(small_config(seed=seed), tmp_path / str(seed)) for seed in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(RunWriter, "append", append)
        results = train_together(runs)
    assert isinstance(results[0], LandscapeError) and "other settings" in str(results[0])
    assert isinstance(results[1], SnapshotError) and os.strerror(errno.ENOSPC) in str(results[1])
    assert isinstance(results[2], TrainingResult) and results[2].outcome == "completed"
    assert len(segment_names(tmp_path / "1")) == 1
    train(*runs[1])
    train(runs[1][0], tmp_path / "whole")
    assert stored_files(tmp_path / "1") == stored_files(tmp_path / "whole")


# ---- networks by themselves


def odd_mnist(split: str) -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = small_mnist(split)
    return pixels[..., :27, :27], labels


def test_runs_that_cannot_be_stacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "odd", odd_mnist)
    arguments = {"image_size": 27}
    configs = [small_config(model="cnn", model_args=arguments, dataset="odd", seed=seed) for seed in range(2)]
    results = train_together([(config, tmp_path / str(config.seed)) for config in configs])
    assert [result.outcome for result in results if isinstance(result, TrainingResult)] == ["completed"] * 2
    train(configs[1], tmp_path / "alone")
    assert stored_files(tmp_path / "1") == stored_files(tmp_path / "alone")
    assert (open_run(tmp_path / "1").provenance or {})["engine"] == MODULE


def test_a_run_goes_on_as_it_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of a network by itself stays one, also in the company of a stack."""
    config = small_config()
    with monkeypatch.context() as patch:
        patch.setattr("landscape.training.engines.stackable", lambda *arguments: False)
        train(config, tmp_path / "whole")
        interrupt(config, tmp_path / "cut", N + 100)
    train_together([(config, tmp_path / "cut"), (small_config(seed=1), tmp_path / "other")])
    train(config, tmp_path / "stacked")
    assert stored_files(tmp_path / "cut") == stored_files(tmp_path / "whole")
    assert not set(segment_names(tmp_path / "cut")) & set(segment_names(tmp_path / "stacked"))
