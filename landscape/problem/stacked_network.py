"""Networks of one architecture as one stack of layers, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from landscape.errors import ModelError
from landscape.problem.stacked_layers import PooledConvolution, Workspace, aligned, features_of, layers_of


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
        # Where each number of an image is among its features.
        pixels = torch.arange(torch.Size(image).numel()).view(1, *image)
        self.places = features_of(pixels, self.blocked)[0].argsort()
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

    def columns(self, images: Tensor) -> Tensor:
        """Images as layers take them, of one member, ``(B, C, H, W) -> (1, F, B)``."""
        if not self.blocked:
            return self.features(images).mT[None]
        count, channels, height, width = images.shape
        parts = images.reshape(count, channels, height // 2, 2, width // 2, 2).permute(1, 3, 5, 2, 4, 0)
        return parts.reshape(1, -1, count)

    def images(self, gradient: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The inverse of `columns`, ``(1, F, B) -> (B, C, H, W)``, in memory of its own."""
        if not self.blocked:
            return gradient[0].mT.reshape(-1, *shape).clone()  # layers write there again
        return gradient[0].index_select(0, self.places).T.contiguous().view(-1, *shape)

    def chunks(self, samples: Samples, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Chunks of samples for all members, ``(1, F, B)``, with their labels."""
        for rows, y in zip(samples.features.split(size), samples.labels.split(size), strict=True):
            yield self.inputs(rows[None]), y

    def logits(self, theta: Tensor, x: Tensor, differentiable: bool = True) -> Tensor:
        """Logits ``(M, B, K)`` of samples ``(M, F, B)``, or of the same samples ``(1, F, B)`` for all members."""
        x = x.expand(len(theta), -1, -1)
        for layer in self.layers:
            x = layer.forward(theta, x, differentiable)
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
