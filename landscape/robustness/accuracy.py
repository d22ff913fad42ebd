"""Accuracy on clean images and under attack, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from landscape.problem.evaluation import evaluation
from landscape.problem.losses import margin
from landscape.robustness.fgsm import EXACT, fgsm, gradient_sign, perturbed

# Images attacked in one batch. It is part of the published reading: a mean over more samples underflows earlier.
BATCH = 1000


@dataclass(frozen=True)
class RobustAccuracy:
    """Accuracy under one attack at one radius, with the decisions behind it."""

    eps: float
    loss: str
    correct: Tensor  # (N,) bool

    @property
    def accuracy(self) -> float:
        """Share of samples that are still classified correctly."""
        return self.correct.double().mean().item()


def robust_accuracy(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, loss: str = EXACT, batch: int = BATCH
) -> RobustAccuracy:
    """Accuracy under FGSM of radius ``eps``; with ε = 0 it is the clean accuracy, sample by sample.

    Args:
        model: In eval mode; never changed.
        x: Images ``(N, …)`` in [0, 1].
        y: Labels ``(N,)``.
        eps: Attack radius in the maximum norm.
        loss: What FGSM differentiates, see `landscape.robustness.fgsm.fgsm`.
        batch: Images attacked at a time.
    """
    decisions = [
        predict(model, fgsm(model, images, labels, eps, loss)) == labels
        for images, labels in zip(x.split(batch), y.split(batch), strict=True)
    ]
    return RobustAccuracy(eps, loss, torch.cat(decisions))


def accuracy_curve(
    model: nn.Module, x: Tensor, y: Tensor, eps: Sequence[float], loss: str = EXACT, batch: int = BATCH
) -> list[float]:
    """Accuracies under FGSM at several radii, as `robust_accuracy` has them, for the price of one gradient."""
    right = torch.zeros(len(eps), dtype=torch.int64)
    for images, labels in zip(x.split(batch), y.split(batch), strict=True):
        sign = gradient_sign(model, images, labels, loss)
        for place, radius in enumerate(eps):
            right[place] += (predict(model, perturbed(images, sign, radius)) == labels).sum().cpu()
    return (right.double() / len(y)).tolist()


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of images that are classified correctly."""
    return (predict(model, x) == y).double().mean().item()


def predict(model: nn.Module, x: Tensor, batch: int = BATCH) -> Tensor:
    """Predicted classes, ``(N, …) -> (N,)``; −1, which is never right, where a logit is not a number."""
    return _decide(logits_of(model, x, batch))


def margins(model: nn.Module, x: Tensor, y: Tensor, batch: int = BATCH) -> Tensor:
    """Margins z_y − max_{k≠y} z_k, positive where the decision is right, ``(N, …), (N,) -> (N,)``."""
    return -margin(logits_of(model, x, batch), y)


def _decide(logits: Tensor) -> Tensor:
    return torch.where(logits.isnan().any(1), -1, logits.argmax(1))


@torch.no_grad()
def logits_of(model: nn.Module, x: Tensor, batch: int = BATCH) -> Tensor:
    """Logits ``(N, …) -> (N, K)``, which get no gradient."""
    evaluated = evaluation(model, tuple(x.shape[1:]))
    return torch.cat([evaluated.of_images(images) for images in x.split(batch)])
