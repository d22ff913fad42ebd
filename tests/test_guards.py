"""What would give a wrong or random φ is refused before anything is computed from it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from oracles import quadratic, symmetric
from torch import Tensor, nn
from torch.nn import functional

from landscape.errors import ObjectiveError
from landscape.geometry.eigenpairs import top_eigenpairs
from landscape.geometry.operators import SymmetricOperator
from landscape.objectives import objective
from landscape.problem.input_objective import input_objective
from landscape.problem.parameter_objective import parameter_objective

X = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 3


class Net(nn.Module):
    """A linear layer after some function of its inputs."""

    def __init__(self, before: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.before = nn.Linear(5, 3), before
        self.register_buffer("count", torch.zeros(()))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.before(self, x))
        return logits


def counting(model: nn.Module, x: Tensor) -> Tensor:
    model.get_buffer("count").add_(1)
    return x


def batch_norm_by_hand(_: nn.Module, x: Tensor) -> Tensor:
    return (x - x.mean(0)) / (1 + x.std(0, correction=0))


REFUSED = {
    "returns other logits when it runs again": lambda _, x: functional.dropout(x, 0.5, training=True),
    "among others than for the same sample alone": batch_norm_by_hand,
    "changes its buffers count": counting,
    r"returns shape \(1, 3, 3\)": lambda _, x: x[None],
}


@pytest.mark.parametrize("build", [parameter_objective, input_objective])
@pytest.mark.parametrize("message", REFUSED)
def test_models_without_a_definite_loss_are_refused(build: Callable[..., object], message: str) -> None:
    model = Net(REFUSED[message])
    with pytest.raises(ObjectiveError, match=message):
        build(model, X, Y)
    assert model.get_buffer("count") == 0


@pytest.mark.parametrize("build", [parameter_objective, input_objective])
@pytest.mark.parametrize("layer", [nn.BatchNorm1d(5), nn.Dropout(), nn.RReLU()])
def test_layers_in_train_mode_are_refused(build: Callable[..., object], layer: nn.Module) -> None:
    model = nn.Sequential(layer, nn.Linear(5, 3))
    with pytest.raises(ObjectiveError, match=r"model.eval\(\)"):
        build(model.train(), X, Y)
    build(model.eval(), X, Y)


def test_rounding_that_depends_on_the_batch_and_nan_are_no_reason() -> None:
    rounding = parameter_objective(Net(lambda _, x: x * (1 + 1e-6 * len(x))), X, Y)
    assert rounding.value(rounding.origin).isfinite().all()
    undefined = parameter_objective(Net(lambda _, x: x * torch.nan), X, Y)
    assert undefined.value(undefined.origin).isnan().all()


def test_functions_with_interacting_rows_are_refused() -> None:
    origin = torch.ones(4, 2, dtype=torch.float64)
    with pytest.raises(ObjectiveError, match="a row alone"):
        objective(lambda z: z.square().sum(1) + z.sum(), origin)


def test_random_functions_are_refused() -> None:
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(ObjectiveError, match="called again"):
        objective(lambda z: z.sum(1) + torch.rand(len(z), generator=generator), torch.ones(4, 2))


def test_products_of_no_symmetric_matrix_are_refused() -> None:
    skew = symmetric([3.0, 2, 1, 0.5, 0.1])
    skew[0, 1] += 1e-3
    operator = SymmetricOperator(lambda v: v @ skew.T, torch.zeros(1, 5, dtype=torch.float64))
    with pytest.raises(ObjectiveError, match="not those of a symmetric matrix"):
        top_eigenpairs(operator, 2, tol=1e-3)


def test_random_products_are_refused() -> None:
    matrix, generator = symmetric([3.0, 2, 1, 0.5, 0.1]), torch.Generator().manual_seed(1)

    def product(vector: Tensor) -> Tensor:
        return vector @ matrix * (1 + 0.01 * torch.rand((), generator=generator))

    with pytest.raises(ObjectiveError, match="not those of a symmetric matrix"):
        top_eigenpairs(SymmetricOperator(product, torch.zeros(1, 5, dtype=torch.float64)), 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_asymmetry_of_symmetric_matrices_is_rounding(dtype: torch.dtype) -> None:
    spectrum = torch.cat([torch.tensor([1e4, -3e3, 1.0]), torch.logspace(-8, 0, 60)])
    pairs = top_eigenpairs(quadratic(symmetric(spectrum)[None], dtype=dtype), 3, "LM")
    assert float(pairs.asymmetry) < 100 * torch.finfo(dtype).eps
