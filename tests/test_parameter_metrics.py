"""Metrics of θ against closed forms, and which rescalings of a ReLU network they do not see."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from oracles import linear_model, small_net
from torch import Generator, Tensor, nn

from landscape.errors import ConfigurationError
from landscape.geometry.level_sets import LevelSetDistance, level_set_distance
from landscape.objectives import objective
from landscape.problem.metrics import METRICS, parameter_metric
from landscape.problem.models import build_model, initialise
from landscape.problem.network import ravel
from landscape.problem.parameter_objective import parameter_objective

WEIGHT = torch.tensor([[3.0, -4.0], [0.0, 2.0], [0.0, 0.0]], dtype=torch.float64)
BIAS = torch.tensor([0.0, -1.0, 1.0], dtype=torch.float64)
ROOT = math.sqrt(2)
CLOSED_FORMS = {
    "euclidean": ([1, 1, 1, 1, 1, 1], [1, 1, 1]),
    "elementwise": ([3, 4, 0, 2, 0, 0], [0, 1, 1]),
    "filter": ([5, 5, 2, 2, 0, 0], [ROOT, ROOT, ROOT]),
    "layer": ([math.sqrt(29)] * 6, [ROOT, ROOT, ROOT]),
}
NODES = torch.tensor([0.5, 3.0, 1.5, 0.2, 2.0, 7.0], dtype=torch.float64)


@pytest.mark.parametrize("metric", METRICS)
def test_closed_forms(metric: str) -> None:
    model = linear_model(WEIGHT, BIAS)
    weights, biases = (torch.tensor(part, dtype=torch.float64) for part in CLOSED_FORMS[metric])
    assert torch.allclose(parameter_metric(model, metric), torch.cat([weights, biases]))
    assert torch.allclose(
        parameter_metric(model, metric, biases=False), torch.cat([weights, torch.zeros_like(biases)])
    )


def test_convolutions_have_one_scale_a_filter_in_the_order_of_the_parameters() -> None:
    model = build_model("cnn")
    initialise(model, Generator().manual_seed(3))
    scale, start = parameter_metric(model, "filter"), 0
    for parameter in model.parameters():
        part = scale[start : start + parameter.numel()].reshape(parameter.shape)
        start += parameter.numel()
        groups = parameter[None] if parameter.ndim == 1 else parameter
        for group, scales in zip(groups, part[None] if parameter.ndim == 1 else part, strict=True):
            expected = group.detach().square().sum().sqrt()
            assert torch.allclose(scales, expected.expand_as(scales), rtol=1e-5)
    assert start == len(scale)


def test_filter_distance_is_the_sum_over_filters() -> None:
    model = small_net([3, 4, 2], nn.ReLU, seed=1)
    delta = torch.randn(ravel(model).shape, generator=Generator().manual_seed(2), dtype=torch.float64)
    parts = delta.split([p.numel() for p in model.parameters()])
    squares = [
        d.reshape(shape).square().sum(-1) / p.detach().reshape(shape).square().sum(-1)
        for d, p in zip(parts, model.parameters(), strict=True)
        for shape in [(len(p), -1) if p.ndim > 1 else (1, -1)]
    ]
    distance = (delta / parameter_metric(model, "filter")).norm()
    assert float(distance) == pytest.approx(float(torch.cat(squares).sum().sqrt()), rel=1e-12)


def rescaled(model: nn.Sequential, factors: Tensor) -> nn.Sequential:
    """The same function: hidden unit j of every layer enlarged by factor j, and undone in the next layer."""
    copy = small_net([5, 6, 6, 3], nn.ReLU, seed=8)
    copy.load_state_dict(model.state_dict())
    layers = [layer for layer in copy if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer, following in pairwise(layers):
            layer.weight.mul_(factors[:, None])
            layer.bias.mul_(factors)
            following.weight.div_(factors)
    return copy


def distances(model: nn.Sequential, metric: str, biases: bool = True) -> LevelSetDistance:
    random = Generator().manual_seed(5)
    x = torch.randn(40, 5, generator=random, dtype=torch.float64)
    y = model(x).argmax(1)
    phi = parameter_objective(model, x, y)
    level = 1.5 * phi.value(phi.origin)
    scale = parameter_metric(model, metric, biases)
    # The steepest direction in the metric's coordinates is the same for rescaled networks where the metric is.
    starts = (phi.value_and_grad(phi.origin)[1] * scale * scale)[None] * 1e-2
    return level_set_distance(phi, level, metric=scale, starts=starts, num_random=0, restarts=0, tol=1e-6)


@pytest.mark.parametrize(
    ("metric", "layerwise", "nodewise"),
    [("euclidean", False, False), ("elementwise", True, True), ("filter", True, False), ("layer", True, False)],
)
def test_which_rescalings_change_nothing(metric: str, layerwise: bool, nodewise: bool) -> None:
    model = small_net([5, 6, 6, 3], nn.ReLU, seed=8)
    before = float(distances(model, metric).distance)
    for factors, unchanged in ((torch.full_like(NODES, 4.0), layerwise), (NODES, nodewise)):
        other = rescaled(model, factors)
        x = torch.randn(9, 5, generator=Generator().manual_seed(1), dtype=torch.float64)
        assert torch.allclose(other(x), model(x), rtol=1e-10)
        after = float(distances(other, metric).distance)
        if unchanged:
            assert after == pytest.approx(before, rel=1e-6)
        else:
            assert abs(after / before - 1) > 1e-2


@pytest.mark.parametrize("metric", METRICS)
def test_biases_stay_exactly_where_they_are(metric: str) -> None:
    model = small_net([5, 6, 6, 3], nn.ReLU, seed=8)
    found = distances(model, metric, biases=False)
    point, origin = found.points[0, 0], ravel(model)
    for p, there, here in zip(
        model.parameters(),
        *(v.split([p.numel() for p in model.parameters()]) for v in (point, origin)),
        strict=True,
    ):
        assert torch.equal(there, here) == (p.ndim == 1)
    assert float(found.distance) > float(distances(model, metric).distance)


def test_the_metric_is_that_of_the_distance() -> None:
    """Minimum of a quadratic bowl in D's coordinates: d = √(2c/λ_max(D H D))."""
    model = small_net([2, 2, 2], nn.ReLU, seed=4)
    scale = parameter_metric(model, "filter")
    curvature = torch.linspace(1, 2, len(scale), dtype=torch.float64)
    phi = objective(lambda z: 0.5 * (curvature * (z - ravel(model)) ** 2).sum(-1), ravel(model)[None])
    found = level_set_distance(phi, [0.7], metric=scale)
    assert float(found.distance) == pytest.approx(float((1.4 / (curvature * scale**2).max()).sqrt()), rel=1e-4)


def test_what_has_no_metric_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="unknown metric 'fisher' of parameters; choose one of euclidean"):
        parameter_metric(linear_model(WEIGHT, BIAS), "fisher")
    zero = linear_model(torch.zeros_like(WEIGHT), BIAS)
    assert parameter_metric(zero, "layer").any()
    for metric in ("elementwise", "filter", "layer"):
        with pytest.raises(ConfigurationError, match="every parameter of the model has scale zero"):
            parameter_metric(zero, metric, biases=False)
