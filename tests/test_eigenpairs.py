"""Lanczos against dense eigensolvers, and the evidence it reports against recomputation."""

from __future__ import annotations

from typing import Literal

import pytest
import scipy.sparse.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import dense_hessian, quadratic, rotation, small_net, symmetric, wanted, with_parameters
from torch import Generator, Tensor, nn

from landscape.errors import ConfigurationError, ObjectiveError
from landscape.geometry import eigenpairs
from landscape.geometry.eigenpairs import WHICH, Eigenpairs, top_eigenpairs
from landscape.objectives import objective
from landscape.problem.parameter_objective import parameter_objective

SPREAD = [float(v) for v in range(-6, 14)]
SPECTRA = {
    "spread": SPREAD,
    "decaying": [2.0**-i for i in range(20)],
    "identity": [1.0] * 20,
    "zero": [0.0] * 20,
    "rank one": [3.0, *[0.0] * 19],
    "clustered": [5.0, 5.0 - 1e-3, 5.0 - 2e-3, *torch.linspace(-1, 4, 17).tolist()],
    "plus and minus": [4.0, -4.0, 2.5, -2.5, 1.5, -1.5, *[0.1] * 14],
}


def orthogonality_error(pairs: Eigenpairs) -> float:
    vectors = pairs.eigenvectors.double()
    gram = vectors @ vectors.transpose(1, 2)
    return float((gram - torch.eye(gram.shape[-1], dtype=torch.float64)).abs().max())


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize(("dtype", "accuracy", "tol"), [(torch.float64, 1e-6, 1e-8), (torch.float32, 1e-4, 1e-4)])
def test_known_spectra_row_by_row(which: str, dtype: torch.dtype, accuracy: float, tol: float) -> None:
    matrices = torch.stack([symmetric(s, seed=i) for i, s in enumerate(SPECTRA.values())])
    pairs = top_eigenpairs(quadratic(matrices, dtype=dtype), 4, which, tol=tol)
    assert pairs.eigenvalues.dtype == torch.float64
    assert orthogonality_error(pairs) <= 10 * accuracy
    assert pairs.converged.all()
    for name, matrix, found in zip(SPECTRA, matrices, pairs.eigenvalues, strict=True):
        expected = wanted(torch.linalg.eigvalsh(matrix), 4, which)
        if which == "LM":  # the order of λ and −λ is rounding
            expected = expected.abs()
        error = (found.abs() if which == "LM" else found) - expected
        assert error.abs().max() <= accuracy * max(1.0, float(matrix.abs().max())), name


@pytest.mark.parametrize(
    ("spectrum", "k", "which"),
    [
        ([3.0, *[0.0] * 14], 4, "SA"),
        ([-1.0, *[0.0] * 7], 2, "LA"),
        ([2.0] * 6, 6, "BE"),
        ([0.0] * 5, 3, "LM"),
        ([-2.0], 1, "LM"),
    ],
)
def test_exhausted_krylov_spaces(spectrum: list[float], k: int, which: str) -> None:
    """Few distinct eigenvalues end the Krylov space early; what it has not seen is still wanted."""
    matrix = symmetric(spectrum, seed=1)
    pairs = top_eigenpairs(quadratic(matrix[None]), k, which)
    expected = wanted(torch.tensor(spectrum, dtype=torch.float64), k, which)
    assert pairs.eigenvalues[0].tolist() == pytest.approx(expected.tolist(), abs=1e-12)
    assert orthogonality_error(pairs) < 1e-12
    assert pairs.converged.all()


def test_plus_and_minus_pairs_are_both_found() -> None:
    pairs = top_eigenpairs(quadratic(symmetric(SPECTRA["plus and minus"])[None]), 4, "LM", tol=1e-10)
    assert sorted(pairs.eigenvalues[0].tolist()) == pytest.approx([-4, -2.5, 2.5, 4], abs=1e-9)


