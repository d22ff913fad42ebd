"""φ over the parameters: the mean loss of the data as a function of θ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, overload

import torch
from torch import Tensor, nn
from torch.func import functional_call

from landscape.objectives import HessianVectorProduct, Objective, over_leading_dimension
from landscape.problem.gauss_newton import check_kind, gauss_newton_program
from landscape.problem.log_objective import LogObjective
from landscape.problem.losses import POSITIVE_LOSSES, loss_by_name
from landscape.problem.network import channels_last, check_problem, ravel, unravel
from landscape.problem.sample_objective import SampleParameterObjective
from landscape.traces import Traces

# Samples per forward pass: large enough to keep two cores busy, small enough for a few hundred MB.
CHUNK = 2000
# Samples whose linearisation is kept in memory; the rest is recomputed for each product.
CACHED_SAMPLES = 20_000


@dataclass(frozen=True)
class ParameterObjective:
    """φ(θ) = mean loss over the data; rows are points of parameter space. Build it with `parameter_objective`."""

    model: nn.Module
    x: Tensor  # (N, C, H, W)
    y: Tensor  # (N,)
    loss: str
    origin: Tensor  # (B, n)
    chunk: int = CHUNK
    traces: Traces = field(default_factory=Traces, repr=False, compare=False)

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

    def linearize(self, z: Tensor) -> HessianVectorProduct:
        """Hessian-vector product of every row at ``z``."""

        def share(point: Tensor, x: Tensor, y: Tensor) -> Tensor:
            return self._losses(point, x, y).sum() / len(self.y)

        return self._products(z, lambda *part: self.traces.linearize((self.loss, len(self.y)), share, *part))

    def gauss_newton(self, z: Tensor, kind: str) -> HessianVectorProduct:
        """Product with the Gauss–Newton or a Fisher matrix of every row at ``z``."""
        check_kind(kind, self.loss)
        program = gauss_newton_program(kind, lambda point, _, x: self._logits(point, x), loss_by_name(self.loss))

        def of_chunk(row: Tensor, x: Tensor, y: Tensor) -> HessianVectorProduct:
            product = self.traces.linear((kind, self.loss), program, row, y, x)
            return lambda vector: product(vector) / len(self.y)

        return self._products(z, of_chunk)

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

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.x.split(self.chunk), self.y.split(self.chunk), strict=True)

    def _logits(self, row: Tensor, x: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.model, unravel(self.model, row), (x,))
        return logits

    def _losses(self, row: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return loss_by_name(self.loss)(self._logits(row, x), y)

    def _row_value(self, row: Tensor) -> Tensor:
        total = sum(self._losses(row, x, y).double().sum() for x, y in self._chunks())
        return torch.as_tensor(total) / len(self.y)

    def _add_gradient(self, row: Tensor, gradient: Tensor) -> Tensor:
        """Add ∇φ to ``gradient`` in place, which spares large models a vector; returns φ."""
        value = torch.zeros((), dtype=torch.float64, device=row.device)
        for x, y in self._chunks():
            with torch.enable_grad():
                point = row.detach().requires_grad_()
                losses = self._losses(point, x, y)
                gradient += torch.autograd.grad(losses.sum() / len(self.y), point)[0]
            value += losses.detach().double().sum()
        return value / len(self.y)

    def _products(
        self, z: Tensor, of_chunk: Callable[[Tensor, Tensor, Tensor], HessianVectorProduct]
    ) -> HessianVectorProduct:
        """Sums over the data of products with what each chunk contributes, at every row of ``z``."""
        products = [self._row_product(row.detach(), of_chunk) for row in z]

        def apply(vectors: Tensor) -> Tensor:
            return torch.stack([product(v) for product, v in zip(products, vectors, strict=True)])

        return over_leading_dimension(apply, 2)

    def _row_product(
        self, row: Tensor, of_chunk: Callable[[Tensor, Tensor, Tensor], HessianVectorProduct]
    ) -> HessianVectorProduct:
        chunks = list(self._chunks())
        kept = -(-CACHED_SAMPLES // self.chunk)
        cached = [of_chunk(row, x, y) for x, y in chunks[:kept]]

        def apply(vector: Tensor) -> Tensor:
            result = torch.zeros_like(vector)
            for product in cached:
                result += product(vector)
            for x, y in chunks[kept:]:
                result += of_chunk(row, x, y)(vector)
            return result

        return apply


@overload
def parameter_objective(
    model: nn.Module, x: Tensor, y: Tensor, loss: str = ..., chunk: int = ..., per_sample: Literal[False] = ...
) -> ParameterObjective: ...


@overload
def parameter_objective(
    model: nn.Module, x: Tensor, y: Tensor, loss: str = ..., chunk: int = ..., *, per_sample: Literal[True]
) -> SampleParameterObjective: ...


def parameter_objective(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: str = "cross_entropy",
    chunk: int = CHUNK,
    per_sample: bool = False,
) -> ParameterObjective | SampleParameterObjective:
    """Objective over θ: φ(θ) = 1/N Σ_i loss(f(x_i; θ), y_i), or with ``per_sample`` one row φ_i(θ) a sample.

    Args:
        model: Its parameters are the origin, ``(1, n)`` in ``named_parameters()`` order; never changed.
        x: Inputs ``(N, …)``.
        y: Labels ``(N,)``.
        loss: A name of `landscape.problem.losses`.
        chunk: Samples in one forward pass; memory does not grow with N. Per sample, the number of rows that go
            together follows from n instead.
        per_sample: φ_i(θ) = loss(f(x_i; θ), y_i), N rows with the origin ``(N, n)``.

    Raises:
        ObjectiveError: If shapes disagree, or the model is in train mode with dropout or batch norm.

    """
    check_problem(model, x, y, loss)
    if per_sample:
        return SampleParameterObjective(model, x, y, loss, ravel(model))
    return ParameterObjective(model, channels_last(x), y, loss, ravel(model)[None], chunk)
