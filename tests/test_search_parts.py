"""The parts of the level-set search, each against brute force or another library."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import distance_to_hyperplane, quadratic, symmetric
from torch import Generator, Tensor

from landscape.geometry.approach import approach, shortest
from landscape.geometry.climb import LONG, MANY, Climbers, climb_within
from landscape.geometry.contest import Contest
from landscape.geometry.cuts import Cuts, nonnegative_least_squares, onto_ball, project
from landscape.geometry.descent import Ends, descend, settle
from landscape.geometry.gauge import Gauge, make_gauge
from landscape.geometry.level_sets import level_set_distance
from landscape.geometry.metrics import metric_scale
from landscape.geometry.quasi_newton import CurvaturePairs
from landscape.geometry.rays import Counter, Rays
from landscape.geometry.restarts import annealed, corners, smoothed
from landscape.geometry.search import _best_rows, _distinct
from landscape.geometry.vectors import dots, dual_norm, finite, norm_of, steepest_direction
from landscape.objectives import Objective, objective

NORMS = (1.0, 2.0, math.inf)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def gauge_of(size: int, norm: float) -> Gauge:
    return Gauge(torch.ones(1, size, dtype=torch.float64), norm)


def rays_of(phi: Objective, level: float, norm: float = 2) -> Rays:
    height = phi.value(phi.origin)
    gauge = gauge_of(phi.origin.shape[1], norm)
    return Rays(phi, gauge, height, torch.full_like(height, level), Counter())


def free_contest(rays: Rays, budget: int = 1000) -> Contest:
    numbers = torch.arange(len(rays.height))
    return Contest(numbers, torch.full_like(numbers, budget))


# Norms ---------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(NORMS), st.integers(1, 7))
def test_steepest_direction_attains_the_dual_norm(seed: int, norm: float, size: int) -> None:
    gradient, others = normal(1, size, seed=seed), normal(200, size, seed=seed + 1)
    steepest = steepest_direction(gradient, norm)
    attained = (gradient * steepest).sum() / norm_of(steepest, norm)
    dual = dual_norm(gradient, norm)
    assert torch.allclose(attained, dual, rtol=1e-12)
    unit = others / norm_of(others, norm)[:, None]
    assert (unit @ gradient[0] <= dual * (1 + 1e-12)).all()


def test_a_box_of_inputs_bounds_displacements() -> None:
    """In the metric's coordinates: x = x₀ + D v."""
    origin, scale = torch.tensor([[0.2, 0.5]]).double(), torch.tensor([[2.0, 0.0]]).double()
    gauge = make_gauge(origin, scale, 2, (0.0, torch.tensor([1.0, 0.75]).double()))
    v = gauge.clip(torch.tensor([[9.0, 9.0]]).double())
    assert v.tolist() == [[pytest.approx(0.4), 0.0]]  # a frozen coordinate stays
    assert gauge.clip(-v).tolist() == [[pytest.approx(-0.1), 0.0]]
    assert not gauge.round


# Cutting planes ------------------------------------------------------------------------------------------------


def programmed(centre: Tensor, normals: Tensor, offsets: Tensor, bound: float) -> Tensor:
    """The nearest point to ``centre`` that obeys the cuts within |w| ≤ bound, by another library."""
    found = scipy.optimize.minimize(  # type: ignore[call-overload]
        lambda w: 0.5 * ((w - centre.numpy()) ** 2).sum(),
        centre.numpy(),
        jac=lambda w: w - centre.numpy(),
        bounds=[(-bound, bound)] * len(centre),
        constraints={
            "type": "ineq",
            "fun": lambda w: normals.numpy() @ w - offsets.numpy(),
            "jac": lambda _: normals.numpy(),
        },
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 200},
    )
    assert found.success
    return torch.as_tensor(found.x)


