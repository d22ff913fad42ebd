"""Rewritten programs compute what the originals do, with fewer operations and in less memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from landscape.graphs import split
from landscape.rewrites import (
    fuse_products,
    mask_by_results,
    merge_equals,
    remove_copies,
    remove_zeros,
    work_in_place,
)

ATEN = torch.ops.aten


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def program(function: Callable[..., Tensor], *arguments: Tensor) -> fx.GraphModule:
    module: fx.GraphModule = make_fx(function, tracing_mode="fake")(*arguments)
    return module


def targets(graph: fx.Graph) -> list[object]:
    return [node.target for node in graph.nodes if node.op == "call_function"]


A, B, C = (normal(4, 5, seed=i) for i in range(3))


def rewritten(function: Callable[..., Tensor], *arguments: Tensor) -> fx.GraphModule:
    module = program(function, *arguments)
    for rewrite in (remove_copies, remove_zeros, mask_by_results, merge_equals, fuse_products, work_in_place):
        rewrite(module.graph)
    module.recompile()
    return module


def check(function: Callable[..., Tensor], *arguments: Tensor) -> list[object]:
    """Values and arguments are what they were; returns the operations that are left."""
    module, given_ = rewritten(function, *arguments), [a.clone() for a in arguments]
    assert torch.allclose(module(*arguments), function(*arguments), rtol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(arguments, given_, strict=True))
    return targets(module.graph)


def test_copies_that_change_nothing_go() -> None:
    assert check(lambda a, b: ATEN.copy(a, b.clone().view(4, 5)) + 1, A, B) == [ATEN.add.Tensor]


def test_copies_that_change_something_stay() -> None:
    assert check(lambda a: a.float().double(), A) == [ATEN._to_copy.default] * 2
    assert check(lambda a: a.mT.contiguous(), A)[-1] == ATEN.clone.default
    assert ATEN.expand.default in check(lambda a: a.expand(3, 4, 5) * 2, A)


def test_a_sum_with_a_product_is_one_operation() -> None:
    assert check(lambda a, b, c: a + b * c, A, B, C) == [ATEN.addcmul.default]
    assert check(lambda a, b, c: b * c + a, A, B, C) == [ATEN.addcmul.default]


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b, c: (product := b * c) + a + product,  # it is used once more
        lambda a, b, c: torch.add(a, b * c, alpha=2),
        lambda a, b, c: a[0] + b * c,  # the sum is larger than the addend
        lambda a, b, c: a + (b.float() * c.float()),  # and of another dtype than the product
        lambda a, b, c: a + b * 2.0,
    ],
)
def test_other_sums_are_left_alone(function: Callable[..., Tensor]) -> None:
    assert ATEN.addcmul.default not in check(function, A, B, C)


def test_nobody_writes_on_what_is_read_later() -> None:
    assert ATEN.add_.Tensor in check(lambda a, b: (a + b) + a, A, B)
    assert ATEN.add_.Tensor in check(lambda a, b: a + (a + b), A, B)

    def read_later(a: Tensor, b: Tensor) -> Tensor:
        total = a + b
        return torch.mm(total + a, total.mT)

    assert ATEN.add_.Tensor not in check(read_later, A, B)


def test_nobody_writes_on_what_has_views_or_is_given_or_too_small() -> None:
    def viewed(a: Tensor, b: Tensor) -> Tensor:
        total = a + b
        view = total.mT
        return torch.mm(total + a, view)

    for function in (viewed, lambda a, b: a + b, lambda a, b: (a[0] + b[0]) + a):
        assert ATEN.add_.Tensor not in check(function, A, B)


def test_what_was_read_by_another_name_before_is_written_on() -> None:
    def read_before(a: Tensor, b: Tensor) -> Tensor:
        total = a + b
        product = torch.mm(total, total.t())
        return torch.mm(product, total + a)

    def read_after(a: Tensor, b: Tensor) -> Tensor:
        total = a + b
        flat = total.view(20)
        return (total + a).sum(0) + flat[:5]

    assert ATEN.add_.Tensor in check(read_before, A, B)
    assert ATEN.add_.Tensor not in check(read_after, A, B)
    assert ATEN.add_.Tensor not in check(lambda a, b: (s := a.mm(b.t())) + s.t(), A, B)


def test_masks_and_pooling_write_over_what_is_read_no_more() -> None:
    image, kernel, g = normal(2, 3, 6, 6, seed=3), normal(4, 3, 3, 3, seed=4), normal(2, 4, 2, 2, seed=5)

    def backward(x: Tensor, w: Tensor, outer: Tensor) -> Tensor:
        before = torch.conv2d(x, w)
        masked = ATEN.threshold_backward(before * 2, before, 0)
        pooled, places = ATEN.max_pool2d_with_indices(masked, [2, 2], [2, 2])
        inner = ATEN.max_pool2d_with_indices_backward(
            pooled * outer, masked, [2, 2], [2, 2], [0, 0], [1, 1], False, places
        )
        result: Tensor = ATEN.threshold_backward(inner, before, 0).sum((0, 2, 3))
        return result

    operations = check(backward, image, kernel, g)
    assert operations.count(ATEN.threshold_backward.grad_input) == 2
    assert ATEN.max_pool2d_with_indices_backward.grad_input not in operations  # pooling is not known to only read

    def tangent(x: Tensor, w: Tensor, outer: Tensor) -> Tensor:
        before = torch.conv2d(x, w)
        places = ATEN.max_pool2d_with_indices(before, [2, 2], [2, 2])[1].view(2, 4, 4)
        masked = ATEN.threshold_backward(torch.conv2d(x, w.sin()), before, 0)
        picked = masked.view(2, 4, 16).gather(-1, places).view(2, 4, 2, 2)
        result: Tensor = ATEN.max_pool2d_with_indices_backward(
            picked * outer, masked, [2, 2], [2, 2], [0, 0], [1, 1], False, places.view(2, 4, 2, 2)
        )
        return result

    assert ATEN.max_pool2d_with_indices_backward.grad_input in check(tangent, image, kernel, g)


def test_what_is_always_zero_is_not_added() -> None:
    def function(a: Tensor, b: Tensor) -> Tensor:
        zero = torch.zeros(5, 5, dtype=a.dtype)
        return a + torch.mm(b, zero) * 3 + b

    assert check(function, A, B)[-1] == ATEN.add.Tensor
    assert targets(rewritten(function, A, B).graph).count(ATEN.add.Tensor) == 1
    image, kernel = normal(2, 3, 6, 6, seed=3), normal(4, 3, 3, 3, seed=4)

    def convolved(x: Tensor, w: Tensor) -> Tensor:
        return torch.conv2d(x, w) + torch.conv2d(torch.zeros_like(x), w)

    assert ATEN.add.Tensor not in check(convolved, image, kernel)


def test_zeros_that_have_something_added_count() -> None:
    image, kernel, bias = normal(2, 3, 6, 6, seed=3), normal(4, 3, 3, 3, seed=4), normal(4, seed=5)
    biased = check(
        lambda x, w, b: torch.conv2d(x, w) + torch.conv2d(torch.zeros_like(x), w, b), image, kernel, bias
    )
    assert biased.count(ATEN.convolution.default) == 2
    assert ATEN.add_.Tensor in check(lambda a, b: a + torch.zeros_like(a).add_(b), A, B)
    assert ATEN.cos.default in check(lambda a, b: a + torch.zeros_like(a).cos(), A, B)


def test_values_that_are_written_on_keep_their_order() -> None:
    """What was read before must not be computed anew after, nor be written on under its other name."""

    def read_before(v: Tensor, a: Tensor) -> Tensor:
        early = a.sin()
        doubled, tripled = early * 2, early * 3
        early.add_(1)
        return v * doubled + v.exp() * tripled + v.sin() * early

    def read_by_its_other_name(v: Tensor, a: Tensor) -> Tensor:
        first = v + a
        second = first.add_(1)
        return torch.mm(second + v, first.mT)

    for function in (read_before, read_by_its_other_name):
        parts = split(program(function, A, B))
        assert torch.allclose(parts.moving(A, *parts.fixed(B)), function(A, B))


def test_masks_are_taken_from_results() -> None:
    operations = check(lambda a, b: ATEN.threshold_backward(b, a, 0) + a.relu(), A, B)
    assert ATEN.relu.default in operations
    check(lambda a, b: ATEN.threshold_backward(b, a, 0.5) + a.relu(), A, B)  # another threshold
    check(lambda a, b: ATEN.threshold_backward(a, a, 0) + a.relu(), A, B)
    check(lambda a, b: ATEN.threshold_backward(a, b, 0) + a.relu(), A, B)  # of something else


def test_equal_operations_are_done_once() -> None:
    assert check(lambda a: a.sin() * a.sin().cos(), A).count(ATEN.sin.default) == 1
    assert check(lambda a: a.sum(0) * a.sum(1)[0], A).count(ATEN.sum.dim_IntList) == 2


def test_cheap_values_are_computed_anew_instead_of_kept() -> None:
    """Of sin(a) and three multiples of it only one is kept, or a, where that is as large."""

    def function(v: Tensor, a: Tensor) -> Tensor:
        s = a.sin()
        return v * (s * 2) + (v * v) * (s * 3) + (v * v * v) * (s - 1)

    parts = split(program(function, A, B))
    assert len(parts.fixed(B)) == 1
    assert torch.allclose(parts.moving(A, *parts.fixed(B)), function(A, B))


def test_what_is_returned_is_no_memory_of_the_arguments() -> None:
    """A program may be run again with what its first part has computed once."""
    parts = split(program(lambda v, a: (v * a.sin() + a.cos()) * a.exp() + v, A, B))
    needed = parts.fixed(B)
    kept = [n.clone() for n in needed]
    first, second = parts.moving(A, *needed), parts.moving(A, *needed)
    assert torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(needed, kept, strict=True))


OPERATIONS: list[Callable[[Tensor, Tensor], Tensor]] = [
    lambda a, b: a + b,
    lambda a, b: a * b,
    lambda a, b: a + b * a,
    torch.mm,
    lambda a, b: a.mT + b,
    lambda a, b: a.t() + b,
    lambda a, b: a.reshape(25).view(5, 5) + b,
    lambda a, b: ATEN.threshold_backward(a, b, 0),
    lambda a, b: a.clone().view(5, 5) * b,
    lambda a, b: a - b,
    lambda a, b: a.sum(0, keepdim=True) + b,
]
STEPS = st.lists(
    st.tuples(st.integers(0, len(OPERATIONS) - 1), st.integers(0, 30), st.integers(0, 30)), min_size=2, max_size=14
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(steps=STEPS)
def test_random_programs_keep_their_values(steps: list[tuple[int, int, int]]) -> None:
    def function(v: Tensor, a: Tensor) -> Tensor:
        values = [v, a, a.sin()]
        for operation, first, second in steps:
            values.append(OPERATIONS[operation](values[-1 - first % 3], values[second % len(values)]).tanh())
            values.append(OPERATIONS[operation](values[-1 - first % len(values)], values[-1 - second % 3]))
        return values[-1] + values[-2] * values[len(values) // 2]

    v, a = normal(5, 5, seed=7), normal(5, 5, seed=8)
    truth, module = function(v, a), program(function, v, a)
    parts = split(module)
    needed = parts.fixed(a)
    for _ in range(2):
        torch.testing.assert_close(
            parts.moving(v, *needed), truth, rtol=1e-9, atol=1e-9 * float(truth.abs().max())
        )
