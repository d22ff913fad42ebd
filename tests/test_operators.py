"""Hessian, Gauss–Newton and Fisher matrices against dense ones, and the interface that they share."""

from __future__ import annotations

import pytest
import scipy.sparse.linalg
import torch
from oracles import dense_hessian, quadratic, small_net, symmetric
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from landscape.errors import ConfigurationError
from landscape.geometry.eigenpairs import top_eigenpairs
from landscape.geometry.operators import KINDS, SymmetricOperator, as_operator, curvature_operator
from landscape.objectives import objective
from landscape.problem.input_objective import input_objective
from landscape.problem.network import parameter_views, ravel
from landscape.problem.parameter_objective import parameter_objective

SIZES, SAMPLES, CHUNK = [4, 5, 3], 11, 4


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def model() -> nn.Module:
    return small_net(SIZES, nn.Tanh, seed=1, gain=1.5)


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    return normal(SAMPLES, SIZES[0]), torch.arange(SAMPLES) % SIZES[-1]


def dense(operator: SymmetricOperator) -> Tensor:
    """All B matrices, ``(B, n, n)``."""
    rows, size = operator.shape
    identity = torch.eye(size, dtype=operator.like.dtype)
    return (operator @ identity[:, None].expand(-1, rows, -1)).transpose(0, 1)