@pytest.mark.parametrize("bound", [100.0, 0.7])
def test_projection_on_cuts_against_another_program(bound: float) -> None:
    count, size, cuts = 10, 6, 3
    normals = torch.nn.functional.normalize(normal(count, cuts, size), dim=-1)
    centre, inside = 0.1 * normal(count, size, seed=1), 0.3 * normal(count, size, seed=2).clamp(-2, 2)
    offsets = torch.einsum("rmn,rn->rm", normals, inside)
    w, weights = project(
        centre, normals, offsets, onto_ball(gauge_of(size, math.inf), torch.full((count,), bound)), 20
    )
    truth = torch.stack([programmed(*row, bound) for row in zip(centre, normals, offsets, strict=True)])
    assert (weights >= 0).all()
    # Some sweeps of coordinate ascent, with a little regularisation.
    assert (w - truth).norm(dim=1).median() < 1e-3
    assert (w - truth).norm(dim=1).max() < 0.05


def test_nonnegative_least_squares_against_scipy() -> None:
    design, target = normal(8, 9, 5), normal(8, 9, seed=1)
    gram, right = torch.einsum("rkm,rkn->rmn", design, design), torch.einsum("rkm,rk->rm", design, target)
    found = nonnegative_least_squares(gram, right)
    truth = np.stack([scipy.optimize.nnls(a.numpy(), b.numpy())[0] for a, b in zip(design, target, strict=True)])
    assert np.allclose(found.numpy(), truth, atol=1e-6)


@pytest.mark.parametrize("norm", [1.0, math.inf])
def test_projection_on_balls(norm: float) -> None:
    """The projection p of w obeys (w − p)·(q − p) ≤ 0 for all q of the ball."""
    w, radius = normal(5, 4), torch.tensor([0.3, 0.9, 1.5, 2.5, 99.0], dtype=torch.float64)
    onto = onto_ball(gauge_of(4, norm), radius)
    p = onto(w).w
    assert (norm_of(p, norm) <= radius * (1 + 1e-9)).all()
    assert torch.equal(p[4], w[4])
    others = onto(3 * normal(5, 4, seed=2)).w
    for _ in range(50):
        others = onto(others + 0.5 * normal(5, 4, seed=3)).w
        assert (((w - p) * (others - p)).sum(1) <= 1e-9).all()


@pytest.mark.parametrize("norm", [1.0, math.inf])
@pytest.mark.parametrize("boxed", [False, True])
def test_derivative_of_projections_on_balls(norm: float, boxed: bool) -> None:
    origin = torch.rand(6, 5, generator=Generator().manual_seed(3), dtype=torch.float64)
    gauge = make_gauge(origin, torch.ones(1, 5, dtype=torch.float64), norm, (0.0, 1.0) if boxed else None)
    onto = onto_ball(gauge, torch.tensor([0.2, 0.5, 0.9, 1.3, 2.0, 99.0], dtype=torch.float64))
    w, v, step = normal(6, 5), normal(6, 5, seed=1), 1e-7
    at = onto(w)
    assert at.free is not None and not at.free.all()
    derivative = at.free * v
    if at.rim is not None:
        derivative = derivative - at.rim * (at.rim * v).sum(1, keepdim=True)
    assert torch.allclose((onto(w + step * v).w - onto(w - step * v).w) / (2 * step), derivative, atol=1e-5)


