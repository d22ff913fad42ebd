"""Networks of one architecture as one stack: their losses, gradients, and metrics after an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from landscape.errors import ModelError
from landscape.problem.losses import Loss, cross_entropy, loss_by_name
from landscape.robustness.accuracy import BATCH
from landscape.robustness.fgsm import AS_PUBLISHED, READINGS
from landscape.training.stacked_layers import PooledConvolution, Workspace, aligned, features_of, layers_of

# A multiple of the numbers that vector units take at a time.
_LANES = 64
# Samples that are evaluated at a time, so that what is computed between layers stays in the cache.
_CHUNK = 128


Reading = Literal["published", "exact"]


class Samples(NamedTuple):
    """Samples as the first layer takes them: features ``(N, F)`` and labels ``(N,)``."""

    features: Tensor
    labels: Tensor


class StackedNetwork:
    """M networks of one architecture, as layers on values ``(M, F, B)``.

    Raises:
        ModelError: If it has layers that cannot be stacked here, see `stackable`.
    """

    def __init__(self, model: nn.Module, image: tuple[int, ...]) -> None:
        layers = layers_of(model, image)
        if layers is None:
            raise ModelError("the network has layers that cannot be stacked; train its runs one at a time.")
        self.layers = layers
        self.blocked = isinstance(layers[0], PooledConvolution)
        self.num_parameters = sum(p.numel() for p in model.parameters())
        self.num_columns = aligned(self.num_parameters + 1)
        self._space = Workspace()

    def stack(self, vectors: Tensor) -> Tensor:
        """Parameter vectors ``(M, P)`` with zeros behind them, ``(M, S)``; layers need at least one zero."""
        theta = vectors.new_zeros((len(vectors), self.num_columns))
        theta[:, : self.num_parameters] = vectors
        return theta

    def features(self, images: Tensor) -> Tensor:
        """Images as the first layer takes them, ``(N, C, H, W) -> (N, F)``."""
        return features_of(images, self.blocked)

    def inputs(self, features: Tensor) -> Tensor:
        """Rows of features as layers take them, ``(M, B, F) -> (M, F, B)``."""
        return features.mT.contiguous() if self.blocked else features.mT

    def chunks(self, samples: Samples, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Chunks of samples for all members, ``(1, F, B)``, with their labels."""
        for rows, y in zip(samples.features.split(size), samples.labels.split(size), strict=True):
            yield self.inputs(rows[None]), y

    def logits(self, theta: Tensor, x: Tensor) -> Tensor:
        """Logits ``(M, B, K)`` of samples ``(M, F, B)``, or of the same samples ``(1, F, B)`` for all members."""
        x = x.expand(len(theta), -1, -1)
        for layer in self.layers:
            x = layer.forward(theta, x)
        return x.mT.clone(memory_format=torch.contiguous_format)  # the last layer writes there again

    def backward(self, gradient: Tensor, into: Tensor) -> None:
        """Write the gradient by θ ``(M, S)``, from that by the logits ``(M, B, K)`` of the last call."""
        self._flow(gradient, into, to_input=False)

    def input_gradient(self, gradient: Tensor) -> Tensor:
        """Gradient by the input ``(M, F, B)``, from that by the logits ``(M, B, K)`` of the last call.

        It may be asked for several times after one call, but leaves nothing for `backward`.
        """
        return self._flow(gradient, None, to_input=True)

    def _flow(self, gradient: Tensor, into: Tensor | None, to_input: bool) -> Tensor:
        members, batch, classes = gradient.shape
        flowing = self._space("gradient", (members, batch, classes), gradient).copy_(gradient).mT
        for number in reversed(range(len(self.layers))):
            flowing = self.layers[number].backward(flowing, into, to_input or number > 0)
        return flowing


def stackable(model: nn.Module, image: tuple[int, ...]) -> bool:
    """Whether networks like this one, for images ``(C, H, W)``, can be stacked."""
    return layers_of(model, image) is not None


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
