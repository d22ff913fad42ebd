"""Hessian-vector products from traces, against dense Hessians; what is traced once, kept, and looked up anew."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import landscape.traces
from landscape.problem.input_objective import input_objective
from landscape.problem.parameter_objective import parameter_objective
from landscape.traces import Traces


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def smooth(z: Tensor, scale: Tensor) -> Tensor:
    return (scale * torch.sin(z) * z.roll(1)).sum() + (z**2).sum() ** 2


def dense(scalar: Any, z: Tensor, *data: Tensor) -> Tensor:
    hessian: Tensor = torch.func.hessian(scalar)(z, *data)
    return hessian


def columns(product: Any, z: Tensor) -> Tensor:
    return torch.stack([product(v) for v in torch.eye(len(z), dtype=z.dtype)])


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A list that grows by one with each trace."""
    made: list[object] = []
    trace = landscape.traces._traced

    def counted(*arguments: Any) -> Any:
        made.append(trace(*arguments))
        return made[-1]

    monkeypatch.setattr(landscape.traces, "_traced", counted)
    return made


def test_one_trace_serves_all_points_of_a_shape(traced: list[object]) -> None:
    traces = Traces()
    for seed in range(3):
        z, scale = normal(5, seed=seed), normal(5, seed=seed + 10)
        product = traces.linearize("smooth", smooth, z, scale)
        assert torch.allclose(columns(product, z), dense(smooth, z, scale), rtol=1e-12)
    assert len(traced) == 1
    traces.linearize("smooth", smooth, normal(7), normal(7))
    traces.linearize("another", smooth, normal(7), normal(7))
    assert len(traced) == 3


def test_products_stay_at_their_point() -> None:
    traces = Traces()
    z, scale = normal(5), normal(5, seed=1)
    first = traces.linearize("smooth", smooth, z, scale)
    truth = dense(smooth, z, scale)
    traces.linearize("smooth", smooth, z + 1, scale)
    assert torch.allclose(columns(first, z), truth, rtol=1e-12)


def test_the_first_part_runs_once_a_point(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = Traces()
    product = traces.linearize("exp", lambda z: torch.exp(z).sum(), normal(5))
    operations: list[str] = []

    class Record(torch.utils._python_dispatch.TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            operations.append(str(function))
            return function(*args, **(kwargs or {}))

    with Record():
        product(normal(5, seed=1))
    assert operations
    assert not any("exp." in name for name in operations)


def test_steps_that_depend_on_values_are_run_anew(traced: list[object]) -> None:
    def branching(z: Tensor) -> Tensor:
        return (z**2).sum() if float(z.detach()[0]) > 0 else (z**3).sum()

    traces = Traces()
    for sign in (1.0, -1.0):
        z = sign * torch.tensor([1.0, 2.0], dtype=torch.float64)
        product = traces.linearize("branching", branching, z)
        assert torch.allclose(columns(product, z), dense(branching, z))
    assert traced == [None]


def test_errors_of_the_function_are_its_own() -> None:
    def wrong(z: Tensor) -> Tensor:
        return (z @ torch.ones(7, dtype=z.dtype)).sum()

    product = Traces().linearize("wrong", wrong, normal(5))
    with pytest.raises(RuntimeError, match=r"inconsistent tensor size|size mismatch"):
        product(normal(5))


@pytest.mark.parametrize("scalar", [lambda z: z.sum(), lambda z: (z - z).sum(), lambda z: z[0] * 3.0])
def test_hessians_that_are_zero(scalar: Any) -> None:
    assert (Traces().linearize("linear", scalar, normal(4))(normal(4, seed=1)) == 0).all()


class Mixed(nn.Module):
    """Operations in place, batch norm, and attention, whose fused kernels have no second derivatives."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 3)
        self.norm, self.attention = nn.BatchNorm1d(8), nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.softplus(self.norm(self.first(x)))
        h.mul_(1.5).add_(x)
        h = h.reshape(-1, 2, 4)
        h = h + self.attention(h, h, h, need_weights=False)[0]
        logits: Tensor = self.last(nn.functional.relu(h.reshape(-1, 8), inplace=True))
        return logits


@pytest.fixture
def mixed() -> Mixed:
    generator = torch.Generator().manual_seed(0)
    model = Mixed().double().eval()
    with torch.no_grad():
        for p in (*model.parameters(), model.get_buffer("norm.running_mean")):
            p.copy_(0.5 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return model


def test_networks_with_operations_in_place_and_attention(mixed: Mixed, traced: list[object]) -> None:
    x, y = normal(11, 8), torch.arange(11) % 3
    phi = parameter_objective(mixed, x, y, chunk=4)
    names = [name for name, _ in mixed.named_parameters()]

    def loss(row: Tensor) -> Tensor:
        parts = row.split([p.numel() for p in mixed.parameters()])
        shaped = {k: v.reshape(p.shape) for k, v, p in zip(names, parts, mixed.parameters(), strict=True)}
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return nn.functional.cross_entropy(torch.func.functional_call(mixed, shaped, (x,)), y)

    vectors = normal(3, phi.origin.shape[1], seed=5)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        truth = torch.stack([torch.autograd.functional.hvp(loss, phi.origin[0], v)[1] for v in vectors])
    found = phi.linearize(phi.origin)(vectors[:, None])[:, 0]
    assert torch.allclose(found, truth, rtol=1e-9, atol=1e-12)
    assert len(traced) == 2  # chunks of four, and the short last one
    assert None not in traced


def test_buffers_are_looked_up_anew(mixed: Mixed) -> None:
    x, y = normal(6, 8), torch.arange(6) % 3
    phi = parameter_objective(mixed, x, y)
    vector = normal(1, phi.origin.shape[1])
    before = phi.linearize(phi.origin)(vector)
    with torch.no_grad():
        mixed.get_buffer("norm.running_var").mul_(4)
    after = phi.linearize(phi.origin)(vector)
    assert torch.allclose(after, parameter_objective(mixed, x, y).linearize(phi.origin)(vector), rtol=1e-12)
    assert not torch.allclose(after, before, rtol=1e-2)


def test_images_with_changed_parameters(mixed: Mixed) -> None:
    x, y = normal(6, 8), torch.arange(6) % 3
    phi = input_objective(mixed, x, y)
    vectors = normal(6, 8, seed=3)
    phi.linearize(phi.origin)
    with torch.no_grad():
        mixed.first.weight.mul_(1.3)
    truth = input_objective(mixed, x, y).linearize(phi.origin)(vectors)
    assert torch.allclose(phi.linearize(phi.origin)(vectors), truth, rtol=1e-12)


def test_the_model_is_left_alone(mixed: Mixed) -> None:
    x, y = normal(6, 8), torch.arange(6) % 3
    state = {k: v.clone() for k, v in mixed.state_dict().items()}
    phi = parameter_objective(mixed, x, y)
    phi.linearize(phi.origin)(normal(1, phi.origin.shape[1]))
    assert all(torch.equal(v, state[k]) for k, v in mixed.state_dict().items())
    assert all(p.grad is None for p in mixed.parameters())
    assert not mixed.training