def test_cuts_keep_the_active_ones_and_spare_the_level_set() -> None:
    like = torch.zeros(1, 2, dtype=torch.float64)
    cuts, row = Cuts(like, 2), torch.tensor([0])
    right, up = torch.tensor([[2.0, 0.0]]).double(), torch.tensor([[0.0, 4.0]]).double()
    cuts.add(row, like, torch.tensor([-1.0]).double(), right)  # 2 x ≥ 1
    cuts.add(row, like, torch.tensor([-2.0]).double(), up)  # 4 y ≥ 2
    assert cuts.offset.tolist() == [[0.5, 0.5]]
    cuts.add(row, like, torch.tensor([math.nan]).double(), up)  # left out
    cuts.mark_active(row, torch.tensor([[1.0, 0.0]]).double())
    cuts.add(row, like, torch.tensor([-3.0]).double(), up)  # instead of the one that was not active
    assert cuts.offset.tolist() == [[0.5, 0.75]]
    _, offset = cuts.around(row, torch.tensor([[0.6, 0.1]]).double())
    assert offset.tolist() == [[0.5, -math.inf]]  # the known point of the level is not cut off


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("boxed", [False, True])
def test_the_shortest_displacement_of_one_cut(norm: float, boxed: bool) -> None:
    slope = torch.nn.functional.normalize(normal(12, 8), dim=1)
    upper = 0.1 + torch.rand(12, 8, generator=Generator().manual_seed(1), dtype=torch.float64)
    climb = 0.5 * (slope.abs() * upper).sum(1)
    gauge = Gauge(torch.ones(1, 8).double(), norm, -upper, upper) if boxed else gauge_of(8, norm)
    w = shortest(gauge, slope[:, None], climb[:, None])
    limits = zip(-upper, upper, strict=True) if boxed else [(None, None)] * 12
    truth = [
        distance_to_hyperplane(g, float(c), norm, *bounds)
        for g, c, bounds in zip(slope, climb, limits, strict=True)
    ]
    exact = torch.tensor(truth, dtype=torch.float64)
    if norm == 1 and not boxed:  # shared by the coordinates that are at least half as steep as the steepest
        assert (gauge.length(w) <= 2 * exact).all()
    elif norm == math.inf:  # coordinates with a small slope do not decide, and hardly count; bounds come later
        assert (gauge.length(w) <= 1.25 * exact).all()
    else:  # the projection is a little soft
        assert torch.allclose(gauge.length(w), exact, rtol=1e-2)
    if not boxed:
        assert torch.allclose((slope * w).sum(1), climb, rtol=1e-3)


# Approach, descent, climbing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
def test_approach_ends_near_the_level(norm: float) -> None:
    phi = quadratic(symmetric([9.0, 4.0, 1.0, -1.0])[None].repeat(10, 1, 1))
    rays = rays_of(phi, 2.0, norm)
    contest = free_contest(rays)
    landing = approach(rays, normal(10, 4, seed=3), contest)
    landed = torch.isfinite(landing.excess)
    assert landed.double().mean() >= 0.8
    value, gradient = phi.value_and_grad(landing.v)
    assert torch.allclose((value - 2.0)[landed], landing.excess[landed], atol=1e-9)
    assert torch.allclose(gradient[landed], landing.gradient[landed])
    assert (landing.excess.abs()[landed] <= 0.1 * 2.0).all()
    assert 10 <= int((1000 - contest.left).sum()) <= rays.counter.gradients


def test_approach_steps_are_aimed_by_cuts() -> None:
    """To a hyperplane, one gradient tells the nearest point; the second one is spent there."""
    slope = torch.tensor([[3.0, -1.0, 0.5]], dtype=torch.float64)
    phi = objective(lambda z, g: (g * z).sum(-1), torch.zeros(1, 3, dtype=torch.float64), slope)
    rays = rays_of(phi, 1.0)
    landing = approach(rays, torch.tensor([[-1.0, 5.0, 2.0]], dtype=torch.float64) / 4, free_contest(rays))
    assert rays.counter.gradients <= 3
    assert torch.allclose(landing.v, slope / slope.square().sum(), rtol=1e-2)


@pytest.mark.parametrize(("norm", "accuracy"), [(1.0, 1e-2), (2.0, 1e-4), (math.inf, 1e-3)])
def test_descent_from_afar_on_a_convex_level_set(norm: float, accuracy: float) -> None:
    """{g·z + ‖z − a‖²/9 …}: concave φ has convex level sets, and one minimum, which all starts find."""
    slope = torch.tensor([2.0, 1.0, -0.5, 0.25], dtype=torch.float64)
    phi = objective(lambda z: z @ slope - z.square().sum(-1) / 20, torch.zeros(12, 4, dtype=torch.float64))
    rays = rays_of(phi, 1.0, norm)
    contest = free_contest(rays)
    start = slope / slope.norm() + 0.5 * normal(12, 4, seed=5)
    ends = descend(rays, approach(rays, start, contest), 1e-3, contest)
    found = ends.radius[torch.isfinite(ends.radius)]
    assert len(found) >= 10
    assert found.max() / found.min() <= 1 + accuracy
    points = rays.displacement(ends.direction, ends.radius)
    assert torch.allclose(phi.value(points), torch.ones(12).double(), atol=0.02)


