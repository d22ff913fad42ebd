"""Hessian eigenvalues against dense float64 matrices, curvlinops and scipy, where some other tool is wrong."""

from __future__ import annotations

import copy
import importlib
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import scipy.sparse.linalg
import torch
from oracles import dense_hessian, small_net, symmetric, wanted, with_parameters
from torch import Generator, Tensor, nn
from torch.func import functional_call

from landscape.errors import ObjectiveError
from landscape.geometry.eigenpairs import top_eigenpairs
from landscape.geometry.operators import SymmetricOperator, as_operator
from landscape.objectives import objective
from landscape.problem.network import parameter_views, ravel
from landscape.problem.parameter_objective import ParameterObjective, parameter_objective

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    rivals: Any = importlib.import_module("rivals_hessian")
eigenthings: Any = rivals.hessian_eigenthings

SAMPLES, CLASSES, CHUNK = 136, 4, 64  # chunks of 64, 64 and 8
NUM_PAIRS, STEPS = 5, 200
SUM = nn.CrossEntropyLoss(reduction="sum")
# Relative accuracy of eigenvalues, and the tolerance asked for.
PRECISIONS = [(torch.float64, 1e-6, 1e-6), (torch.float32, 1e-4, 1e-4)]

Batches = Sequence[tuple[Tensor, Tensor]]
in_both_precisions = pytest.mark.parametrize(("dtype", "accuracy", "tol"), PRECISIONS, ids=["float64", "float32"])
# PyHessian calls backward(create_graph=True), of which torch warns.
pytestmark = pytest.mark.filterwarnings("ignore:Using backward:UserWarning")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Problem:
    """A network in eval mode with data, in float64, and all eigenvalues of the mean loss."""

    model: nn.Module
    x: Tensor
    y: Tensor
    spectrum: Tensor  # (n,)
    phi: dict[torch.dtype, ParameterObjective]  # in chunks; kept, for its tracing takes most of the time

    def truth(self, k: int, which: str = "LM") -> Tensor:
        return wanted(self.spectrum, k, which)

    def network(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """A copy, which tools may leave gradients on and change."""
        return copy.deepcopy(self.model).to(dtype)

    def batches(self, dtype: torch.dtype = torch.float32, size: int = CHUNK) -> Batches:
        return list(zip(self.x.to(dtype).split(size), self.y.split(size), strict=True))


def dense_spectrum(model: nn.Module, x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """All eigenvalues of torch's own cross-entropy of all samples at once."""

    def loss(vector: Tensor) -> Tensor:
        logits = with_parameters(copy.deepcopy(model), vector)(x)
        return nn.functional.cross_entropy(logits, y, reduction=reduction)

    spectrum: Tensor = torch.linalg.eigvalsh(dense_hessian(loss, ravel(model)))
    return spectrum


def dense_net() -> nn.Module:
    net = small_net([6, 12, 10, CLASSES], nn.Tanh, seed=3, gain=1.5)
    net[3] = nn.ReLU()
    return net


def convolutional_net() -> nn.Module:
    """With batch norm in eval mode, whose statistics and affine parameters are those of no fresh network."""
    first, second = nn.BatchNorm2d(4), nn.BatchNorm2d(6)
    shallow = nn.Conv2d(1, 4, 3), first, nn.ReLU()
    deep = nn.Conv2d(4, 6, 3, stride=2), second, nn.Tanh()
    net = nn.Sequential(*shallow, *deep, nn.Flatten(), nn.Linear(6, CLASSES)).double()
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(normal(*p.shape, seed=i) / math.sqrt(p[0].numel() if p.ndim > 1 else CLASSES))
        for i, norm in enumerate((first, second)):
            norm.weight.add_(1)
            norm.running_mean = normal(len(norm.weight), seed=i)
            norm.running_var = 0.3 + normal(len(norm.weight), seed=2 + i).abs()
    return net.eval()


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dense": (dense_net, (6,)),
    "convolutional": (convolutional_net, (1, 6, 6)),
}


@cache
def problem_of(name: str) -> Problem:
    build, shape = NETS[name]
    y = torch.randint(CLASSES, (SAMPLES,), generator=Generator().manual_seed(1))
    return problem_with(build(), normal(SAMPLES, *shape), y)


def problem_with(model: nn.Module, x: Tensor, y: Tensor) -> Problem:
    phi = {d: parameter_objective(copy.deepcopy(model).to(d), x.to(d), y, chunk=CHUNK) for d, _, _ in PRECISIONS}
    return Problem(model, x, y, dense_spectrum(model, x, y), phi)


@pytest.fixture(params=NETS)
def problem(request: pytest.FixtureRequest) -> Problem:
    return problem_of(request.param)


@pytest.fixture
def dense() -> Problem:
    return problem_of("dense")


def error(found: Tensor | Sequence[float], truth: Tensor) -> float:
    """The largest relative error."""
    return float(((torch.as_tensor(found, dtype=torch.float64) - truth) / truth).abs().max())


def in_order(values: Tensor | Sequence[float]) -> Tensor:
    """Largest magnitude first, for tools that sort otherwise or not at all."""
    return wanted(torch.as_tensor(values, dtype=torch.float64), len(values), "LM")


def copies(values: Tensor) -> int:
    """How many of the values are another one again; different ones are further apart in all spectra here."""
    return int((values.sort().values.diff() < 1e-5 * values.abs().max()).sum())


def lanczos_of_eigenthings(model: nn.Module, batches: Batches, **settings: Any) -> Any:
    loss = eigenthings.supervised_loss(rivals.CRITERION)
    return eigenthings.lanczos(eigenthings.HessianOperator(model, batches, loss), k=NUM_PAIRS, seed=0, **settings)


def pyhessian_of(model: nn.Module, criterion: nn.Module = rivals.CRITERION, **data: Any) -> Any:
    return rivals.pyhessian.hessian(model, criterion, cuda=False, **data)


def values_of_pyhessian(tool: Any, k: int = NUM_PAIRS, seed: int = 0, **settings: Any) -> list[float]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        values: list[float] = tool.eigenvalues(top_n=k, **settings)[0]
    return values


@in_both_precisions
def test_networks_have_the_eigenvalues_of_the_dense_hessian(
    problem: Problem, dtype: torch.dtype, accuracy: float, tol: float
) -> None:
    phi = problem.phi[dtype]
    for which in ("LM", "BE"):
        pairs = top_eigenpairs(phi, NUM_PAIRS, which, tol=tol)
        assert pairs.converged.all()
        assert error(pairs.eigenvalues[0], problem.truth(NUM_PAIRS, which)) < accuracy, which


@pytest.mark.parametrize("tool", ["curvlinops", "ours"])
def test_networks_have_the_eigenvalues_that_scipy_finds(problem: Problem, tool: str) -> None:
    """With the products of another tool, and with our own."""
    phi, model = problem.phi[torch.float64], problem.network(torch.float64)
    if tool == "ours":
        operator = as_operator(phi).to_scipy()
    else:
        data, parameters = problem.batches(torch.float64, SAMPLES), list(model.parameters())
        operator = rivals.curvlinops.HessianLinearOperator(model, rivals.CRITERION, parameters, data).to_scipy()
    start = normal(len(problem.spectrum)).numpy()
    arpack = scipy.sparse.linalg.eigsh(
        operator, NUM_PAIRS, which="LM", v0=start, tol=1e-7, return_eigenvectors=False
    )
    found = top_eigenpairs(phi, NUM_PAIRS, "LM", tol=1e-6).eigenvalues[0]
    assert error(found, in_order(arpack.tolist())) < 1e-6


def test_others_are_inaccurate_by_default(dense: Problem) -> None:
    """Ten times further off, or more, than ours may be in float32."""
    power = pyhessian_of(dense.network(), data=dense.batches(size=SAMPLES)[0])
    assert error(in_order(values_of_pyhessian(power)), dense.truth(NUM_PAIRS)) > 1e-3  # and no flag
    few_steps = lanczos_of_eigenthings(dense.network(), dense.batches(size=SAMPLES))
    assert error(few_steps.eigenvalues, dense.truth(NUM_PAIRS)) > 0.05
    assert not few_steps.converged.all()


@in_both_precisions
def test_two_hundred_steps_on_a_network_give_no_copies(
    dense: Problem, dtype: torch.dtype, accuracy: float, tol: float
) -> None:
    """No tolerance ends the search, only steps, or residuals that are nothing but rounding."""
    pairs = top_eigenpairs(dense.phi[dtype], NUM_PAIRS, "LM", tol=1e-30, max_steps=STEPS)
    assert copies(pairs.eigenvalues[0]) == 0
    assert error(pairs.eigenvalues[0], dense.truth(NUM_PAIRS)) < accuracy
    theirs = lanczos_of_eigenthings(dense.network(dtype), dense.batches(dtype, SAMPLES), max_iter=STEPS)
    assert theirs.converged.all()
    assert copies(theirs.eigenvalues) == NUM_PAIRS - 1


@in_both_precisions
def test_two_hundred_steps_give_no_copies(dtype: torch.dtype, accuracy: float, tol: float) -> None:
    """A cluster and its negative, outside of thousands of eigenvalues, of which the fifth one needs all steps."""
    outer, inner = [5.0, 4.999, -5.0, -4.999], torch.linspace(-0.99, 1, 2996, dtype=torch.float64)
    exact = torch.cat([inner.new_tensor(outer), inner])
    diagonal = exact.to(dtype)
    operator = SymmetricOperator(lambda v: v * diagonal, torch.zeros_like(diagonal)[None])
    pairs = top_eigenpairs(operator, NUM_PAIRS, "LM", tol=1e-30, max_steps=STEPS)
    assert pairs.num_hvp == STEPS
    assert copies(pairs.eigenvalues[0]) == 0
    found, truth = (v.sort().values for v in (pairs.eigenvalues[0], wanted(exact, NUM_PAIRS, "LM")))
    assert error(found, truth) < accuracy
    matrix = eigenthings.LambdaOperator(lambda v: v * diagonal, len(diagonal), dtype=dtype)
    theirs = eigenthings.lanczos(matrix, k=NUM_PAIRS, max_iter=STEPS, seed=0)
    assert copies(theirs.eigenvalues[theirs.converged]) >= 2


@in_both_precisions
def test_a_cluster_is_told_apart(dtype: torch.dtype, accuracy: float, tol: float) -> None:
    """Least squares with second moments of the inputs that make the spectrum."""
    exact = torch.tensor([*torch.linspace(0.1, 4, 57).tolist(), 4.998, 4.999, 5.0], dtype=torch.float64)
    inputs = torch.linalg.cholesky(symmetric(exact)).T * math.sqrt(len(exact) / 2)
    x = inputs.to(dtype)
    phi = objective(lambda z: (z @ x.T - 1).square().mean(-1), torch.zeros(1, len(exact), dtype=dtype))
    truth = wanted(exact, 3, "LM")
    assert error(top_eigenpairs(phi, 3, "LM", tol=tol).eigenvalues[0], truth) < accuracy
    data = (inputs.float(), torch.ones(len(exact), 1))
    theirs = values_of_pyhessian(pyhessian_of(nn.Linear(len(exact), 1, bias=False), nn.MSELoss(), data=data), 3)
    assert error(theirs, truth) > 1e-3  # five times the distance of neighbours
    assert theirs != sorted(theirs, reverse=True)


def at_zero() -> nn.Module:
    """The saddle at zero weights, where every eigenvalue has its negative."""
    net = nn.Sequential(nn.Linear(6, 1, bias=False), nn.Tanh(), nn.Linear(1, CLASSES, bias=False)).double()
    for p in net.parameters():
        nn.init.zeros_(p)
    return net


@pytest.fixture
def saddle(dense: Problem) -> Problem:
    return problem_with(at_zero(), dense.x, dense.y)


@in_both_precisions
def test_plus_and_minus_pairs_of_a_saddle(
    saddle: Problem, dtype: torch.dtype, accuracy: float, tol: float
) -> None:
    truth = saddle.truth(6)
    assert torch.allclose(truth[::2].abs(), truth[1::2].abs())
    found = top_eigenpairs(saddle.phi[dtype], 6, "LM", tol=tol).eigenvalues[0]
    assert error(found.sort().values, truth.sort().values) < accuracy


@pytest.mark.parametrize("seed", range(2))
def test_power_iteration_has_no_answer_for_plus_and_minus_pairs(saddle: Problem, seed: int) -> None:
    """Rayleigh quotients stand still between λ and −λ: there any tolerance is met."""
    whole, truth = saddle.batches(size=SAMPLES), saddle.truth(4).abs()
    values = values_of_pyhessian(pyhessian_of(saddle.network(), data=whole[0]), 4, seed, tol=1e-5, maxIter=1000)
    assert error(in_order(values).abs(), truth) > 0.05
    operator = eigenthings.HessianOperator(saddle.network(), whole, eigenthings.supervised_loss(rivals.CRITERION))
    found = eigenthings.deflated_power_iteration(operator, k=2, max_iter=300, seed=seed)
    assert found.converged.any()
    assert found.eigenvalues[found.converged].abs().max() > 1.02 * truth[0]  # more than the norm of the matrix


def test_a_short_last_batch_counts_as_what_it_is(problem: Problem) -> None:
    assert [len(y) for _, y in problem.batches()] == [64, 64, 8]
    found = top_eigenpairs(problem.phi[torch.float64], NUM_PAIRS, "LM", tol=1e-6).eigenvalues[0]
    assert error(found, problem.truth(NUM_PAIRS)) < 1e-6
    theirs = lanczos_of_eigenthings(problem.network(), problem.batches(), max_iter=50)
    assert theirs.converged.all()
    assert error(theirs.eigenvalues, problem.truth(NUM_PAIRS)) > 0.05


def test_a_sum_over_samples_has_as_many_times_the_curvature(dense: Problem) -> None:
    model, x, y = dense.model, dense.x, dense.y
    total = wanted(dense_spectrum(model, x, y, "sum"), NUM_PAIRS, "LM")

    def summed(points: Tensor) -> Tensor:
        outputs = [functional_call(model, parameter_views(model, point), (x,)) for point in points]
        return torch.stack([SUM(logits, y) for logits in outputs])

    whole = top_eigenpairs(objective(summed, ravel(model)[None]), NUM_PAIRS, "LM", tol=1e-6)
    assert error(whole.eigenvalues[0], total) < 1e-9
    for phi in (dense.phi[torch.float64], parameter_objective(model, x, y, chunk=SAMPLES // 4)):
        mean = top_eigenpairs(phi, NUM_PAIRS, "LM", tol=1e-6)
        assert error(SAMPLES * mean.eigenvalues[0], total) < 1e-9
    # It weights sums over batches with the sizes of the batches again.
    theirs = values_of_pyhessian(pyhessian_of(dense.network(), SUM, dataloader=dense.batches()), 2, tol=1e-6)
    assert error(theirs, total[:2]) > 0.4


def test_two_objects_on_one_model_do_not_add_up(dense: Problem) -> None:
    halves = dense.batches(torch.float64, size=SAMPLES // 2)
    truths = [wanted(dense_spectrum(dense.model, x, y), 1, "LM") for x, y in halves]
    model = dense.network(torch.float64)
    for p in model.parameters():
        p.grad = torch.full_like(p, 7)
    phis = [parameter_objective(model, x, y) for x, y in halves]
    for phi, truth in zip(phis, truths, strict=True):
        assert error(top_eigenpairs(phi, 1, "LM", tol=1e-6).eigenvalues[0], truth) < 1e-6
    assert all(p.grad is not None and (p.grad == 7).all() for p in model.parameters())

    a, b = dense.batches(size=SAMPLES // 2)
    for data, answer in (((a, b), 2 * dense.truth(1)), ((a, a), 2 * truths[0])):
        single = dense.network()  # without gradients at first
        tools = [pyhessian_of(single, data=half) for half in data]
        first, second = (values_of_pyhessian(tool, 1, tol=1e-6) for tool in tools)
        assert error(first, truths[0]) < 1e-3
        assert error(second, answer) < 1e-3  # of the sum of both Hessians


def test_batch_norm_in_train_mode_is_refused() -> None:
    """φ would depend on which samples go together, and looking at it would change the model."""
    problem = problem_of("convolutional")
    batches = problem.batches(torch.float64)
    kept = dict(problem.model.named_buffers())

    def moved(network: nn.Module) -> bool:
        return any(not torch.equal(kept[name], b) for name, b in network.named_buffers())

    network = problem.network(torch.float64).train()
    with pytest.raises(ObjectiveError, match=r"call model\.eval\(\)"):
        parameter_objective(network, problem.x, problem.y)
    assert network.training
    assert not moved(network)

    theirs = lanczos_of_eigenthings(network, batches, max_iter=40)
    assert theirs.converged.all()
    assert error(theirs.eigenvalues[:1].abs(), problem.truth(1).abs()) > 0.5
    assert moved(network)

    network = problem.network(torch.float64).train()
    with pytest.raises(RuntimeError, match="in-place"):  # an error that does not name the cause, and too late
        rivals.curvlinops.HessianLinearOperator(network, rivals.CRITERION, list(network.parameters()), batches)
    assert moved(network)
