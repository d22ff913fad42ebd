"""What takes the steps of training: a network by itself, or those of several runs as one stack."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from landscape.problem.datasets import Dataset
from landscape.problem.losses import POSITIVE_LOSSES, loss_by_name
from landscape.problem.models import build_model
from landscape.problem.network import channels_last
from landscape.problem.stacked_network import Samples, StackedNetwork, stackable
from landscape.robustness.fgsm import EXACT
from landscape.snapshots import Layout, flatten, layout_of, unflatten
from landscape.training.config import TrainingConfig, generator
from landscape.training.evaluate import evaluate
from landscape.training.methods import uniform_noise
from landscape.training.optimizers import build_optimizer, optimizer_state, restore_optimizer_state
from landscape.training.stacked import evaluate_stacked, losses_and_gradient
from landscape.training.stacked_optimizers import restore_state, stacked_optimizer, state_of

Array = np.ndarray

# Names of the engines, as a run's provenance holds them. Each ends in bits of its own.
MODULE, STACKED = "module", "stacked"


@dataclass(frozen=True)
class Standpoint:
    """Where a run stands: weights (P,), and the optimizer's state unless no step was taken yet."""

    theta: Array
    optimizer: Mapping[str, Array] | None = None


class Engine(Protocol):
    """The networks of M runs, and what moves them."""

    def step(self, batch: Tensor, seen: int) -> list[float]:
        """Take one step on each run's own samples; the batch losses before it, of the images that are trained on.

        Args:
            batch: Indices of samples, ``(M, b)``.
            seen: Samples that each run has seen before.
        """

    def parameters(self) -> Array:
        """A copy of all parameters, ``(M, P)``."""

    def optimizer_state(self, member: int) -> dict[str, Array]:
        """What the next step of a run depends on beside its weights, as flat arrays."""

    def metrics(self, theta: Array, epsilon: float) -> dict[str, float]:
        """What is measured after an epoch, at parameters ``(P,)``."""


@dataclass(frozen=True)
class Bench:
    """Model and data that runs of one group share, in the forms that the engines need."""

    model: nn.Module
    data: Dataset
    test: Dataset

    @functools.cached_property
    def layout(self) -> Layout:
        """Where the parameters lie in a vector."""
        return layout_of(self.model.named_parameters())

    @functools.cached_property
    def images(self) -> Tensor:
        """Training images in the memory layout in which a network by itself runs fastest."""
        return channels_last(self.data.images)

    @functools.cached_property
    def network(self) -> StackedNetwork:
        """The stack's layers, and their memory."""
        return StackedNetwork(self.model, tuple(self.data.images.shape[1:]))

    @functools.cached_property
    def samples(self) -> tuple[Samples, Samples]:
        """Training and test data as the stack takes them."""
        of_train, of_test = (Samples(self.network.features(d.images), d.labels) for d in (self.data, self.test))
        return of_train, of_test

    def best_engine(self) -> str:
        """The engine for a run that begins: a stack wherever its layers allow one."""
        return STACKED if stackable(self.model, tuple(self.data.images.shape[1:])) else MODULE


def make_engine(
    name: str, configs: Sequence[TrainingConfig], bench: Bench, standpoints: Sequence[Standpoint]
) -> Engine:
    """The engine of that name, with all runs where they stand; runs differ in seed and learning rate only."""
    if name == STACKED:
        return StackedEngine(configs, bench, standpoints)
    return ModuleEngine(configs[0], bench, standpoints[0])


class ModuleEngine:
    """One run: PyTorch's modules, autograd and optimizer."""

    def __init__(self, config: TrainingConfig, bench: Bench, standpoint: Standpoint) -> None:
        self._bench, self._config, self._method = bench, config, config.make_method()
        self._loss, self._ascended = loss_by_name(config.loss), loss_by_name(ascended_loss(config.loss))
        self._model = self._model_at(standpoint.theta)
        self._theta = [parameter.detach()[None] for parameter in self._model.parameters()]
        self._optimizer = build_optimizer(config, self._model.parameters())
        if standpoint.optimizer is not None:
            restore_optimizer_state(self._optimizer, standpoint.optimizer)

    def _model_at(self, theta: Array) -> nn.Module:
        """The network with these parameters ``(P,)``, in the memory layout in which it runs fastest."""
        model = build_model(self._config.model, self._config.model_args)
        model.to(memory_format=torch.channels_last)
        parameters = unflatten(self._bench.layout, theta)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(parameters[name])
        return model

    def step(self, batch: Tensor, seen: int) -> list[float]:
        """Take one step, see `Engine`."""
        (chosen,) = batch
        x, y = self._bench.images[chosen], self._bench.data.labels[chosen]

        def by_images(images: Tensor) -> Tensor:
            images = images.detach().requires_grad_()
            return torch.autograd.grad(self._ascended(self._model(images), y).sum(), images)[0]

        def noise(radius: float) -> Tensor:
            return channels_last(perturbation(self._config, seen, x.shape, radius))

        images = self._method.images(x, by_images, noise)
        losses = self._method.descend(self._theta, lambda: self._differentiate(images, y))
        self._optimizer.step()
        return [losses.item()]

    def _differentiate(self, x: Tensor, y: Tensor) -> tuple[Tensor, Iterator[Tensor]]:
        """Mean loss ``(1,)`` and gradients by the parameters ``(1, …)``."""
        loss = self._loss(self._model(x), y).mean()
        self._optimizer.zero_grad()
        loss.backward()
        gradients = (p.grad[None] for p in self._model.parameters() if p.grad is not None)
        return loss.detach()[None], gradients

    def parameters(self) -> Array:
        """A copy of all parameters, ``(1, P)``."""
        return flatten(self._bench.layout, dict(self._model.named_parameters()))[None]

    def optimizer_state(self, member: int) -> dict[str, Array]:
        """State of the optimizer, see `Engine`."""
        return optimizer_state(self._optimizer)

    def metrics(self, theta: Array, epsilon: float) -> dict[str, float]:
        """What is measured after an epoch, see `Engine`."""
        return evaluate(self._model_at(theta), self._bench.data, self._bench.test, epsilon)


