"""softplus of the log-odds is cross-entropy, and stays so where torch's own formula rounds."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional

from landscape.errors import ConfigurationError
from landscape.problem.losses import (
    LOSSES,
    Loss,
    cross_entropy,
    cross_entropy_as_published,
    log_odds,
    log_odds_level,
    loss_by_name,
    margin,
)


def logits_and_labels(rows: int = 50, classes: int = 6, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    random = Generator().manual_seed(1)
    logits = scale * torch.randn(rows, classes, generator=random, dtype=torch.float64)
    return logits, torch.randint(classes, (rows,), generator=random)


def test_formulas_on_one_row() -> None:
    logits, label = torch.tensor([[1.0, 3.0, 2.0]], dtype=torch.float64), torch.tensor([0])
    odds = math.log(math.exp(3) + math.exp(2)) - 1
    expected = {"log_odds": odds, "margin": 2.0, "cross_entropy": math.log1p(math.exp(odds))}
    expected["cross_entropy_as_published"] = expected["cross_entropy"]
    assert set(expected) == set(LOSSES)
    for name, value in expected.items():
        assert float(loss_by_name(name)(logits, label)) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_value_and_gradient_are_those_of_torch(classes: int) -> None:
    logits, labels = logits_and_labels(classes=classes)
    logits.requires_grad_()
    ours, theirs = cross_entropy(logits, labels), functional.cross_entropy(logits, labels, reduction="none")
    assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)
    (gradient,) = torch.autograd.grad(ours.sum(), logits)
    assert torch.allclose(gradient, logits.softmax(1) - functional.one_hot(labels, classes), atol=1e-12)


def test_gradient_is_that_of_log_odds_times_one_minus_p() -> None:
    logits, labels = logits_and_labels()
    logits.requires_grad_()
    (of_entropy,) = torch.autograd.grad(cross_entropy(logits, labels).sum(), logits)
    (of_odds,) = torch.autograd.grad(log_odds(logits, labels).sum(), logits)
    true_probability = logits.softmax(1).gather(1, labels[:, None])
    assert torch.allclose(of_entropy, (1 - true_probability) * of_odds, rtol=1e-9, atol=1e-14)


def mean_loss_report(loss: Loss, gap: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, gradient and Hessian of a linear softmax classifier whose margins are about ``gap``."""
    random = Generator().manual_seed(3)
    x = torch.randn(12, 3, generator=random, dtype=torch.float64)
    y = torch.randint(3, (12,), generator=random)
    bias = gap * functional.one_hot(y, 3).double() + 0.3 * torch.randn(
        12, 3, generator=random, dtype=torch.float64
    )
    x, bias = x.to(dtype), bias.to(dtype)

    def mean(weight: Tensor) -> Tensor:
        return loss(x @ weight.reshape(3, 3) + bias, y).mean()

    origin = torch.zeros(9, dtype=dtype)
    hessian = torch.func.hessian(mean)(origin)
    return mean(origin).double(), torch.func.grad(mean)(origin).double(), hessian.double()


def relative_errors(loss: Loss, gap: float) -> list[float]:
    """Of loss, gradient and top eigenvalue in float32, against the stable formula in float64."""
    exact = mean_loss_report(cross_entropy, gap, torch.float64)
    found = mean_loss_report(loss, gap, torch.float32)
    top = [float(torch.linalg.eigvalsh(h / exact[2].norm())[-1]) for h in (found[2], exact[2])]
    return [
        float((found[0] - exact[0]).abs() / exact[0]),
        float((found[1] - exact[1]).norm() / exact[1].norm()),
        abs(top[0] / top[1] - 1),
    ]


@pytest.mark.parametrize("gap", [5.0, 15.0, 20.0, 40.0, 80.0])
def test_single_precision_holds_at_every_margin(gap: float) -> None:
    assert max(relative_errors(cross_entropy, gap)) < 1e-3


@pytest.mark.parametrize("gap", [20.0, 40.0, 80.0])
def test_single_precision_of_the_published_formula_does_not(gap: float) -> None:
    assert min(relative_errors(cross_entropy_as_published, gap)) > 1e-2


@pytest.mark.parametrize(("gap", "accuracy"), [(-25.0, 1e-4), (10.0, 1e-12), (30.0, 1e-12), (60.0, 1e-12)])
def test_double_precision_is_exact_to_second_order(gap: float, accuracy: float) -> None:
    """One row and two classes: φ(w) = softplus(w − gap) has derivatives σ and σ(1 − σ)."""
    labels = torch.tensor([0])

    def loss(w: Tensor) -> Tensor:
        return cross_entropy(torch.stack([torch.tensor(gap, dtype=torch.float64), w])[None], labels)[0]

    origin, sigma = torch.zeros((), dtype=torch.float64), 1 / (1 + math.exp(gap))
    assert float(loss(origin)) == pytest.approx(math.log1p(math.exp(-gap)), rel=1e-12)
    assert float(torch.func.grad(loss)(origin)) == pytest.approx(sigma, rel=1e-12)
    assert float(torch.func.hessian(loss)(origin)) == pytest.approx(sigma * (1 - sigma), rel=accuracy)


@pytest.mark.parametrize("level", [1e-300, 1e-30, 1e-8, 0.1, math.log(2), 1.0, 5.0, 50.0, 1e3, 1e300])
def test_log_odds_level_inverts_softplus(level: float) -> None:
    odds = float(log_odds_level(torch.tensor(level, dtype=torch.float64)))
    assert math.isfinite(odds)
    softplus = odds + math.log1p(math.exp(-odds)) if odds > 0 else math.log1p(math.exp(odds))
    assert softplus == pytest.approx(level, rel=1e-12)


def test_sandwich_of_margin_and_log_odds() -> None:
    logits, labels = logits_and_labels(classes=10)
    odds, distance = log_odds(logits, labels), margin(logits, labels)
    assert (distance <= odds).all()
    assert (odds <= distance + math.log(9)).all()
    assert torch.equal(distance > 0, logits.argmax(1) != labels)


def test_unknown_loss_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="cross_entropy, log_odds, margin"):
        loss_by_name("hinge")