def test_a_row_does_not_know_its_neighbours() -> None:
    phi = quadratic(torch.stack([symmetric(s, seed=7) for s in SPECTRA.values()]))
    together = top_eigenpairs(phi, 3, tol=1e-9)
    alone = top_eigenpairs(phi.take(torch.tensor([5])), 3, tol=1e-9)
    assert torch.allclose(alone.eigenvalues[0], together.eigenvalues[5], atol=1e-9, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_no_ghosts_after_many_steps(dtype: torch.dtype) -> None:
    """Without reorthogonalisation a dominant eigenvalue comes back again and again as a copy of itself."""
    spectrum = [1000.0, 100.0, 10.0, *torch.linspace(0, 1, 157).tolist()]
    matrix = symmetric(spectrum, seed=5)
    pairs = top_eigenpairs(quadratic(matrix[None], dtype=dtype), 6, tol=1e-15, max_steps=150)
    accuracy = 1e-7 if dtype == torch.float64 else 1e-3
    assert orthogonality_error(pairs) <= accuracy
    expected = wanted(torch.tensor(spectrum, dtype=torch.float64), 6, "LA")
    assert (pairs.eigenvalues[0, :3] - expected[:3]).abs().max() <= 1000 * accuracy
    assert pairs.eigenvalues[0, 3] < 1 + accuracy * 1000


@pytest.mark.parametrize("max_steps", [6, 12, None])
def test_residuals_are_true(max_steps: int | None) -> None:
    matrices = torch.stack([symmetric(torch.linspace(-2, 9, 40) ** 3 / 50, seed=i) for i in range(2)])
    pairs = top_eigenpairs(quadratic(matrices), 4, tol=1e-5, max_steps=max_steps)
    images = torch.einsum("bij,bkj->bki", matrices, pairs.eigenvectors)
    errors = (images - pairs.eigenvalues[..., None] * pairs.eigenvectors).norm(dim=-1)
    assert torch.allclose(pairs.residuals, errors / pairs.eigenvalues.abs(), rtol=1e-3, atol=1e-13)
    assert torch.equal(pairs.converged, pairs.residuals <= 1e-5)
    assert bool(pairs.converged.all()) == (max_steps is None)


def test_fewer_steps_stop_earlier_and_are_counted() -> None:
    matrix = symmetric(torch.linspace(0, 1, 60) ** 4)[None]
    calls = 0

    def counted(z: Tensor, h: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return 0.5 * torch.einsum("bi,bij,bj->b", z, h, z)

    phi = objective(counted, torch.zeros(1, 60, dtype=torch.float64), matrix)
    loose, tight = top_eigenpairs(phi, 2, tol=0.1), top_eigenpairs(phi, 2, tol=1e-9)
    assert loose.num_hvp < tight.num_hvp <= 62
    assert top_eigenpairs(phi, 2, tol=1e-30, max_steps=7).num_hvp == 7
    assert calls <= 8  # the function is traced once for each solve, not once a product


def test_start_vectors_are_honoured_and_not_trusted() -> None:
    matrix = symmetric(SPREAD, seed=2)
    phi, vectors = quadratic(matrix[None]), torch.linalg.eigh(matrix).eigenvectors.T
    cold = top_eigenpairs(phi, 3, tol=1e-6)
    near = vectors[-3:] + 1e-3 * rotation(len(SPREAD), seed=3)[:3]
    warm = top_eigenpairs(phi, 3, tol=1e-3, start=near[:, None])
    assert warm.num_hvp < top_eigenpairs(phi, 3, tol=1e-3).num_hvp
    # Eigenvectors of inner eigenvalues span an invariant space, from which only a new direction leads out.
    misled = top_eigenpairs(phi, 3, tol=1e-6, start=vectors[5:8, None])
    assert torch.allclose(misled.eigenvalues, cold.eigenvalues, atol=1e-6)
    assert float(cold.eigenvalues[0, 0]) == pytest.approx(13, abs=1e-6)
    single = top_eigenpairs(phi, 1, tol=1e-6, start=vectors[-1][None], max_steps=3)
    assert float(single.eigenvalues) == pytest.approx(13, abs=1e-2)


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("block", [1, 3])
def test_restarts_lose_nothing(monkeypatch: pytest.MonkeyPatch, which: str, block: int) -> None:
    """A subspace that may hold few vectors, on spectra that need many."""
    monkeypatch.setattr(eigenpairs, "_HELD", 0)
    spectra = [torch.linspace(-3, 4, 150).tolist(), [(i / 60.0) ** 3 for i in range(-60, 90)]]
    matrices = torch.stack([symmetric(s, seed=i) for i, s in enumerate(spectra)])
    pairs = top_eigenpairs(quadratic(matrices), 4, which, tol=1e-7, max_steps=1000, block=block)
    assert pairs.num_hvp > 16 + block  # else there was no restart
    assert pairs.converged.all()
    assert orthogonality_error(pairs) <= 1e-10
    expected = torch.stack([wanted(torch.linalg.eigvalsh(m), 4, which) for m in matrices])
    assert torch.allclose(pairs.eigenvalues, expected, atol=1e-10)


def test_a_block_sees_copies_of_one_eigenvalue() -> None:
    matrix = symmetric([7.0, 7.0, 7.0, 5.0, *torch.linspace(-1, 3, 56).tolist()])[None]
    pairs = top_eigenpairs(quadratic(matrix), 4, tol=1e-8, block=3)
    assert torch.allclose(pairs.eigenvalues, torch.tensor([[7.0, 7.0, 7.0, 5.0]]).double(), atol=1e-9)
    assert orthogonality_error(pairs) <= 1e-10


def test_blocks_keep_to_the_products_allowed() -> None:
    phi = quadratic(symmetric(torch.linspace(0, 1, 60) ** 4)[None])
    assert top_eigenpairs(phi, 2, tol=1e-30, max_steps=7, block=3).num_hvp == 7
    assert top_eigenpairs(phi, 2, tol=1e-9, block=60).converged.all()
    with pytest.raises(ConfigurationError, match="block = 61"):
        top_eigenpairs(phi, 2, block=61)


def test_seed_decides_every_bit() -> None:
    phi = quadratic(symmetric(SPREAD)[None])
    first, again, other = (top_eigenpairs(phi, 3, seed=s, max_steps=9) for s in (4, 4, 5))
    assert torch.equal(first.eigenvectors, again.eigenvectors)
    assert torch.equal(first.eigenvalues, again.eigenvalues)
    assert not torch.equal(first.eigenvectors, other.eigenvectors)


def test_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    top_eigenpairs(quadratic(symmetric([1.0] * 5)[None]), 3)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(("activation", "which"), [(nn.ReLU, "LM"), (nn.Tanh, "BE")])
def test_network_against_dense_hessian_and_arpack(activation: type[nn.Module], which: Literal["LM", "BE"]) -> None:
    random = Generator().manual_seed(0)
    model = small_net([6, 12, 8, 4], activation, seed=3)
    x = torch.randn(40, 6, generator=random, dtype=torch.float64)
    y = torch.randint(4, (40,), generator=random)
    phi = parameter_objective(model, x, y, chunk=25)
    assert phi.origin.shape[1] < 300

    def mean_loss(vector: Tensor) -> Tensor:
        net = with_parameters(small_net([6, 12, 8, 4], activation, seed=3), vector)
        return nn.functional.cross_entropy(net(x), y)

    dense = dense_hessian(mean_loss, phi.origin[0])
    found = top_eigenpairs(phi, 5, which, tol=1e-6).eigenvalues[0]
    expected = wanted(torch.linalg.eigvalsh(dense), 5, which)
    assert ((found - expected) / expected).abs().max() < 1e-4
    arpack = scipy.sparse.linalg.eigsh(dense.numpy(), 5, which=which, return_eigenvectors=False)
    assert sorted(found.tolist()) == pytest.approx(sorted(arpack), rel=1e-6)


@pytest.mark.parametrize("ends", [(5, 1), (1, 4), (0, 2), (3, 0)])
def test_each_end_may_have_its_own_number(ends: tuple[int, int]) -> None:
    upper, lower = ends
    matrix = symmetric([float(i) for i in range(-20, 30)], seed=3)
    found = top_eigenpairs(quadratic(matrix[None]), ends, "BE", tol=1e-8)
    values = torch.linalg.eigvalsh(matrix).tolist()
    assert found.eigenvalues[0].tolist() == pytest.approx([*values[::-1][:upper], *values[:lower]], abs=1e-6)
    assert found.converged.all()


@settings(max_examples=8, deadline=None, derandomize=True)
@given(spectrum=st.lists(st.floats(-100, 100), min_size=3, max_size=9), seed=st.integers(0, 1000))
def test_rotation_does_not_matter(spectrum: list[float], seed: int) -> None:
    matrix = symmetric(spectrum, seed)
    turns = [rotation(len(spectrum), seed + i) for i in range(6)]
    phi = quadratic(torch.stack([matrix, *(turn.T @ matrix @ turn for turn in turns)]))
    values = top_eigenpairs(phi, 3, "BE", tol=1e-9).eigenvalues
    scale = 1e-8 * max(1e-3, *(abs(v) for v in spectrum))
    assert (values - values[0]).abs().max() <= scale


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 6}, "k = 6"),
        ({"k": 0}, "k = 0"),
        ({"which": "SM"}, "LA, SA, LM, BE"),
        ({"k": (2, 1)}, "BE"),
        ({"k": (2, -1), "which": "BE"}, "not negative"),
        ({"k": (4, 2), "which": "BE"}, "k = 6"),
        ({"tol": 0.0}, "tol = 0"),
        ({"tol": float("nan")}, "tol = nan"),
        ({"max_steps": 1}, "max_steps = 1"),
    ],
)
def test_senseless_settings_are_refused(settings: dict[str, object], message: str) -> None:
    phi = quadratic(torch.eye(5)[None])
    with pytest.raises(ConfigurationError, match=message):
        top_eigenpairs(phi, **{"k": 2, **settings})  # type: ignore[arg-type]


def test_infinite_curvature_is_refused() -> None:
    phi = objective(lambda z: z.abs().pow(1.5).sum(-1), torch.zeros(1, 4, dtype=torch.float64))
    with pytest.raises(ObjectiveError, match="not finite"):
        top_eigenpairs(phi, 1)
