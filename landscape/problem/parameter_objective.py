"""φ over the parameters: the mean loss of the data as a function of θ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, overload

import torch
from torch import Tensor, nn
from torch.func import functional_call

from landscape.objectives import HessianVectorProduct, Objective, over_leading_dimension
from landscape.problem.evaluation import Evaluation, evaluation
from landscape.problem.gauss_newton import check_kind, gauss_newton_program
from landscape.problem.log_objective import LogObjective
from landscape.problem.losses import POSITIVE_LOSSES, loss_by_name
from landscape.problem.memory import MEMORY, check_memory, kept_within, samples_within
from landscape.problem.network import channels_last, check_problem, ravel, unravel
from landscape.problem.sample_objective import SampleParameterObjective
from landscape.traces import LinearMap, Traces

# Samples per forward pass at most: enough to keep many cores busy.
CHUNK = 2000


@dataclass(frozen=True)
class ParameterObjective:
    """φ(θ) = mean loss over the data; rows are points of parameter space. Build it with `parameter_objective`."""

    model: nn.Module
    x: Tensor  # (N, C, H, W)
    y: Tensor  # (N,)
    loss: str
    origin: Tensor  # (B, n)
    chunk: int = CHUNK
    memory: int = MEMORY  # bytes
    traces: Traces = field(default_factory=Traces, repr=False, compare=False)
    evaluation: Evaluation = field(kw_only=True, repr=False, compare=False)

    def value(self, z: Tensor) -> Tensor:
        """φ at each row, summed over samples in float64, ``(B, n) -> (B,)``."""
        values = torch.empty(len(z), dtype=torch.float64, device=z.device)
        with torch.no_grad():
            for i, row in enumerate(z):
                values[i] = self._row_value(row)
        return values

    def value_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """φ and ∇φ at each row, ``(B, n) -> (B,), (B, n)``."""
        values = torch.empty(len(z), dtype=torch.float64, device=z.device)
        gradients = z.new_zeros(z.shape)
        for i, row in enumerate(z):
            values[i] = self._add_gradient(row, gradients[i])
        return values, gradients

    def value_and_accuracy(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """φ and the share of samples that are told right at each row, ``(B, n) -> (B,), (B,)``."""
        totals = torch.zeros(2, len(z), dtype=torch.float64, device=z.device)
        with torch.no_grad():
            for i, row in enumerate(z):
                for x, y in self._chunks(self.chunk):
                    logits = self.evaluation.of_parameters(row, x)
                    totals[0, i] += loss_by_name(self.loss)(logits, y).double().sum()
                    totals[1, i] += (logits.argmax(1) == y).sum()
        value, accuracy = totals / len(self.y)
        return value, accuracy

    def linearize(self, z: Tensor) -> HessianVectorProduct:
        """Hessian-vector product of every row at ``z``."""

        def share(point: Tensor, x: Tensor, y: Tensor) -> Tensor:
            return self._losses(point, x, y).sum() / len(self.y)

        return self._products(z, lambda *part: self.traces.linearize((self.loss, len(self.y)), share, *part))

    def gauss_newton(self, z: Tensor, kind: str) -> HessianVectorProduct:
        """Product with the Gauss–Newton or a Fisher matrix of every row at ``z``."""
        check_kind(kind, self.loss)
        program = gauss_newton_program(kind, lambda point, _, x: self._logits(point, x), loss_by_name(self.loss))

        def share(vector: Tensor, point: Tensor, y: Tensor, x: Tensor) -> Tensor:
            return program(vector, point, y, x) / len(self.y)

        name = (kind, self.loss, len(self.y))
        return self._products(z, lambda point, x, y: self.traces.linear(name, share, point, y, x))

    def take(self, rows: Tensor) -> ParameterObjective:
        """Select or repeat rows; all rows are the same function."""
        if len(self.origin) == 1:  # a view: with millions of parameters copies would fill the memory
            return replace(self, origin=self.origin.expand(len(rows), -1))
        return replace(self, origin=self.origin.index_select(0, rows))

    def search_form(self) -> tuple[Objective, Callable[[Tensor], Tensor]]:
        """Log φ where φ is positive: the mean loss of a trained net spans many orders of magnitude."""
        if self.loss in POSITIVE_LOSSES:
            return LogObjective(self), torch.log
        return self, lambda levels: levels

    def _chunks(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.x.split(size), self.y.split(size), strict=True)

    def _logits(self, row: Tensor, x: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.model, unravel(self.model, row), (x,))
        return logits

    def _losses(self, row: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return loss_by_name(self.loss)(self._logits(row, x), y)

    def _row_value(self, row: Tensor) -> Tensor:
        loss = loss_by_name(self.loss)
        parts = ((self.evaluation.of_parameters(row, x), y) for x, y in self._chunks(self.chunk))
        total = sum(loss(logits, y).double().sum() for logits, y in parts)
        return torch.as_tensor(total) / len(self.y)

    def _add_gradient(self, row: Tensor, gradient: Tensor) -> Tensor:
        """Add ∇φ to ``gradient`` in place, which spares large models a vector; returns φ."""
        loss, value = loss_by_name(self.loss), torch.zeros((), dtype=torch.float64, device=row.device)
        for x, y in self._chunks(self.evaluation.chunk(self.chunk)):
            losses, part = self.evaluation.parameter_gradient(row, x, loss, y, share=1 / len(self.y))
            gradient += part
            value += losses.double().sum()
        return value / len(self.y)

    def _products(
        self, z: Tensor, of_chunk: Callable[[Tensor, Tensor, Tensor], LinearMap]
    ) -> HessianVectorProduct:
        """Sums over the data of products with what each chunk contributes, at every row of ``z``."""
        chunks = list(self._chunks(self.chunk))
        parts = [partial(of_chunk, row.detach(), x, y) for row in z for x, y in chunks]
        products = kept_within(self.memory, parts)

        def apply(vectors: Tensor) -> Tensor:
            result = torch.zeros_like(vectors)
            for number, product in enumerate(products):
                row = number // len(chunks)
                result[row] += product(vectors[row])
            return result

        return over_leading_dimension(apply, 2)


@overload
def parameter_objective(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: str = ...,
    chunk: int | None = ...,
    per_sample: Literal[False] = ...,
    memory: int = ...,
) -> ParameterObjective: ...


@overload
def parameter_objective(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: str = ...,
    chunk: int | None = ...,
    *,
    per_sample: Literal[True],
    memory: int = ...,
) -> SampleParameterObjective: ...


def parameter_objective(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: str = "cross_entropy",
    chunk: int | None = None,
    per_sample: bool = False,
    memory: int = MEMORY,
) -> ParameterObjective | SampleParameterObjective:
    """Objective over θ: φ(θ) = 1/N Σ_i loss(f(x_i; θ), y_i), or with ``per_sample`` one row φ_i(θ) a sample.

    Args:
        model: Its parameters are the origin, ``(1, n)`` in ``named_parameters()`` order; never changed.
        x: Inputs ``(N, …)``.
        y: Labels ``(N,)``.
        loss: A name of `landscape.problem.losses`.
        chunk: Samples in one forward pass; by default as many as the memory allows, 2000 at most.
        per_sample: φ_i(θ) = loss(f(x_i; θ), y_i), N rows with the origin ``(N, n)``. How many rows go together
            follows from n.
        memory: Bytes for what is computed between layers and for linearisations that are kept; what does not fit
            is linearised for each product anew. Data, and vectors of n numbers, come on top.

    Raises:
        ObjectiveError: If shapes disagree, or the model is in train mode with dropout or batch norm.
        ConfigurationError: If the memory is not positive.

    """
    check_problem(model, x, y, loss)
    if per_sample:
        return SampleParameterObjective(model, x, y, loss, ravel(model))
    check_memory(memory)
    x = channels_last(x)
    chunk = chunk or samples_within(memory, model, x, CHUNK)
    evaluated = evaluation(model, tuple(x.shape[1:]))
    return ParameterObjective(model, x, y, loss, ravel(model)[None], chunk, memory, evaluation=evaluated)