@pytest.mark.parametrize(("norm", "at_kinks"), [(2.0, False), (2.0, True), (1.0, False), (math.inf, False)])
def test_radii_only_shrink(norm: float, at_kinks: bool) -> None:
    """Round after round, on a rough function, on which many steps lead farther away."""

    def rough(z: Tensor) -> Tensor:
        roughness: Tensor = 1 + 0.3 * torch.sin(9 * z).sum(-1).abs()
        return (z * z).sum(-1).sqrt() * roughness

    phi = objective(rough, torch.full((30, 3), 1e-3, dtype=torch.float64))
    rays = rays_of(phi, 1.0, norm)
    landing = approach(rays, normal(30, 3), free_contest(rays))
    radii = torch.stack(
        [descend(rays, landing, 1e-3, free_contest(rays), most, at_kinks).radius for most in range(8)]
    )
    radii = radii[:, torch.isfinite(radii[0])]
    assert radii.shape[1] >= 10
    assert (radii.diff(dim=0) <= 0).all()
    assert (radii[-1] < radii[0]).any()


def test_settle_corrects_the_radius_or_gives_up() -> None:
    phi = objective(lambda z: z[:, 0] ** 2, torch.zeros(3, 2, dtype=torch.float64))
    rays = rays_of(phi, 4.0)
    direction = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(3, 2)
    radius = torch.tensor([2.05, 1.95, 3.0], dtype=torch.float64)
    found = settle(rays, direction, radius, radius**2 - 4, 2 * radius, 1e-2)
    assert found[:2].tolist() == pytest.approx([2.0, 2.0], rel=1e-3)
    assert math.isinf(found[2])  # misses the level by more than a tenth of the climb


def island(z: Tensor) -> Tensor:
    """A slope to the right that reaches 1 at x = 3, and a steep hill of height 1.5 at (0, −1)."""
    return z[:, 0] / 3 + 1.5 * torch.exp(-20 * (z[:, 0] ** 2 + (z[:, 1] + 1) ** 2))


@pytest.mark.parametrize(("climbers", "share"), [(MANY, 0.4), (LONG, 0.05)])
def test_climbers_find_what_is_nearer(climbers: Climbers, share: float) -> None:
    phi = objective(island, torch.zeros(102, 2, dtype=torch.float64))
    rays = rays_of(phi, 1.0)
    contest = free_contest(rays)
    limit = torch.tensor([3.0] * 100 + [0.5, math.inf], dtype=torch.float64)
    v = climb_within(rays, limit, contest, climbers, Generator().manual_seed(1))
    met = torch.isfinite(v).all(1)
    assert met[:100].double().mean() >= share
    assert not met[100:].any()  # nothing within 0.5, and no ball to look in
    assert (norm_of(v[met], 2) < limit[met]).all()
    assert torch.allclose(phi.value(v[met]), torch.ones(int(met.sum())).double(), atol=0.03)
    assert contest.left.tolist() == [1000 - climbers.cost] * 101 + [1000]


def test_kinks_are_climbed_along_the_ridge() -> None:
    """The summit of a pyramid, 0.5 % above the level, which steps along one linear model pass to and fro."""
    centre = torch.tensor([0.3, 1.0], dtype=torch.float64)
    phi = objective(
        lambda z: 1.05 - 3 * (z - centre).abs().sum(-1) - 5 * (z - centre).sum(-1).abs(),
        torch.zeros(20, 2, dtype=torch.float64),
    )
    rays = rays_of(phi, 1.0)
    limit = torch.full((20,), 2.0, dtype=torch.float64)
    met = [
        torch.isfinite(climb_within(rays, limit, free_contest(rays), kind, Generator().manual_seed(1))).all(1)
        for kind in (MANY, LONG)
    ]
    assert met[0].double().mean() < 0.5
    assert met[1].all()


def test_the_island_is_found_when_the_budget_allows() -> None:
    phi = objective(island, torch.zeros(40, 2, dtype=torch.float64))
    none = torch.zeros(0, 40, 2, dtype=torch.float64)
    result = level_set_distance(phi, [1.0], starts=none, budget=800, restarts=8, num_random=0)
    assert (result.distance < 0.9).double().mean() >= 0.9
    assert level_set_distance(phi, [1.0], starts=none, restarts=0, num_random=0).distance.min() > 2.5


