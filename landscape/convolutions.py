"""Convolutions of few channels on a CPU, whose vector units would otherwise stay mostly empty."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn.functional import pad

from landscape.nodes import value_of, written_values

# Numbers that go through a vector unit together; fewer output channels than these leave it partly empty.
_LANES = 16


def widen_input_gradients(graph: fx.Graph) -> None:
    """Let gradients by images of few channels be computed for blocks of pixels at a time."""
    for node in list(graph.nodes):
        if node.target is operator.getitem and node.args[1] == 0 and (block := _block(node)) > 1:
            backward: Any = node.args[0]
            outer, _, weight, _, _, padding, *_ = backward.args
            with graph.inserting_before(backward):
                wide = graph.call_function(input_gradient_in_blocks, (outer, weight, padding, block))
            wide.meta = dict(node.meta)
            node.replace_all_uses_with(wide)
            graph.erase_node(node)


def merge_input_gradients(graph: fx.Graph) -> None:
    """Make the sum of two such gradients one, over the channels of both, which fills the vector units better."""
    written = written_values(graph)
    for node in list(graph.nodes):
        if node.target is not torch.ops.aten.add.Tensor or node.kwargs or not _mergeable(*node.args):
            continue
        first, second = node.args
        if not written.isdisjoint((*first.all_input_nodes, *second.all_input_nodes)):
            continue
        with graph.inserting_before(node):
            outer, weight = (
                graph.call_function(torch.ops.aten.cat.default, ([first.args[i], second.args[i]], 1 - i))
                for i in (0, 1)
            )
            merged = graph.call_function(input_gradient_in_blocks, (outer, weight, *first.args[2:]))
        merged.meta = dict(node.meta)
        node.replace_all_uses_with(merged)
        for former in (node, first, second):
            graph.erase_node(former)


def _mergeable(first: Any, second: Any) -> bool:
    """Whether both are gradients in blocks, of kernels of one size, and used for nothing but their sum."""
    both = (first, second)
    if first is second or any(
        not isinstance(n, fx.Node) or n.target is not input_gradient_in_blocks for n in both
    ):
        return False
    kinds = [[(v.shape[2:], v.dtype) for v in (a.meta["val"] for a in node.args[:2])] for node in both]
    return kinds[0] == kinds[1] and first.args[2:] == second.args[2:] and all(len(n.users) == 1 for n in both)


def input_gradient_in_blocks(outer: Tensor, weight: Tensor, padding: Sequence[int], block: int) -> Tensor:
    """Gradient of a convolution of stride 1 by its input, ``(N, C, H, W)``, in channels-last layout.

    It is a convolution with the flipped kernel. Here one kernel, larger by ``block`` − 1, gives ``block``² pixels
    as channels, which takes ((k + block − 1) / (block k))² of the vector operations while these channels fit.

    Args:
        outer: Gradient by the output, ``(N, K, H', W')``.
        weight: ``(K, C, k, l)``.
        padding: Of the convolution.
        block: Sides of the blocks, which must divide H and W.
    """
    kernel = weight.flip(2, 3).transpose(0, 1)
    room = block - 1
    kernels = [pad(kernel, (j, room - j, i, room - i)) for i in range(block) for j in range(block)]
    wide = torch.cat(kernels).to(memory_format=torch.channels_last)
    margins = [side - 1 - width for side, width in zip(weight.shape[2:], padding, strict=True)]
    blocks = torch.conv2d(outer, wide, stride=block, padding=margins)
    count, _, height, width = blocks.shape
    rows = blocks.permute(0, 2, 3, 1).reshape(count, height, width, block, -1).transpose(2, 3)
    return rows.reshape(count, block * height, block * width, -1).permute(0, 3, 1, 2)


def _block(gradient: fx.Node) -> int:
    """Sides of the blocks that fill the vector units; 1 where it must or should be left as it is."""
    value: Any = value_of(gradient)
    backward: Any = gradient.args[0]
    if backward.target is not torch.ops.aten.convolution_backward.default:
        return 1
    _, _, weight, _, stride, padding, dilation, transposed, _, groups, wanted = backward.args
    if stride != [1, 1] or dilation != [1, 1] or transposed or groups != 1 or wanted != [True, False, False]:
        return 1
    overhanging = any(width >= side for side, width in zip(weight.meta["val"].shape[2:], padding, strict=True))
    if overhanging or value.device.type != "cpu" or not value.is_contiguous(memory_format=torch.channels_last):
        return 1
    _, channels, height, width = value.shape
    fitting = (b for b in (4, 2) if b * b * channels <= _LANES and height % b == 0 and width % b == 0)
    return next(fitting, 1)
