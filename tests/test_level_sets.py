"""Distances to level sets against closed forms and brute force; a distance is never below the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import (
    distance_to_quadric,
    linear_model,
    quadratic,
    ray_scan,
    rotation,
    small_net,
    symmetric,
)
from torch import Generator, Tensor, nn

from landscape.errors import ConfigurationError, ObjectiveError
from landscape.geometry.continuation import Continuation
from landscape.geometry.descent import Ends
from landscape.geometry.gauge import Gauge
from landscape.geometry.level_sets import LevelSetDistance, level_set_distance, width
from landscape.geometry.search import Effort, Nearest
from landscape.objectives import FunctionObjective, Objective, objective
from landscape.problem.input_objective import input_objective
from landscape.problem.losses import log_odds_level
from landscape.problem.parameter_objective import parameter_objective


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def assert_upper_bound_within(found: Tensor, truth: Tensor, accuracy: float, rounding: float = 1e-6) -> None:
    """No distance is shorter than the true one, beyond rounding, nor longer by more than ``accuracy``."""
    ratio = found / truth
    assert torch.isfinite(ratio).all()
    assert ratio.min() >= 1 - rounding
    assert ratio.max() <= 1 + accuracy


def assert_on_level(result: LevelSetDistance, phi: Objective, accuracy: float = 1e-4) -> None:
    """Points lie on their levels, at the distance that is reported (Euclidean)."""
    for column, level in enumerate(result.levels):
        points = result.points[:, column]
        assert ((phi.value(points) - level).abs() <= accuracy * level.abs()).all()
        length = (points - phi.origin).double().norm(dim=-1)
        assert torch.allclose(length, result.distance[:, column], rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_quadratic_minima_and_saddles(dtype: torch.dtype) -> None:
    spectra = [[9.0, 4, 1, 0.1, 0, 0], [5.0, 1, -1, -2, -7, 0], [0.5, -100, -100, -100, -100, -100]]
    phi = quadratic(torch.stack([symmetric(s, seed=i) for i, s in enumerate(spectra)]), dtype=dtype)
    levels = torch.tensor([0.01, 1.0, 50.0], dtype=torch.float64)
    result = level_set_distance(phi, levels, tol=1e-3)
    top = torch.tensor([max(s) for s in spectra], dtype=torch.float64)
    assert_upper_bound_within(
        result.distance, (2 * levels / top[:, None]).sqrt(), 1e-4, rounding=100 * torch.finfo(dtype).eps + 1e-6
    )
    assert_on_level(result, phi)
    assert result.reached.all()
    assert not result.below_minimum.any()
    # Where other curvatures are −200 times the largest, rounding in the position turns the gradient a lot.
    assert (result.angle < (2e-3 if dtype == torch.float64 else 1e-1)).all()


@pytest.mark.parametrize("seed", range(3))
def test_quadratic_with_linear_term(seed: int) -> None:
    """Saddles, and a concave quadratic, which ends at −½ gᵀH⁻¹g."""
    spectra = [normal(8, seed=10 * seed + i) + shift for i, shift in enumerate((0.0, 1.0, -4.0))]
    matrices = torch.stack([symmetric(s, seed=seed) for s in spectra])
    slopes = normal(3, 8, seed=seed + 70)
    phi = quadratic(matrices, slopes)
    result = level_set_distance(phi, [0.1, 0.5, 10.0], num_random=40, tol=1e-3, budget=400)
    ends = [math.inf, math.inf, float(-0.5 * slopes[2] @ torch.linalg.solve(matrices[2], slopes[2]))]
    for row in range(3):
        for column, climb in enumerate(result.levels.tolist()):
            assert bool(result.reached[row, column]) == (climb < ends[row])
            if climb < ends[row]:
                truth = distance_to_quadric(matrices[row], slopes[row], climb)
                assert 1 - 1e-6 <= float(result.distance[row, column]) / truth <= 1 + 1e-3
    assert 0.1 < ends[2] < 10


def test_sphere_seen_from_inside() -> None:
    """φ = ‖z‖² has its level √c from 0: √c − ‖a‖ from a, in the direction of a."""
    origin = normal(5, 7)
    origin = origin / origin.norm(dim=-1, keepdim=True) * torch.linspace(0.0, 0.9, 5, dtype=torch.float64)[:, None]
    phi = objective(lambda z: (z**2).sum(-1), origin)
    result = level_set_distance(phi, [1.0, 4.0])
    truth = torch.tensor([1.0, 2.0], dtype=torch.float64) - origin.norm(dim=-1, keepdim=True)
    assert_upper_bound_within(result.distance, truth, 1e-4)
    assert torch.allclose(result.points[1:, 0], origin[1:] / origin[1:].norm(dim=-1, keepdim=True), atol=0.03)


@pytest.mark.parametrize("loss", ["cross_entropy", "log_odds"])
def test_binary_logistic_regression(loss: str) -> None:
    """{CE = c} is the hyperplane in which the difference of the logits is log(eᶜ − 1)."""
    weight, bias, x = normal(2, 9), normal(2, seed=1), normal(30, 9, seed=2)
    model = linear_model(weight, bias)
    difference = x @ (weight[1] - weight[0]) + bias[1] - bias[0]
    y = (difference > 0).long()  # every sample is classified correctly
    log_odds = -difference.abs()
    cross_entropy = torch.tensor([math.log(2), 2.0, 9.0, 40.0], dtype=torch.float64)
    crossed = log_odds_level(cross_entropy)
    levels = cross_entropy if loss == "cross_entropy" else crossed
    result = level_set_distance(input_objective(model, x, y, loss), levels)
    truth = (crossed - log_odds[:, None]) / (weight[1] - weight[0]).norm()
    assert_upper_bound_within(result.distance, truth, 1e-5)
    assert (result.angle < 1e-2).all()


def test_margin_of_a_linear_classifier() -> None:
    weight, bias, x = normal(6, 12), normal(6, seed=1), normal(40, 12, seed=2)
    logits = x @ weight.T + bias
    y = logits.argmax(1)
    others = torch.arange(6) != y[:, None]
    gaps = (logits.gather(1, y[:, None]) - logits)[others].reshape(40, 5)
    norms = (weight[:, None] - weight[None]).norm(dim=-1)[y][others].reshape(40, 5)
    phi = input_objective(linear_model(weight, bias), x, y, "margin")
    result = level_set_distance(phi, [0.0], starts=normal(10, 40, 12, seed=3), num_random=0)
    assert (result.distance[:, 0] >= (gaps / norms).amin(1) * (1 - 1e-6)).all()
    close = result.distance[:, 0] <= (gaps / norms).amin(1) * 1.001
    assert close.double().mean() >= 0.95
    # The kinks of the maximum can hold a start, not a class that a start looks at.
    towards = weight[None].expand(40, 6, 12) - weight[y][:, None]
    exact = level_set_distance(phi, [0.0], starts=towards.transpose(0, 1), num_random=0)
    assert_upper_bound_within(exact.distance[:, 0], (gaps / norms).amin(1), 1e-4)


PLANE_NETWORKS = {
    "relu": ([2, 16, 3], nn.ReLU, 0, 2.0),
    "tanh": ([2, 12, 12, 3], nn.Tanh, 0, 1.5),
    "deep relu": ([2, 16, 16, 3], nn.ReLU, 1, 2.0),  # small islands above the level, between kinks
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.thorough) if n.startswith("deep") else n for n in PLANE_NETWORKS],
)
def test_plane_networks_against_ray_scan(name: str) -> None:
    sizes, activation, seed, gain = PLANE_NETWORKS[name]
    model = small_net(sizes, activation, seed=seed, gain=gain)
    x = 1.5 * normal(64, 2)
    y = model(x).argmax(1).detach()
    level = 1.2  # above log 3: no sample of its own class starts beyond it
    phi = input_objective(model, x, y)
    budget, restarts = (2000, 30) if name == "deep relu" else (400, 8)
    result = level_set_distance(phi, [level], num_random=8, budget=budget, restarts=restarts)
    distance = result.distance[:, 0].nan_to_num(math.inf)  # an island that no start has seen

    def scan(i: int) -> float:
        def loss(z: Tensor) -> Tensor:
            return nn.functional.cross_entropy(model(z), y[i].expand(len(z)), reduction="none")

        with torch.no_grad():
            return ray_scan(loss, x[i], level, reach=min(1.1 * float(distance[i]), 20.0))

    truth = torch.tensor([scan(i) for i in range(len(x))], dtype=torch.float64)
    off = (phi.value(result.points[:, 0]) - level).abs()[torch.isfinite(distance)]
    assert (off <= 1e-4 * level).all()
    if name == "deep relu":  # tips of islands lie between the rays of the scan; another search knows more
        again = level_set_distance(phi, [level], num_random=32, budget=3000, restarts=40, seed=1).distance[:, 0]
        truth = torch.minimum(torch.minimum(truth, again.nan_to_num(math.inf)), distance)
    ratio = torch.where(torch.isinf(distance) & torch.isinf(truth), 1.0, distance / truth)
    assert ratio.min() >= 1 - 1e-5
    # Whether the last of the islands is found depends on how a processor rounds.
    assert int((ratio > 1.001).sum()) <= (1 if name == "deep relu" else 0)


def test_many_kinks_need_more_than_the_default_budget() -> None:
    """What docs/method.md says of small islands: about half of them by default, nearly all at 400 gradients."""
    sizes, activation, seed, gain = PLANE_NETWORKS["deep relu"]
    model = small_net(sizes, activation, seed=seed, gain=gain)
    x = 1.5 * normal(32, 2)
    phi = input_objective(model, x, model(x).argmax(1).detach())
    plain = level_set_distance(phi, [1.2], num_random=8).distance
    long = level_set_distance(phi, [1.2], num_random=8, budget=400, restarts=4).distance
    found = (plain <= 1.001 * torch.minimum(plain, long)).double().mean()
    assert 0.4 < float(found) < 0.95


def bumpy(z: Tensor) -> Tensor:
    """Smooth, not convex, unbounded; its level sets have several local nearest points."""
    return (z**2 * torch.arange(1, z.shape[1] + 1)).sum(-1) / 8 + torch.sin(2 * z).sum(-1) + 2 * z[:, 0]


def test_no_start_alone_beats_all_together() -> None:
    phi = objective(bumpy, normal(6, 4) / 3)
    starts = normal(5, 6, 4, seed=8)
    levels = phi.value(phi.origin).max() + torch.tensor([0.3, 2.0, 7.0], dtype=torch.float64)
    together = level_set_distance(phi, levels, starts=starts, num_random=0)
    for start in starts:
        alone = level_set_distance(phi, levels, starts=start[None], num_random=0)
        assert (together.distance <= alone.distance.nan_to_num(torch.inf) * (1 + 1e-3)).all()
    assert together.reached.all()


def test_distances_increase_and_carry_their_evidence() -> None:
    phi = objective(bumpy, normal(6, 4) / 3)
    lowest = float(phi.value(phi.origin).max())
    levels = [lowest + climb for climb in (0.05, 0.2, 0.8, 3.0, 9.0)]
    result = level_set_distance(phi, levels)
    assert (result.distance.diff(dim=1) > 0).all()
    assert_on_level(result, phi)
    expected = result.distance / (result.levels - phi.value(phi.origin)[:, None])
    assert torch.allclose(width(result), expected, rtol=1e-12)
    assert 10 < result.num_gradients < 8 * 60 * 5
    assert result.num_values > 0
    displacement = result.points[:, 2] - phi.origin
    _, gradient = phi.value_and_grad(result.points[:, 2])
    cosine = nn.functional.cosine_similarity(displacement, gradient)
    assert torch.allclose(result.angle[:, 2].cos(), cosine, atol=1e-8)
    assert (result.level_error <= 1e-6 * (result.levels - lowest + 2)).all()


def test_evaluations_are_counted() -> None:
    rows = dict.fromkeys(("values", "gradients"), 0)
    inner = objective(bumpy, normal(3, 4) / 3)

    class Counting(FunctionObjective):
        def value(self, z: Tensor) -> Tensor:
            rows["values"] += len(z)
            return super().value(z)

        def value_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
            rows["gradients"] += len(z)
            return super().value_and_grad(z)

        def take(self, rows_: Tensor) -> Counting:
            return Counting(self.function, self.origin[rows_])

    phi = Counting(inner.function, inner.origin)
    result = level_set_distance(phi, [5.0, 9.0], starts=torch.zeros(0, 3, 4))
    gradients = result.num_gradients + result.num_evidence_gradients
    assert gradients * 3 == pytest.approx(rows["gradients"], rel=1e-12)
    assert result.num_values * 3 == rows["values"]


def test_order_of_levels_and_seed() -> None:
    phi = objective(bumpy, normal(4, 4) / 3)
    up = level_set_distance(phi, [4.0, 6.0, 9.0], seed=3)
    mixed = level_set_distance(phi, [9.0, 4.0, 6.0], seed=3)
    assert torch.equal(mixed.distance, up.distance[:, [2, 0, 1]])
    assert torch.equal(mixed.points, up.points[:, [2, 0, 1]])
    other = level_set_distance(phi, [4.0, 6.0, 9.0], seed=4, starts=torch.zeros(0, 4, 4))
    again = level_set_distance(phi, [4.0, 6.0, 9.0], seed=4, starts=torch.zeros(0, 4, 4))
    assert torch.equal(other.points, again.points)


def test_levels_below_the_origin_and_beyond_reach() -> None:
    """φ = 1 − exp(−‖z‖²) never reaches 1; below its minimum 0 there is nothing either."""
    phi = objective(lambda z: 1 - torch.exp(-(z**2).sum(-1)), torch.zeros(2, 3, dtype=torch.float64))
    result = level_set_distance(phi, [-1.0, 0.0, 0.5, 1.5])
    assert result.below_minimum.tolist() == [[True, True, False, False]] * 2
    assert result.reached.tolist() == [[False, False, True, False]] * 2
    missing = ~result.reached
    for shown in (
        result.distance,
        result.level_error,
        result.angle,
        result.spread,
        result.agreement,
        width(result),
    ):
        assert torch.equal(shown.isnan(), missing)
    assert torch.equal(result.points.isnan().all(-1), missing)
    assert result.distance[:, 2].tolist() == pytest.approx([math.sqrt(math.log(2))] * 2, rel=1e-6)


def test_a_ray_that_ends_below_the_next_level_does_not_hide_it() -> None:
    """The nearest point of the low level is on a small hill; the high level is reached only elsewhere."""

    def hill_and_wall(z: Tensor) -> Tensor:
        hill = 2 * torch.exp(-4 * (z[:, 0] - 1) ** 2 - 4 * z[:, 1] ** 2)
        return hill + torch.relu(-z[:, 0]) ** 2 / 8

    phi = objective(hill_and_wall, torch.zeros(1, 2, dtype=torch.float64))
    result = level_set_distance(phi, [1.0, 1.9, 8.0], num_random=8)
    assert result.reached.all()
    assert float(result.distance[0, 0]) < 1
    assert float(result.distance[0, 2]) == pytest.approx(8, rel=1e-4)


def test_equal_radii_in_opposite_directions_stay_two_starts() -> None:
    """On the line: 0.99 is nearer on the right, 2 is much nearer on the left."""

    def two_ramps(z: Tensor) -> Tensor:
        right, left = z[:, 0].clamp_min(0), (-z[:, 0]).clamp_min(0) / 1.005
        return torch.minimum(right, 1 + (right - 1) / 9) + left

    phi = objective(two_ramps, torch.full((1, 1), 1e-9, dtype=torch.float64))
    result = level_set_distance(phi, [0.99, 2.0], starts=torch.tensor([[[1.0]], [[-1.0]]]))
    assert result.distance[0].tolist() == pytest.approx([0.99, 2.01], rel=1e-6)


def test_the_ray_to_another_level_replaces_a_longer_one() -> None:
    phi = quadratic(2 * torch.eye(2)[None])
    gauge = Gauge(torch.ones(1, 2, dtype=torch.float64), 2.0)
    search = Continuation(phi, gauge, Effort(tol=1e-3, budget=20, restarts=0), seed=0)
    right, up = torch.eye(2, dtype=torch.float64)[:, None]

    def found(direction: Tensor, radius: float) -> Nearest:
        ray = torch.tensor([radius], dtype=torch.float64)
        ends = Ends(direction, ray, 2 * ray, ray > 0, torch.zeros(1, dtype=torch.int64))
        return Nearest(direction, ray, ends, ray[None])

    def follow(here: Nearest, there: Nearest, turned: bool) -> Nearest:
        levels, due = torch.ones(1, dtype=torch.float64), torch.ones(1, dtype=torch.bool)
        (point,) = search._follow(levels, [here], [there], due, turned)
        return here.with_point(*point)

    above = found(up, 2.0)
    followed = follow(found(right, 5.0), above, turned=True)
    assert followed.radius.tolist() == pytest.approx([1.0], rel=1e-3)
    assert torch.allclose(followed.direction, up, atol=1e-3)
    assert followed.radii[:, 0].tolist() == pytest.approx([5.0, 1.0], rel=1e-3)  # one more search has ended
    best = found(right, 0.5)
    assert follow(best, above, turned=True).radius.tolist() == [0.5]
    assert follow(best, above, turned=False).radii.tolist() == [[0.5], [math.inf]]  # φ is below within the radius
    assert follow(best, found(right, 2.0), turned=True).radii.tolist() == [[0.5], [math.inf]]
    beside = torch.nn.functional.normalize(right + 0.1 * up)
    nearer = follow(found(right, 1.2), found(beside, 0.5), turned=False)
    assert nearer.radius.tolist() == pytest.approx([1.0], rel=1e-3)


def test_elementwise_metric_does_not_see_relu_rescaling() -> None:
    x, y = normal(30, 4, seed=5), torch.arange(30) % 3
    plain, rescaled = (small_net([4, 6, 3], nn.ReLU, seed=4) for _ in range(2))
    factors = torch.tensor([0.1, 0.5, 1.0, 2.0, 4.0, 9.0], dtype=torch.float64)
    state = rescaled.state_dict()
    for name, factor in {"0.weight": factors[:, None], "0.bias": factors, "2.weight": 1 / factors}.items():
        state[name] *= factor
    phis = [parameter_objective(model, x, y) for model in (plain, rescaled)]
    level = phis[0].value(phis[0].origin) + 0.2
    none = torch.zeros(0, 1, phis[0].origin.shape[1])

    def distances(metric: str) -> list[float]:
        return [
            float(level_set_distance(phi, level, 2, metric, none, tol=1e-4, budget=200).distance) for phi in phis
        ]

    first, second = distances("elementwise")
    assert first == pytest.approx(second, rel=1e-6)
    first, second = distances("euclidean")
    assert abs(first / second - 1) > 0.01


def test_metric_is_a_change_of_coordinates() -> None:
    """d in metric D is the Euclidean distance of φ(D u)."""
    scale = torch.tensor([1.0, 3.0, 0.5, 2.0], dtype=torch.float64)
    start = torch.zeros(1, 4, dtype=torch.float64)
    stretched = objective(lambda u: bumpy(u * scale), start)
    direct = level_set_distance(objective(bumpy, start), [2.0], metric=scale, num_random=6, tol=1e-4)
    assert float(direct.distance) == pytest.approx(
        float(level_set_distance(stretched, [2.0], num_random=6, tol=1e-4).distance), rel=1e-6
    )
    frozen = level_set_distance(objective(bumpy, start), [2.0], metric=torch.tensor([0.0, 1, 1, 1]))
    assert frozen.points[0, 0, 0] == 0


def test_metric_with_one_number_a_row() -> None:
    phi = quadratic(torch.eye(3).expand(3, 3, 3))
    result = level_set_distance(phi, [0.5], metric=torch.tensor([[1.0], [2.0], [4.0]]))
    assert result.distance[:, 0].tolist() == pytest.approx([1, 0.5, 0.25], rel=1e-6)


def test_rotation_and_scale() -> None:
    origin, turn = normal(3, 4) / 3, rotation(4, seed=1)
    starts = normal(4, 3, 4, seed=2)

    def distance(phi: Objective, first: Tensor) -> Tensor:
        # No restarts: their noise does not turn with the space.
        result = level_set_distance(phi, [4.0, 8.0], starts=first, num_random=0, tol=1e-4, restarts=0)
        return result.distance

    plain = distance(objective(bumpy, origin), starts)
    turned = objective(lambda z: bumpy(z @ turn), origin @ turn.T)
    assert torch.allclose(plain, distance(turned, starts @ turn.T), rtol=1e-6)
    large = objective(lambda z: bumpy(z / 50), 50 * origin)
    assert torch.allclose(50 * plain, distance(large, 50 * starts), rtol=1e-6)


@settings(max_examples=5, deadline=None)
@given(st.floats(1e-3, 1e3), st.integers(0, 10**6))
def test_units_of_length_do_not_matter(unit: float, seed: int) -> None:
    origin, starts = normal(2, 4, seed=seed) / 3, normal(2, 2, 4, seed=seed + 1)
    level = float(objective(bumpy, origin).value(origin).max()) + 2

    def distance(factor: float) -> Tensor:
        phi = objective(lambda z: bumpy(z / factor), factor * origin)
        result = level_set_distance(phi, [level], starts=factor * starts, num_random=0, tol=1e-4, restarts=0)
        return result.distance / factor

    assert torch.allclose(distance(unit), distance(1.0), rtol=1e-6)


@pytest.mark.parametrize("norm", [1.0, 2.0, math.inf])
def test_rows_do_not_see_each_other(norm: float) -> None:
    """A batch is its rows, one by one; random numbers aside, which are drawn for all rows together."""
    phi, starts = objective(bumpy, normal(3, 4) / 3), normal(2, 3, 4, seed=8)
    levels = phi.value(phi.origin).max() + torch.tensor([0.3, 3.0], dtype=torch.float64)

    def distance(rows: Tensor) -> Tensor:
        some = phi.take(rows)
        return level_set_distance(some, levels, norm, starts=starts[:, rows], num_random=0, restarts=0).distance

    together = distance(torch.arange(3))
    alone = torch.cat([distance(torch.tensor([row])) for row in range(3)])
    assert torch.allclose(together, alone, rtol=1e-9)
    order = torch.tensor([2, 0])
    assert torch.allclose(distance(order), together[order], rtol=1e-9)


def test_cross_entropy_levels_are_log_odds_levels_in_both_precisions() -> None:
    model = small_net([5, 8, 4], nn.Tanh, seed=2, gain=2.0)
    x = normal(12, 5, seed=3)
    y = model(x).argmax(1).detach()
    levels = torch.tensor([1.5, 2.5], dtype=torch.float64)
    starts = normal(6, 12, 5, seed=4)
    cross_entropy = level_set_distance(input_objective(model, x, y), levels, starts=starts)
    odds = level_set_distance(input_objective(model, x, y, "log_odds"), log_odds_level(levels), starts=starts)
    assert torch.equal(cross_entropy.reached, odds.reached)
    assert torch.allclose(cross_entropy.distance, odds.distance, rtol=1e-6, equal_nan=True)
    single = level_set_distance(input_objective(model.float(), x.float(), y), levels, starts=starts)
    both = single.reached & odds.reached
    assert both.double().mean() > 0.8
    assert ((single.distance / odds.distance)[both] - 1).abs().median() < 1e-4
    assert (((single.distance / odds.distance)[both] - 1).abs() < 1e-3).double().mean() > 0.9


@pytest.mark.parametrize(
    ("levels", "chosen", "message"),
    [
        ([], {}, "at least one finite"),
        ([1.0, math.nan], {}, "finite"),
        ([math.inf], {}, "finite"),
        ([1.0], {"metric": "manhattan"}, "euclidean, elementwise"),
        ([1.0], {"metric": "elementwise"}, "positive somewhere"),
        ([1.0], {"metric": torch.tensor([1.0, -1.0])}, "non-negative"),
        ([1.0], {"metric": torch.ones(5)}, "does not fit"),
        ([1.0], {"tol": 0.0}, "tol = 0"),
        ([1.0], {"budget": 0}, "budget = 0"),
        ([1.0], {"num_random": -1}, "num_random = -1"),
        ([1.0], {"restarts": -1}, "restarts = -1"),
        ([1.0], {"second_order": True, "evidence": False}, "curvature is evidence"),
        ([1.0], {"norm": 3}, "norm = 3"),
        ([1.0], {"norm": 0}, "choose 1, 2 or infinity"),
        ([1.0], {"box": (1.0, 2.0)}, "outside the box"),
        ([1.0], {"box": (torch.zeros(5), torch.ones(5))}, "does not fit"),
    ],
)
def test_senseless_settings_are_refused(levels: Sequence[float], chosen: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        level_set_distance(quadratic(torch.eye(2)[None]), levels, **chosen)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "function", [lambda z: z.sum(-1) * torch.nan, lambda z: torch.sqrt(z.sum(-1)), lambda z: 1 / z.sum(-1)]
)
def test_no_landscape_at_a_singular_origin(function: object) -> None:
    with pytest.raises(ObjectiveError, match="not finite at the origin"):
        level_set_distance(objective(function, torch.zeros(1, 2)), [1.0])  # type: ignore[arg-type]