def dense_parts(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Matrices over θ by Jacobians, from the definitions."""
    theta = ravel(model)

    def logits(point: Tensor) -> Tensor:
        result: Tensor = functional_call(model, parameter_views(model, point), (x,))
        return result

    jacobian = jacrev(logits)(theta)  # (N, K, n)
    p = logits(theta).softmax(1)
    # E over the model's labels of (p − e_y)(p − e_y)ᵀ, summed label by label.
    classes = torch.eye(p.shape[1], dtype=p.dtype)
    drawn = p[:, None] - classes
    spread = torch.einsum("ny,nyk,nyl->nkl", p, drawn, drawn)
    fisher = torch.einsum("nka,nkl,nlb->ab", jacobian, spread, jacobian) / len(y)
    gradients = torch.einsum("nk,nka->na", p - classes[y], jacobian)
    return {"fisher": fisher, "gauss_newton": fisher, "empirical_fisher": gradients.T @ gradients / len(y)}


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("loss", ["cross_entropy", "cross_entropy_as_published"])
def test_matrices_over_parameters(model: nn.Module, data: tuple[Tensor, Tensor], kind: str, loss: str) -> None:
    """In chunks, with a short last one."""
    phi = parameter_objective(model, *data, loss, chunk=CHUNK)
    found = dense(curvature_operator(phi, kind))[0]
    assert torch.allclose(found, dense_parts(model, *data)[kind], rtol=1e-9, atol=1e-12)


def test_hessian_over_parameters(model: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    phi = parameter_objective(model, *data, chunk=CHUNK)
    truth = dense_hessian(lambda row: phi._losses(row, *data).mean(), phi.origin[0])
    assert torch.allclose(dense(as_operator(phi))[0], truth, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_matrices_over_inputs_row_by_row(model: nn.Module, data: tuple[Tensor, Tensor], kind: str) -> None:
    x, y = data
    found = dense(curvature_operator(input_objective(model, x, y), kind))
    for i in range(len(y)):
        jacobian = jacrev(lambda point: model(point[None])[0])(x[i])
        p = model(x[i : i + 1])[0].softmax(0).detach()
        inner = torch.diag(p) - p[:, None] * p
        if kind == "empirical_fisher":
            error = p - torch.eye(len(p), dtype=p.dtype)[y[i]]
            inner = error[:, None] * error
        assert torch.allclose(found[i], jacobian.T @ inner @ jacobian, rtol=1e-9, atol=1e-12)


def test_gauss_newton_is_the_hessian_of_a_linear_model(data: tuple[Tensor, Tensor]) -> None:
    phi = parameter_objective(nn.Linear(SIZES[0], SIZES[-1]).double(), *data)
    assert torch.allclose(dense(curvature_operator(phi, "gauss_newton")), dense(as_operator(phi)), atol=1e-12)


def test_confident_networks_have_exact_products_in_float32(model: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    """Margins above 17, where torch's cross-entropy rounds: within 1e-3 of float64."""
    x, _ = data
    with torch.no_grad():
        x = x[model(x).topk(2).values.diff()[:, 0].abs() > 0.1]
        gap = model(x).topk(2).values.diff()[:, 0].abs().min()
        for p in list(model.parameters())[-2:]:
            p.mul_(18 / gap)
    y = model(x).argmax(1)
    assert -model(x).topk(2).values.diff().max() > 17.5
    vector = normal(1, len(ravel(model)), seed=4)
    single = small_net(SIZES, nn.Tanh, seed=1, gain=1.5).float()
    single.load_state_dict({k: v.float() for k, v in model.state_dict().items()})
    worst = {}
    for loss in ("cross_entropy", "cross_entropy_as_published"):
        exact, rounded = parameter_objective(model, x, y, loss), parameter_objective(single, x.float(), y, loss)
        pairs = [
            (exact.value(exact.origin), rounded.value(rounded.origin)),
            (exact.value_and_grad(exact.origin)[1], rounded.value_and_grad(rounded.origin)[1]),
            (as_operator(exact) @ vector, as_operator(rounded) @ vector.float()),
        ]
        worst[loss] = max(float((b.double() - a).norm() / a.norm()) for a, b in pairs)
    assert worst["cross_entropy"] < 1e-3
    assert worst["cross_entropy_as_published"] > 0.1


def test_eigenpairs_of_other_matrices(model: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    phi = parameter_objective(model, *data, chunk=CHUNK)
    operator = curvature_operator(phi, "gauss_newton")
    pairs = top_eigenpairs(operator, 3, tol=1e-8)
    truth = torch.linalg.eigvalsh(dense(operator)[0]).flip(0)[:3]
    assert torch.allclose(pairs.eigenvalues[0], truth, rtol=1e-9)


def test_diagonal_blocks() -> None:
    matrices = torch.stack([symmetric(range(12), seed=s) for s in range(2)])
    operator = as_operator(quadratic(matrices))
    assert torch.allclose(dense(operator.restricted(slice(3, 8))), matrices[:, 3:8, 3:8], atol=1e-12)
    some = torch.tensor([0, 5, 11])
    assert torch.allclose(dense(operator.restricted(some)), matrices[:, some][:, :, some], atol=1e-12)
    with pytest.raises(ConfigurationError, match="none of 12"):
        operator.restricted(slice(0, 0))


def test_scipy_takes_every_row() -> None:
    matrices = torch.stack([symmetric(range(12), seed=s) for s in range(2)])
    operator = as_operator(quadratic(matrices))
    for row in range(2):
        values = scipy.sparse.linalg.eigsh(operator.to_scipy(row), k=2, which="LA", return_eigenvectors=False)
        assert sorted(values) == pytest.approx([10, 11])
    assert operator.to_scipy().dtype == "float64"
    assert as_operator(quadratic(matrices, dtype=torch.float32)).to_scipy().dtype == "float32"
    with pytest.raises(ConfigurationError, match="row 2 of 2"):
        operator.to_scipy(2)


def test_asymmetry_is_seen() -> None:
    matrix = symmetric(range(1, 9), seed=0)[None]
    assert as_operator(quadratic(matrix)).asymmetry() < 1e-14
    skewed = matrix + torch.triu(torch.ones(8, 8, dtype=torch.float64), 1)
    wrong = SymmetricOperator(lambda v: torch.einsum("bij,...bj->...bi", skewed, v), torch.zeros(1, 8).double())
    assert wrong.asymmetry() > 0.01


def test_what_has_no_such_matrix_is_refused(model: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(ConfigurationError, match="no loss of a model's outputs"):
        curvature_operator(objective(lambda z: (z**2).sum(-1), torch.zeros(1, 3)), "gauss_newton")
    with pytest.raises(ConfigurationError, match="kind = 'kfac' is unknown"):
        curvature_operator(parameter_objective(model, *data), "kfac")
    with pytest.raises(ConfigurationError, match="no likelihood"):
        curvature_operator(parameter_objective(model, *data, "margin"), "fisher")
    log_odds = curvature_operator(parameter_objective(model, *data, "log_odds"), "gauss_newton")
    assert torch.isfinite(log_odds @ normal(1, len(ravel(model)))).all()
