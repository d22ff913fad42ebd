"""Proven lower bounds of distances: exact where closed forms exist, and never above the truth elsewhere."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import linear_model, ray_scan, small_net
from torch import Generator, Tensor, nn

import landscape
from landscape.errors import ConfigurationError, ModelError, ObjectiveError
from landscape.geometry.level_sets import level_set_distance
from landscape.problem.datasets import load_dataset
from landscape.problem.input_objective import input_objective
from landscape.problem.losses import loss_by_name
from landscape.problem.model_sources import model_with
from landscape.problem.models import mlp
from landscape.robustness.bounds import as_network, difference_bounds
from landscape.robustness.certified import certified_distance
from landscape.robustness.perturbation import Perturbation
from landscape.robustness.relaxations import ACTIVATIONS, relax

NORMS = (1.0, 2.0, math.inf)
DUAL = {1.0: math.inf, 2.0: 2.0, math.inf: 1.0}
NUMBERS = st.floats(-20, 20)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def loss_of(model: nn.Module, label: int, loss: str) -> Callable[[Tensor], Tensor]:
    """The loss of points ``(N, …)`` that all have one label."""
    return lambda x: loss_by_name(loss)(model(x).detach(), torch.full((len(x),), label))


def in_ball(shape: torch.Size, norm: float, seed: int) -> Tensor:
    """Points on the unit sphere and in the unit ball of a norm, dense and sparse directions, ``(B, n)``."""
    random = Generator().manual_seed(seed)
    directions = torch.randn(shape, generator=random, dtype=torch.float64)
    if norm == math.inf:
        directions = torch.where(torch.rand(shape, generator=random) < 0.5, directions, directions.sign())
    if norm == 1:
        directions = directions * torch.randn(shape, generator=random, dtype=torch.float64).abs() ** 5
    length = torch.linalg.vector_norm(directions, norm, dim=-1, keepdim=True)
    shrink = torch.rand(shape[0], 1, generator=random, dtype=torch.float64) * 2
    return torch.mul(directions / length, shrink.clamp_max(1))


def conv_net(seed: int, pool: nn.Module, image: int = 10) -> nn.Sequential:
    """Convolutions with stride and padding, nested, with tanh and two poolings; images (2, image, image)."""
    torch_layers = [
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Sequential(nn.ReLU(), pool),
        nn.Conv2d(4, 4, 3, stride=2, padding=1, bias=False),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
    ]
    model = nn.Sequential(*torch_layers).double().eval()
    size = model(torch.zeros(1, 2, image, image, dtype=torch.float64)).shape[1]
    model.extend([nn.Identity(), nn.Linear(size, 8).double(), nn.ReLU(), nn.Linear(8, 3).double()])
    random = Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 1.2 / math.sqrt(parameter[0].numel())
            parameter.copy_(scale * torch.randn(parameter.shape, generator=random, dtype=torch.float64))
    return model.eval().requires_grad_(False)


def ascend(
    model: nn.Module, x: Tensor, y: Tensor, radius: Tensor, norm: float, seed: int, steps: int = 30
) -> Tensor:
    """Points of the ball after projected gradient ascent of the log-odds, p in {2, ∞}."""
    shape = (-1,) + (1,) * (x.ndim - 1)
    reach = radius.reshape(shape)
    delta = in_ball(x.flatten(1).shape, norm, seed).reshape(x.shape) * reach
    for _ in range(steps):
        point = (x + delta).requires_grad_()
        (gradient,) = torch.autograd.grad(loss_by_name("log_odds")(model(point), y).sum(), point)
        if norm == math.inf:
            delta = (delta + reach * 0.3 * gradient.sign()).maximum(-reach).minimum(reach)
        else:
            delta = delta + 0.3 * reach * gradient / gradient.flatten(1).norm(dim=1).reshape(shape).clamp_min(
                1e-30
            )
            delta = delta * (reach / delta.flatten(1).norm(dim=1).reshape(shape)).clamp_max(1)
    return x + delta


@pytest.mark.parametrize("norm", NORMS)
def test_margins_of_linear_models_are_exact(norm: float) -> None:
    model, x, levels = (
        linear_model(normal(5, 7), normal(5, seed=1)),
        normal(20, 7, seed=2),
        torch.tensor([0.2, 2.0]),
    )
    logits, weight = model(x).detach(), model.weight.detach()
    y = logits.argmax(1)
    gaps = levels[:, None] - (logits - logits.gather(1, y[:, None]))[:, None]
    slopes = torch.linalg.vector_norm(weight[None] - weight[y][:, None], DUAL[norm], dim=-1)
    truth = (gaps / slopes[:, None]).scatter(2, y[:, None, None].expand(-1, 2, 1), math.inf).amin(2)
    result = certified_distance(model, x, y, levels, norm, "margin", tol=1e-6)
    assert (result.distance <= truth).all()
    assert torch.allclose(result.distance, truth, rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_cross_entropy_of_two_classes_is_exact(norm: float) -> None:
    model, x = linear_model(normal(2, 4), normal(2, seed=1)), normal(12, 4, seed=2)
    y = model(x).argmax(1)
    result = certified_distance(model, x, y, [0.01, math.log(2), 3.0], norm, tol=1e-6)
    odds = loss_by_name("log_odds")(model(x).detach(), y)
    slope = torch.linalg.vector_norm((model.weight[0] - model.weight[1]).detach(), DUAL[norm])
    truth = (torch.log(torch.expm1(result.levels)) - odds[:, None]) / slope
    assert torch.equal(result.below_minimum, truth <= 0)
    assert result.below_minimum.any()
    assert torch.equal(result.distance.isnan(), result.below_minimum)
    known = ~result.below_minimum
    assert (result.distance <= truth)[known].all()
    assert torch.allclose(result.distance[known], truth[known], rtol=1e-5)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid])
@pytest.mark.parametrize("seed", range(4))
def test_small_nets_against_brute_force(activation: type[nn.Module], seed: int) -> None:
    model = small_net((2, 12, 8, 3), activation, seed, gain=1.5 if activation is not nn.Sigmoid else 3)
    x = normal(3, 2, seed=seed)
    y = model(x).argmax(1)
    value = loss_by_name("cross_entropy")(model(x).detach(), y)
    level = float(value.max()) * 1.3 + 0.05
    result = certified_distance(model, x, y, [level])
    for i in range(len(x)):
        truth = ray_scan(loss_of(model, int(y[i]), "cross_entropy"), x[i], level, 30.0)
        assert result.distance[i, 0] <= truth
        assert math.isinf(truth) or result.distance[i, 0] >= 0.2 * truth


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    activation=st.sampled_from([nn.ReLU, nn.Tanh, nn.Sigmoid]),
    norm=st.sampled_from(NORMS),
    loss=st.sampled_from(["cross_entropy", "log_odds", "margin"]),
    boxed=st.booleans(),
)
def test_no_point_of_a_certified_ball_reaches_the_level(
    seed: int, activation: type[nn.Module], norm: float, loss: str, boxed: bool
) -> None:
    model = small_net((3, 9, 9, 4), activation, seed, gain=2.0)
    x = normal(1, 3, seed=seed).clamp(-1, 1)
    y = model(x).argmax(1)
    function = loss_of(model, int(y), loss)
    level = function(x).item() + 0.5
    box = (-1.0, 1.0) if boxed else None
    result = certified_distance(model, x, y, [level], norm, loss, box)
    points = x + result.distance.clamp_max(4) * in_ball(torch.Size((4000, 3)), norm, seed)
    points = points.clamp(-1, 1) if boxed else points  # x lies in the box, so that clipping comes nearer to it
    assert (function(points) < level).all()


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, padding=1), nn.MaxPool2d((2, 1), (1, 2), dilation=2)], ids=str
)
@pytest.mark.parametrize("norm", [2.0, math.inf])
def test_convolutions_and_pooling_withstand_ascent(pool: nn.MaxPool2d, norm: float) -> None:
    for seed in range(2):
        model, x = conv_net(seed, pool), normal(4, 2, 10, 10, seed=seed)
        y = model(x).argmax(1)
        level = float(loss_by_name("log_odds")(model(x), y).max()) + 0.7
        result = certified_distance(model, x, y, [level], norm, "log_odds")
        assert (result.distance > 0).all()
        for start in range(3):
            points = ascend(model, x, y, result.distance[:, 0], norm, start)
            assert (loss_by_name("log_odds")(model(points), y) < level).all()


def test_bounds_hold_where_they_are_loose_too() -> None:
    """At large radii every neuron is unstable, so that every branch of the relaxations is in use."""
    for seed, pool in enumerate([nn.MaxPool2d(2), nn.MaxPool2d(3, 1)]):
        model, x = conv_net(seed, pool), normal(2, 2, 10, 10, seed=seed)
        y = torch.tensor([0, 2])
        for radius in (0.01, 0.3, 3.0):
            sizes = torch.full((2,), radius, dtype=torch.float64)
            bounds = difference_bounds(as_network(model, x), y, Perturbation(x.flatten(1), sizes, 2.0))
            assert (bounds.gather(1, y[:, None]) == 0).all()
            for i in range(2):
                points = x[i] + radius * in_ball(torch.Size((2000, 200)), 2.0, seed).reshape(-1, 2, 10, 10)
                logits = model(points)
                assert (logits - logits[:, y[i], None] <= bounds[i]).all()


@settings(max_examples=150, deadline=None)
@given(ends=st.tuples(NUMBERS, NUMBERS), activation=st.sampled_from([*ACTIVATIONS]))
def test_activations_lie_between_their_lines(ends: tuple[float, float], activation: type[nn.Module]) -> None:
    lower, upper = (torch.tensor([end], dtype=torch.float64) for end in (min(ends) - 1e-9, max(ends) + 1e-9))
    lines = ACTIVATIONS[activation](lower, upper)
    x = torch.linspace(0, 1, 2001, dtype=torch.float64) * (upper - lower) + lower
    y = activation()(x)
    assert (lines.upper_slope * x + lines.upper_offset >= y - 1e-12).all()
    assert (lines.lower_slope * x + lines.lower_offset <= y + 1e-12).all()
    gap = (lines.upper_slope - lines.lower_slope) * x + lines.upper_offset - lines.lower_offset
    assert gap.max() <= y.max() - y.min() + (upper - lower) + 1e-9


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(NUMBERS, st.sampled_from([0.0, 0.5, 3.0])), min_size=4, max_size=4))
def test_maxima_lie_between_their_planes(windows: list[tuple[float, float]]) -> None:
    low = torch.tensor([start for start, _ in windows], dtype=torch.float64).reshape(1, 1, 2, 2)
    width = torch.tensor([size for _, size in windows], dtype=torch.float64).reshape(1, 1, 2, 2) + 1e-9
    pool = nn.MaxPool2d(2)
    planes = relax(pool, low, low + width)
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 4).reshape(-1, 1, 2, 2)
    points = (
        torch.cat([corners, torch.rand(200, 1, 2, 2, generator=Generator().manual_seed(0)).double()]) * width + low
    )
    for sign in (1, -1):
        slope, offset = planes(torch.full((1, 1, 1, 1, 1), sign, dtype=torch.float64))
        assert ((slope[0] * points).sum((1, 2, 3)) + offset >= sign * pool(points)[:, 0, 0, 0] - 1e-9).all()


@pytest.mark.parametrize("norm", NORMS)
def test_maximum_on_a_ball_in_a_box(norm: float) -> None:
    rows, size = 6, 5
    center, a = normal(rows, size).clamp(-1, 1), normal(rows, 3, size, seed=1)
    center[:, 0], center[:, 1] = -1, 1  # pinned from one side
    radius = torch.linspace(0.1, 3, rows, dtype=torch.float64)
    ones = torch.ones_like(center)
    found = Perturbation(center, radius, norm, -ones, ones).maximum(a)
    for i in range(rows):
        for j in range(3):
            truth = _maximum(a[i, j], center[i], float(radius[i]), norm)
            assert found[i, j] >= truth - 1e-7
            assert found[i, j] <= truth + (1e-9 if norm != 2 else 0.1 * float(a[i, j].norm()))
    assert (found <= Perturbation(center, radius, norm).maximum(a) + 1e-12).all()


def _maximum(a: Tensor, x: Tensor, radius: float, norm: float) -> float:
    """Max a·(x + δ) over ‖δ‖ ≤ r and x + δ in [−1, 1].

    A linear program in δ = p − q with p, q ≥ 0; for p = 2 root finding for the multiplier that makes ‖δ‖ = r.
    """
    if norm == 2:

        def delta(log_multiplier: float) -> Tensor:
            return (a / math.exp(log_multiplier)).maximum(-1 - x).minimum(1 - x)

        root = -30.0
        if delta(root).norm() > radius:
            root = scipy.optimize.bisect(lambda t: float(delta(t).norm()) - radius, root, 20.0)
        return float(a @ (x + delta(root)))
    reach = radius if norm == math.inf else math.inf
    room = [(0.0, min(reach, float(end))) for end in torch.cat([1 - x, 1 + x])]
    weights = torch.ones(1, 2 * len(a)).numpy() if norm == 1 else None
    found = scipy.optimize.linprog(
        -torch.cat([a, -a]).numpy(), A_ub=weights, b_ub=None if weights is None else [radius], bounds=room
    )
    return float(a @ x) - float(found.fun or 0.0)


def test_a_box_helps_and_may_hold_no_point_of_the_level() -> None:
    model, x = small_net((4, 10, 3), nn.ReLU, 3), normal(6, 4).clamp(0, 1)
    y = model(x).argmax(1)
    for norm in NORMS:
        free = certified_distance(model, x, y, [1.5, 500.0], norm)
        boxed = certified_distance(model, x, y, [1.5, 500.0], norm, box=(0.0, torch.ones(4)))
        assert (boxed.distance >= 0.98 * free.distance).all()
        assert torch.isinf(boxed.distance[:, 1]).all()
        assert torch.isfinite(free.distance).all()


def test_grows_with_the_level_and_ignores_chunks() -> None:
    model, x = small_net((4, 10, 10, 3), nn.Tanh, 3), normal(5, 4)
    y, levels = model(x).argmax(1), torch.linspace(0.5, 4, 4)
    result = certified_distance(model, x, y, levels, tol=3e-3)
    assert not (result.distance.diff(dim=1) < 0).any()
    alone = certified_distance(model, x, y, levels, tol=3e-3, chunk=2)
    assert torch.allclose(result.distance, alone.distance, equal_nan=True)
    one = certified_distance(model, x, y, levels[2:3], tol=3e-3)
    assert torch.allclose(result.distance[:, 2], one.distance[:, 0], rtol=6e-3, equal_nan=True)


def test_a_shipped_network_is_bracketed() -> None:
    snapshot = landscape.load_snapshot("data/runs/sgd_lr0.05_b16_seed0", at="last")
    model = model_with(snapshot.model, snapshot.model_args, snapshot.parameters)
    before = copy.deepcopy(model.state_dict())
    data = load_dataset("mnist", "test")
    x, y = data.images[:2], data.labels[:2]
    levels = [math.log(2)]
    result = certified_distance(model, x, y, levels, tol=0.1)
    found = level_set_distance(input_objective(model, x, y), levels, tol=0.1)
    assert (result.distance < found.distance).all()
    assert (result.distance > 0.05 * found.distance).all()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_refusals() -> None:
    x, y = normal(2, 4), torch.tensor([0, 1])
    linear = nn.Linear(4, 3).double()

    class Mine(nn.Linear):
        pass

    for odd in (nn.GELU(), Mine(4, 3), nn.Flatten(0), nn.MaxPool2d(2, ceil_mode=True)):
        with pytest.raises(ModelError, match=type(odd).__name__):
            certified_distance(nn.Sequential(linear, odd), x, y, [1.0])
    usual: dict[str, Any] = {"levels": [1.0]}
    refused: list[dict[str, Any]] = [
        {"norm": 3},
        {"levels": [math.nan]},
        {"levels": []},
        {"box": (0, 0.1)},
        {"tol": 0},
    ]
    for wrong in refused:
        with pytest.raises(ConfigurationError):
            certified_distance(linear, x, y, **(usual | wrong))
    with pytest.raises(ObjectiveError, match="nan"):
        certified_distance(linear, x * math.nan, y, [1.0])
    certified_distance(mlp(1, 2, (3,), 3), x.float().reshape(2, 1, 2, 2), y, [9.0])
