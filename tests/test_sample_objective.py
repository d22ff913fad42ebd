"""φ over the parameters, one row a sample, against one-sample objectives and what theory says of them."""

from __future__ import annotations

import pytest
import torch
from oracles import small_net
from torch import Generator, Tensor, nn

from landscape.errors import ObjectiveError
from landscape.geometry.level_sets import level_set_distance
from landscape.objectives import search_form
from landscape.problem import sample_objective
from landscape.problem.datasets import load_dataset
from landscape.problem.input_objective import input_objective
from landscape.problem.losses import log_odds_level
from landscape.problem.model_sources import model_with
from landscape.problem.models import build_model, initialise
from landscape.problem.parameter_objective import parameter_objective
from landscape.snapshots import load_snapshot

SAMPLES = 5


def dense() -> tuple[nn.Sequential, Tensor]:
    x = torch.randn(SAMPLES, 5, generator=Generator().manual_seed(4), dtype=torch.float64)
    return small_net([5, 7, 3], nn.Tanh, seed=6), x


def convolutional() -> tuple[nn.Sequential, Tensor]:
    model = build_model("cnn", {"image_size": 16, "hidden": 8, "num_classes": 3}).double()
    initialise(model, Generator().manual_seed(0))
    return model, torch.rand(SAMPLES, 1, 16, 16, generator=Generator().manual_seed(1), dtype=torch.float64)


NETWORKS = {"dense": dense, "convolutional": convolutional}
LABELS = torch.tensor([0, 2, 1, 1, 0])


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("chunk", [2, 100])
def test_rows_are_objectives_of_one_sample(network: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = NETWORKS[network]()
    phi = parameter_objective(model, x, LABELS, per_sample=True)
    monkeypatch.setattr(sample_objective, "_ALIVE", chunk * 4 * phi.origin.shape[1])
    assert phi.chunk == chunk
    random = Generator().manual_seed(2)
    z = phi.origin + 0.1 * torch.randn(phi.origin.shape, generator=random, dtype=torch.float64)
    vectors = torch.randn(2, *z.shape, generator=random, dtype=torch.float64)
    value, gradient = phi.value_and_grad(z)
    product = phi.linearize(z)
    products = product(vectors)
    assert torch.allclose(phi.value(z), value, rtol=1e-12)
    assert torch.allclose(product(vectors[0]), products[0], rtol=1e-12, atol=1e-14)
    for i in range(SAMPLES):
        one = parameter_objective(model, x[i : i + 1], LABELS[i : i + 1])
        expected_value, expected_gradient = one.value_and_grad(z[i : i + 1])
        assert float(value[i]) == pytest.approx(float(expected_value), rel=1e-12)
        assert torch.allclose(gradient[i], expected_gradient[0], rtol=1e-10, atol=1e-14)
        if i % 3:  # rows 0 and 3; it takes a second to trace a product
            continue
        expected = one.linearize(z[i : i + 1])(vectors[:, i : i + 1])[:, 0]
        assert torch.allclose(products[:, i], expected, rtol=1e-9, atol=1e-13)


def test_origin_is_one_vector_and_rows_can_be_taken() -> None:
    model, x = dense()
    phi = parameter_objective(model, x, LABELS, per_sample=True)
    one = parameter_objective(model, x, LABELS)
    assert torch.equal(phi.origin, one.origin.expand(SAMPLES, -1))
    assert phi.origin.stride(0) == 0
    assert not phi.origin.requires_grad
    assert float(phi.value(phi.origin).mean() - one.value(one.origin)) == pytest.approx(0, abs=1e-14)
    rows = torch.tensor([4, 1, 4])
    nothing = phi.take(rows[:0])
    assert nothing.value_and_grad(nothing.origin)[1].shape == (0, phi.origin.shape[1])
    taken = phi.take(rows)
    assert torch.equal(taken.y, LABELS[rows])
    assert torch.allclose(taken.value(taken.origin), phi.value(phi.origin)[rows], rtol=1e-14)


def test_search_form_is_log_odds() -> None:
    model, x = dense()
    phi = parameter_objective(model, x, LABELS, per_sample=True)
    psi, to_search = search_form(phi)
    value = phi.value(phi.origin)
    assert torch.allclose(log_odds_level(value), psi.value(psi.origin), rtol=1e-10)
    assert torch.equal(to_search(value), log_odds_level(value))
    margin = parameter_objective(model, x, LABELS, "margin", per_sample=True)
    assert search_form(margin)[0] is margin


def test_train_mode_and_shapes_that_disagree_are_refused() -> None:
    _, x = dense()
    model = nn.Sequential(nn.Linear(5, 7), nn.Dropout(0.5), nn.Linear(7, 3)).double().train()
    with pytest.raises(ObjectiveError, match=r"train mode and 1 .* model\.eval\(\)"):
        parameter_objective(model, x, LABELS, per_sample=True)
    phi = parameter_objective(model.eval(), x, LABELS, per_sample=True)
    assert torch.equal(phi.value(phi.origin), phi.value(phi.origin))
    with pytest.raises(ObjectiveError, match="do not belong together"):
        parameter_objective(model, x, LABELS[:3], per_sample=True)


def test_the_model_is_left_as_it_was() -> None:
    model, x = convolutional()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    phi = parameter_objective(model, x, LABELS, per_sample=True)
    value, gradient = phi.value_and_grad(phi.origin)
    product = phi.linearize(phi.origin)(gradient)
    assert not value.requires_grad
    assert not gradient.requires_grad
    assert not product.requires_grad
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_dense_first_layer_carries_every_change_of_an_input() -> None:
    """A change δ of x_i acts like a change W₁δ xᵀ/(‖x‖² + 1) of (W₁, b₁): d_θ,i ≤ ‖W₁‖₂/√(‖x_i‖² + 1) d_X,i."""
    model = small_net([6, 12, 12, 3], nn.Tanh, seed=3, gain=1.5)
    x = torch.randn(12, 6, generator=Generator().manual_seed(9), dtype=torch.float64)
    with torch.no_grad():
        y = model(x).argmax(1)
    levels = [0.6, 1.0]
    theta = level_set_distance(parameter_objective(model, x, y, per_sample=True), levels, restarts=0)
    inputs = level_set_distance(input_objective(model, x, y), levels)
    factor = torch.linalg.matrix_norm(next(model.parameters()).detach(), 2) / (x.square().sum(1) + 1).sqrt()
    both = theta.reached & inputs.reached
    assert both.sum() >= 12
    assert (theta.distance <= factor[:, None] * inputs.distance * 1.001)[both].all()


def test_distances_of_single_samples_of_a_stored_run() -> None:
    snapshot = load_snapshot("embedded:runs/adam_lr0.0015_b128_seed0")
    model = model_with(snapshot.model, snapshot.model_args, snapshot.parameters)
    data = load_dataset("mnist", "test").subset(8, seed=0)
    phi = parameter_objective(model, data.images, data.labels, per_sample=True)
    found = level_set_distance(phi, [0.5, 1.0], restarts=0, budget=30)
    expected = ~found.below_minimum
    assert found.reached[expected].all()
    assert expected.sum() >= 12
    assert (found.level_error[expected] < 1e-4).all()
    assert (found.distance[:, 0] <= found.distance[:, 1])[expected.all(1)].all()
    whole = parameter_objective(model, data.images[:1], data.labels[:1])
    alone = level_set_distance(whole, [0.5, 1.0], restarts=0, budget=30)
    assert torch.allclose(alone.distance[0], found.distance[0], rtol=0.02)
