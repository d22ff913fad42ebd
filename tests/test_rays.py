"""Crossings on rays: of functions whose roots are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from landscape.geometry.gauge import Gauge
from landscape.geometry.rays import Counter, Rays, crossing, outer_bracket, polished
from landscape.objectives import objective


def rays_of(profile: Callable[[Tensor], Tensor], target: float, count: int = 3) -> tuple[Rays, Tensor]:
    """Rays along the first axis of the plane for φ(x) = profile(x₀)."""
    phi = objective(lambda z: profile(z[:, 0]), torch.zeros(count, 2, dtype=torch.float64))
    level = torch.full((count,), target, dtype=torch.float64)
    directions = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(count, 2)
    gauge = Gauge(torch.ones(1, 2, dtype=torch.float64), 2.0)
    return Rays(phi, gauge, phi.value(phi.origin), level, Counter()), directions


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


def test_brackets_are_no_finer_than_float32() -> None:
    """φ jumps between neighbouring float32 numbers, so that no radius meets the level to its tolerance."""
    phi = objective(lambda z: (z[:, 0] > 0.7).float() + z[:, 0] / 2**20, torch.zeros(3, 2))
    level = torch.full((3,), 0.5, dtype=torch.float64)
    rays = Rays(phi, Gauge(torch.ones(1, 2), 2.0), phi.value(phi.origin), level, Counter())
    directions = torch.tensor([[1.0, 0.0]]).expand(3, 2)
    found = crossing(rays, directions, torch.ones(3, dtype=torch.float64))
    assert found.tolist() == pytest.approx([0.7] * 3, rel=1e-6)
    assert rays.counter.values <= 3 * 30


def test_rays_that_never_arrive() -> None:
    rays, directions = rays_of(torch.tanh, 2.0)
    guess = torch.tensor([1.0, 1e-9, math.inf], dtype=torch.float64)
    upper = outer_bracket(rays, directions, guess)
    assert torch.isinf(upper).all()
    assert torch.isinf(crossing(rays, directions, upper)).all()
    lost, directions = rays_of(lambda r: torch.where(r > 1, torch.nan, r), 2.0)
    assert torch.isinf(outer_bracket(lost, directions, torch.ones(3, dtype=torch.float64) / 2)).all()
    assert lost.counter.values <= 3 * 3  # a ray that has met NaN is not followed further


def test_secant_steps_from_nearby_radii() -> None:
    """They arrive from nearby; from far away, or on a plateau, they say so."""
    rays, directions = rays_of(lambda r: r**2, 2.0)
    guess = torch.tensor([0.98, 1.0, 2.0], dtype=torch.float64) * math.sqrt(2)
    found = polished(rays, directions, guess)
    assert found[:2].tolist() == pytest.approx([math.sqrt(2)] * 2, rel=1e-6)
    assert math.isinf(found[2])
    plateau, directions = rays_of(torch.tanh, 2.0)
    assert torch.isinf(polished(plateau, directions, torch.ones(3, dtype=torch.float64))).all()


def test_point_gradient_and_metric() -> None:
    gauge = Gauge(torch.tensor([[2.0, 0.5]], dtype=torch.float64), 2.0)
    phi = objective(lambda z: (z**2).sum(-1), torch.ones(2, 2, dtype=torch.float64))
    rays = Rays(phi, gauge, phi.value(phi.origin), torch.tensor([5.0, 6.0], dtype=torch.float64), Counter())
    directions = torch.tensor([[0.6, 0.8], [1.0, 0.0]], dtype=torch.float64)
    radius = torch.tensor([1.0, 3.0], dtype=torch.float64)
    v = rays.displacement(directions, radius)
    assert rays.point(v).tolist() == [pytest.approx([2.2, 1.4]), pytest.approx([7.0, 1.0])]
    excess, gradient = rays.excess_and_gradient(v)
    assert excess.tolist() == pytest.approx([2.2**2 + 1.4**2 - 5, 50 - 6])
    assert gradient.tolist() == [pytest.approx([2 * 4.4, 0.5 * 2.8]), pytest.approx([28, 1])]
    second = rays.take(torch.tensor([1]))
    assert second.excess(directions[1:], radius[1:]).tolist() == pytest.approx([44])
    assert rays.counter == Counter(values=1, gradients=2)


def test_rays_go_on_along_the_bounds() -> None:
    phi = objective(lambda z: z.sum(-1), torch.zeros(1, 2, dtype=torch.float64))
    bound = torch.tensor([[1.0, 4.0]], dtype=torch.float64)
    gauge = Gauge(torch.ones(1, 2, dtype=torch.float64), math.inf, -bound, bound)
    rays = Rays(phi, gauge, phi.value(phi.origin), torch.tensor([3.0], dtype=torch.float64), Counter())
    direction = torch.ones(1, 2, dtype=torch.float64)
    assert rays.displacement(direction, torch.tensor([9.0])).tolist() == [[1.0, 4.0]]
    met = crossing(rays, direction, torch.tensor([9.0], dtype=torch.float64))
    assert met.tolist() == pytest.approx([2.0], rel=1e-6)  # x₀ stays at 1, so x₁ has to reach 2
