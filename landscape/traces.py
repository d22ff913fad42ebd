"""Hessian-vector products from traces: traced once, and what does not need the vector is run once a point.

`torch.func.linearize` traces anew at every point, which takes many times as long as a product does.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.func import functionalize, grad, jvp
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape.graphs import Split, split

VectorFunction = Callable[[Tensor], Tensor]
Scalar = Callable[..., Tensor]


@dataclass(frozen=True)
class LinearMap:
    """A function that is linear in its vector."""

    function: VectorFunction
    num_bytes: int  # kept for it, beside what it was made of

    def __call__(self, vector: Tensor) -> Tensor:
        """The image of a vector."""
        return self.function(vector)


@dataclass(frozen=True)
class Traces:
    """Traces that an objective has made so far, by name and by the shapes of what they were made with."""

    splits: dict[Hashable, Split | None] = field(default_factory=dict)

    def linearize(self, name: Hashable, scalar: Scalar, z: Tensor, *data: Tensor) -> LinearMap:
        """Hessian-vector product of ``scalar(z, *data)`` with respect to ``z``, at ``z``.

        Forward over reverse: Hv = ∂/∂t ∇f(z + t v) at t = 0 (Pearlmutter 1994).

        Args:
            name: Of the function; functions that differ in more than their arguments need different names.
            scalar: Where its steps depend on the values of its arguments, nothing is kept, and each product runs
                all of it.
            z: Point, of any shape.
            *data: Whatever else it depends on; what it closes over is looked up anew at every point.
        """
        return self.linear(name, _directional_gradient(scalar), z, *data)

    def linear(self, name: Hashable, function: Callable[..., Tensor], *data: Tensor) -> LinearMap:
        """V ↦ ``function(v, *data)``, linear in v, which is of the shape of the first of the data."""
        key = (name, *((d.shape, d.stride(), d.dtype, d.device) for d in data))
        if key not in self.splits:
            self.splits[key] = _traced(function, data)
        program = self.splits[key]
        if program is None:
            return LinearMap(lambda vector: _run(function, vector, *data), 0)
        with torch.no_grad():
            needed = program.fixed(*data)

        def product(vector: Tensor) -> Tensor:
            with torch.no_grad():
                result: Tensor = program.moving(vector, *needed)
            return result

        given = {tensor.untyped_storage().data_ptr() for tensor in data}
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in needed}
        return LinearMap(product, sum(size for key, size in storages.items() if key not in given))


def _run(function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
    with exact_kernels():
        return function(*arguments).detach()


def _directional_gradient(scalar: Scalar) -> Callable[..., Tensor]:
    def product(vector: Tensor, z: Tensor, *data: Tensor) -> Tensor:
        result: Tensor = jvp(lambda point: grad(scalar)(point, *data), (z,), (vector,))[1]
        return result

    return product


def _traced(function: Callable[..., Tensor], data: tuple[Tensor, ...]) -> Split | None:
    """The program in two parts; None if it cannot be traced without its values."""
    arguments = (torch.zeros_like(data[0]), *data)
    # The fused attention kernels have no second derivatives. Functional form, because values are kept.
    with warnings.catch_warnings(), exact_kernels():
        warnings.simplefilter("ignore")  # the tracer warns about its own internals
        for mode in ("fake", "real"):  # some operations in place are traced only where they are computed
            tracer = make_fx(functionalize(function), tracing_mode=mode, _allow_non_fake_inputs=mode == "fake")
            try:
                return split(tracer(*arguments))
            except RuntimeError:  # what is wrong with the function itself is raised when it runs
                continue
    return None


def exact_kernels() -> AbstractContextManager[None]:
    """Attention by operations that have derivatives of all orders."""
    return sdpa_kernel(SDPBackend.MATH)
