"""φ over the inputs: each sample's loss as a function of its image, or the mean loss of the whole matrix X."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, overload

import torch
from torch import Tensor, nn
from torch.func import functional_call

from landscape.objectives import HessianVectorProduct, Objective, over_leading_dimension
from landscape.problem.evaluation import Evaluation, evaluation, joined
from landscape.problem.gauss_newton import check_kind, gauss_newton_program
from landscape.problem.log_objective import LogObjective
from landscape.problem.losses import POSITIVE_LOSSES, log_odds_level, loss_by_name
from landscape.problem.memory import MEMORY, check_memory, kept_within, samples_within
from landscape.problem.network import channels_last, check_problem, detached
from landscape.traces import LinearMap, Traces

# Images per forward pass at most.
CHUNK = 1000


@dataclass(frozen=True)
class InputObjective:
    """φ_i(x) = loss of sample i; one row a sample. Build it with `input_objective`."""

    model: nn.Module
    shape: tuple[int, ...]  # of one image
    y: Tensor  # (B,)
    loss: str
    origin: Tensor  # (B, n)
    chunk: int = CHUNK
    memory: int = MEMORY  # bytes
    traces: Traces = field(default_factory=Traces, repr=False, compare=False)
    evaluation: Evaluation = field(kw_only=True, repr=False, compare=False)

    def value(self, z: Tensor) -> Tensor:
        """φ_i at each row, ``(B, n) -> (B,)``, float64."""
        with torch.no_grad():
            return torch.cat([self._losses(z_, y).double() for z_, y in self._chunks(z, self.chunk)])

    def value_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """φ_i and ∇φ_i; rows do not interact, so the gradient of the sum holds every row's gradient."""
        loss, values, gradients = loss_by_name(self.loss), [], []
        for part, y in self._chunks(z, self.chunk):
            images = part.detach().reshape(-1, *self.shape)
            _, losses, gradient = self.evaluation.image_gradients(images, loss, y)
            values.append(losses.double())
            gradients.append(gradient.reshape(part.shape))
        return joined(values), joined(gradients)

    def linearize(self, z: Tensor) -> HessianVectorProduct:
        """Hessian-vector product of every row at ``z``: B Hessians in one call."""

        def total(point: Tensor, y: Tensor, *parameters: Tensor) -> Tensor:
            return loss_by_name(self.loss)(self._logits(point, *parameters), y).sum()

        return self._products(z, lambda *part: self.traces.linearize(self.loss, total, *part))

    def gauss_newton(self, z: Tensor, kind: str) -> HessianVectorProduct:
        """Product with every row's Gauss–Newton or Fisher matrix."""
        check_kind(kind, self.loss)
        program = gauss_newton_program(
            kind, lambda point, _, *parameters: self._logits(point, *parameters), loss_by_name(self.loss)
        )
        return self._products(z, lambda *part: self.traces.linear((kind, self.loss), program, *part))

    def _products(self, z: Tensor, of_chunk: Callable[..., LinearMap]) -> HessianVectorProduct:
        parameters = detached(self.model).values()
        parts = [partial(of_chunk, part.detach(), y, *parameters) for part, y in self._chunks(z, self.chunk)]
        products = kept_within(self.memory, parts)

        def apply(vectors: Tensor) -> Tensor:
            parts = vectors.split(self.chunk)
            return torch.cat([product(v) for product, v in zip(products, parts, strict=True)])

        return over_leading_dimension(apply, 2)

    def take(self, rows: Tensor) -> InputObjective:
        """Select or repeat samples."""
        return replace(self, origin=self.origin.index_select(0, rows), y=self.y[rows])

    def search_form(self) -> tuple[Objective, Callable[[Tensor], Tensor]]:
        """Log-odds for cross-entropy: {CE = c} = {LO = log(eᶜ − 1)}, and LO is nearly piecewise linear in x."""
        if self.loss in POSITIVE_LOSSES:
            return replace(self, loss="log_odds"), log_odds_level
        return self, lambda levels: levels

    def _chunks(self, z: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(z.split(size), self.y.split(size), strict=True)

    def _losses(self, z: Tensor, y: Tensor) -> Tensor:
        return loss_by_name(self.loss)(self.evaluation.of_images(z.reshape(-1, *self.shape)), y)

    def _logits(self, z: Tensor, *parameters: Tensor) -> Tensor:
        named = {name: p for (name, _), p in zip(self.model.named_parameters(), parameters, strict=True)}
        images = channels_last(z.reshape(-1, *self.shape))
        logits: Tensor = functional_call(self.model, named, (images,))
        return logits


@dataclass(frozen=True)
class JointInputObjective:
    """φ(X) = mean loss over the whole matrix X as one point, the paper's L(X, y; θ) read literally."""

    samples: InputObjective
    origin: Tensor  # (B, N n)

    def value(self, z: Tensor) -> Tensor:
        """φ at each row, ``(B, N n) -> (B,)``."""
        return torch.stack([self.samples.value(self._matrix(row)).mean() for row in z])

    def value_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """φ and ∇φ at each row."""
        pairs = [self.samples.value_and_grad(self._matrix(row)) for row in z]
        gradients = [gradient.reshape(-1) / len(self.samples.y) for _, gradient in pairs]
        return torch.stack([value.mean() for value, _ in pairs]), torch.stack(gradients)

    def linearize(self, z: Tensor) -> HessianVectorProduct:
        """Hessian-vector product; the Hessian of a mean of separate samples is block diagonal."""
        products = [self.samples.linearize(self._matrix(row)) for row in z]

        def apply(vectors: Tensor) -> Tensor:
            blocks = [p(self._matrix(v)) for p, v in zip(products, vectors, strict=True)]
            return torch.stack([block.reshape(-1) / len(self.samples.y) for block in blocks])

        return over_leading_dimension(apply, 2)

    def take(self, rows: Tensor) -> JointInputObjective:
        """Select or repeat rows; all rows are the same function."""
        return replace(self, origin=self.origin.index_select(0, rows))

    def search_form(self) -> tuple[Objective, Callable[[Tensor], Tensor]]:
        """Log φ where φ is positive."""
        if self.samples.loss in POSITIVE_LOSSES:
            return LogObjective(self), torch.log
        return self, lambda levels: levels

    def _matrix(self, row: Tensor) -> Tensor:
        return row.reshape(self.samples.origin.shape)


@overload
def input_objective(
    model: nn.Module, x: Tensor, y: Tensor, loss: str = ..., joint: Literal[False] = ..., memory: int = ...
) -> InputObjective: ...


@overload
def input_objective(
    model: nn.Module, x: Tensor, y: Tensor, loss: str = ..., *, joint: Literal[True], memory: int = ...
) -> JointInputObjective: ...


def input_objective(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: str = "cross_entropy",
    joint: bool = False,
    memory: int = MEMORY,
) -> InputObjective | JointInputObjective:
    """Objective over X: one row a sample, or with ``joint`` the whole matrix X as one point.

    Args:
        model: Never changed.
        x: Inputs ``(B, …)``; the origin is ``x`` flattened to ``(B, n)``, or ``(1, B n)`` if joint.
        y: Labels ``(B,)``.
        loss: A name of `landscape.problem.losses`.
        joint: φ = mean loss over all samples.
        memory: Bytes for what is computed between layers and for linearisations that are kept; what does not fit
            is linearised for each product anew.

    Raises:
        ObjectiveError: If shapes disagree, or the model is in train mode with dropout or batch norm.
        ConfigurationError: If the memory is not positive.

    """
    check_problem(model, x, y, loss)
    check_memory(memory)
    origin = x.detach().reshape(len(x), -1)
    chunk = samples_within(memory, model, x, CHUNK)
    shape = tuple(x.shape[1:])
    samples = InputObjective(model, shape, y, loss, origin, chunk, memory, evaluation=evaluation(model, shape))
    return JointInputObjective(samples, origin.reshape(1, -1)) if joint else samples
