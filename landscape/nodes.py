"""What is known of the values of a program: which are written on, and of what form they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx


def written_values(graph: fx.Graph) -> set[Any]:
    """Values that some operation writes on, so that they are not the same throughout."""
    return {node.args[0] for node in graph.nodes if writes(node)}


def writes(node: fx.Node) -> bool:
    """Whether an operation changes an argument."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def alike(node: Any, other: Any) -> bool:
    """Whether two values agree in shape, dtype, device and strides."""
    a, b = value_of(node), value_of(other)
    if a is None or b is None:
        return False
    return bool((a.shape, a.stride(), a.dtype, a.device) == (b.shape, b.stride(), b.dtype, b.device))


def value_of(node: Any) -> Tensor | None:
    """What the trace knows of a tensor; None of all else."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value if isinstance(value, Tensor) else None
