"""The nearest boundary as an attack: against closed forms, and where there is no boundary at all."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from landscape.errors import ConfigurationError
from landscape.robustness.accuracy import predict
from landscape.robustness.balls import Ball, distances
from landscape.robustness.boundary import nearest_boundary

DUAL = {2.0: 2.0, math.inf: 1.0}


def linear_problem(norm: float) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """Three linear classes, grey images, and their distances min_k |m_k| / ‖w_k − w_y‖ from the boundary."""
    draws = torch.Generator().manual_seed(0)
    layer = nn.Linear(16, 3).double()
    with torch.no_grad():
        layer.weight.copy_(torch.randn(3, 16, generator=draws))
        layer.bias.copy_(-0.5 * layer.weight.sum(1))
    model = nn.Sequential(nn.Flatten(), layer)
    x = 0.5 + 0.02 * torch.randn(40, 1, 4, 4, generator=draws).double()
    y = predict(model, x)
    logits = model(x).detach()
    differences = logits.gather(1, y[:, None]) - logits
    normals = layer.weight.detach()[y][:, None] - layer.weight.detach()
    reach = differences / torch.linalg.vector_norm(normals, DUAL[norm], dim=2)
    return model, x, y, reach.nan_to_num(math.inf).amin(1)


@pytest.mark.parametrize("norm", [2.0, math.inf])
def test_linear_boundaries_are_met_at_their_distance(norm: float) -> None:
    model, x, y, reach = linear_problem(norm)
    middle = reach.median().item()
    small, large = nearest_boundary(model, x, y, [Ball(middle, norm), Ball(10 * middle, norm)])
    assert small.nearest is not None and large.fell.all()
    torch.testing.assert_close(small.nearest, reach, rtol=2e-3, atol=0)
    clear = (reach / middle - 1).abs() > 0.01
    assert torch.equal(small.fell[clear], (reach < middle)[clear])
    assert torch.equal(predict(model, large.images) != y, large.fell)
    torch.testing.assert_close(distances(large.images, x, norm), large.nearest)
    assert 0 < small.num_gradients[0] <= 120 and large.num_gradients.sum() == 0, "one search serves all radii"


def test_wrong_images_are_at_distance_zero_and_a_constant_network_has_no_boundary() -> None:
    model, x, y, _ = linear_problem(2.0)
    (result,) = nearest_boundary(model, x, (y + 1) % 3, [Ball(0.1, 2.0)])
    assert (
        result.nearest is not None
        and result.fell.all()
        and not result.nearest.any()
        and torch.equal(result.images, x)
    )
    layer = nn.Linear(16, 3).double()
    nn.init.zeros_(layer.weight)
    deaf = nn.Sequential(nn.Flatten(), layer)
    (result,) = nearest_boundary(deaf, x, predict(deaf, x), [Ball(0.1, 2.0)])
    assert not result.fell.any() and result.nearest is not None and result.nearest.isinf().all()


def test_images_stay_in_the_range() -> None:
    model, x, *_ = linear_problem(math.inf)
    dark = (x - 0.5).clamp(0, 1)
    (result,) = nearest_boundary(model, dark, predict(model, dark), [Ball(1.0)])
    assert result.images.min() >= 0 and result.images.max() <= 1
    assert result.fell.any()


def test_bad_efforts_are_refused() -> None:
    model, x, y, _ = linear_problem(2.0)
    with pytest.raises(ConfigurationError, match="balls of one norm"):
        nearest_boundary(model, x, y, [Ball(0.1, 2.0), Ball(0.1)])
    with pytest.raises(ConfigurationError, match="budget 0"):
        nearest_boundary(model, x, y, [Ball(0.1)], budget=0)
