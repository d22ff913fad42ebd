"""Logits of a network whose first derivatives are wanted, in the fastest way that is known for it.

A convolution of few channels leaves most of a vector unit empty, and torch pools and differentiates it slowly.
Where a network consists of layers that `landscape.problem.stacked_layers` knows, they compute the same, but for
rounding, in about half of the time, if there are many images. Other networks, other devices, and what is not
finite are left to torch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from landscape.errors import ModelError
from landscape.problem.losses import loss_and_logit_gradient
from landscape.problem.network import channels_last, detached, unravel
from landscape.problem.stacked_network import StackedNetwork

# Images that the layers take at a time, for what lies between them to stay small.
_TOGETHER = 500


@dataclass(frozen=True)
class Evaluation:
    """A network's logits, with gradients of the first order. Build it with `evaluation`."""

    model: nn.Module
    layers: _Layers | None

    def of_images(self, images: Tensor) -> Tensor:
        """Logits ``(B, …) -> (B, K)`` with the model's own parameters, which get no gradient."""
        if self.layers is not None and _is_fit(images):
            logits = _stacked(self.layers, self.layers.theta(), images)
            if logits is not None:
                return logits
        plain: Tensor = functional_call(self.model, detached(self.model), (channels_last(images),))
        return plain

    def image_gradients(
        self, images: Tensor, loss: Callable[..., Tensor], *labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits ``(B, K)``, losses ``(B,)`` and their gradients by the images ``(B, …)``, in one pass.

        Args:
            images: Samples that do not interact.
            loss: Of logits and labels, one number a sample.
            labels: Whatever else the loss takes, ``(B, …)`` each.
        """
        if self.layers is not None and _is_fit(images):
            rows = [tensor.split(_TOGETHER) for tensor in (images, *labels)]
            parts = [self.layers.image_gradients(*part, loss=loss) for part in zip(*rows, strict=True)]
            known = [part for part in parts if part is not None]
            if len(known) == len(parts):
                logits, losses, gradients = (joined(column) for column in zip(*known, strict=True))
                return logits, losses, gradients
        with torch.enable_grad():
            point = images.detach().requires_grad_()
            logits = self.of_images(point)
            losses = loss(logits, *labels)
            (gradient,) = torch.autograd.grad(losses.sum(), point)
        return logits.detach(), losses.detach(), gradient

    def parameter_gradient(
        self, row: Tensor, images: Tensor, loss: Callable[..., Tensor], *labels: Tensor, share: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Losses ``(B,)`` at a parameter vector ``(n,)``, and the gradient ``(n,)`` of a share of their sum.

        What lies between layers is kept of all images; `chunk` says how many of them to take at a time.
        """
        if self.layers is not None and _is_fit(images) and row.dtype == images.dtype:
            found = self.layers.parameter_gradient(row, images, *labels, loss=loss, share=share)
            if found is not None:
                return found
        with torch.enable_grad():
            point = row.detach().requires_grad_()
            losses = loss(self._plain(point, images), *labels)
            (gradient,) = torch.autograd.grad(losses.sum() * share, point)
        return losses.detach(), gradient

    def of_parameters(self, row: Tensor, images: Tensor) -> Tensor:
        """Logits ``(n,), (B, …) -> (B, K)`` at a parameter vector."""
        if self.layers is not None and _is_fit(images) and row.dtype == images.dtype:
            logits = _stacked(self.layers, self.layers.padded(row), images)
            if logits is not None:
                return logits
        return self._plain(row, images)

    def _plain(self, row: Tensor, images: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.model, unravel(self.model, row), (images,))
        return logits

    def chunk(self, most: int) -> int:
        """Images to take at a time where gradients are wanted, at most so many."""
        return most if self.layers is None else min(most, _TOGETHER)


def evaluation(model: nn.Module, shape: tuple[int, ...]) -> Evaluation:
    """How to evaluate a network on images of a shape ``(C, H, W)``; its parameters are looked up each time."""
    kinds = {parameter.dtype for parameter in model.parameters()}
    if kinds not in ({torch.float32}, {torch.float64}):
        return Evaluation(model, None)
    try:
        return Evaluation(model, _Layers(model, shape))
    except ModelError:  # layers that are not known
        return Evaluation(model, None)


def _stacked(layers: _Layers, theta: Tensor, images: Tensor) -> Tensor | None:
    """Logits by the layers; None where they are not finite: a kernel padded by zeros makes NaN of infinity."""
    if torch.is_grad_enabled():
        parts = [_Logits.apply(layers, theta, part) for part in images.split(_TOGETHER)]
    else:
        parts = [layers.logits(theta, part) for part in images.split(_TOGETHER)]
    logits = joined(parts)
    return logits if logits.isfinite().all() else None


def joined(parts: Sequence[Tensor]) -> Tensor:
    """One tensor of its parts, one after the other; a single one is not copied."""
    return torch.cat(list(parts)) if len(parts) > 1 else parts[0]


def _is_fit(images: Tensor) -> bool:
    return images.device.type == "cpu" and len(images) > 0


class _Layers:
    """A network's layers, and which call of `forward` they remember; whoever calls them holds the lock."""

    def __init__(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        self.network, self.number, self.spent = StackedNetwork(model, shape), 0, False
        self.lock, self._made_of = threading.Lock(), (model, shape)
        # Where parameters are: to ask the model for them takes as long as a layer.
        self._places = [(module, name) for module in model.children() for name in module._parameters]
        self._room = self.network.num_columns - self.network.num_parameters

    def __reduce__(self) -> tuple[type[_Layers], tuple[nn.Module, tuple[int, ...]]]:
        """Copies begin anew, with a lock of their own."""
        return _Layers, self._made_of

    def theta(self) -> Tensor:
        """The model's parameters as they are now, detached and padded, ``(S,)``."""
        parameters = [getattr(module, name).detach().reshape(-1) for module, name in self._places]
        return torch.cat([*parameters, parameters[0].new_zeros(self._room)])

    def padded(self, row: Tensor) -> Tensor:
        """A parameter vector ``(n,)`` with the zeros that layers need behind it, ``(S,)``."""
        return nn.functional.pad(row, (0, self._room))

    def forward(self, theta: Tensor, images: Tensor, differentiable: bool = True) -> tuple[Tensor, int]:
        """Logits ``(B, K)``, and the number of the call."""
        self.number, self.spent = self.number + 1, False
        return self.network.logits(theta[None], self.network.columns(images), differentiable)[0], self.number

    def logits(self, theta: Tensor, images: Tensor) -> Tensor:
        """Logits ``(B, K)`` that get no gradient."""
        with self.lock:
            return self.forward(theta, images, differentiable=False)[0]

    def image_gradients(
        self, images: Tensor, *labels: Tensor, loss: Callable[..., Tensor]
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """Logits, losses and gradients by the images; None where a logit is not finite."""
        with self.lock:
            with torch.no_grad():
                logits, _ = self.forward(self.theta(), images)
                if not logits.isfinite().all():
                    return None
            losses, gradient = loss_and_logit_gradient(loss, logits, *labels)
            with torch.no_grad():
                return logits, losses, self.by_images(gradient, tuple(images.shape[1:]))

    def parameter_gradient(
        self, row: Tensor, images: Tensor, *labels: Tensor, loss: Callable[..., Tensor], share: float
    ) -> tuple[Tensor, Tensor] | None:
        """Losses, and the gradient of a share of their sum by the parameters; None where a logit is not finite."""
        with self.lock, torch.no_grad():
            logits, _ = self.forward(self.padded(row.detach()), images)
            if not logits.isfinite().all():
                return None
            losses, gradient = loss_and_logit_gradient(loss, logits, *labels)
            return losses, self.by_theta(gradient * share)[: len(row)]

    def by_images(self, gradient: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Gradient by the images ``(B, …)``, from that by the logits ``(B, K)``; any number of times."""
        self.spent = True
        return self.network.images(self.network.input_gradient(gradient[None]), shape)

    def by_theta(self, gradient: Tensor) -> Tensor:
        """Gradient by the parameters ``(S,)``, from that by the logits ``(B, K)``; before that by the images."""
        into = gradient.new_zeros(1, self.network.num_columns)
        self.network.backward(gradient[None], into)
        return into[0]


class _Logits(torch.autograd.Function):
    """Logits by the layers, which keep what the backward pass needs until they run forward again."""

    @staticmethod
    def forward(ctx: Any, layers: _Layers, theta: Tensor, images: Tensor) -> Tensor:
        ctx.layers = layers
        ctx.save_for_backward(theta, images)
        with layers.lock:
            logits, ctx.number = layers.forward(theta, images)
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        layers, (theta, images) = ctx.layers, ctx.saved_tensors
        to_theta, to_images = ctx.needs_input_grad[1:]
        with layers.lock:
            if layers.number != ctx.number or (to_theta and layers.spent):
                _, ctx.number = layers.forward(theta, images)
            of_theta = layers.by_theta(gradient) if to_theta else None
            of_images = layers.by_images(gradient, tuple(images.shape[1:])) if to_images else None
        return None, of_theta, of_images
