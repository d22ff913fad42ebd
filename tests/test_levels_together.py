"""Levels searched side by side, as they are from many origins, against levels searched one after the other."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from oracles import quadratic, small_net, symmetric
from torch import Generator, Tensor, nn

from landscape.geometry import continuation
from landscape.geometry.level_sets import LevelSetDistance, level_set_distance
from landscape.objectives import FunctionObjective, objective
from landscape.problem.input_objective import input_objective

MANY = continuation._MANY


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def bumpy(z: Tensor) -> Tensor:
    """Smooth, not convex, unbounded; its level sets have several local nearest points."""
    return (z**2 * torch.arange(1, z.shape[1] + 1)).sum(-1) / 8 + torch.sin(2 * z).sum(-1) + 2 * z[:, 0]


@pytest.mark.parametrize("origins", [MANY - 1, MANY, 3 * MANY])
def test_quadratics_on_both_sides_of_the_border(origins: int) -> None:
    matrices = torch.stack([symmetric(torch.linspace(0.1, 4, 5).double(), seed=seed) for seed in range(origins)])
    levels = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
    found = level_set_distance(quadratic(matrices), levels, tol=1e-4, budget=200)
    truth = torch.sqrt(2 * levels / 4).expand(origins, -1)
    assert found.distance.flatten().tolist() == pytest.approx(truth.flatten().tolist(), rel=1e-4)


def bumpy_distances(phi: FunctionObjective, **options: Any) -> LevelSetDistance:
    levels = phi.value(phi.origin).max() + torch.tensor([0.3, 2.0, 7.0], dtype=torch.float64)
    return level_set_distance(phi, levels, **options)


def test_both_orders_find_points_as_near(monkeypatch: pytest.MonkeyPatch) -> None:
    phi = objective(bumpy, normal(40, 4) / 3)
    together = bumpy_distances(phi)
    monkeypatch.setattr(continuation, "_MANY", math.inf)
    ratio = together.distance / bumpy_distances(phi).distance
    assert together.reached.all()
    assert ratio.mean() < 1.02
    assert ratio.median() == pytest.approx(1, abs=1e-3)


def test_neighbouring_levels_help_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = small_net([6, 16, 16, 3], nn.ReLU, seed=1, gain=2.0), normal(60, 6)
    phi = input_objective(model, x, model(x).argmax(1).detach())

    def distances() -> Tensor:
        return level_set_distance(phi, [0.7, 1.0, 1.5, 2.3, 4.0], num_random=0, budget=12, restarts=0).distance

    helped = distances()
    monkeypatch.setattr(continuation.Continuation, "_exchange", lambda *_: None)
    alone = distances()
    ratio = (helped / alone)[alone.isfinite()]
    assert ratio.max() <= 1 + 1e-6
    assert ratio.mean() < 0.95
    assert helped.isfinite().sum() >= alone.isfinite().sum()
    # The way to a high level leads across the lower ones.
    assert (helped.diff() <= 0).sum() < (alone.diff() <= 0).sum() / 2


def test_groups_that_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    phi = objective(bumpy, normal(20, 4) / 3)
    whole = bumpy_distances(phi, restarts=0)
    monkeypatch.setattr(continuation, "TOGETHER", 1)  # one level, one pair of neighbours at a time
    parts = bumpy_distances(phi, restarts=0)
    assert parts.reached.all()
    assert (parts.distance / whole.distance).median() == pytest.approx(1, abs=1e-3)


def hill_and_wall(z: Tensor) -> Tensor:
    hill = 2 * torch.exp(-4 * (z[:, 0] - 1) ** 2 - 4 * z[:, 1] ** 2)
    return hill + torch.relu(-z[:, 0]) ** 2 / 8


def test_a_low_level_on_a_hill_and_a_high_one_on_a_wall() -> None:
    phi = objective(hill_and_wall, torch.zeros(MANY, 2, dtype=torch.float64))
    result = level_set_distance(phi, [1.0, 1.9, 8.0, 30.0], num_random=8)
    assert result.reached.all()
    assert (result.distance[:, 0] < 1).all()
    assert result.distance[:, 2].tolist() == pytest.approx([8] * MANY, rel=1e-4)


def test_levels_whose_nearest_points_lie_in_other_directions() -> None:
    slope = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    phi = objective(lambda z: (z * slope).sum(-1) + 0.3 * z[:, 1] ** 2, torch.zeros(MANY, 3, dtype=torch.float64))
    start = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64).expand(1, MANY, 3)
    result = level_set_distance(phi, [0.5, 9.0], starts=start, num_random=0, restarts=0)
    # The displacement is parallel to the gradient (1, 0.6 x₂): x₁ = 1/0.6, or x₂ = 0.
    nearest = math.hypot(1 / 0.6, math.sqrt((9 - 1 / 0.6) / 0.3))
    assert result.distance[:, 1].tolist() == pytest.approx([nearest] * MANY, rel=1e-3)
    assert result.distance[:, 0].tolist() == pytest.approx([0.5] * MANY, rel=1e-3)


def test_levels_below_and_beyond_reach() -> None:
    phi = objective(lambda z: 1 - torch.exp(-(z**2).sum(-1)), torch.zeros(MANY, 3, dtype=torch.float64))
    result = level_set_distance(phi, [-1.0, 0.5, 1.5])
    assert result.below_minimum.tolist() == [[True, False, False]] * MANY
    assert result.reached.tolist() == [[False, True, False]] * MANY
    assert result.distance[:, 1].tolist() == pytest.approx([math.sqrt(math.log(2))] * MANY, rel=1e-6)


def test_evidence_that_nobody_asks_for() -> None:
    phi = objective(bumpy, normal(MANY, 4) / 3)
    asked, plain = bumpy_distances(phi), bumpy_distances(phi, evidence=False)
    assert torch.equal(asked.distance, plain.distance)
    assert torch.equal(asked.points, plain.points)
    for name in ("level_error", "angle", "kink_angle", "curvature", "gradient_norm"):
        assert getattr(plain, name).isnan().all()
    assert plain.num_evidence_gradients == 0 < asked.num_evidence_gradients
