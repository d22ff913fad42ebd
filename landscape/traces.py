"""Hessian-vector products from traces: traced once, and what does not need the vector is run once a point.

`torch.func.linearize` traces anew at every point, which takes many times as long as a product does.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx
from torch.func import functionalize, grad, jvp
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

VectorFunction = Callable[[Tensor], Tensor]
Scalar = Callable[..., Tensor]


@dataclass(frozen=True)
class _Split:
    """A program f(v, …) in two parts: what does not depend on v, and the rest."""

    fixed: fx.GraphModule  # (z, *data) -> what the other part needs
    moving: fx.GraphModule  # (v, *needed) -> f


@dataclass(frozen=True)
class Traces:
    """Traces that an objective has made so far, by name and by the shapes of what they were made with."""

    splits: dict[Hashable, _Split | None] = field(default_factory=dict)

    def linearize(self, name: Hashable, scalar: Scalar, z: Tensor, *data: Tensor) -> VectorFunction:
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

    def linear(self, name: Hashable, function: Callable[..., Tensor], *data: Tensor) -> VectorFunction:
        """V ↦ ``function(v, *data)``, linear in v, which is of the shape of the first of the data."""
        key = (name, *((d.shape, d.stride(), d.dtype, d.device) for d in data))
        if key not in self.splits:
            self.splits[key] = _traced(function, data)
        split = self.splits[key]
        if split is None:
            return lambda vector: _run(function, vector, *data)
        with torch.no_grad():
            needed = split.fixed(*data)

        def product(vector: Tensor) -> Tensor:
            with torch.no_grad():
                result: Tensor = split.moving(vector, *needed)
            return result

        return product


def _run(function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
    with exact_kernels():
        return function(*arguments).detach()


def _directional_gradient(scalar: Scalar) -> Callable[..., Tensor]:
    def product(vector: Tensor, z: Tensor, *data: Tensor) -> Tensor:
        result: Tensor = jvp(lambda point: grad(scalar)(point, *data), (z,), (vector,))[1]
        return result

    return product


def _traced(function: Callable[..., Tensor], data: tuple[Tensor, ...]) -> _Split | None:
    """The program in two parts; None if it cannot be traced without its values."""
    arguments = (torch.zeros_like(data[0]), *data)
    # The fused attention kernels have no second derivatives. Functional form, because values are kept.
    with warnings.catch_warnings(), exact_kernels():
        warnings.simplefilter("ignore")  # the tracer warns about its own internals
        for mode in ("fake", "real"):  # some operations in place are traced only where they are computed
            tracer = make_fx(functionalize(function), tracing_mode=mode, _allow_non_fake_inputs=mode == "fake")
            try:
                return _split(tracer(*arguments))
            except RuntimeError:  # what is wrong with the function itself is raised when it runs
                continue
    return None


def exact_kernels() -> AbstractContextManager[None]:
    """Attention by operations that have derivatives of all orders."""
    return sdpa_kernel(SDPBackend.MATH)


def _split(module: fx.GraphModule) -> _Split:
    """Cut a graph whose first argument is v."""
    nodes = list(module.graph.nodes)
    moving = {nodes[0]}
    for node in nodes:
        if node.op == "output" or not moving.isdisjoint(node.all_input_nodes):
            moving.add(node)
    needed = dict.fromkeys(n for m in nodes if m in moving for n in m.all_input_nodes if n not in moving)
    fixed_graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        if node not in moving:
            copies[node] = fixed_graph.node_copy(node, copies.__getitem__)
    fixed_graph.output(tuple(copies[node] for node in needed))
    moving_graph = fx.Graph()
    copies = {nodes[0]: moving_graph.node_copy(nodes[0])}
    copies |= {node: moving_graph.placeholder(f"needed_{i}") for i, node in enumerate(needed)}
    for node in nodes[1:]:
        if node in moving:
            copies[node] = moving_graph.node_copy(node, copies.__getitem__)
    fixed_graph.eliminate_dead_code()
    moving_graph.eliminate_dead_code()
    return _Split(fx.GraphModule(module, fixed_graph), fx.GraphModule(module, moving_graph))
