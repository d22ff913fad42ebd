"""Memory of products is bounded by what is allowed and by that of a gradient, whatever the number of samples."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from landscape.errors import ConfigurationError
from landscape.geometry.eigenpairs import top_eigenpairs
from landscape.problem.input_objective import input_objective
from landscape.problem.memory import activation_bytes
from landscape.problem.models import build_model, initialise
from landscape.problem.network import parameter_views
from landscape.problem.parameter_objective import ParameterObjective, parameter_objective

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
peak_bytes: Any = importlib.import_module("live_memory").peak_bytes
workloads: Any = importlib.import_module("hessian_workloads")

MIB = 2**20


def network(name: str) -> nn.Module:
    if name == "resnet20":
        model: nn.Module = workloads.resnet20().eval()
        return model
    model = build_model(name)
    initialise(model, torch.Generator().manual_seed(0))
    return model


def images(count: int, name: str) -> tuple[Tensor, Tensor]:
    shape = (3, 32, 32) if name == "resnet20" else (1, 28, 28)
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1)), torch.arange(count) % 10


def test_live_memory_counts_what_is_alive() -> None:
    def call() -> Tensor:
        first = torch.zeros(MIB)
        second = first + 1
        del first
        return (second + 1)[:1]

    peak, held = peak_bytes(call)
    assert peak == 8 * MIB
    assert held == 4 * MIB


def check_by_double_backward(phi: ParameterObjective, image: Tensor, vector: Tensor) -> None:
    """Large networks are right, too."""
    parameters = list(phi.model.parameters())
    loss = nn.functional.cross_entropy(phi.model(phi.x), phi.y)
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    parts = parameter_views(phi.model, vector[0]).values()
    truth = torch.autograd.grad(gradients, parameters, grad_outputs=list(parts))
    flat = torch.cat([t.reshape(-1) for t in truth])
    assert torch.linalg.vector_norm(image[0] - flat) < 1e-4 * torch.linalg.vector_norm(flat)


@pytest.mark.parametrize("name", ["cnn", "mlp", pytest.param("resnet20", marks=pytest.mark.thorough)])
def test_a_product_takes_at_most_three_times_a_gradient(name: str) -> None:
    """With all that is kept for it; measured to the byte, for the same samples at once."""
    phi = parameter_objective(network(name), *images(64, name))
    phi.linearize(phi.origin)  # the trace is made
    gradient, _ = peak_bytes(lambda: phi.value_and_grad(phi.origin))
    linearisation, kept = peak_bytes(lambda: phi.linearize(phi.origin))
    product, vector = phi.linearize(phi.origin), torch.randn_like(phi.origin)
    peak, _ = peak_bytes(lambda: product(vector))
    check_by_double_backward(phi, product(vector), vector)
    assert kept > 0.01 * gradient
    assert max(linearisation, kept + peak) < 3 * gradient


@pytest.mark.parametrize("samples", [300, 1200])
@pytest.mark.parametrize("space", ["theta", "x"])
def test_memory_does_not_grow_with_samples(samples: int, space: str) -> None:
    memory, model = 16 * MIB, network("cnn")
    x, y = images(samples, "cnn")
    build = parameter_objective if space == "theta" else input_objective
    phi = build(model, x, y, memory=memory)
    assert 1 < phi.chunk < samples
    vector = torch.randn_like(phi.origin)
    phi.linearize(phi.origin)(vector)  # traces are made, of tensors without memory that would be counted
    calls = {
        "gradient": lambda: phi.value_and_grad(phi.origin),
        "product": lambda: phi.linearize(phi.origin)(vector),
    }
    for call in calls.values():
        peak, _ = peak_bytes(call)
        # Vectors of the size of what is asked for come on top: in X they grow with the samples.
        assert peak < memory + 4 * phi.origin.numel() * 4


def test_little_memory_changes_no_eigenvalue() -> None:
    model, (x, y) = network("cnn").double(), images(60, "cnn")
    little, much = (
        top_eigenpairs(parameter_objective(model, x.double(), y, memory=memory), 2, tol=1e-6).eigenvalues
        for memory in (4 * MIB, 2**31)
    )
    assert torch.allclose(little, much, rtol=1e-9)


def test_activations_are_counted_by_the_sample() -> None:
    model, (x, _) = network("mlp"), images(5, "mlp")
    expected = 4 * (784 + 100)  # inputs of the layers; of the ReLU its result, which is the input of the next
    assert activation_bytes(model, x) == pytest.approx(expected, rel=0.3)
    assert activation_bytes(model, x[:1]) > 0


@pytest.mark.parametrize("build", [parameter_objective, input_objective])
def test_no_memory_is_refused(build: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="memory = 0 bytes"):
        build(network("mlp"), *images(3, "mlp"), memory=0)


def test_nothing_is_left_of_counting() -> None:
    """What autograd's graph keeps, Python's collector cannot free if it leads back to the graph."""
    model, x = build_model("cnn"), torch.rand(3, 1, 28, 28)

    def living() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    activation_bytes(model, x)
    before = living()
    for _ in range(3):
        activation_bytes(model, x)
    assert living() == before
