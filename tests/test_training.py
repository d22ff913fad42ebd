"""The training protocol: what is stored, when, and that nothing but the configuration decides it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import COUNTS, SMALL, StopHereError, interrupt, segment_names, small_config, stored_files
from torch import Tensor, nn
from torch.nn import functional

from landscape.errors import (
    ConfigurationError,
    CorruptSnapshotError,
    DatasetError,
    ModelError,
    RunBusyError,
    RunConflictError,
)
from landscape.problem.datasets import load_dataset
from landscape.problem.model_sources import model_with
from landscape.problem.models import build_model, initialise
from landscape.snapshots import Role, Run, RunWriter, load_snapshot, open_run, snapshot_of, unflatten, verify_run
from landscape.training import engines, loop, progress
from landscape.training.conditions import torch_threads
from landscape.training.config import TrainingConfig, generator
from landscape.training.evaluate import evaluate
from landscape.training.loop import epoch_order, train
from landscape.training.optimizers import build_optimizer, optimizer_state, restore_optimizer_state

N = COUNTS["train"]


pytestmark = pytest.mark.usefixtures("small_data")


def run_of(path: Path, **changes: Any) -> Run:
    train(small_config(**changes), path)
    return open_run(path)


def rows(run: Run, role: Role) -> list[int]:
    return [int(row) for row in np.flatnonzero(run.role & int(role))]


# ---- what decides a run


OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "sgd"},
    {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.02},
    {"optimizer": "adam", "learning_rate": 0.002},
]


@pytest.mark.parametrize("settings", [*OPTIMIZERS, {"model": "cnn", "epochs": 1, "optimizer": "adam"}])
def test_the_configuration_decides_every_byte(tmp_path: Path, settings: dict[str, Any]) -> None:
    torch.manual_seed(1)
    train(small_config(**settings), tmp_path / "one")
    torch.manual_seed(2)
    train(small_config(**settings), tmp_path / "two")
    assert stored_files(tmp_path / "one") == stored_files(tmp_path / "two")
    train(small_config(**settings, seed=1), tmp_path / "other")
    assert not set(segment_names(tmp_path / "one")) & set(segment_names(tmp_path / "other"))
    assert verify_run(tmp_path / "one").ok


@pytest.mark.parametrize("settings", OPTIMIZERS)
def test_a_run_is_a_plain_loop(tmp_path: Path, settings: dict[str, Any]) -> None:
    """The last weights are those of twenty lines of PyTorch."""
    config = small_config(**settings)
    data, model = load_dataset(SMALL), build_model(config.model)
    initialise(model, generator(config.seed, "parameters"))
    optimizers: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "sgd": lambda: torch.optim.SGD(model.parameters(), config.learning_rate, config.momentum),
        "adam": lambda: torch.optim.Adam(model.parameters(), config.learning_rate),
    }
    optimizer = optimizers[config.optimizer]()
    for epoch in range(config.epochs):
        for batch in epoch_order(config, epoch, N).split(config.batch_size):
            optimizer.zero_grad()
            functional.cross_entropy(model(data.images[batch]), data.labels[batch]).backward()
            optimizer.step()
    run_of(tmp_path / "run", **settings)
    stored = load_snapshot(tmp_path / "run").parameters
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(stored[name], parameter.detach(), rtol=1e-4, atol=1e-5)


def test_each_epoch_is_a_permutation_of_its_own() -> None:
    config = small_config()
    orders = [epoch_order(config, epoch, N) for epoch in range(3)] + [epoch_order(small_config(seed=1), 0, N)]
    assert all(torch.equal(order.sort().values, torch.arange(N)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 4


# ---- what is stored


PROTOCOLS: list[dict[str, Any]] = [
    {},
    {"batch_size": 48},  # 512 = 10 · 48 + 32
    {"batch_size": 48, "snapshot_every": 100},
    {"batch_size": 16, "snapshot_every": 16},  # every step
    {"batch_size": 64, "snapshot_every": 16},  # several multiples in one step
    {"batch_size": 1000, "snapshot_every": 300},  # the whole epoch in one batch
    {"snapshot_every": 10**6},  # ends of epochs only
    {"batch_size": 7, "snapshot_every": 13, "epochs": 2},  # several segments in an epoch
]


def expected_rows(config: TrainingConfig) -> list[tuple[int, int, int, int]]:
    """(samples, step, epoch, role) of all rows, by counting; a segment's first row may repeat the last one's."""
    found: dict[int, list[int]] = {}
    step = seen = 0
    for epoch in range(config.epochs):
        sizes = [config.batch_size] * (N // config.batch_size) + [N % config.batch_size]
        for size in filter(None, sizes):
            interval = any(m % config.snapshot_every == 0 for m in range(seen + 1, seen + size + 1))
            last = seen + size == (epoch + 1) * N
            if interval:
                found.setdefault(step, [seen, epoch, 0])[2] |= Role.BEFORE
            step, seen = step + 1, seen + size
            if interval or last:
                role = (Role.AFTER if interval else 0) | (Role.EPOCH_END if last else 0)
                found[step] = [seen, epoch + last, role]
    return [(samples, step, epoch, role) for step, (samples, epoch, role) in found.items()]


@pytest.mark.parametrize("settings", PROTOCOLS)
def test_pairs_stand_around_every_multiple(tmp_path: Path, settings: dict[str, Any]) -> None:
    run = run_of(tmp_path / "run", **settings)
    merged: dict[int, tuple[int, int, int, int]] = {}
    for columns in zip(run.samples_seen, run.step, run.epoch, run.role, strict=True):
        samples, step, epoch, role = map(int, columns)
        merged[step] = (samples, step, epoch, role | (merged[step][3] if step in merged else 0))
    assert list(merged.values()) == expected_rows(small_config(**settings))


@pytest.mark.parametrize("settings", PROTOCOLS)
def test_a_pair_is_one_step(tmp_path: Path, settings: dict[str, Any]) -> None:
    """The difference is −lr times the gradient of that batch, and its loss stands beside the later one."""
    config, run, data = small_config(**settings), run_of(tmp_path / "run", **settings), load_dataset(SMALL)
    after = rows(run, Role.AFTER)
    assert bool(after) == (config.snapshot_every < config.epochs * N)
    for row in after[:: max(1, len(after) // 8)]:
        before, now = run.read(row - 1), run.read(row)
        assert run.step[row] == run.step[row - 1] + 1 and run.role[row - 1] & Role.BEFORE
        seen, until = int(run.samples_seen[row - 1]), int(run.samples_seen[row])
        order = epoch_order(config, seen // N, N)
        batch = order[seen % N : seen % N + until - seen]
        model = model_with(config.model, {}, unflatten(run.description.layout, before))
        loss = functional.cross_entropy(model(data.images[batch]), data.labels[batch])
        gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))])
        np.testing.assert_allclose(now - before, -config.learning_rate * gradient.numpy(), atol=2e-7)
        assert run.batch_loss[row] == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize("settings", [*OPTIMIZERS, {"model": "cnn", "batch_size": 48, "seed": 4}])
def test_metrics_are_those_of_the_stored_weights(tmp_path: Path, settings: dict[str, Any]) -> None:
    run = run_of(tmp_path / "run", **settings)
    ends = rows(run, Role.EPOCH_END)
    assert run.metrics["epoch"].tolist() == run.epoch[ends].tolist() == [1, 2, 3]
    assert run.samples_seen[ends].tolist() == [N, 2 * N, 3 * N]
    for place, row in enumerate(ends):
        snapshot = snapshot_of(run, row)
        model = model_with(snapshot.model, snapshot.model_args, snapshot.parameters)
        again = evaluate(model, load_dataset(SMALL), load_dataset(SMALL, "test"), 0.3)
        stored = {name: run.metrics[name][place] for name in again}
        assert stored.pop("train_loss") == pytest.approx(again.pop("train_loss"), rel=1e-6)
        # A gradient's sign, where it is rounding, may differ between the two ways to compute it.
        assert stored == pytest.approx(again, abs=2 / COUNTS["test"])


def test_step_norm_is_that_of_the_last_step(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", snapshot_every=16)
    for place, row in enumerate(rows(run, Role.EPOCH_END)):
        step = run.read(row).astype(np.float64) - run.read(row - 1)
        assert run.metrics["step_norm"][place] == pytest.approx(np.linalg.norm(step), rel=1e-12)


def test_progress_adds_up(tmp_path: Path) -> None:
    told: list[int] = []
    epochs: list[float] = []
    result = train(
        small_config(), tmp_path, advance=told.append, report=lambda metrics: epochs.append(metrics["epoch"])
    )
    assert sum(told) == 3 * N == result.samples_seen and epochs == [1, 2, 3]
    assert (result.outcome, result.epochs, result.path) == ("completed", 3, tmp_path)


# ---- resuming


def test_a_completed_run_returns_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(small_config(), tmp_path)
    before = stored_files(tmp_path)
    monkeypatch.setattr(loop, "make_engine", lambda *arguments: pytest.fail("trained again"))
    assert train(small_config(), tmp_path, threads=2) == first
    assert stored_files(tmp_path) == before


@pytest.mark.parametrize("changes", [{"seed": 1}, {"epochs": 4}, {"model": "mlp"}, {"epsilon": 0.2}])
def test_another_run_in_the_same_directory(tmp_path: Path, changes: dict[str, Any]) -> None:
    train(small_config(), tmp_path)
    before = stored_files(tmp_path)
    with pytest.raises(RunConflictError, match="other settings"):
        train(small_config(**changes), tmp_path)
    assert stored_files(tmp_path) == before


def test_a_run_that_is_being_written(tmp_path: Path) -> None:
    def inside(metrics: dict[str, float]) -> None:
        with pytest.raises(RunBusyError):
            train(small_config(), tmp_path)

    assert train(small_config(), tmp_path, report=inside).outcome == "completed"


def test_other_conditions_need_permission(tmp_path: Path) -> None:
    interrupt(small_config(), tmp_path, N + 20)
    with pytest.raises(RunConflictError, match="threads was 1, is 2"):
        train(small_config(), tmp_path, threads=2)
    assert train(small_config(), tmp_path, threads=2, allow_inexact=True).outcome == "completed"


@pytest.mark.parametrize("settings", OPTIMIZERS)
@pytest.mark.parametrize("after", [1, 150, N, N + 1, 3 * N])
def test_resumed_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], after: int
) -> None:
    monkeypatch.setattr(progress, "SEGMENT_SNAPSHOTS", 4)  # two segments an epoch
    config = small_config(**settings)
    interrupt(config, tmp_path / "cut", after)
    train(config, tmp_path / "cut")
    train(config, tmp_path / "whole")
    assert len(segment_names(tmp_path / "whole")) == 6
    assert stored_files(tmp_path / "cut") == stored_files(tmp_path / "whole")


def test_state_of_an_optimizer_survives_bit_for_bit() -> None:
    config = small_config(model="cnn", optimizer="adam")
    model = build_model("cnn")
    initialise(model, generator(0))
    model.to(memory_format=torch.channels_last)
    optimizer = build_optimizer(config, model.parameters())
    assert optimizer_state(optimizer) == {}
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.rand(4, 1, 28, 28, generator=generator(1))).square().sum().backward()
        optimizer.step()
    restored = build_optimizer(config, model.parameters())
    restore_optimizer_state(restored, optimizer_state(optimizer))
    for parameter in model.parameters():
        old, new = optimizer.state[parameter], restored.state[parameter]
        assert set(old) == set(new) == {"step", "exp_avg", "exp_avg_sq"}
        for name, value in old.items():
            assert torch.equal(value, new[name]) and value.dtype == new[name].dtype
            assert value.stride() == new[name].stride() and value.data_ptr() != new[name].data_ptr()


@pytest.mark.parametrize("name", ["exp_avg", "step"])
def test_state_that_does_not_fit(name: str) -> None:
    model = build_model("logistic")
    with pytest.raises(CorruptSnapshotError, match=name):
        restore_optimizer_state(
            build_optimizer(small_config(optimizer="adam"), model.parameters()), {name: np.zeros(3, np.float32)}
        )


# ---- divergence


def stored_is_finite(run: Run) -> bool:
    return all(np.isfinite(vector).all() for vector, _ in run.read_all())


# Learning rates at which the loss or the weights leave float32, early or late.
EXPLODING: list[dict[str, Any]] = [
    {"model": "cnn", "learning_rate": 1e4, "snapshot_every": 16},  # within the first epoch, after some pairs
    {"model": "cnn", "learning_rate": 1e4, "snapshot_every": 10**6},  # before any snapshot
    {"learning_rate": 1e37, "snapshot_every": 16},
    {"learning_rate": 3e38, "snapshot_every": 16},
]


@pytest.mark.parametrize("settings", EXPLODING)
def test_explosion_is_an_outcome(tmp_path: Path, settings: dict[str, Any]) -> None:
    config = small_config(**settings)
    result = train(config, tmp_path)
    assert result.outcome == "diverged" and result.epochs == 0
    assert "not finite" in result.reason or "loss became" in result.reason
    assert train(config, tmp_path) == result
    if config.snapshot_every < N:
        run = open_run(tmp_path)
        assert stored_is_finite(run) and len(run) >= 2 and run.outcome is not None
        assert run.outcome["samples_seen"] == run.samples_seen[-1] == result.samples_seen
        assert run.outcome["steps"] == run.step[-1]
        assert verify_run(tmp_path).ok


@pytest.mark.parametrize("settings", EXPLODING)
def test_killed_between_the_last_segment_and_the_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    config = small_config(**settings)
    expected = train(config, tmp_path / "whole")

    def stop(*arguments: object) -> None:
        raise StopHereError

    with monkeypatch.context() as patch, pytest.raises(StopHereError):
        patch.setattr(RunWriter, "finish", stop)
        train(config, tmp_path / "cut")
    result = train(config, tmp_path / "cut")
    assert (result.reason, result.samples_seen) == (expected.reason, expected.samples_seen)
    assert stored_files(tmp_path / "cut") == stored_files(tmp_path / "whole")


def test_explosion_in_a_later_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sealed before stays, the epoch in progress ends at its last finite pair."""
    calls = 0

    def exploding(logits: Tensor, labels: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return functional.cross_entropy(logits, labels, reduction="none") * (torch.inf if calls == 45 else 1)

    monkeypatch.setattr(engines, "loss_by_name", lambda name: exploding)
    result = train(small_config(), tmp_path)
    run = open_run(tmp_path)
    assert (result.outcome, result.epochs, result.samples_seen) == ("diverged", 1, 40 * 16)
    assert f"after {44 * 16} samples (epoch 2)" in result.reason
    assert run.metrics["epoch"].tolist() == [1] and run.step[-1] == 40 and stored_is_finite(run)


def test_chance_level_is_divergence(tmp_path: Path) -> None:
    config = small_config(model="cnn", learning_rate=1e-9, epochs=5)
    result = train(config, tmp_path)
    run = open_run(tmp_path)
    assert (run.metrics["clean_accuracy"] <= 0.15).all()
    assert (result.outcome, result.epochs, result.samples_seen) == ("diverged", 3, 3 * N)
    assert "chance level" in result.reason
    assert run.metrics["epoch"].tolist() == [1, 2, 3]


def test_a_run_that_learns_late_is_not_diverged(tmp_path: Path) -> None:
    """Two epochs at chance level are not three."""
    run = run_of(tmp_path, model="cnn", seed=0)
    assert run.metrics["clean_accuracy"][0] <= 0.15 < run.metrics["clean_accuracy"][2]
    assert run.outcome is not None and run.outcome["outcome"] == "completed"


# ---- what is refused, and what is left alone


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "rmsprop"}, "unknown optimizer 'rmsprop'"),
        ({"loss": "hinge"}, "unknown loss 'hinge'"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"batch_size": -16}, "batch_size = -16"),
        ({"epochs": 0}, "epochs = 0"),
        ({"snapshot_every": 0}, "snapshot_every = 0"),
        ({"learning_rate": 0.0}, "learning_rate = 0"),
        ({"learning_rate": -0.1}, "learning_rate = -0.1"),
        ({"learning_rate": float("nan")}, "learning_rate = nan"),
        ({"learning_rate": float("inf")}, "learning_rate = inf"),
        ({"epsilon": -0.3}, "epsilon = -0.3"),
        ({"momentum": 1.0}, "momentum = 1.0"),
        ({"momentum": -0.1}, "momentum = -0.1"),
        ({"momentum": 0.9, "optimizer": "adam"}, "for sgd only"),
        ({"batch_size": 16.5}, "batch_size = 16.5"),
        ({"epochs": True}, "epochs = True"),
        ({"learning_rate": "0.1"}, "learning_rate = '0.1'"),
        ({"seed": 0.5}, "seed = 0.5"),
        ({"model": 3}, "model = 3"),
        ({"model_args": [1]}, r"model_args = \[1\]"),
    ],
)
def test_impossible_configurations(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        small_config(**changes)


def test_whole_numbers_are_numbers() -> None:
    """A learning rate of 1 and one of 1.0 are the same run."""
    spellings: list[dict[str, float]] = [
        {"learning_rate": 1, "momentum": 0, "epsilon": 1},
        {"learning_rate": 1.0, "epsilon": 1.0},
    ]
    first, second = (json.dumps(small_config(**spelling).as_settings()) for spelling in spellings)
    assert first == second


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"dataset": "nist"}, DatasetError), ({"model": "vgg"}, ModelError), ({"model_args": {"d": 1}}, ModelError)],
)
def test_unknown_parts_leave_no_directory(tmp_path: Path, changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        train(small_config(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_process_is_left_as_it_was(tmp_path: Path) -> None:
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    train(small_config(model="cnn", epochs=1), tmp_path / "run", threads=2)
    assert random.getstate() == before[0] and str(np.random.get_state()) == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert torch.get_num_threads() == 1


def test_threads_are_put_back_after_an_error() -> None:
    with pytest.raises(StopHereError), torch_threads(2):
        assert torch.get_num_threads() == 2
        raise StopHereError
    assert torch.get_num_threads() == 1


def test_generators_are_independent() -> None:
    draws = [
        torch.rand(3, generator=made)
        for made in (generator(0, "a"), generator(0, "b"), generator(1, "a"), generator(0, "a", 0))
    ]
    assert len({tuple(draw.tolist()) for draw in draws}) == 4
    assert torch.equal(draws[0], torch.rand(3, generator=generator(0, "a")))


def test_evaluation_leaves_the_model_alone() -> None:
    model: nn.Module = build_model("logistic")
    initialise(model, generator(5))
    before = [p.detach().clone() for p in model.parameters()]
    metrics = evaluate(model, load_dataset(SMALL), load_dataset(SMALL, "test"), 0.3)
    assert set(metrics) == {
        "train_loss",
        "clean_accuracy",
        "fgsm_accuracy_published",
        "fgsm_accuracy_exact",
    }
    assert all(torch.equal(p, old) and p.grad is None for p, old in zip(model.parameters(), before, strict=True))