def test_a_hill_that_ends_just_below_the_level_is_not_the_answer() -> None:
    """To first order its top, at distance 1, seems to meet the level; the level is met at 2 only."""

    def hill_and_wall(z: Tensor) -> Tensor:
        hill = 0.998 * torch.exp(-4 * ((z[:, 0] - 1) ** 2 + z[:, 1] ** 2))
        return hill + torch.relu(-z[:, 0]) / 2

    phi = objective(hill_and_wall, torch.zeros(1, 2, dtype=torch.float64))
    starts = torch.tensor([[[0.9, 0.0]], [[-1.0, 0.1]], [[0.9, 0.05]]], dtype=torch.float64)
    result = level_set_distance(phi, [1.0], starts=starts, num_random=0)
    assert float(result.distance) == pytest.approx(2.0, abs=0.05)
    assert float(result.level_error) < 1e-6


def test_a_level_that_no_ray_through_a_start_meets() -> None:
    """A concave bump away from all rays that are looked at: found by climbing."""

    def bump(z: Tensor) -> Tensor:
        return 1 - 0.1 * (z[:, 0] - 3) ** 2 - 5 * (z[:, 1] - z[:, 0] ** 2 / 9) ** 2

    phi = objective(bump, torch.zeros(1, 2, dtype=torch.float64))
    starts = torch.tensor([[[0.1, -1.0]]], dtype=torch.float64)
    result = level_set_distance(phi, [0.97], starts=starts, num_random=0)
    assert result.reached.all()


# Restarts ------------------------------------------------------------------------------------------------------


def linear(slope: Tensor) -> Objective:
    return objective(lambda z: z @ slope, torch.zeros(1, len(slope), dtype=torch.float64))


@pytest.mark.parametrize("norm", NORMS)
def test_restarts_from_a_linear_function_lead_to_its_nearest_point(norm: float) -> None:
    slope = normal(6, seed=3)
    rays = rays_of(linear(slope), 2.0, norm)
    distance = 2.0 / float(dual_norm(slope, norm))
    contest, away = free_contest(rays), 3.0 * normal(1, 6)
    steepest = steepest_direction(slope[None], norm)
    steepest = steepest / norm_of(steepest, norm)
    looked = smoothed(rays, away, contest, Generator().manual_seed(0))
    assert torch.allclose(looked, steepest * norm_of(away, norm)[:, None])
    leapt = annealed(rays, distance * away / norm_of(away, norm), contest, Generator().manual_seed(0))
    assert torch.allclose(leapt / norm_of(leapt, norm), steepest, atol=0.02)
    assert float(norm_of(leapt, norm)) == pytest.approx(distance, rel=0.06)
    assert 1000 - int(contest.left) == rays.counter.gradients


def test_restarts_leave_out_rays_without_an_end() -> None:
    rays = rays_of(linear(normal(6)), 2.0)
    nowhere = torch.full((1, 6), torch.nan, dtype=torch.float64)
    contest = free_contest(rays)
    assert smoothed(rays, nowhere, contest, Generator().manual_seed(0)).isnan().all()
    assert annealed(rays, nowhere, contest, Generator().manual_seed(0)).isnan().all()
    assert corners(rays, nowhere, contest).isnan().all()
    assert rays.counter.gradients == 0


def test_starts_that_point_the_same_way_count_once() -> None:
    v = normal(4, 3, 5)
    v[2, 1] = 0.1 * v[0, 1] + 1e-4
    v[3, 2] = torch.nan
    found = _distinct(v)
    missing = torch.zeros(4, 3, dtype=torch.bool)
    missing[2, 1] = missing[3, 2] = True
    assert torch.equal(found.isnan().all(-1), missing)
    assert torch.equal(found[~missing], v[~missing])
    assert not _distinct(torch.stack([v[0], -v[0]])).isnan().any()


def test_the_next_best_ends_are_those_that_stand_alone() -> None:
    radius = torch.tensor([3.0, 1.0, 2.0, 1.0, 2.5, torch.inf], dtype=torch.float64)  # two origins, three rays
    twin = torch.tensor([0, 1, 2, 1, 4, 5])
    ends = Ends(normal(6, 2), radius, radius, radius > 0, twin)
    assert [x.tolist() for x in _best_rows(ends, 2)] == [[2, 1], [2.0, 1.0]]
    assert [x.tolist() for x in _best_rows(ends, 2, 1)] == [[4, 3], [2.5, torch.inf]]
    assert [x.tolist() for x in _best_rows(ends, 2, 9)][1] == [3.0, torch.inf]


