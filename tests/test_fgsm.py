"""FGSM against torchattacks, against float64, and under the rounding that masks it."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from small_runs import trained_cnn
from torch import Tensor, nn
from torch.nn import functional

from landscape.errors import ConfigurationError
from landscape.problem.datasets import load_dataset
from landscape.robustness.accuracy import accuracy, margins, predict, robust_accuracy
from landscape.robustness.fgsm import AS_PUBLISHED, EXACT, READINGS, fgsm

EPS = 0.1
LOSSES = (*READINGS.values(), "margin", "cross_entropy")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    return trained_cnn(tmp_path_factory.mktemp("fgsm") / "run")


@pytest.fixture(scope="module")
def images() -> Tensor:
    return load_dataset("mnist", "test").images[:600]


@pytest.fixture(scope="module")
def labels() -> Tensor:
    return load_dataset("mnist", "test").labels[:600]


@pytest.fixture(scope="module")
def confident(model: nn.Sequential) -> nn.Sequential:
    """The same decisions with margins fifty times as large: float32 rounds p_y to 1."""
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in scaled[-1].parameters():
            parameter.mul_(50)
    return scaled


def test_the_model_is_worth_attacking(model: nn.Sequential, images: Tensor, labels: Tensor) -> None:
    """The other tests compare decisions; neither all nor none of them may be right."""
    assert accuracy(model, images, labels) > 0.8
    assert 0.02 < robust_accuracy(model, images, labels, EPS).accuracy < 0.7


@pytest.mark.parametrize("loss", LOSSES)
def test_radius_zero_is_the_identity(model: nn.Sequential, images: Tensor, labels: Tensor, loss: str) -> None:
    torch.testing.assert_close(fgsm(model, images, labels, 0.0, loss), images, rtol=0, atol=0)
    attacked = robust_accuracy(model, images, labels, 0.0, loss)
    assert torch.equal(attacked.correct, predict(model, images) == labels)
    assert attacked.accuracy == accuracy(model, images, labels)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("eps", [1e-3, 0.3, 2.0])
def test_result_stays_in_the_box(
    model: nn.Sequential, images: Tensor, labels: Tensor, eps: float, loss: str
) -> None:
    adversarial = fgsm(model, images[:50], labels[:50], eps, loss)
    assert adversarial.min() >= 0 and adversarial.max() <= 1
    assert 0.99 * min(eps, 1) <= (adversarial - images[:50]).abs().max() <= eps + 1e-6


@pytest.mark.parametrize("scale", ["plain", "confident"])
def test_published_reading_equals_torchattacks(
    model: nn.Sequential, confident: nn.Sequential, images: Tensor, labels: Tensor, scale: str
) -> None:
    """Bit for bit the same images, hence the same decisions, masked or not."""
    net = {"plain": model, "confident": confident}[scale]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its dependencies
        torchattacks = pytest.importorskip("torchattacks")
        theirs = torchattacks.FGSM(net, eps=EPS)(images, labels)
    ours = fgsm(net, images, labels, EPS, AS_PUBLISHED)
    assert torch.equal(ours, theirs)
    with torch.no_grad():
        decisions = net(theirs).argmax(1) == labels
    assert torch.equal(robust_accuracy(net, images, labels, EPS, AS_PUBLISHED).correct, decisions)


def test_log_odds_is_exact_fgsm(model: nn.Sequential, images: Tensor, labels: Tensor) -> None:
    """In float64, where cross-entropy does not round yet, both gradients have the same signs."""
    net, x = copy.deepcopy(model).double(), images.double()
    moderate = margins(net, x, labels) < 15
    x, y = x[moderate], labels[moderate]
    assert len(y) > 500
    point = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(functional.cross_entropy(net(point), y, reduction="sum"), point)
    step = fgsm(net, x, y, 1e-3, EXACT) - x
    free = (x > 1e-3) & (x < 1 - 1e-3) & (gradient.abs() > 1e-9 * gradient.abs().amax((1, 2, 3), keepdim=True))
    assert free.sum() > 10_000
    assert torch.equal(step.sign()[free], gradient.sign()[free])


def test_confidence_masks_the_published_reading_only(
    model: nn.Sequential, confident: nn.Sequential, images: Tensor, labels: Tensor
) -> None:
    """Scaling the logits changes no decision and no direction; only rounded cross-entropy looks more robust."""

    def correct(net: nn.Module, loss: str) -> Tensor:
        return robust_accuracy(net, images, labels, EPS, loss).correct

    def share(net: nn.Module, loss: str) -> float:
        return correct(net, loss).double().mean().item()

    assert torch.equal(correct(model, "margin"), correct(confident, "margin"))
    assert share(confident, AS_PUBLISHED) > share(model, AS_PUBLISHED) + 0.02
    assert abs(share(confident, EXACT) - share(confident, "margin")) <= 0.01


@pytest.mark.parametrize("loss", [AS_PUBLISHED, EXACT])
def test_noise_is_weaker_than_the_gradient(
    model: nn.Sequential, images: Tensor, labels: Tensor, loss: str, generator: torch.Generator
) -> None:
    signs = torch.randint(0, 2, images.shape, generator=generator) * 2.0 - 1
    noisy = accuracy(model, (images + EPS * signs).clamp(0, 1), labels)
    assert noisy >= robust_accuracy(model, images, labels, EPS, loss).accuracy


def test_exact_reading_does_not_depend_on_batches(model: nn.Sequential, images: Tensor, labels: Tensor) -> None:
    whole = robust_accuracy(model, images, labels, EPS).correct
    for batch in (1, 7, 599, 10**6):
        count = 60 if batch == 1 else len(labels)
        split = robust_accuracy(model, images[:count], labels[:count], EPS, batch=batch).correct
        assert torch.equal(split, whole[:count]), batch


@pytest.mark.parametrize("eps", [-0.1, math.inf, math.nan])
def test_impossible_radius(model: nn.Sequential, images: Tensor, labels: Tensor, eps: float) -> None:
    with pytest.raises(ConfigurationError, match="attack radius"):
        fgsm(model, images[:2], labels[:2], eps)


@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0, math.nan, -math.inf])
def test_images_outside_the_range(model: nn.Sequential, images: Tensor, labels: Tensor, value: float) -> None:
    wrong = images[:2].clone()
    wrong[1, 0, 3, 4] = value
    with pytest.raises(ConfigurationError, match=r"\[0, 1\]"):
        fgsm(model, wrong, labels[:2], EPS)


def test_unknown_loss(model: nn.Sequential, images: Tensor, labels: Tensor) -> None:
    with pytest.raises(ConfigurationError, match="unknown loss"):
        fgsm(model, images[:2], labels[:2], EPS, "hinge")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_alone(
    model: nn.Sequential, images: Tensor, labels: Tensor, loss: str, training: bool
) -> None:
    net = copy.deepcopy(model).train(training)
    before = [p.detach().clone() for p in net.parameters()]
    x = images[:20].clone()
    robust_accuracy(net, x, labels[:20], EPS, loss)
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert net.training is training
    assert all(torch.equal(p, old) for p, old in zip(net.parameters(), before, strict=True))
    assert torch.equal(x, images[:20]) and not x.requires_grad and x.grad is None
