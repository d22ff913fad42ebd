"""Estimates of traces, diagonals, norms and densities: exact cases, honest errors over many seeds, other code."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from oracles import quadratic, small_net, symmetric
from torch import Tensor, nn

from landscape.errors import ConfigurationError
from landscape.geometry.operators import SymmetricOperator, as_operator
from landscape.geometry.spectrum import Estimate, block_traces, diagonal, frobenius_norm, spectral_density, trace
from landscape.problem.parameter_objective import parameter_objective

SPECTRA = {
    "decaying": [50.0 * 0.7**i for i in range(80)],
    "saddle": [*torch.linspace(-2, 1, 70).tolist(), 9.0, 14.0, 20.0],
}
EXACT: dict[str, tuple[Callable[..., Estimate], Callable[[Tensor], Tensor]]] = {
    "trace": (trace, lambda m: m.diagonal(dim1=1, dim2=2).sum(-1)),
    "diagonal": (diagonal, lambda m: m.diagonal(dim1=1, dim2=2)),
    "norm": (frobenius_norm, lambda m: m.flatten(1).norm(dim=1)),
}


def matrices(name: str, rows: int = 2) -> Tensor:
    return torch.stack([symmetric(SPECTRA[name], seed=s) for s in range(rows)])


@pytest.mark.parametrize("name", EXACT)
def test_as_many_products_as_variables_are_exact(name: str) -> None:
    estimate, exact = EXACT[name]
    m = matrices("saddle")
    found = estimate(quadratic(m), num_products=m.shape[1])
    assert torch.allclose(found.value, exact(m), rtol=1e-10)
    assert (found.standard_error == 0).all()
    assert found.num_products == m.shape[1]


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("name", EXACT)
def test_errors_are_as_large_as_they_say(name: str, spectrum: str) -> None:
    """Over 40 seeds: unbiased within 4.5 errors, and the stated error is right within a factor of 1.6.

    With 40 seeds the spread is known to 11 %; a fair estimate fails with probability below 1e-3.
    """
    estimate, exact = EXACT[name]
    m = matrices(spectrum, 1)
    operator = as_operator(quadratic(m))
    results = [estimate(operator, num_products=24, seed=s) for s in range(40)]
    errors = torch.stack([r.value for r in results]) - exact(m)
    true = errors.square().mean(0).sqrt().median()
    stated = torch.stack([r.standard_error for r in results]).square().mean(0).sqrt().median()
    assert (errors.mean(0).abs() <= 4.5 * errors.std(0) / math.sqrt(len(results)) + 0.02 * exact(m).abs()).all()
    assert stated / 1.6 < true < 1.6 * stated


def test_xtrace_beats_plain_probes_on_decaying_spectra() -> None:
    """Low rank is found by the subspace; random signs alone have the error of the whole matrix."""
    m = matrices("decaying")
    truth = m.diagonal(dim1=1, dim2=2).sum(-1)
    found = trace(quadratic(m), num_products=40)
    plain = diagonal(quadratic(m), num_products=40).value.sum(1)
    assert ((found.value - truth).abs() <= 1e-2 * truth).all()
    assert ((plain - truth).abs() > 3 * (found.value - truth).abs()).all()


def test_rank_below_the_number_of_probes() -> None:
    m = symmetric([3.0, 1.0, -2.0, *[0.0] * 60], seed=0)[None]
    found = trace(quadratic(m), num_products=24)
    assert float(found.value) == pytest.approx(2.0, abs=1e-6)


def test_blocks_of_the_diagonal() -> None:
    """The trace of a layer's block: from the whole diagonal, and from the restricted operator."""
    model = small_net([4, 6, 3], nn.Tanh, seed=1)
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    operator = as_operator(parameter_objective(model, x, torch.arange(20) % 3))
    first = slice(0, 4 * 6 + 6)
    whole = diagonal(operator, num_products=operator.shape[1])
    block = trace(operator.restricted(first), num_products=30)
    sizes = [4 * 6, 6, 6 * 3, 3]
    exact = block_traces(operator, sizes, operator.shape[1])
    assert torch.allclose(exact.value, torch.stack([p.sum(-1) for p in whole.value.split(sizes, 1)], 1))
    guessed = [block_traces(operator, sizes, 20, seed) for seed in range(20)]
    scores = torch.stack([(g.value - exact.value) / g.standard_error for g in guessed])
    assert 0.6 < scores.square().mean().sqrt() < 1.6
    with pytest.raises(ConfigurationError, match="do not make up"):
        block_traces(operator, [3])
    assert float(whole.value[:, first].sum()) == pytest.approx(float(block.value), rel=1e-10)


