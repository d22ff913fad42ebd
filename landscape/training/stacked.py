"""Networks of one architecture as one stack: their losses, gradients, and metrics after an epoch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from landscape.problem.losses import Loss, cross_entropy, loss_by_name
from landscape.problem.stacked_network import Samples, StackedNetwork
from landscape.robustness.accuracy import BATCH
from landscape.robustness.fgsm import AS_PUBLISHED, READINGS

# A multiple of the numbers that vector units take at a time.
_LANES = 64
# Samples that are evaluated at a time, so that what is computed between layers stays in the cache.
_CHUNK = 128


Reading = Literal["published", "exact"]


def losses_and_gradient(logits: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Per-sample losses ``(M, B)``, and the gradient of their sum by the logits ``(M, B, K)``."""
    count = labels.numel()
    # Vector units take what is left over at the end one by one, and round it in another way.
    padding = -count % _LANES
    rows = nn.functional.pad(logits.detach().reshape(count, -1), (0, 0, 0, padding)).requires_grad_()
    classes = nn.functional.pad(labels.reshape(count), (0, padding))
    with torch.enable_grad():
        losses = loss(rows, classes)
        (gradient,) = torch.autograd.grad(losses.sum(), rows)
    return losses.detach()[:count].view(labels.shape), gradient[:count].view(logits.shape)


@torch.no_grad()
def evaluate_stacked(
    network: StackedNetwork, theta: Tensor, train: Samples, test: Samples, eps: float
) -> dict[str, float]:
    """What `evaluate` measures, of one member ``(1, S)``."""
    losses = (cross_entropy(network.logits(theta, x)[0], y) for x, y in network.chunks(train, _CHUNK))
    loss = sum(each.double().sum() for each in losses)
    right = dict.fromkeys(("clean", *READINGS), 0)
    for batch in zip(test.features.split(BATCH), test.labels.split(BATCH), strict=True):
        for x, y in network.chunks(Samples(*batch), _CHUNK):
            logits = network.logits(theta, x)
            right["clean"] += _num_right(logits, y)
            attacked = {name: _fgsm(network, x, logits, y, eps, name, len(batch[1])) for name in READINGS}
            for name, images in attacked.items():
                right[name] += _num_right(network.logits(theta, images), y)
    accuracies = {name: count / len(test.labels) for name, count in right.items()}
    return {"train_loss": float(loss) / len(train.labels), "clean_accuracy": accuracies.pop("clean")} | {
        f"fgsm_accuracy_{name}": value for name, value in accuracies.items()
    }


def _fgsm(
    network: StackedNetwork, x: Tensor, logits: Tensor, y: Tensor, eps: float, reading: Reading, batch: int
) -> Tensor:
    """FGSM as `landscape.robustness.fgsm.fgsm`, of a chunk ``(1, F, B)`` whose logits were computed last."""
    name = READINGS[reading]
    _, gradient = losses_and_gradient(logits, y[None], loss_by_name(name))
    if name == AS_PUBLISHED:  # which differentiates the mean over a batch, and underflows where that does
        gradient = gradient / batch
    return (x + eps * network.input_gradient(gradient).sign()).clamp(0, 1)


def _num_right(logits: Tensor, y: Tensor) -> int:
    return int(((logits[0].argmax(1) == y) & ~logits[0].isnan().any(1)).sum())
