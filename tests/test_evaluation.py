"""Networks by our layers against torch's own modules: logits, gradients, ties, and what must be left to torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

from landscape.problem.datasets import load_dataset
from landscape.problem.evaluation import Evaluation, evaluation
from landscape.problem.losses import cross_entropy, log_odds, loss_and_logit_gradient, margin
from landscape.problem.models import build_model, initialise
from landscape.problem.network import ravel, unravel

MANY = 620  # more than the layers take at a time


def network(name: str, dtype: torch.dtype = torch.float64, **arguments: Any) -> nn.Sequential:
    model = build_model(name, arguments)
    initialise(model, Generator().manual_seed(0))
    return model.to(dtype)


def images(count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return load_dataset("mnist", "test").images[:count].to(dtype)


def gradients(function: Callable[..., Tensor], *points: Tensor) -> tuple[Tensor, ...]:
    """Gradients of a sum in which every logit has another weight."""
    leaves = [point.detach().clone().requires_grad_() for point in points]
    logits = function(*leaves)
    weights = torch.linspace(-1, 2, logits.numel(), dtype=logits.dtype).view_as(logits)
    return torch.autograd.grad((weights * logits.square()).sum(), leaves)


def assert_close(found: Tensor, expected: Tensor, share: float = 1e-12) -> None:
    assert (found - expected).abs().max() <= share * expected.abs().max()


@pytest.mark.parametrize("name", ["cnn", "mlp"])
@pytest.mark.parametrize("count", [1, 7, MANY])
def test_logits_and_gradients_are_those_of_torch(name: str, count: int) -> None:
    model, x = network(name), images(count)
    found = evaluation(model, tuple(x.shape[1:]))
    assert found.layers is not None
    with torch.no_grad():
        assert_close(found.of_images(x), model(x))
        assert_close(found.of_parameters(ravel(model), x), model(x))
    assert_close(gradients(found.of_images, x)[0], gradients(model, x)[0])
    expected = gradients(lambda row, z: functional_call(model, unravel(model, row), (z,)), ravel(model), x)
    both = gradients(found.of_parameters, ravel(model), x)
    alone = gradients(lambda row: found.of_parameters(row, x), ravel(model))
    for ours, theirs in zip((*both, *alone), (*expected, expected[0]), strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("count", [1, 7, MANY])
@pytest.mark.parametrize("loss", [log_odds, margin, cross_entropy])
def test_losses_and_their_gradients_by_images(loss: Callable[[Tensor, Tensor], Tensor], count: int) -> None:
    model, x = network("cnn"), images(count)
    y = torch.arange(count) % 10
    logits, losses, gradient = evaluation(model, tuple(x.shape[1:])).image_gradients(x, loss, y)
    leaf = x.clone().requires_grad_()
    expected = loss(model(leaf), y)
    assert_close(logits, model(x).detach())
    assert_close(losses, expected.detach())
    assert_close(gradient, torch.autograd.grad(expected.sum(), leaf)[0])
    assert not any(tensor.requires_grad for tensor in (logits, losses, gradient))


@pytest.mark.parametrize("count", [1, 7, MANY])
@pytest.mark.parametrize("loss", [log_odds, margin, cross_entropy])
def test_losses_and_their_gradient_by_parameters(loss: Callable[[Tensor, Tensor], Tensor], count: int) -> None:
    model, x = network("cnn"), images(count)
    y = torch.arange(count) % 10
    row = ravel(model) + 0.01  # not the model's own
    leaf = row.clone().requires_grad_()
    expected = loss(functional_call(model, unravel(model, leaf), (x,)), y)
    (slope,) = torch.autograd.grad(expected.sum() / 3, leaf)
    for found in (evaluation(model, (1, 28, 28)), Evaluation(model, None)):
        losses, gradient = found.parameter_gradient(row, x, loss, y, share=1 / 3)
        assert_close(losses, expected.detach())
        assert_close(gradient, slope)
        assert gradient.shape == row.shape and not losses.requires_grad and not gradient.requires_grad


def test_a_gradient_by_parameters_that_is_not_finite_is_as_torch_has_it() -> None:
    model, x, y = network("cnn", torch.float32), images(4, torch.float32), torch.arange(4)
    row = 1e30 * ravel(model)
    ours, theirs = (
        found.parameter_gradient(row, x, cross_entropy, y)
        for found in (evaluation(model, (1, 28, 28)), Evaluation(model, None))
    )
    assert not ours[0].isfinite().all()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.nan_to_num(7), b.nan_to_num(7))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_log_odds_by_logits_are_those_of_autograd(dtype: torch.dtype) -> None:
    logits = (40 * torch.randn(200, 10, generator=Generator().manual_seed(0))).to(dtype)
    y = torch.arange(200) % 10
    leaf = logits.clone().requires_grad_()
    expected = log_odds(leaf, y)
    losses, gradient = loss_and_logit_gradient(log_odds, logits, y)
    assert torch.equal(losses, expected.detach())
    assert torch.equal(gradient, torch.autograd.grad(expected.sum(), leaf)[0])


def test_values_do_not_disturb_a_gradient_that_is_asked_for_later() -> None:
    model, x = network("cnn"), images(6)
    found = evaluation(model, tuple(x.shape[1:]))
    leaf = x.clone().requires_grad_()
    loss = found.of_images(leaf).square().sum()
    with torch.no_grad():
        found.of_images(1 - x)  # keeps nothing that a backward pass would need
    assert_close(torch.autograd.grad(loss, leaf)[0], torch.autograd.grad(model(leaf).square().sum(), leaf)[0])


def test_a_graph_lasts_whatever_is_computed_in_between() -> None:
    model, x = network("cnn"), images(5)
    found = evaluation(model, tuple(x.shape[1:]))
    leaf = x.clone().requires_grad_()
    logits = found.of_images(leaf)
    found.of_images(images(3) / 2)  # uses the same memory
    row = ravel(model).requires_grad_()
    of_row = found.of_parameters(row, leaf)
    expected = [gradients(lambda z, k=k: model(z)[:, k : k + 1], x)[0] for k in range(3)]
    for k in range(3):
        weights = torch.linspace(-1, 2, 5, dtype=x.dtype)[:, None]
        loss = (weights * logits[:, k : k + 1].square()).sum()
        assert_close(torch.autograd.grad(loss, leaf, retain_graph=True)[0], expected[k])
    first = torch.autograd.grad(of_row.square().sum(), row, retain_graph=True)[0]
    torch.autograd.grad(of_row.square().sum(), leaf, retain_graph=True)
    assert torch.equal(torch.autograd.grad(of_row.square().sum(), row)[0], first)


def test_threads_share_an_evaluation_and_copies_do_not() -> None:
    model, x = network("cnn"), images(40)
    found = evaluation(model, (1, 28, 28))
    with ThreadPoolExecutor(4) as pool:
        shares = list(pool.map(lambda i: gradients(found.of_images, x[i : i + 7])[0], [*range(30)] * 4))
    for i, share in zip([*range(30)] * 4, shares, strict=True):
        assert_close(share, gradients(model, x[i : i + 7])[0])
    other = copy.deepcopy(found)
    assert other.layers is not None and other.layers is not found.layers and other.model is not model
    assert_close(gradients(other.of_images, x)[0], gradients(model, x)[0])


def test_ties_are_broken_as_torch_breaks_them() -> None:
    """Images of flat parts, where four pixels are pooled that are exactly equal, have kinks everywhere."""
    model, x = network("cnn", torch.float32), images(300, torch.float32).round(decimals=1)
    ours, theirs = (gradients(f, x)[0].flatten(1) for f in (evaluation(model, (1, 28, 28)).of_images, model))
    apart = (ours - theirs).abs().amax(1) / theirs.abs().amax(1)
    assert apart.max() < 1e-4


def test_parameters_are_looked_up_each_time() -> None:
    model, x = network("mlp"), images(4)
    found = evaluation(model, (1, 28, 28))
    with torch.no_grad():
        next(model.parameters()).mul_(2)
        assert_close(found.of_images(x), model(x))


class Doubled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class Reversed(nn.Sequential):
    def forward(self, input: Tensor) -> Tensor:
        first, last = self
        return torch.as_tensor(last(first(input))).flip(1)


def subclassed() -> nn.Module:
    return nn.Sequential(nn.Flatten(), Doubled(784, 10)).double()


def reversed_order() -> nn.Module:
    return Reversed(nn.Flatten(), nn.Linear(784, 10)).double()


def hooked() -> nn.Module:
    model = network("mlp")
    model[1].register_forward_hook(lambda module, arguments, output: output + 1)
    return model


def shared() -> nn.Module:
    layer = nn.Linear(784, 784)
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer).double()


def padded() -> nn.Module:
    layers = nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(392, 10)
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize("make", [subclassed, reversed_order, hooked, shared, padded])
def test_what_is_not_known_is_left_to_torch(make: Callable[[], nn.Module]) -> None:
    model, x = make(), images(3)
    found = evaluation(model, (1, 28, 28))
    assert found.layers is None
    with torch.no_grad():
        assert_close(found.of_images(x), model(x))


def test_half_precision_is_left_to_torch() -> None:
    model = network("mlp", torch.bfloat16)
    assert evaluation(model, (1, 28, 28)).layers is None


@pytest.mark.parametrize("scale", [1e30, float("inf"), float("nan")])
def test_what_is_not_finite_is_as_torch_has_it(scale: float) -> None:
    model, x = network("cnn", torch.float32), images(4, torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    found = evaluation(model, (1, 28, 28)).of_images(x)
    assert not found.isfinite().all()
    assert torch.equal(found.isnan(), model(x).isnan())
    assert torch.equal(found.nan_to_num(), model(x).nan_to_num())


def test_second_derivatives_are_refused_and_not_wrong() -> None:
    leaf = images(2).requires_grad_()
    logits = evaluation(network("cnn"), (1, 28, 28)).of_images(leaf)
    (first,) = torch.autograd.grad(logits.square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(first.square().sum(), leaf)