# Competition and memory ----------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 5))
def test_contest_ranks_and_best(seed: int, rays: int, origins: int) -> None:
    random = Generator().manual_seed(seed)
    number = torch.randint(origins, (rays,), generator=random)
    value = torch.randint(4, (rays,), generator=random).double()
    contest = Contest(number, torch.full((origins,), 10))
    for i in range(rays):
        rivals = [j for j in range(rays) if number[j] == number[i]]
        ahead = sum(value[j] < value[i] or (value[j] == value[i] and j < i) for j in rivals)
        assert int(contest.rank(value)[i]) == ahead
        assert float(contest.best(value)[i]) == min(float(value[j]) for j in rivals)
        assert int(contest.size()[i]) == len(rivals)


def test_contest_shares_one_budget() -> None:
    contest = Contest(torch.tensor([0, 1, 0]), torch.tensor([2, 5]))
    part = contest.take(torch.tensor([0, 2]))
    part.charge(torch.tensor([0, 1]))
    assert contest.left.tolist() == [0, 5]
    assert contest.open.tolist() == [False, True, False]


def dense_inverse(moves: list[Tensor], changes: list[Tensor]) -> Tensor:
    """The matrix of BFGS updates from the scaled identity (Nocedal & Wright 2006, eq. 6.17 and 7.20)."""
    size = len(moves[0])
    inverse = torch.eye(size).double() * (moves[-1] @ changes[-1]) / (changes[-1] @ changes[-1])
    for s, y in zip(moves, changes, strict=True):
        rho = 1 / (s @ y)
        left = torch.eye(size).double() - rho * torch.outer(s, y)
        inverse = left @ inverse @ left.T + rho * torch.outer(s, s)
    return inverse


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_two_loop_recursion_is_the_matrix_of_bfgs(count: int) -> None:
    capacity, size, rays = 4, 6, 3
    hessian = symmetric([5.0, 4.0, 2.0, 1.0, 0.5, 0.2])
    pairs, rows = CurvaturePairs(torch.zeros(rays, size).double(), capacity), torch.arange(rays)
    moves = [normal(rays, size, seed=i) for i in range(count)]
    for move in moves:
        pairs.add(rows, move, move @ hessian)
    slope = normal(rays, size, seed=99)
    solved = pairs.solve(rows, slope)
    for i in range(rays):
        kept = [m[i] for m in moves[-capacity:]]
        assert torch.allclose(solved[i], dense_inverse(kept, [hessian @ m for m in kept]) @ slope[i], rtol=1e-9)
    pairs.add(rows, moves[0], -moves[0])  # curves downwards: not remembered
    assert torch.equal(pairs.solve(rows, slope), solved)
    assert torch.equal(pairs.solve(rows[1:], slope[1:]), solved[1:])


def test_two_loop_recursion_of_rays_that_remember_unequally_much() -> None:
    """Memory that a ray has not used holds anything; it must not be looked at."""
    like, hessian = torch.zeros(3, 6).double(), symmetric([5.0, 4.0, 2.0, 1.0, 0.5, 0.2])
    pairs = CurvaturePairs(like, 4)
    for memory in (pairs.moves, pairs.changes, pairs.weights):
        memory.fill_(math.nan)
    slope = normal(3, 6, seed=99)
    assert torch.equal(pairs.solve(torch.arange(3), slope), slope)
    moves: list[list[Tensor]] = [[], [], []]
    for i in range(5):
        rows = torch.arange(i % 3, 3)  # the last ray learns most
        move = normal(len(rows), 6, seed=i)
        pairs.add(rows, move, move @ hessian)
        for row, m in zip(rows.tolist(), move, strict=True):
            moves[row].append(m)
    solved = pairs.solve(torch.arange(3), slope)
    for i, kept in enumerate(m[-4:] for m in moves):
        assert torch.allclose(solved[i], dense_inverse(kept, [hessian @ m for m in kept]) @ slope[i], rtol=1e-9)


