"""Accuracy sample by sample, on networks whose answers are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from landscape.robustness.accuracy import RobustAccuracy, accuracy, margins, predict, robust_accuracy


class Linear(nn.Module):
    """Logits (s, 0, -s) with s = x₀ − ½: class 0 right of ½, class 2 left of it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 0.0, -1.0]))

    def forward(self, x: Tensor) -> Tensor:
        return (x.reshape(len(x), -1)[:, :1] - 0.5) * self.weight


X = torch.tensor([0.9, 0.7, 0.55, 0.2, 0.45])[:, None]
Y = torch.tensor([0, 0, 2, 2, 2])
LOSSES = ("log_odds", "margin", "cross_entropy_as_published")


def test_predictions_and_margins() -> None:
    """Margins are gaps to the strongest other class, positive where the decision is right."""
    net = Linear()
    assert predict(net, X).tolist() == [0, 0, 0, 2, 2]
    assert accuracy(net, X, Y) == 0.8
    torch.testing.assert_close(margins(net, X, Y), torch.tensor([0.4, 0.2, -0.1, 0.3, 0.05]))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("eps", "correct"),
    [
        (0.0, [True, True, False, True, True]),
        (0.1, [True, True, False, True, False]),
        (0.25, [True, False, False, True, False]),
        (0.35, [True, False, False, False, False]),
        (0.5, [False] * 5),
    ],
)
def test_a_linear_model_falls_at_its_distance(eps: float, correct: list[bool], loss: str) -> None:
    found = robust_accuracy(Linear(), X, Y, eps, loss)
    assert found.correct.tolist() == correct
    assert found.accuracy == pytest.approx(sum(correct) / 5)
    assert (found.eps, found.loss) == (eps, loss)


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_batches_are_put_together_in_order(batch: int) -> None:
    net = Linear()
    assert predict(net, X, batch).tolist() == [0, 0, 0, 2, 2]
    assert torch.equal(margins(net, X, Y, batch), margins(net, X, Y))
    assert robust_accuracy(net, X, Y, 0.25, batch=batch).correct.tolist() == [True, False, False, True, False]


def test_labels_and_images_must_match() -> None:
    with pytest.raises((ValueError, RuntimeError)):
        robust_accuracy(Linear(), X, Y[:2], 0.1, batch=2)


def test_a_share_is_not_rounded_to_single_precision() -> None:
    assert RobustAccuracy(0.1, "margin", torch.arange(10) < 7).accuracy == 0.7


def test_nothing_is_recorded_for_autograd() -> None:
    net = Linear()
    assert not margins(net, X, Y).requires_grad and net.weight.grad is None
