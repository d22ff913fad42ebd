"""The paper's theorems as measurements, and its single-layer example in closed form."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from importlib.metadata import entry_points
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from click.testing import CliRunner, Result
from hypothesis import example as always
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import dense_hessian, quadratic, ray_scan, small_net
from torch import Generator, Tensor

from landscape.errors import ConfigurationError
from landscape.geometry.level_sets import LevelSetDistance, level_set_distance
from landscape.geometry.theorem import check_theorem, even_rays, random_rays, slope_ratio, width_ratios
from landscape.objectives import objective
from landscape.problem.input_objective import input_objective
from landscape.problem.parameter_objective import parameter_objective
from landscape.problem.single_layer import Perceptron, SingleLayer, separable_distance
from landscape.report.theory import draw_theorem2
from landscape.study import theory
from landscape.study.solutions import draw_design, mean_loss, solutions
from landscape.study.theorem import theorem_rows, width_rows
from landscape.study.theorem2 import Solution, pairs_ordered, rank_correlation, theorem2_rows
from landscape.study.theory import agreement_rows

LN2 = math.log(2)


def log_loss(X: Tensor, y: Tensor, theta: Tensor) -> Tensor:
    """The loss as the paper writes it."""
    p = torch.sigmoid(X @ theta)
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def example(n: int = 5, d: int = 3, seed: int = 0, size: float = 1.0) -> Perceptron:
    generator = Generator().manual_seed(seed)
    X, theta = torch.randn(n, d, generator=generator).double(), size * torch.randn(d, generator=generator).double()
    return Perceptron(X, torch.randint(2, (n,), generator=generator).double(), theta)


def test_derivatives_are_those_of_the_published_loss() -> None:
    e = example()
    by_theta = torch.func.grad(lambda t: log_loss(e.X, e.y, t))
    by_inputs = torch.func.grad(lambda x: log_loss(x.reshape(5, 3), e.y, e.theta))
    assert e.loss == pytest.approx(log_loss(e.X, e.y, e.theta).item(), rel=1e-12)
    torch.testing.assert_close(e.gradient_theta(), by_theta(e.theta))
    torch.testing.assert_close(e.gradient_inputs().reshape(-1), by_inputs(e.X.reshape(-1)))
    hessian = dense_hessian(lambda t: log_loss(e.X, e.y, t), e.theta)
    torch.testing.assert_close(e.hessian_theta(), hessian)
    assert e.largest_eigenvalue_theta() == pytest.approx(torch.linalg.eigvalsh(hessian)[-1].item())
    hessian = dense_hessian(lambda x: log_loss(x.reshape(5, 3), e.y, e.theta), e.X.reshape(-1))
    torch.testing.assert_close(e.hessian_inputs(), hessian)
    assert e.largest_eigenvalue_inputs() == pytest.approx(torch.linalg.eigvalsh(hessian)[-1].item())


def test_multiplier_is_in_both_hessians() -> None:
    """The n non-zero eigenvalues over X are d_i ‖θ‖²/n, and over θ the Hessian is Σ d_i x_i x_iᵀ / n."""
    e = example(4, 6)
    expected = (e.multiplier * e.theta.square().sum() / 4).sort().values
    torch.testing.assert_close(torch.linalg.eigvalsh(e.hessian_inputs())[-4:], expected)
    theta = sum(d * torch.outer(x, x) for d, x in zip(e.multiplier, e.X, strict=True)) / 4
    torch.testing.assert_close(e.hessian_theta(), torch.as_tensor(theta))


def test_loss_and_error_do_not_round_at_large_margins() -> None:
    e = Perceptron(torch.tensor([[60.0]]).double(), torch.ones(1), torch.ones(1).double())
    assert e.loss == pytest.approx(math.exp(-60), rel=1e-10)
    assert -e.error.item() == pytest.approx(math.exp(-60), rel=1e-10)
    assert e.multiplier.item() == pytest.approx(math.exp(-60), rel=1e-10)


def test_wrong_shapes_and_labels_are_refused() -> None:
    e = example()
    for X, y, theta in ((e.X[0], e.y, e.theta), (e.X, e.y[:2], e.theta), (e.X, 2 * e.y - 1, e.theta)):
        with pytest.raises(ConfigurationError, match="do not belong"):
            Perceptron(X, y, theta)


def test_sample_distance_is_that_to_a_hyperplane() -> None:
    e = example(6, 4)
    levels = torch.tensor([0.2, LN2, 2.0], dtype=torch.float64)
    distance = e.sample_input_distances(levels)
    losses = torch.nn.functional.softplus(-e.margins)
    assert torch.equal(distance.isnan(), losses[:, None] >= levels)
    points = e.X[:, None] - (e.signs[:, None] * distance)[..., None] * e.theta / e.theta.norm()
    reached = torch.nn.functional.softplus(-e.signs[:, None] * (points @ e.theta))
    known = ~distance.isnan()
    torch.testing.assert_close(reached[known], levels.expand_as(reached)[known])


def brute_force(
    margins: np.ndarray, scale: float, level: float, seed: int, extra: Sequence[np.ndarray] = ()
) -> float:
    """Shortest end of SLSQP from many starts."""
    random, ends = np.random.default_rng(seed), [math.inf]
    constraint: dict[str, Any] = {
        "type": "eq",
        "fun": lambda t: np.logaddexp(0, scale * t - margins).mean() - level,
        "jac": lambda t: scale / (1 + np.exp(margins - scale * t)) / len(margins),
    }
    drawn = [np.abs(random.normal(size=len(margins))) * random.choice([0.1, 1, 5]) for _ in range(25)]
    for start in [*extra, *drawn]:
        end = scipy.optimize.minimize(  # type: ignore[call-overload]
            lambda t: t @ t, start, jac=lambda t: 2 * t, constraints=[constraint], options={"ftol": 1e-13}
        )
        if end.success and abs(constraint["fun"](end.x)) < 1e-8:
            ends.append(float(np.linalg.norm(end.x)))
    return min(ends)


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.floats(-0.5, 8), min_size=1, max_size=5),
    st.sampled_from([0.3, 1.0, 4.0]),
    st.sampled_from([0.1, 0.5, 1.5]),
)
@always([0.0, 4.0, 3.25, 4.0, 4.0], 0.3, 1.5)  # one of five is given up
def test_separable_distance_is_the_global_one(margins: list[float], scale: float, climb: float) -> None:
    known = np.array(margins)
    level = float(np.logaddexp(0, -known).mean()) + climb
    # Which samples are given up: random starts miss some of these basins.
    given_up = [0.01 + np.array(c) * (known + 1) / scale for c in product([0, 1], repeat=len(known))]
    found = separable_distance(torch.tensor(margins, dtype=torch.float64), scale, level)
    assert found == pytest.approx(brute_force(known, scale, level, 0, given_up), rel=1e-6)


def test_separable_distance_gives_up_some_samples_only() -> None:
    """At large margins few samples are moved far: moving all alike, the symmetric point, is longer."""
    margins = torch.full((6,), 9.0).double()
    alike = (9.0 + math.log(math.expm1(LN2))) * math.sqrt(6)
    alone = 9.0 + math.log(math.expm1(6 * LN2 - 5 * math.log1p(math.exp(-9.0))))
    found = separable_distance(margins, 1.0, LN2)
    assert found == pytest.approx(brute_force(margins.numpy(), 1.0, LN2, 1), rel=1e-6)
    assert found <= alone < alike


def test_separable_distance_gives_up_several_samples() -> None:
    """k samples that share a loss S cost √k (m + S/k), least at S/k = m: three of ten here, the rest stay."""
    margins = torch.linspace(3.8, 4.4, 10).double()
    found = separable_distance(margins, 1.0, 1.2)
    starts = [torch.where(torch.arange(10) < k, 8.0, 0.1).double().numpy() for k in range(1, 6)]
    expected = brute_force(margins.numpy(), 1.0, 1.2, 2, starts)
    assert found == pytest.approx(expected, rel=1e-6)


def test_separable_distance_below_the_loss_is_unknown() -> None:
    margins = torch.zeros(3).double()
    assert math.isnan(separable_distance(margins, 1.0, 0.5))
    with pytest.raises(ConfigurationError, match="scale"):
        separable_distance(margins, 0.0, 2.0)


def test_distance_over_theta_by_looking_along_rays() -> None:
    """With two features the plane can be searched, for any X; the general search must find the same."""
    design = draw_design(6, 2, Generator().manual_seed(3))
    theta = 4 * design.reference
    y = (design.signs > 0).double()
    expected = ray_scan(lambda t: mean_loss(design, t), theta, LN2, 200.0)
    phi = parameter_objective(SingleLayer(theta), design.X, y.long())
    starts = -(design.signs[:, None] * design.X)[:, None]
    found = level_set_distance(phi, [LN2], starts=starts, tol=1e-3)
    assert found.distance.item() == pytest.approx(expected, rel=1e-4)


def test_orthogonal_distance_needs_orthogonal_rows() -> None:
    with pytest.raises(ConfigurationError, match="orthogonal"):
        example(3, 4).orthogonal_theta_distance(LN2)


def test_closed_forms_agree_with_the_general_code() -> None:
    rows = agreement_rows(LN2, 1)
    assert len(rows) == 9
    for row in rows:
        assert isinstance(row["error"], float)
        assert row["error"] < 1e-5, row


def test_joint_objective_reaches_the_joint_level() -> None:
    """An end of the general search cannot be nearer than the closed form."""
    e = example(3, 2, seed=4, size=3.0)
    e = Perceptron(e.X, (e.X @ e.theta > 0).double(), e.theta)
    phi = input_objective(SingleLayer(e.theta), e.X, e.y.long(), joint=True)
    moves = torch.diag_embed(-e.signs)[:, :, None] * e.theta
    found = level_set_distance(phi, [LN2, 2.0], starts=moves.reshape(3, 1, -1), tol=1e-3)
    exact = torch.tensor([[e.joint_input_distance(LN2), e.joint_input_distance(2.0)]]).double()
    assert (found.distance >= exact * (1 - 1e-6)).all()
    torch.testing.assert_close(found.distance, exact, rtol=3e-4, atol=0)


def planted(distance: float, levels: list[float], origin: Tensor, value: float = 0.0) -> LevelSetDistance:
    """A result that claims one distance for all levels."""
    filled = torch.full((1, len(levels)), distance, dtype=torch.float64)
    found = level_set_distance(objective(lambda z: value + z.square().sum(1), origin), levels)
    return LevelSetDistance(**{**vars(found), "distance": filled})


def test_theorem_holds_for_a_quadratic_and_knows_its_numbers() -> None:
    phi = quadratic(torch.diag(torch.tensor([4.0, 1.0, 0.5]))[None])
    found = level_set_distance(phi, [0.5, 2.0], tol=1e-4)
    rays = even_rays(torch.eye(3, dtype=torch.float64)[:, None], 10)
    check = check_theorem(phi, found, *rays)
    assert check.num_points.tolist() == [[30, 30]]
    for share in (check.above_level, check.above_cone, check.not_convex):
        assert share.tolist() == [[0.0, 0.0]]
    torch.testing.assert_close(check.worst_ratio, torch.ones(1, 2).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(slope_ratio(found), torch.full((1, 2), 2.0).double(), rtol=1e-6, atol=0)
    assert width_ratios(found)[0, 0, 1].item() == pytest.approx(0.5, rel=1e-6)  # w = d / c with d ~ √c
    assert width_ratios(found)[0, 1].isnan().all()


def test_part_one_shows_a_distance_that_is_too_long() -> None:
    phi = objective(lambda z: z.square().sum(1), torch.zeros(1, 2).double())
    check = check_theorem(phi, planted(2.0, [1.0], phi.origin), *random_rays(phi.origin, 4000, 0))
    assert check.above_level.item() == pytest.approx(0.5, abs=0.03)  # f uniform, and φ = 4 f² > 1 from f = ½
    assert 3.8 < check.worst_level.item() <= 4.0


def test_distances_to_different_levels_do_not_contradict_each_other() -> None:
    """Part 1 towards the nearest points of the other levels: a search of each level alone breaks it."""
    model, x = small_net([20, 64, 64, 5], torch.nn.ReLU, seed=2, gain=2.5), normal(24, 20, seed=2)
    phi = input_objective(model, x, model(x).argmax(1).detach())
    found = level_set_distance(phi, [0.25, 0.5, 0.7, 1.0, 2.3], num_random=1, budget=40)
    others = (found.points - phi.origin[:, None]).transpose(0, 1)
    check = check_theorem(phi, found, others, torch.ones(5, dtype=torch.float64))
    assert check.worst_level[~check.worst_level.isnan()].max() < 1.01


def test_part_two_needs_convexity_on_the_whole_ball() -> None:
    """|x| up to 1, then nearly flat: convex on S = [−1, 1], inside the ball, and yet far above the cone on S."""
    phi = objective(lambda z: torch.minimum(z.abs(), 1 + 0.01 * (z.abs() - 1)).sum(1), torch.zeros(1, 1).double())
    found = level_set_distance(phi, [1.0, 1.1], starts=torch.ones(1, 1, 1).double())
    torch.testing.assert_close(found.distance, torch.tensor([[1.0, 11.0]]).double(), rtol=1e-4, atol=0)
    check = check_theorem(phi, found, *even_rays(torch.ones(1, 1, 1).double(), 11))
    assert check.above_level.tolist() == [[0.0, 0.0]]
    assert check.worst_ratio[0, 1].item() == pytest.approx(10.0, rel=1e-4)
    assert check.above_cone[0].tolist() == pytest.approx([0.0, 10 / 11])
    assert check.not_convex[0, 1].item() > 0.8
    assert width_ratios(found)[0, 0, 1].item() == pytest.approx(10.0, rel=1e-4)


def test_modulus_in_part_one_fails_for_negative_functions() -> None:
    """φ = x² − 10 and c = −6: |φ(x*)| = 10 > 6 = |c|, while φ ≤ c holds."""
    phi = objective(lambda z: z.square().sum(1) - 10, torch.zeros(1, 1).double())
    found = level_set_distance(phi, [-6.0])
    assert found.distance.item() == pytest.approx(2.0)
    assert check_theorem(phi, found, *random_rays(phi.origin, 50, 0)).above_level.item() == 0
    assert phi.value(phi.origin).abs().item() > 6


def test_rows_without_a_distance_stay_unknown() -> None:
    phi = objective(lambda z: z.square().sum(1), torch.tensor([[0.0, 0.0], [3.0, 0.0]]).double())
    found = level_set_distance(phi, [1.0])
    check = check_theorem(phi, found, *random_rays(phi.origin, 20, 0))
    assert check.num_points[:, 0].tolist() == [20, 0]
    assert check.above_level[1].isnan().all() and check.worst_ratio[1].isnan().all()
    rows = theorem_rows(phi, found, torch.eye(2).double()[:, None], 20, 0)
    assert [row["points"] for row in rows] == ["random", "eigenvector", "gradient", "nearest"]
    assert rows[0]["num_points"] == 20 and rows[0]["above_level"] == 0
    assert rows[2]["num_points"] == 0 and math.isnan(rows[2]["above_level"])  # type: ignore[arg-type]
    (widths,) = width_rows(found)
    assert widths["pairs"] == 0 and widths["slope_median"] == pytest.approx(2.0, rel=1e-4)


def test_random_rays_repeat_and_are_uniform() -> None:
    directions, fractions = random_rays(torch.zeros(2, 50), 500, 7)
    again, _ = random_rays(torch.zeros(2, 50), 500, 7)
    assert torch.equal(directions, again)
    assert fractions.min() > 0 and fractions.max() <= 1
    units = directions / directions.norm(dim=-1, keepdim=True)
    assert units.mean((0, 1)).abs().max() < 0.03


def test_families_are_what_they_say() -> None:
    generator = Generator().manual_seed(0)
    for n, d in ((6, 3), (6, 6), (6, 10)):
        design = draw_design(n, d, generator)
        assert design.dim_kernel == max(d - n, 0)
        found = solutions(design, 0.01, generator)
        assert ("kernel" in found) == (d > n)
        for thetas in found.values():
            assert ((thetas @ design.X.T) * design.signs > 0).all()
        equal_loss = mean_loss(design, found["margins, equal loss"])
        torch.testing.assert_close(equal_loss, torch.full_like(equal_loss, 0.01))
        norms = found["margins, equal norm"].norm(dim=1)
        torch.testing.assert_close(norms, norms[0].expand_as(norms))
        assert (mean_loss(design, found["SGD"]) <= 0.01).all()


@pytest.fixture(scope="module")
def small_solutions() -> list[Solution]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theory, "NUM_SAMPLES", 4)
        patch.setattr(theory, "NUM_FEATURES", (6,))
        return theory.theorem2_solutions(LN2, 0)


def test_theorem_2_fails_where_the_algebra_says(small_solutions: list[Solution]) -> None:
    """A component in ker X moves w_X and not w_θ; scaling θ up widens θ and narrows X."""
    rows = {row["family"]: row for row in theorem2_rows(small_solutions)}
    kernel, scale = rows["kernel"], rows["scale"]
    members = [s for s in small_solutions if s.family == "kernel"]
    shortest = min(s.w_theta for s in members)  # one search may end at the next minimum, 2e-5 longer
    assert sum(s.w_theta < shortest * (1 + 1e-6) for s in members) >= len(members) - 1
    assert kernel["range_w_theta"] == pytest.approx(1.0, abs=1e-4)
    assert kernel["range_w_x"] == pytest.approx(members[-1].norm / members[0].norm, rel=1e-6)
    assert math.isnan(kernel["rho"])  # type: ignore[arg-type]
    assert scale["rho"] == -1 and scale["pairs_ordered"] == 0


def test_one_sample_has_the_ratio_of_norms() -> None:
    """With one sample d_X ‖θ‖ = d_θ ‖x‖ = m + ln(eᶜ − 1): the multiplier that both distances share."""
    X, theta = torch.tensor([[3.0, 4.0]]).double(), torch.tensor([0.5, 0.5]).double()
    e = Perceptron(X, torch.ones(1), theta)
    assert e.joint_input_distance(1.0) * theta.norm() == pytest.approx(e.orthogonal_theta_distance(1.0) * 5.0)


def test_level_must_be_above_the_solutions() -> None:
    with pytest.raises(ConfigurationError, match="level"):
        theory.theorem2_solutions(0.01, 0)


def test_ranks() -> None:
    assert rank_correlation([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1)
    assert math.isnan(rank_correlation([1.0, 1.0, 1.0], [3.0, 2.0, 1.0]))
    assert pairs_ordered([1.0, 2.0, 3.0], [1.0, 3.0, 2.0]) == pytest.approx(2 / 3)
    assert math.isnan(pairs_ordered([1.0, 1.0], [1.0, 3.0]))


def test_figure_is_drawn_and_repeats(small_solutions: list[Solution], tmp_path: Path) -> None:
    first = draw_theorem2(small_solutions, tmp_path)
    assert [path.name for path in first] == ["theorem2.pdf", "theorem2.svg", "theorem2.png"]
    before = first[1].read_bytes()
    assert "dim ker X = 2" in before.decode()
    assert draw_theorem2(small_solutions, tmp_path)[1].read_bytes() == before
    with pytest.raises(ConfigurationError, match="no solutions"):
        draw_theorem2([], tmp_path)


COMMAND = ["theory", "--snapshot", "embedded:runs/sgd_lr0.05_b16_seed0", "--level", "ln2", "--threads", "1"]
FEW = ["--points", "10", "--samples", "50", "--x-samples", "2"]


def run_command(*arguments: str) -> Result:
    (script,) = entry_points(group="console_scripts", name="landscape")
    return CliRunner().invoke(script.load(), arguments, catch_exceptions=False)


@pytest.mark.thorough
def test_command(small_solutions: list[Solution], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(theory, "agreement_rows", lambda *_: [{"quantity": "d", "error": 0.0}])
    monkeypatch.setattr(theory, "theorem2_solutions", lambda *_: small_solutions)
    document = json.loads(run_command(*COMMAND, *FEW, "--json").stdout)
    assert document["command"] == "theory" and document["schema"] == 1
    assert set(document["results"]) == {"theorem1", "agreement", "theorem2", "solutions"}
    points = document["results"]["theorem1"]["θ, points"]
    assert {row["points"] for row in points} == {"random", "eigenvector", "gradient", "nearest"}
    assert all(row["above_level"] == 0 for row in points if row["points"] == "random")
    result = run_command("theory", "--threads", "1", "--output", str(tmp_path))
    assert "Theorem 2" in result.stdout and "Theorem 1" not in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"theorem2.pdf", "theorem2.svg", "theorem2.png"}


@pytest.mark.slow
def test_command_in_full(tmp_path: Path) -> None:
    results = json.loads(run_command(*COMMAND, "--output", str(tmp_path), "--json").stdout)["results"]
    assert set(results) == {"theorem1", "agreement", "theorem2", "solutions", "files"}
    assert max(row["error"] for row in results["agreement"]) < 1e-4
    families = {(row["dim_ker"], row["family"]): row for row in results["theorem2"]}
    assert [families[kernel, "scale"]["rho"] for kernel in (0, 12, 48)] == [-1, -1, -1]
    assert families[48, "margins, equal norm"]["pairs_ordered"] > 0.5
