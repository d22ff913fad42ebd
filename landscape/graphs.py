"""Programs of tensor operations as graphs: cut in two, freed of copies, and run in less memory.

A functional trace copies where the network wrote in place, and keeps every intermediate value apart. On a CPU the
time of a large network's product goes half into such traffic. All of this leaves values as they are, but for
rounding where a product and a sum become one operation.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

_ATEN = torch.ops.aten
# What hands on its first argument, or for `copy` its second, where shape, dtype and strides stay.
_HANDED_ON = {
    _ATEN.alias.default: 0,
    _ATEN.clone.default: 0,
    _ATEN.detach.default: 0,
    _ATEN.view.default: 0,
    _ATEN.expand.default: 0,
    _ATEN._to_copy.default: 0,
    _ATEN.copy.default: 1,
}
# Operations whose results lie in memory of their own.
_FRESH = {
    _ATEN.add.Tensor: _ATEN.add_.Tensor,
    _ATEN.mul.Tensor: _ATEN.mul_.Tensor,
    _ATEN.addcmul.default: _ATEN.addcmul_.default,
    _ATEN.convolution.default: None,
    _ATEN.threshold_backward.default: None,
    _ATEN.mm.default: None,
    _ATEN.addmm.default: None,
}
# Operations that read their arguments and hand out none of their memory.
_READING = {*_FRESH, *(f for f in _FRESH.values() if f), _ATEN.convolution_backward.default, _ATEN.sum.dim_IntList}


@dataclass(frozen=True)
class Split:
    """A program f(v, …) in two parts: what does not depend on v, and the rest."""

    fixed: fx.GraphModule  # (z, *data) -> what the other part needs
    moving: fx.GraphModule  # (v, *needed) -> f


def split(module: fx.GraphModule) -> Split:
    """Cut a functional program whose first argument is v."""
    remove_copies(module.graph)
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
    for i, node in enumerate(needed):
        copies[node] = moving_graph.placeholder(f"needed_{i}")
        copies[node].meta = dict(node.meta)
    for node in nodes[1:]:
        if node in moving:
            copies[node] = moving_graph.node_copy(node, copies.__getitem__)
    for graph in (fixed_graph, moving_graph):
        graph.eliminate_dead_code()
        fuse_products(graph)
        work_in_place(graph)
    return Split(fx.GraphModule(module, fixed_graph), fx.GraphModule(module, moving_graph))


def remove_copies(graph: fx.Graph) -> None:
    """Leave out what hands on a value as it is; in a functional program nobody writes on it."""
    for node in list(graph.nodes):
        if node.target in _HANDED_ON:
            source = node.args[_HANDED_ON[node.target]]
            if _alike(node, source):
                node.replace_all_uses_with(source)
                graph.erase_node(node)


def fuse_products(graph: fx.Graph) -> None:
    """Make a + b c one operation, where b c is used nowhere else."""
    for node in list(graph.nodes):
        if node.target is not _ATEN.add.Tensor or node.kwargs:
            continue
        for addend, factors in (node.args, node.args[::-1]):
            if _is_product_for(factors, node) and len(factors.users) == 1 and _alike(node, addend):
                with graph.inserting_before(node):
                    fused = graph.call_function(_ATEN.addcmul.default, (addend, *factors.args))
                fused.meta = dict(node.meta)
                node.replace_all_uses_with(fused)
                graph.erase_node(node)
                graph.erase_node(factors)
                break


def work_in_place(graph: fx.Graph) -> None:
    """Write results over arguments that nobody reads any more."""
    order = {node: number for number, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        overwriting = _FRESH.get(node.target)
        if overwriting is None:
            continue
        first, *others = node.args
        commutes = node.target is not _ATEN.addcmul.default and not node.kwargs
        if commutes and not _may_overwrite(first, node, order):
            first, *others = node.args[::-1]
        if _may_overwrite(first, node, order):
            node.target, node.args = overwriting, (first, *others)


def _may_overwrite(argument: Any, node: fx.Node, order: dict[fx.Node, int]) -> bool:
    return (
        isinstance(argument, fx.Node)
        and _is_fresh(argument)
        and _alike(node, argument)
        and all(user.target in _READING for user in argument.users)
        and max(order[user] for user in argument.users) == order[node]
    )


def _is_fresh(node: fx.Node) -> bool:
    if node.target is operator.getitem:
        return node.args[0].target is _ATEN.convolution_backward.default  # type: ignore[union-attr]
    return node.target in _FRESH or node.target in _FRESH.values()


def _is_product_for(factors: Any, total: fx.Node) -> bool:
    """Whether it is b c of two tensors of the dtype and on the device of what it is added to."""
    if not isinstance(factors, fx.Node) or factors.target is not _ATEN.mul.Tensor:
        return False
    kinds = [(v.dtype, v.device) if v is not None else None for v in map(_value, (total, *factors.args))]
    return None not in kinds and len(set(kinds)) == 1


def _alike(node: Any, other: Any) -> bool:
    """Whether two values agree in shape, dtype, device and strides."""
    a, b = _value(node), _value(other)
    if a is None or b is None:
        return False
    return (a.shape, a.stride(), a.dtype, a.device) == (b.shape, b.stride(), b.dtype, b.device)


def _value(node: Any) -> Tensor | None:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value if isinstance(value, Tensor) else None