def test_density_of_an_exhausted_space_is_that_of_the_matrix() -> None:
    m = symmetric([1.0, 2.0, 4.0], seed=0)[None]
    found = spectral_density(quadratic(m), steps=10, num_probes=3, width=0.05)
    assert torch.allclose(found.nodes, torch.tensor([1.0, 2.0, 4.0]).double().expand(1, 3, 3), atol=1e-9)
    assert torch.allclose(found.weights.sum(-1), torch.ones(1, 3).double())
    area = torch.trapezoid(found.density, found.grid)
    assert torch.allclose(area, torch.ones(1).double(), atol=1e-3)
    peaks = found.grid[0, found.density[0].topk(1).indices]
    assert any(abs(float(peaks) - value) < 0.05 for value in (1.0, 2.0, 4.0))


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_density_against_all_eigenvalues(spectrum: str) -> None:
    """Smoothed by the same kernel: within 5 standard errors nearly everywhere, over 400 points of two matrices."""
    m = matrices(spectrum)
    values = torch.linalg.eigvalsh(m)
    found = spectral_density(quadratic(m), steps=50, num_probes=60, width=0.5)
    kernel = torch.exp(-0.5 * ((found.grid[:, :, None] - values[:, None]) / 0.5) ** 2) / (
        0.5 * math.sqrt(2 * math.pi)
    )
    truth = kernel.mean(-1)
    off = (found.density - truth).abs()
    assert (off <= 5 * found.standard_error + 0.01 * truth.max()).double().mean() > 0.98
    assert found.standard_error.max() < 0.2 * truth.max()
    apart = (found.grid[:, None, :, None] - found.nodes[:, :, None]) / 0.5
    each = (torch.exp(-0.5 * apart**2) * found.weights[:, :, None]).sum(-1) / (0.5 * math.sqrt(2 * math.pi))
    assert torch.allclose(found.standard_error, each.std(1) / math.sqrt(60), rtol=1e-9, atol=1e-15)
    for power in (1, 2, 3):
        moment = found.moment(power)
        expected = (values**power).mean(1)
        assert ((moment.value - expected).abs() <= 5 * moment.standard_error).all()


def test_no_ghosts_in_the_nodes() -> None:
    """Without orthogonalisation the largest eigenvalue comes back several times in 200 steps."""
    m = symmetric([100.0, 90.0, *torch.linspace(0, 1, 398).tolist()], seed=0)[None]
    nodes = spectral_density(quadratic(m, dtype=torch.float32), steps=200, num_probes=2).nodes
    assert ((nodes > 95).sum(-1) == 1).all()
    assert ((nodes > 80).sum(-1) == 2).all()


def test_float32_and_rows_in_lock_step() -> None:
    m = matrices("saddle", 3)
    single = trace(quadratic(m, dtype=torch.float32), num_products=20)
    double = trace(quadratic(m), num_products=20)
    assert torch.allclose(single.value, double.value, rtol=1e-4)
    alone = trace(quadratic(m[:1]), num_products=m.shape[1])
    assert torch.allclose(trace(quadratic(m), num_products=m.shape[1]).value[:1], alone.value)


def test_too_few_probes_are_refused() -> None:
    phi = quadratic(matrices("saddle"))
    for call in (
        lambda: trace(phi, 3),
        lambda: diagonal(phi, 1),
        lambda: frobenius_norm(phi, 1),
        lambda: spectral_density(phi, num_probes=1),
        lambda: spectral_density(phi, steps=0),
        lambda: spectral_density(phi, width=-1.0),
    ):
        with pytest.raises(ConfigurationError):
            call()


def test_a_zero_operator() -> None:
    zero = SymmetricOperator(torch.zeros_like, torch.zeros(1, 50, dtype=torch.float64))
    assert float(trace(zero, 10).value) == 0
    assert float(frobenius_norm(zero, 10).value) == 0
    assert torch.isfinite(spectral_density(zero, steps=5, num_probes=2).density).all()
