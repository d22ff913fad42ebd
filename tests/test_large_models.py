"""Large vectors: starts in turns and blocks give what everything at once gives, in memory of a few vectors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from oracles import quadratic, small_net, symmetric
from torch import Generator, Tensor, nn

from landscape.geometry import search, vectors
from landscape.geometry.level_sets import LevelSetDistance, level_set_distance
from landscape.geometry.vectors import dot, norm_of
from landscape.objectives import Objective, objective
from landscape.problem.input_objective import input_objective
from landscape.problem.parameter_objective import parameter_objective


def network() -> tuple[nn.Sequential, Tensor, Tensor]:
    model = small_net([4, 8, 3], nn.Tanh, seed=2)
    x = torch.randn(30, 4, generator=Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        y = model(x).argmax(1)
    return model, x, y


def problems() -> dict[str, tuple[Objective, list[float], dict[str, Any]]]:
    bowl = quadratic(symmetric([9.0, 5, 3, 1, 0.5, 0.1])[None].repeat(2, 1, 1))
    model, x, y = network()
    theta = parameter_objective(model, x, y)
    low = float(theta.value(theta.origin))
    return {
        "bowl": (bowl, [0.3, 1.0], {}),
        "bowl with restarts": (bowl, [0.3, 1.0, 2.0], {"restarts": 2}),
        "network": (theta, [1.3 * low, 2 * low], {"num_random": 3}),
        "network in another metric": (theta, [1.3 * low, 2 * low], {"metric": "elementwise"}),
    }


def small_and_large(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[LevelSetDistance, LevelSetDistance]:
    phi, levels, options = problems()[name]
    settings: dict[str, Any] = {"restarts": 0, "tol": 1e-4, "budget": 300} | options
    small = level_set_distance(phi, levels, **settings)
    monkeypatch.setattr(vectors, "LARGE", 1)
    monkeypatch.setattr(vectors, "_BLOCK", 3)
    return small, level_set_distance(phi, levels, **settings)


@pytest.mark.parametrize("name", problems())
def test_starts_in_turns_find_what_they_find_together(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = small_and_large(name, monkeypatch)
    assert large.reached.all()
    assert torch.allclose(small.distance, large.distance, rtol=1e-5)
    assert (large.level_error < 1e-5).all()
    assert (large.kink_angle < 1e-2).all()
    assert torch.allclose(small.gradient_norm, large.gradient_norm, rtol=1e-3)
    if name.startswith("bowl"):
        expected = torch.tensor([math.sqrt(2 * c / 9) for c in large.levels])
        assert torch.allclose(large.distance, expected.double().expand(2, -1), rtol=1e-5)


def two_valleys(z: Tensor) -> Tensor:
    """Level 1 is at distance 1 along −x₁ and at distance 2 along +x₁; the way there begins flatter."""
    x, rest = z[:, 0], z[:, 1:]
    return torch.where(x < 0, x**2, x**2 / 4) + 0.05 * (rest**2).sum(1)


def test_the_last_start_may_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every start gets its heat, also if those before it would use up the budget."""
    phi = objective(two_valleys, torch.full((1, 4), 1e-6, dtype=torch.float64))
    starts = torch.eye(4, dtype=torch.float64)[[1, 2, 3, 1, 2, 3, 0]][:, None]
    starts = torch.cat([starts, -starts[-1:]]) * 0.5
    monkeypatch.setattr(vectors, "LARGE", 1)
    found = level_set_distance(phi, [1.0], starts=starts, num_random=0, restarts=0, budget=60)
    assert float(found.distance) == pytest.approx(1, rel=1e-4)
    assert found.num_gradients < 120


def test_origins_in_turns_give_what_they_give_together(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = network()
    phi = input_objective(model, x[:12], y[:12])
    starts = torch.randn(3, 12, 4, generator=Generator().manual_seed(0), dtype=torch.float64)
    together = level_set_distance(phi, [1.0, 2.0], starts=starts, restarts=0)
    monkeypatch.setattr(search, "TOGETHER", 100)
    in_turns = level_set_distance(phi, [1.0, 2.0], starts=starts, restarts=0)
    assert torch.equal(together.reached, in_turns.reached)
    found = together.reached
    assert found.any()
    assert torch.allclose(together.distance[found], in_turns.distance[found], rtol=1e-6)
    # Rounding depends on how many go together, and may decide whether an end is within 1 %.
    same = torch.isclose(together.agreement[found], in_turns.agreement[found])
    assert same.double().mean() > 0.8


def test_sums_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = torch.randn(2, 5, 11, generator=Generator().manual_seed(0), dtype=torch.float64)
    whole = dot(a, b), [norm_of(a, p) for p in (1, 2, math.inf)]
    monkeypatch.setattr(vectors, "LARGE", 1)
    monkeypatch.setattr(vectors, "_BLOCK", 4)
    assert len(vectors.blocks(a)) == 3
    assert torch.allclose(dot(a, b), whole[0], rtol=1e-13)
    for p, expected in zip((1, 2, math.inf), whole[1], strict=True):
        assert torch.allclose(norm_of(a, p), expected, rtol=1e-14)
