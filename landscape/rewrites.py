"""Programs of tensor operations, freed of work that changes nothing, and run in less memory.

A functional trace copies where the network wrote in place, adds tangents that are always zero, and keeps every
intermediate value apart; on a CPU a large network's product spends half of its time on such traffic. Values stay
as they are, but for rounding where a product and a sum become one operation.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from landscape.convolutions import input_gradient_in_blocks, merge_input_gradients, widen_input_gradients
from landscape.nodes import alike, value_of, writes, written_values

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
# Operations that may write over an argument: the places of such arguments, the operation that writes over them,
# and the name by which it is told where to write; without a name it writes over its first argument. Fresh memory
# costs more than the operation itself. Of its second argument max-pooling's backward reads only the shape.
_OVERWRITING = {
    _ATEN.add.Tensor: ((0, 1), _ATEN.add_.Tensor, None),
    _ATEN.mul.Tensor: ((0, 1), _ATEN.mul_.Tensor, None),
    _ATEN.addcmul.default: ((0,), _ATEN.addcmul_.default, None),
    _ATEN.threshold_backward.default: ((0,), _ATEN.threshold_backward.grad_input, "grad_input"),
    _ATEN.max_pool2d_with_indices_backward.default: (
        (1,),
        _ATEN.max_pool2d_with_indices_backward.grad_input,
        "grad_input",
    ),
}
# Operations whose results lie in memory of their own.
_FRESH = {
    *_OVERWRITING,
    *(_ATEN.convolution.default, _ATEN.mm.default, _ATEN.addmm.default, input_gradient_in_blocks),
}
# Operations that read their arguments and hand out none of their memory.
_READING = {
    *_FRESH,
    *(overwriting for _, overwriting, _ in _OVERWRITING.values()),
    _ATEN.convolution_backward.default,
    _ATEN.gather.default,
    _ATEN.sum.dim_IntList,
}
_VIEWS = {_ATEN.view.default, _ATEN.t.default}
_ZERO = {
    _ATEN._efficientzerotensor.default,
    _ATEN.zeros.default,
    _ATEN.zeros_like.default,
    _ATEN.new_zeros.default,
}
# Operations that are linear in their first argument.
_LINEAR = {
    *(_ATEN.view.default, _ATEN.expand.default, _ATEN.t.default, _ATEN._to_copy.default, _ATEN.clone.default),
    *(
        _ATEN.neg.default,
        _ATEN.div.Tensor,
        _ATEN.mul.Scalar,
        _ATEN.sum.dim_IntList,
        _ATEN.threshold_backward.default,
    ),
}


def simplify(graph: fx.Graph) -> None:
    """Leave out what a functional program computes for nothing."""
    for rewrite in (remove_copies, remove_zeros, mask_by_results, merge_equals, widen_input_gradients):
        rewrite(graph)
    graph.eliminate_dead_code()


def save_memory(graph: fx.Graph) -> None:
    """Let operations share memory; the program is no longer functional within itself."""
    graph.eliminate_dead_code()
    for rewrite in (fuse_products, merge_input_gradients, work_in_place):
        rewrite(graph)


def remove_copies(graph: fx.Graph) -> None:
    """Leave out what hands on a value as it is; in a functional program nobody writes on it."""
    written = written_values(graph)
    for node in list(graph.nodes):
        if node.target in _HANDED_ON:
            source = node.args[_HANDED_ON[node.target]]
            if alike(node, source) and written.isdisjoint((node, source)):
                node.replace_all_uses_with(source)
                graph.erase_node(node)


def remove_zeros(graph: fx.Graph) -> None:
    """Leave out sums with what is zero whatever the data: tangents of what is constant."""
    written = written_values(graph)
    zeros: set[Any] = set()
    for node in list(graph.nodes):
        if node not in written and _is_zero(node, zeros):
            zeros.add(node)
        elif node.target is _ATEN.add.Tensor:
            for addend, other in (node.args, node.args[::-1]):
                if other in zeros and alike(node, addend) and not node.kwargs:
                    node.replace_all_uses_with(addend)
                    graph.erase_node(node)
                    break


def _is_zero(node: fx.Node, zeros: set[Any]) -> bool:
    """Whether a value is zero because it is made so, or linear in something that is."""
    if node.target is operator.getitem:
        of, number = node.args
        if of.target is not _ATEN.convolution_backward.default:  # type: ignore[union-attr]
            return False
        outer, inner, weight, *_ = of.args  # type: ignore[union-attr]
        return not zeros.isdisjoint((outer, *((weight,) if number == 0 else (inner,) if number == 1 else ())))
    if node.target is _ATEN.convolution.default:
        return node.args[2] is None and not zeros.isdisjoint(node.args[:2])
    if node.target in {_ATEN.mul.Tensor, _ATEN.mm.default}:
        return not zeros.isdisjoint(node.args[:2])
    return bool(node.target in _ZERO or (node.target in _LINEAR and node.args[0] in zeros))


def mask_by_results(graph: fx.Graph) -> None:
    """Mask with max(x, 0) instead of x: the sign is the same, and x need not be kept."""
    results: dict[Any, fx.Node] = {}
    for node in graph.nodes:
        if node.target is _ATEN.relu.default:
            results[node.args[0]] = node
        elif node.target is _ATEN.threshold_backward.default and node.args[2] == 0:
            node.update_arg(1, results.get(node.args[1], node.args[1]))


def merge_equals(graph: fx.Graph) -> None:
    """Compute what is computed from the same arguments in the same way only once."""
    written = written_values(graph)
    known: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function" or node in written or writes(node) or _is_random(node):
            continue
        key = (node.target, repr((node.args, node.kwargs)))
        if written.isdisjoint(node.all_input_nodes) and known.setdefault(key, node) is not node:
            node.replace_all_uses_with(known[key])
            graph.erase_node(node)


def fuse_products(graph: fx.Graph) -> None:
    """Make a + b c one operation, where b c is used nowhere else."""
    for node in list(graph.nodes):
        if node.target is not _ATEN.add.Tensor or node.kwargs:
            continue
        for addend, factors in (node.args, node.args[::-1]):
            if _is_product_for(factors, node) and len(factors.users) == 1 and alike(node, addend):
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
    # What was in place before may have other readers, by another name.
    fresh = {node for node in graph.nodes if _is_fresh(node)}
    for node in graph.nodes:
        places, overwriting, name = _OVERWRITING.get(node.target, ((), None, None))
        for place in places:
            argument = node.args[place]
            scaled = place > 0 and node.kwargs  # alpha belongs to the second summand
            if not scaled and argument in fresh and alike(node, argument) and _is_last(node, argument, order):
                others = (*node.args[:place], *node.args[place + 1 :])
                node.target = overwriting
                if name is None:
                    node.args = (argument, *others)
                else:
                    node.kwargs = {name: argument}
                break


def _is_last(node: fx.Node, argument: fx.Node, order: dict[fx.Node, int]) -> bool:
    """Whether a node is the last to read an argument, and reads it by no other name."""
    return all(user is node or _has_read(user, order[node], order) for user in argument.users)


def _has_read(user: fx.Node, number: int, order: dict[fx.Node, int]) -> bool:
    """Whether all that a node reads, or others read through it, is read before a place in the program."""
    if user.target in _VIEWS:
        return all(_has_read(reader, number, order) for reader in user.users)
    return user.target in _READING and order[user] < number


def _is_fresh(node: fx.Node) -> bool:
    if node.target is operator.getitem:
        return node.args[0].target is _ATEN.convolution_backward.default  # type: ignore[union-attr]
    return node.target in _FRESH


def _is_product_for(factors: Any, total: fx.Node) -> bool:
    """Whether it is b c of two tensors of the dtype and on the device of what it is added to."""
    if not isinstance(factors, fx.Node) or factors.target is not _ATEN.mul.Tensor:
        return False
    kinds = [(v.dtype, v.device) if v is not None else None for v in map(value_of, (total, *factors.args))]
    return None not in kinds and len(set(kinds)) == 1


def _is_random(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
