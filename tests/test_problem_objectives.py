"""φ over parameters and over inputs, against plain autograd on the same network."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from oracles import dense_hessian, small_net, with_parameters
from torch import Generator, Tensor, nn
from torch.nn import functional

from landscape.errors import ConfigurationError, ObjectiveError
from landscape.objectives import Objective, search_form
from landscape.problem.directions import targeted_starts
from landscape.problem.input_objective import input_objective
from landscape.problem.losses import log_odds_level
from landscape.problem.models import build_model, initialise
from landscape.problem.network import channels_last
from landscape.problem.parameter_objective import parameter_objective

SIZES = [5, 7, 4]


def network() -> nn.Sequential:
    return small_net(SIZES, nn.Tanh, seed=6)


def data(rows: int = 23) -> tuple[Tensor, Tensor]:
    random = Generator().manual_seed(4)
    return torch.randn(rows, 5, generator=random, dtype=torch.float64), torch.randint(4, (rows,), generator=random)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(12), dtype=torch.float64)


def mean_loss(vector: Tensor) -> Tensor:
    x, y = data()
    return functional.cross_entropy(with_parameters(network(), vector)(x), y)


def sample_loss(point: Tensor, label: Tensor) -> Tensor:
    return functional.cross_entropy(network()(point[None]), label[None])


def test_parameter_objective_against_autograd() -> None:
    model, (x, y) = network(), data()
    phi = parameter_objective(model, x, y, chunk=10)
    points = torch.cat([phi.origin, phi.origin + 0.3 * normal(1, phi.origin.shape[1])])
    value, gradient = phi.value_and_grad(points)
    vectors = normal(3, 2, points.shape[1])
    product = phi.linearize(points)
    assert torch.allclose(phi.value(points), value, rtol=1e-14)
    for row, point in enumerate(points):
        leaf = point.clone().requires_grad_()
        loss = mean_loss(leaf)
        assert float(value[row]) == pytest.approx(loss.item(), rel=1e-12)
        assert torch.allclose(gradient[row], torch.autograd.grad(loss, leaf)[0], atol=1e-13)
        hessian = dense_hessian(mean_loss, point)
        assert torch.allclose(product(vectors)[:, row], vectors[:, row] @ hessian, atol=1e-11)
        assert torch.allclose(product(vectors[0])[row], hessian @ vectors[0, row], atol=1e-11)


@pytest.mark.parametrize("memory", [1, 30_000, 2**31])
def test_chunks_and_memory_change_nothing(memory: int) -> None:
    model, (x, y) = network(), data()
    whole = parameter_objective(model, x, y, chunk=1000)
    vector = normal(1, whole.origin.shape[1])
    expected_value, expected_gradient = whole.value_and_grad(whole.origin)
    expected_product = whole.linearize(whole.origin)(vector)
    split = parameter_objective(model, x, y, chunk=10, memory=memory)  # chunks of 10, 10 and 3
    value, gradient = split.value_and_grad(split.origin)
    assert float(value - expected_value) == pytest.approx(0, abs=1e-12)
    assert torch.allclose(gradient, expected_gradient, rtol=1e-12, atol=1e-15)
    assert torch.allclose(split.linearize(split.origin)(vector), expected_product, rtol=1e-10, atol=1e-13)


def test_input_objective_against_autograd() -> None:
    x, y = data(6)
    phi = input_objective(network(), x, y)
    small = replace(phi, chunk=4)
    value, gradient = phi.value_and_grad(phi.origin)
    vectors = normal(2, 6, 5)
    products = phi.linearize(phi.origin)(vectors)
    for i in range(6):
        leaf = x[i].clone().requires_grad_()
        loss = sample_loss(leaf, y[i])
        assert float(value[i]) == pytest.approx(loss.item(), rel=1e-12)
        assert torch.allclose(gradient[i], torch.autograd.grad(loss, leaf)[0], atol=1e-13)
        hessian = dense_hessian(partial(sample_loss, label=y[i]), x[i])
        assert torch.allclose(products[:, i], vectors[:, i] @ hessian, atol=1e-12)
    assert torch.allclose(small.value(phi.origin), value, rtol=1e-13)
    assert torch.allclose(small.value_and_grad(phi.origin)[1], gradient, rtol=1e-12)
    assert torch.allclose(small.linearize(phi.origin)(vectors), products, rtol=1e-10, atol=1e-14)


def test_input_rows_do_not_interact() -> None:
    x, y = data(6)
    phi = input_objective(network(), x, y)
    moved = phi.origin.clone()
    moved[2] += 5
    others = torch.tensor([0, 1, 3, 4, 5])
    for before, after in zip(phi.value_and_grad(phi.origin), phi.value_and_grad(moved), strict=True):
        assert torch.equal(before[others], after[others])
        assert not torch.equal(before[2], after[2])
    rows = torch.tensor([5, 1, 5])
    taken = phi.take(rows)
    assert torch.equal(taken.y, y[rows])
    assert torch.allclose(taken.value(taken.origin), phi.value(phi.origin)[rows], rtol=1e-14)


def test_joint_input_objective_is_the_mean_over_the_matrix() -> None:
    x, y = data(6)
    model = network()
    phi = input_objective(model, x, y, joint=True)
    assert phi.origin.shape == (1, 30)

    def whole(flat: Tensor) -> Tensor:
        return functional.cross_entropy(model(flat.reshape(6, 5)), y)

    points = torch.cat([phi.origin, phi.origin + normal(1, 30)])
    value, gradient = phi.value_and_grad(points)
    vectors = normal(2, 2, 30)
    products = phi.linearize(points)(vectors)
    for row, point in enumerate(points):
        leaf = point.clone().requires_grad_()
        assert float(value[row]) == pytest.approx(whole(leaf).item(), rel=1e-12)
        assert torch.allclose(gradient[row], torch.autograd.grad(whole(leaf), leaf)[0], atol=1e-14)
        assert torch.allclose(products[:, row], vectors[:, row] @ dense_hessian(whole, point), atol=1e-13)
    assert torch.equal(phi.value(points), value)
    assert phi.take(torch.zeros(3, dtype=torch.int64)).origin.shape == (3, 30)


@pytest.mark.parametrize("kind", ["parameters", "inputs", "joint"])
@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_search_forms_are_monotone_maps(kind: str, loss: str) -> None:
    model, (x, y) = network(), data(6)
    phi: Objective = {
        "parameters": parameter_objective(model, x, y, loss),
        "inputs": input_objective(model, x, y, loss),
        "joint": input_objective(model, x, y, loss, joint=True),
    }[kind]  # type: ignore[assignment]
    psi, to_search = search_form(phi)
    value = phi.value(phi.origin)
    assert torch.allclose(to_search(value), psi.value(psi.origin), rtol=1e-12)
    if loss == "margin":
        assert psi is phi
    elif kind == "inputs":
        assert torch.equal(to_search(value), log_odds_level(value))
    else:
        assert torch.equal(to_search(value), value.log())
    assert torch.equal(psi.take(torch.zeros(2, dtype=torch.int64)).origin[1], phi.origin[0])


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_the_model_is_left_as_it_was(name: str) -> None:
    model = build_model(name, {"image_size": 16, "num_classes": 3})
    initialise(model, Generator().manual_seed(0))
    model.train()  # without dropout or batch norm that is no harm
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x = torch.rand(4, 1, 16, 16, generator=Generator().manual_seed(1))
    y = torch.tensor([0, 1, 2, 1])
    for phi in (parameter_objective(model, x, y), input_objective(model, x, y)):
        value, gradient = phi.value_and_grad(phi.origin)
        product = phi.linearize(phi.origin)(gradient)
        assert (value.dtype, gradient.dtype, product.dtype) == (torch.float64, torch.float32, torch.float32)
        assert torch.isfinite(product).all()
        assert not phi.origin.requires_grad
        assert not product.requires_grad
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    "layer", [nn.Dropout(0.5), nn.BatchNorm1d(7), nn.AlphaDropout(0.1)], ids=lambda layer: type(layer).__name__
)
def test_random_layers_are_refused_in_train_mode_only(layer: nn.Module) -> None:
    x, y = data(4)
    model = nn.Sequential(nn.Linear(5, 7), layer, nn.Linear(7, 4)).double()
    for make in (parameter_objective, input_objective):
        model.train()
        with pytest.raises(ObjectiveError, match=r"train mode and 1 .* model\.eval\(\)"):
            make(model, x, y)
        phi = make(model.eval(), x, y)
        assert torch.equal(phi.value(phi.origin), phi.value(phi.origin))


@pytest.mark.parametrize("labels", [torch.zeros(3, dtype=torch.int64), torch.zeros(4, 1, dtype=torch.int64)])
def test_shapes_that_disagree_are_refused(labels: Tensor) -> None:
    x, _ = data(4)
    with pytest.raises(ObjectiveError, match="do not belong together"):
        parameter_objective(network(), x, labels)
    with pytest.raises(ObjectiveError, match="do not belong together"):
        input_objective(network(), x, labels)


def test_no_samples_no_parameters_no_such_loss() -> None:
    x, y = data(4)
    with pytest.raises(ObjectiveError, match="N ≥ 1"):
        parameter_objective(network(), x[:0], y[:0])
    with pytest.raises(ConfigurationError, match="unknown loss 'hinge'"):
        input_objective(network(), x, y, "hinge")


@pytest.mark.parametrize(("norm", "dual"), [(2, 2), (math.inf, 1), (1, math.inf)])
def test_targeted_starts_are_where_the_linear_model_of_a_class_wins(norm: float, dual: float) -> None:
    model, (x, y) = network(), data(6)
    found = targeted_starts(model, x, y, 2, norm)
    assert found.shape == (2, 6, 5)
    for i in range(6):
        logits = model(x[i : i + 1])[0].tolist()
        ranked = sorted((k for k in range(4) if k != y[i]), key=lambda k: -logits[k])
        for rank in range(2):
            leaf = x[i].clone().requires_grad_()
            z = model(leaf[None])[0]
            gap = z[y[i]] - z[ranked[rank]]
            distance = abs(gap.item())
            (gradient,) = torch.autograd.grad(-gap, leaf)
            start = found[rank, i]
            if gap.item() > 0:
                assert float(gradient @ start) == pytest.approx(distance, rel=1e-8)
            length = distance / float(torch.linalg.vector_norm(gradient, dual))
            assert float(torch.linalg.vector_norm(start, norm)) == pytest.approx(length, rel=1e-8)
    assert targeted_starts(model, x, y, 99).shape == (3, 6, 5)


def test_layout_is_told_by_strides_with_one_channel_too() -> None:
    """Torch chooses the path of a convolution by strides, which ``contiguous`` leaves alone for one channel."""
    kernel = torch.randn(4, 1, 5, 5, generator=Generator().manual_seed(0))
    assert channels_last(kernel).stride() == (25, 1, 5, 1)
    assert torch.equal(channels_last(kernel), kernel)
    again = channels_last(channels_last(kernel))
    assert again.data_ptr() == channels_last(again).data_ptr()
    flat = torch.ones(3, 4)
    assert channels_last(flat) is flat
