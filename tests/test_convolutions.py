"""Gradients of convolutions in blocks of pixels, against torch's own."""

from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from landscape.convolutions import input_gradient_in_blocks, merge_input_gradients, widen_input_gradients

BACKWARD = torch.ops.aten.convolution_backward.default


def tensors(
    count: int, channels: int, sides: tuple[int, int], kernel: tuple[int, int], padding: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    image = torch.randn(count, channels, *sides, generator=draw, dtype=torch.float64)
    weight = torch.randn(3, channels, *kernel, generator=draw, dtype=torch.float64)
    outer = torch.randn(torch.conv2d(image, weight, padding=padding).shape, generator=draw, dtype=torch.float64)
    return outer, image.to(memory_format=torch.channels_last), weight


def truth(outer: Tensor, image: Tensor, weight: Tensor, padding: list[int]) -> Tensor:
    mask = [True, False, False]
    result: Tensor = BACKWARD(outer, image, weight, None, [1, 1], padding, [1, 1], False, [0, 0], 1, mask)[0]
    return result


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    channels=st.integers(1, 4),
    block=st.sampled_from([2, 3, 4]),
    blocks=st.tuples(st.integers(2, 4), st.integers(2, 4)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    data=st.data(),
)
def test_values_are_those_of_the_plain_gradient(
    channels: int, block: int, blocks: tuple[int, int], kernel: tuple[int, int], data: st.DataObject
) -> None:
    sides = (block * blocks[0], block * blocks[1])
    kernel = (min(kernel[0], sides[0]), min(kernel[1], sides[1]))
    padding = [data.draw(st.integers(0, side - 1)) for side in kernel]
    outer, image, weight = tensors(2, channels, sides, kernel, padding)
    found = input_gradient_in_blocks(outer, weight, padding, block)
    torch.testing.assert_close(found, truth(outer, image, weight, padding), rtol=1e-12, atol=1e-12)
    assert found.is_contiguous(memory_format=torch.channels_last)


def rewritten(channels: int, sides: tuple[int, int], padding: int = 0, **options: object) -> fx.GraphModule:
    arguments = {"stride": [1, 1], "dilation": [1, 1], "mask": [True, False, False], "kernel": (5, 3)} | options
    _, image, weight = tensors(2, channels, sides, arguments["kernel"], [padding] * 2)  # type: ignore[arg-type]
    stride, dilation, mask = (arguments[name] for name in ("stride", "dilation", "mask"))
    geometry = (stride, [padding] * 2, dilation, False, [0, 0], 1)
    outer = torch.randn_like(torch.ops.aten.convolution(image, weight, None, *geometry))

    def program(outer: Tensor, image: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        return tuple(g for g in BACKWARD(outer, image, weight, None, *geometry, mask) if g is not None)

    module: fx.GraphModule = make_fx(program, tracing_mode="fake")(outer, image, weight)
    widen_input_gradients(module.graph)
    module.graph.eliminate_dead_code()
    module.recompile()
    for found, true in zip(module(outer, image, weight), program(outer, image, weight), strict=True):
        torch.testing.assert_close(found, true)
    return module


def blocks_of(module: fx.GraphModule) -> list[object]:
    return [node.args[3] for node in module.graph.nodes if node.target is input_gradient_in_blocks]


@pytest.mark.parametrize(
    ("channels", "sides", "block"),
    [(1, (8, 12), 4), (1, (6, 8), 2), (2, (8, 8), 2), (4, (6, 8), 2), (4, (7, 8), 1), (5, (8, 8), 1)],
)
def test_blocks_are_as_large_as_the_vector_unit(channels: int, sides: tuple[int, int], block: int) -> None:
    module = rewritten(channels, sides)
    assert blocks_of(module) == ([block] if block > 1 else [])
    assert (operator.getitem in {node.target for node in module.graph.nodes}) == (block == 1)


@pytest.mark.parametrize(
    "options",
    [
        {"stride": [2, 2]},
        {"dilation": [2, 2]},
        {"mask": [True, True, False]},
        {"mask": [False, True, False]},
        {"padding": 4, "kernel": (3, 3)},
    ],
)
def test_other_convolutions_are_left_alone(options: dict[str, object]) -> None:
    assert blocks_of(rewritten(4, (12, 12), **options)) == []  # type: ignore[arg-type]


def sums(function: Callable[..., Tensor], *kernels: tuple[int, int]) -> int:
    """Gradients in blocks that are left of a function of two; its values are what they were."""
    arguments = [tensors(2, 2, (8, 8), kernel, [0, 0]) for kernel in kernels]

    def program(first: list[Tensor], second: list[Tensor]) -> Tensor:
        return function(*(truth(outer, image, weight, [0, 0]) for outer, image, weight in (first, second)))

    module: fx.GraphModule = make_fx(program, tracing_mode="fake")(*arguments)
    widen_input_gradients(module.graph)
    merge_input_gradients(module.graph)
    module.graph.eliminate_dead_code()
    module.recompile()
    torch.testing.assert_close(module(*arguments), program(*arguments))  # type: ignore[arg-type]
    return len(blocks_of(module))


def test_a_sum_of_two_is_one() -> None:
    assert sums(lambda a, b: a + b, (5, 3), (5, 3)) == 1


def test_what_is_no_sum_of_two_alike_stays() -> None:
    assert sums(lambda a, b: a + b, (5, 3), (3, 3)) == 2
    assert sums(lambda a, b: a + b * a, (5, 3), (5, 3)) == 2
    assert sums(lambda a, b: torch.add(a, b, alpha=2), (5, 3), (5, 3)) == 2
    assert sums(lambda a, b: (a + b) * b, (5, 3), (5, 3)) == 2
    assert sums(lambda a, b: (a + a) * (b + b), (5, 3), (5, 3)) == 2


def test_values_that_are_written_on_are_read_before() -> None:
    arguments = tensors(2, 2, (8, 8), (5, 3), [0, 0])

    def program(outer: Tensor, image: Tensor, weight: Tensor) -> Tensor:
        early = outer.sin()
        gradient = truth(early, image, weight, [0, 0])
        early.add_(1)
        return gradient + truth(early, image, weight, [0, 0])

    module: fx.GraphModule = make_fx(program, tracing_mode="fake")(*arguments)
    widen_input_gradients(module.graph)
    merge_input_gradients(module.graph)
    module.recompile()
    torch.testing.assert_close(module(*arguments), program(*arguments))
