"""Crossings on rays: of functions whose roots are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from landscape.geometry.rays import Counter, Rays, crossing, outer_bracket
from landscape.objectives import objective


def rays_of(profile: Callable[[Tensor], Tensor], target: float, count: int = 3) -> tuple[Rays, Tensor]:
    """Rays along the first axis of the plane for φ(x) = profile(x₀)."""
    phi = objective(lambda z: profile(z[:, 0]), torch.zeros(count, 2, dtype=torch.float64))
    level = torch.full((count,), target, dtype=torch.float64)
    directions = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(count, 2)
    scale = torch.ones(1, 2, dtype=torch.float64)
    return Rays(phi, scale, phi.value(phi.origin), level, Counter()), directions


PROFILES = {
    "parabola": (lambda r: r**2, 2.0, math.sqrt(2)),
    "steep": (lambda r: torch.expm1(40 * r), 1e9, math.log1p(1e9) / 40),
    "flat then steep": (lambda r: r**15, 0.5, 0.5 ** (1 / 15)),
    "step": (lambda r: (r > 0.7).double(), 0.5, 0.7),
    "kink": (lambda r: torch.relu(r - 2), 3.0, 5.0),
    "infinite beyond": (lambda r: torch.where(r < 1.5, r, torch.inf), 1.25, 1.25),
}


@pytest.mark.parametrize("name", PROFILES)
def test_crossing_of_known_profiles(name: str) -> None:
    profile, target, truth = PROFILES[name]
    rays, directions = rays_of(profile, target)
    guess = torch.tensor([1e-3, 0.9, 1.9], dtype=torch.float64) * truth
    upper = outer_bracket(rays, directions, guess)
    assert (upper >= truth).all()
    assert (upper <= torch.maximum(2 * guess, torch.tensor(2 * truth))).all()
    found = crossing(rays, directions, upper)
    assert found.tolist() == pytest.approx([truth] * 3, rel=1e-6)
    assert rays.counter.values <= 3 * 80
    assert rays.counter.gradients == 0


def test_rays_that_never_arrive() -> None:
    rays, directions = rays_of(torch.tanh, 2.0)
    guess = torch.tensor([1.0, 1e-9, math.inf], dtype=torch.float64)
    upper = outer_bracket(rays, directions, guess)
    assert torch.isinf(upper).all()
    assert torch.isinf(crossing(rays, directions, upper)).all()
    lost, directions = rays_of(lambda r: torch.where(r > 1, torch.nan, r), 2.0)
    assert torch.isinf(outer_bracket(lost, directions, torch.ones(3, dtype=torch.float64) / 2)).all()
    assert lost.counter.values <= 3 * 3  # a ray that has met NaN is not followed further


def test_point_gradient_and_metric() -> None:
    scale = torch.tensor([[2.0, 0.5]], dtype=torch.float64)
    phi = objective(lambda z: (z**2).sum(-1), torch.ones(2, 2, dtype=torch.float64))
    rays = Rays(phi, scale, phi.value(phi.origin), torch.tensor([5.0, 6.0], dtype=torch.float64), Counter())
    directions = torch.tensor([[0.6, 0.8], [1.0, 0.0]], dtype=torch.float64)
    radius = torch.tensor([1.0, 3.0], dtype=torch.float64)
    assert rays.point(directions, radius).tolist() == [pytest.approx([2.2, 1.4]), pytest.approx([7.0, 1.0])]
    excess, gradient = rays.excess_and_gradient(directions, radius)
    assert excess.tolist() == pytest.approx([2.2**2 + 1.4**2 - 5, 50 - 6])
    assert gradient.tolist() == [pytest.approx([2 * 4.4, 0.5 * 2.8]), pytest.approx([28, 1])]
    second = rays.take(torch.tensor([1]))
    assert second.excess(directions[1:], radius[1:]).tolist() == pytest.approx([44])
    assert rays.counter == Counter(values=1, gradients=2)
