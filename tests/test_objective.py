"""The protocol, its adapter for any torch function, and the logarithm of an objective."""

from __future__ import annotations

import pytest
import torch
from oracles import dense_hessian, quadratic, symmetric
from torch import Generator, Tensor

from landscape.errors import ObjectiveError
from landscape.objectives import FunctionObjective, objective, search_form
from landscape.problem.log_objective import LogObjective


def quartic(z: Tensor, shift: Tensor) -> Tensor:
    return 1 + ((z - shift[:, None]) ** 4).sum(-1) + (z[:, 0] * z[:, 1]) ** 2


def quartic_objective(rows: int = 3, dtype: torch.dtype = torch.float64) -> FunctionObjective:
    origin = torch.randn(rows, 4, generator=Generator().manual_seed(2), dtype=torch.float64)
    return objective(quartic, origin.to(dtype), torch.arange(rows).to(dtype))


def test_values_gradients_and_products() -> None:
    phi = quartic_objective()
    value, gradient = phi.value_and_grad(phi.origin)
    product = phi.linearize(phi.origin)
    vectors = torch.randn(5, 3, 4, generator=Generator().manual_seed(3), dtype=torch.float64)
    assert torch.equal(value, phi.value(phi.origin))
    for row in range(3):

        def alone(point: Tensor, row: int = row) -> Tensor:
            return quartic(point[None], torch.tensor([float(row)]))[0]

        point = phi.origin[row].clone().requires_grad_()
        (expected,) = torch.autograd.grad(alone(point), point)
        assert torch.allclose(gradient[row], expected, rtol=1e-12)
        hessian = dense_hessian(alone, phi.origin[row])
        assert torch.allclose(product(vectors)[:, row], vectors[:, row] @ hessian, rtol=1e-10)
        assert torch.allclose(product(vectors[0])[row], hessian @ vectors[0, row], rtol=1e-10)


def test_take_repeats_rows_with_their_data() -> None:
    phi = quartic_objective()
    rows = torch.tensor([2, 0, 2])
    taken = phi.take(rows)
    assert torch.equal(taken.origin, phi.origin[rows])
    assert torch.equal(taken.value(taken.origin), phi.value(phi.origin)[rows])


def test_single_precision_values_are_double() -> None:
    phi = quartic_objective(dtype=torch.float32)
    assert phi.value(phi.origin).dtype == torch.float64
    value, gradient = phi.value_and_grad(phi.origin)
    assert (value.dtype, gradient.dtype) == (torch.float64, torch.float32)
    assert not phi.origin.requires_grad


@pytest.mark.parametrize(
    ("function", "origin", "message"),
    [
        (lambda z: z.sum(), torch.zeros(3, 2), r"shape \(\) for 3 rows"),
        (lambda z: z, torch.zeros(3, 2), r"shape \(3, 2\)"),
        (lambda z: z.sum(-1), torch.zeros(3), "origin\\[None\\]"),
        (lambda z: z.sum(-1), torch.zeros(3, 1, 2), "one row per point"),
    ],
)
def test_what_is_no_objective_is_refused(function: object, origin: Tensor, message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        objective(function, origin)  # type: ignore[arg-type]


def test_search_form_of_a_plain_function_is_itself() -> None:
    phi = quadratic(symmetric([1.0, 2.0])[None])
    psi, to_search = search_form(phi)
    assert psi is phi
    assert to_search(torch.tensor(3.0)) == 3


def test_logarithm_against_autograd() -> None:
    phi = quartic_objective()
    psi = LogObjective(phi)
    value, gradient = psi.value_and_grad(phi.origin)
    plain = objective(lambda z, shift: quartic(z, shift).log(), phi.origin, *phi.data)
    expected_value, expected_gradient = plain.value_and_grad(phi.origin)
    vectors = torch.randn(2, 3, 4, generator=Generator().manual_seed(4), dtype=torch.float64)
    assert torch.allclose(value, expected_value, rtol=1e-12)
    assert torch.equal(psi.value(phi.origin), value)
    assert torch.allclose(gradient, expected_gradient, rtol=1e-12)
    expected = plain.linearize(phi.origin)(vectors)
    assert torch.allclose(psi.linearize(phi.origin)(vectors), expected, rtol=1e-9)
    assert torch.allclose(psi.linearize(phi.origin)(vectors[1]), expected[1], rtol=1e-9)
    assert torch.equal(psi.take(torch.tensor([1])).origin, phi.origin[1:2])