def test_corners_of_a_ball_in_the_1_norm() -> None:
    """Of a quadratic, ± the axis with the largest diagonal entry; nothing where no corner is above the level."""
    phi = quadratic(torch.diag(torch.tensor([1.0, 9.0, 4.0]).double())[None].repeat(2, 1, 1))
    rays = rays_of(phi, 2.0, norm=1)
    v = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.125, 0.125]], dtype=torch.float64)
    contest = free_contest(rays)
    found = corners(rays, v, contest)
    assert found[0].abs().tolist() == [0.0, 1.0, 0.0]
    assert found[1].isnan().all()
    assert contest.left.tolist() == [999, 999]


def test_norms_and_inner_products_of_rows() -> None:
    v, vectors = normal(4, 7).float(), normal(4, 3, 7, seed=1).float()
    for norm in (1, math.inf):
        assert torch.equal(norm_of(v, norm), torch.linalg.vector_norm(v.double(), norm, dim=1))
    assert torch.allclose(norm_of(v, 2), torch.linalg.vector_norm(v.double(), dim=1), rtol=2e-7, atol=0)
    extreme = v[[0]] * torch.tensor([0, 1e-30, 1e-15, 1, 1e15, 1e30, math.inf, math.nan])[:, None]
    for rows in (extreme, extreme[2:5], extreme[5:], extreme[:1]):  # float32 does not hold squares of some
        expected = torch.linalg.vector_norm(rows.double(), dim=1)
        assert torch.allclose(norm_of(rows, 2), expected, rtol=2e-7, atol=0, equal_nan=True)
    assert torch.allclose(dots(vectors, v), torch.einsum("rmn,rn->rm", vectors.double(), v.double()))
    v[0, 2], v[1, 0], v[2, 0], v[2, 1] = math.nan, math.inf, math.inf, -math.inf
    assert finite(v).tolist() == [False, False, False, True]
    assert norm_of(v, math.inf).isnan().tolist() == [True, False, False, False]


@pytest.mark.parametrize("box", [None, (-1.0, 1.0)])
def test_only_the_identity_is_not_multiplied_by(box: tuple[float, float] | None) -> None:
    origin, v = torch.zeros(3, 4, dtype=torch.float64), normal(3, 4)
    plain = make_gauge(origin, metric_scale(origin, "euclidean"), 2, box)
    for gauge in (plain, plain.take(torch.tensor([2, 0])), plain.within(torch.ones(3))):
        assert gauge.identity and gauge.stretched(v) is v
    for metric in (torch.tensor(2.0), torch.tensor([1.0, 1.0, 1.0, 2.0]), torch.tensor([[1.0], [1.0], [3.0]])):
        gauge = make_gauge(origin, metric_scale(origin, metric), 2, box)
        assert not gauge.identity and torch.equal(gauge.stretched(v), metric * v)


def test_rays_are_copied_unless_all_go_on() -> None:
    phi = objective(lambda z: z.square().sum(1), normal(3, 4))
    rays = rays_of(phi, 9.0)
    assert rays.take(torch.arange(3)) is rays
    for rows in ([0, 1], [0, 2, 1], [0, 0, 1], [0, 1, 2, 2]):
        taken = rays.take(torch.tensor(rows))
        assert torch.equal(taken.height, rays.height[rows])
        assert torch.equal(taken.psi.origin, phi.origin[rows])


def test_growth_along_a_ray_within_bounds() -> None:
    """What has come to a bound no longer adds to the slope."""
    origin, slope = torch.rand(5, 6, generator=Generator().manual_seed(1)).double(), normal(5, 6, seed=2)
    gauge = make_gauge(origin, torch.ones(1, 6, dtype=torch.float64), 2, (0.0, 1.0))
    direction, step = normal(5, 6, seed=3), 1e-6
    v = gauge.clip(direction)
    difference = gauge.clip((1 + step) * direction) - gauge.clip((1 - step) * direction)
    assert torch.allclose((slope * gauge.growing(v)).sum(1), (slope * difference).sum(1) / (2 * step), atol=1e-8)
    assert (gauge.growing(v) != v).any()
    assert torch.equal(gauge_of(6, 2).growing(v), v)
