"""What takes the steps of training: a network by itself, or those of several runs as one stack."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from landscape.problem.datasets import Dataset
from landscape.problem.losses import loss_by_name
from landscape.problem.models import build_model
from landscape.problem.network import channels_last
from landscape.snapshots import Layout, flatten, layout_of, unflatten
from landscape.training.config import TrainingConfig
from landscape.training.evaluate import evaluate
from landscape.training.optimizers import build_optimizer, optimizer_state, restore_optimizer_state
from landscape.training.stacked import Samples, StackedNetwork, evaluate_stacked, losses_and_gradient, stackable
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

    def step(self, batch: Tensor) -> list[float]:
        """Take one step on each run's own samples, indices ``(M, b)``; the batch losses before it."""

    def parameters(self) -> Array:
        """A copy of all parameters, ``(M, P)``."""

    def optimizer_state(self, member: int) -> dict[str, Array]:
        """What the next step of a run depends on beside its weights, as flat arrays."""

    def metrics(self, member: int, epsilon: float) -> dict[str, float]:
        """What is measured after an epoch."""


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
        self._bench = bench
        self._loss = loss_by_name(config.loss)
        self._model = build_model(config.model, config.model_args)
        self._model.to(memory_format=torch.channels_last)
        parameters = unflatten(bench.layout, standpoint.theta)
        with torch.no_grad():
            for name, parameter in self._model.named_parameters():
                parameter.copy_(parameters[name])
        self._optimizer = build_optimizer(config, self._model.parameters())
        if standpoint.optimizer is not None:
            restore_optimizer_state(self._optimizer, standpoint.optimizer)

    def step(self, batch: Tensor) -> list[float]:
        """Take one step, see `Engine`."""
        (chosen,) = batch
        logits = self._model(self._bench.images[chosen])
        loss = self._loss(logits, self._bench.data.labels[chosen]).mean()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return [loss.item()]

    def parameters(self) -> Array:
        """A copy of all parameters, ``(1, P)``."""
        return flatten(self._bench.layout, dict(self._model.named_parameters()))[None]

    def optimizer_state(self, member: int) -> dict[str, Array]:
        """State of the optimizer, see `Engine`."""
        return optimizer_state(self._optimizer)

    def metrics(self, member: int, epsilon: float) -> dict[str, float]:
        """What is measured after an epoch."""
        return evaluate(self._model, self._bench.data, self._bench.test, epsilon)


class StackedEngine:
    """Several runs as one stack; the bits of a run do not depend on which others are in it."""

    def __init__(self, configs: Sequence[TrainingConfig], bench: Bench, standpoints: Sequence[Standpoint]) -> None:
        self._bench, self._network = bench, bench.network
        self._loss = loss_by_name(configs[0].loss)
        vectors = np.stack([standpoint.theta for standpoint in standpoints])
        self._theta = self._network.stack(torch.from_numpy(vectors))
        self._gradient = torch.zeros_like(self._theta)
        self._configs, self._sizes = configs, [slot.numel for slot in bench.layout]
        self._optimizer = stacked_optimizer(configs, self._theta)
        for member, (config, standpoint) in enumerate(zip(configs, standpoints, strict=True)):
            if standpoint.optimizer is not None:
                restore_state(self._optimizer, member, config, self._sizes, standpoint.optimizer)

    @torch.no_grad()
    def step(self, batch: Tensor) -> list[float]:
        """Take one step, see `Engine`."""
        data = self._bench.samples[0]
        x = data.features.index_select(0, batch.flatten())
        logits = self._network.logits(self._theta, self._network.inputs(x.view(*batch.shape, -1)))
        losses, flowing = losses_and_gradient(logits, data.labels[batch], self._loss)
        self._network.backward(flowing / batch.shape[1], into=self._gradient)
        self._optimizer.step(self._theta, self._gradient)
        means: list[float] = losses.mean(1).tolist()
        return means

    def parameters(self) -> Array:
        """A copy of all parameters, ``(M, P)``."""
        return self._theta[:, : self._network.num_parameters].numpy().copy()

    def optimizer_state(self, member: int) -> dict[str, Array]:
        """State of one run's optimizer, see `Engine`."""
        return state_of(self._optimizer, member, self._configs[member], self._sizes)

    def metrics(self, member: int, epsilon: float) -> dict[str, float]:
        """What is measured after an epoch."""
        return evaluate_stacked(self._network, self._theta[member][None], *self._bench.samples, epsilon)