class StackedEngine:
    """Several runs as one stack; the bits of a run do not depend on which others are in it."""

    def __init__(self, configs: Sequence[TrainingConfig], bench: Bench, standpoints: Sequence[Standpoint]) -> None:
        self._bench, self._network, self._method = bench, bench.network, configs[0].make_method()
        self._loss = loss_by_name(configs[0].loss)
        self._ascended = loss_by_name(ascended_loss(configs[0].loss))
        vectors = np.stack([standpoint.theta for standpoint in standpoints])
        self._theta = self._network.stack(torch.from_numpy(vectors))
        self._gradient = torch.zeros_like(self._theta)
        self._configs, self._sizes = configs, [slot.numel for slot in bench.layout]
        self._optimizer = stacked_optimizer(configs, self._theta)
        for member, (config, standpoint) in enumerate(zip(configs, standpoints, strict=True)):
            if standpoint.optimizer is not None:
                restore_state(self._optimizer, member, config, self._sizes, standpoint.optimizer)

    @torch.no_grad()
    def step(self, batch: Tensor, seen: int) -> list[float]:
        """Take one step, see `Engine`."""
        data, network = self._bench.samples[0], self._network
        x = data.features.index_select(0, batch.flatten())
        x, y = network.inputs(x.view(*batch.shape, -1)), data.labels[batch]

        def by_images(images: Tensor) -> Tensor:
            _, flowing = losses_and_gradient(network.logits(self._theta, images), y, self._ascended)
            return network.input_gradient(flowing)

        x = self._method.images(x, by_images, lambda radius: self._noise(batch.shape[1], seen, radius))
        losses = self._method.descend([self._theta], lambda: self._differentiate(x, y))
        self._optimizer.step(self._theta, self._gradient)
        means: list[float] = losses.tolist()
        return means

    def _differentiate(self, x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Mean losses ``(M,)`` and gradients by θ ``(M, S)``."""
        losses, flowing = losses_and_gradient(self._network.logits(self._theta, x), y, self._loss)
        self._network.backward(flowing / y.shape[1], into=self._gradient)
        return losses.mean(1), [self._gradient]

    def _noise(self, size: int, seen: int, radius: float) -> Tensor:
        """Noise on batches of this size, as layers take them."""
        shape = (size, *self._bench.data.images.shape[1:])
        images = torch.cat([perturbation(config, seen, shape, radius) for config in self._configs])
        return self._network.inputs(self._network.features(images).view(len(self._configs), size, -1))

    def parameters(self) -> Array:
        """A copy of all parameters, ``(M, P)``."""
        return self._theta[:, : self._network.num_parameters].numpy().copy()

    def optimizer_state(self, member: int) -> dict[str, Array]:
        """State of one run's optimizer, see `Engine`."""
        return state_of(self._optimizer, member, self._configs[member], self._sizes)

    def metrics(self, theta: Array, epsilon: float) -> dict[str, float]:
        """What is measured after an epoch, see `Engine`."""
        stacked = self._network.stack(torch.from_numpy(theta[None]))
        return evaluate_stacked(self._network, stacked, *self._bench.samples, epsilon)


def ascended_loss(name: str) -> str:
    """The loss whose sign of ∇_x adversarial training follows: that which is trained, in its exact reading.

    Log-odds in place of cross-entropy, whose gradient points the same way and vanishes in float32.
    """
    return EXACT if name in POSITIVE_LOSSES else name


def perturbation(config: TrainingConfig, seen: int, shape: Sequence[int], radius: float) -> Tensor:
    """Noise on a run's batch after so many samples, a pure function of its seed and of where it stands."""
    return uniform_noise(generator(config.seed, "perturbation", seen), shape, radius)
