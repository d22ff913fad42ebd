"""Programs cut in two, so that what does not depend on the vector runs once, in as little memory as that takes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import networkx
import torch
from torch import Tensor, fx

from landscape.nodes import written_values
from landscape.rewrites import save_memory, simplify

# Operations that take about as long as to read what they would otherwise have kept.
_CHEAP = {
    *("add", "sub", "mul", "div", "neg"),
    *("view", "_unsafe_view", "expand", "t", "transpose", "permute", "unsqueeze", "squeeze", "slice", "select"),
}


@dataclass(frozen=True)
class Split:
    """A program f(v, …) in two parts: what does not depend on v, and the rest."""

    fixed: fx.GraphModule  # (z, *data) -> what the other part needs
    moving: fx.GraphModule  # (v, *needed) -> f


def split(module: fx.GraphModule) -> Split:
    """Cut a functional program whose first argument is v.

    The second part computes cheap intermediate values anew where that spares memory for what is kept in between.
    """
    simplify(module.graph)
    vector, *rest = module.graph.nodes
    moving = {vector}
    for node in rest:
        if node.op == "output" or not moving.isdisjoint(node.all_input_nodes):
            moving.add(node)
    needed, again = _kept(rest, moving)
    graphs = _fixed_graph(rest, moving, needed), _moving_graph(vector, rest, moving | again, needed)
    for graph in graphs:
        save_memory(graph)
    return Split(*(fx.GraphModule(module, graph) for graph in graphs))


def _fixed_graph(nodes: Sequence[fx.Node], moving: set[fx.Node], needed: Sequence[fx.Node]) -> fx.Graph:
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in nodes:
        if node not in moving:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[node] for node in needed))
    return graph


def _moving_graph(
    vector: fx.Node, nodes: Sequence[fx.Node], chosen: set[fx.Node], needed: Sequence[fx.Node]
) -> fx.Graph:
    graph = fx.Graph()
    copies = {vector: graph.node_copy(vector)}
    for i, node in enumerate(needed):
        copies[node] = graph.placeholder(f"needed_{i}")
        copies[node].meta = dict(node.meta)
    for node in nodes:
        if node in chosen:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return graph


def _kept(nodes: Sequence[fx.Node], moving: set[fx.Node]) -> tuple[list[fx.Node], set[fx.Node]]:
    """Values of the first part that are kept for the second, and those that it computes from them anew.

    A minimum cut: keeping a value costs its bytes, what is given costs nothing, and only cheap operations may be
    repeated (Chen et al. 2016, in the form of a flow).
    """
    flow, written = networkx.DiGraph(), written_values(nodes[0].graph)
    fixed = [node for node in nodes if node not in moving]
    for node in fixed:
        flow.add_edge((node, "made"), (node, "kept"), capacity=0 if node.op == "placeholder" else _bytes(node))
        if not _is_cheap(node) or not written.isdisjoint((node, *node.all_input_nodes)):
            flow.add_edge("first part", (node, "made"))  # without capacity: unlimited
        for user in node.users:
            flow.add_edge((node, "kept"), "second part" if user in moving else (user, "made"))
    if "second part" not in flow or "first part" not in flow:
        return [], set()
    _, (before, _) = networkx.minimum_cut(flow, "first part", "second part")
    kept = {node for node in fixed if (node, "made") in before and (node, "kept") not in before}
    again: set[fx.Node] = set()
    reached = [n for m in nodes if m in moving for n in m.all_input_nodes if n not in moving]
    while reached:
        node = reached.pop()
        if node not in kept and node not in again:
            again.add(node)
            reached += node.all_input_nodes
    return [node for node in fixed if node in kept], again


def _is_cheap(node: fx.Node) -> bool:
    """Whether one pass over memory computes it from its arguments, and always with the same result."""
    if node.op != "call_function":
        return False
    if node.target is operator.getitem:
        return _is_cheap(node.args[0])  # type: ignore[arg-type]
    if node.target is torch.ops.aten.native_batch_norm.default:
        return node.args[5] is False  # not in training
    return str(node.target).removeprefix("aten.").removeprefix("prims.").split(".")[0] in _CHEAP


def _bytes(node: fx.Node) -> int:
    values = node.meta.get("val")
    tensors = [v for v in (values if isinstance(values, list | tuple) else [values]) if isinstance(v, Tensor)]
    return sum(v.numel() * v.element_size() for v in tensors) or 1
