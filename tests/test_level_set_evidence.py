"""The evidence of a distance: curvature, angles at kinks, slopes and grades, on functions where all are known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from oracles import quadratic, small_net, symmetric
from torch import Generator, Tensor, nn

from landscape.geometry.evidence import PointEvidence, point_evidence
from landscape.geometry.gauge import Gauge
from landscape.geometry.level_sets import LevelSetDistance, grades, level_set_distance
from landscape.objectives import FunctionObjective, Objective, objective
from landscape.problem.input_objective import input_objective

ROUND = Gauge(torch.ones(1, 2, dtype=torch.float64), 2.0)


def evidence_at(phi: Objective, v: Tensor, gauge: Gauge = ROUND, second_order: bool = False) -> PointEvidence:
    level = phi.value(phi.origin + v)[0]
    return point_evidence(phi, gauge, v, level, second_order, Generator().manual_seed(1))


def ellipse(first: float, second: float) -> FunctionObjective:
    return quadratic(torch.diag(torch.tensor([first, second], dtype=torch.float64))[None])


@pytest.mark.parametrize(("first", "second"), [(4.0, 1.0), (1.0, 4.0), (1.0, 1.0), (3.0, -2.0)])
def test_curvature_at_the_ends_of_axes(first: float, second: float) -> None:
    """At r e₁ of ½(λ₁x² + λ₂y²) the multiplier is 1/λ₁: λ₂/λ₁ below 1 at the near end, above at the far one.

    The projector gives PHP an eigenvalue 0, the least that is found.
    """
    found = evidence_at(ellipse(first, second), torch.tensor([[0.7, 0.0]], dtype=torch.float64), second_order=True)
    # What Lanczos has not resolved is added; in the plane nothing is left.
    assert float(found.curvature) == pytest.approx(max(second / first, 0), rel=1e-6, abs=1e-9)
    assert float(found.angle) < 1e-7
    assert found.num_hvp > 0


def test_curvature_in_a_metric() -> None:
    """In coordinates v with x = D v the matrix is DHD."""
    gauge = Gauge(torch.tensor([[1.0, 3.0]], dtype=torch.float64), 2.0)
    v = torch.tensor([[0.7, 0.0]], dtype=torch.float64)
    found = evidence_at(ellipse(4.0, 1.0), v, gauge, second_order=True)
    assert float(found.curvature) == pytest.approx(9 / 4, rel=1e-6)


def test_curvature_of_what_the_search_found() -> None:
    """Of a quadratic in general position: λ₂/λ₁ at the nearest point, which is a minimum; not computed unasked."""
    phi = quadratic(torch.stack([symmetric([5.0, 3.0, 1.0, -4.0], seed=i) for i in range(4)]))
    result = level_set_distance(phi, [0.5, 2.0], tol=1e-4, second_order=True)
    # Lanczos stops at a relative accuracy of 5 %, and what it has not resolved is added.
    assert torch.allclose(result.curvature, torch.full_like(result.curvature, 0.6), rtol=0.06)
    assert result.minimal.all()
    assert result.num_evidence_hvp > 0
    plain = level_set_distance(phi, [0.5])
    assert plain.curvature.isnan().all()
    assert not plain.minimal.any()
    assert plain.num_evidence_hvp == 0


def test_kink_angle_in_the_corner_of_two_planes() -> None:
    """max(x + y/2, x − y/2) = 1 is nearest at (1, 0) to no piece, but to the cone of both."""
    phi = objective(lambda z: z[:, 0] + z[:, 1].abs() / 2, torch.zeros(1, 2, dtype=torch.float64))
    corner = evidence_at(phi, torch.tensor([[1.0, 1e-9]], dtype=torch.float64))
    assert float(corner.angle) == pytest.approx(math.atan(0.5), rel=1e-6)
    assert float(corner.kink_angle) < 1e-3
    off = evidence_at(phi, torch.tensor([[1.0, 0.5]], dtype=torch.float64))  # no kink near: a single gradient
    assert float(off.kink_angle) == pytest.approx(float(off.angle), rel=1e-6)


def test_kinks_are_looked_for_only_where_the_gradient_is_off() -> None:
    def ridge(z: Tensor) -> Tensor:
        return torch.where(z[:, 0] < 0, -z[:, 0], torch.minimum(0.2 * z[:, 0] + z[:, 1], z[:, 0] + 0.2 * z[:, 1]))

    phi = objective(ridge, torch.zeros(2, 2, dtype=torch.float64))
    slope, corner = [-1.2, 0.0], [1.0, 1.001]
    assert evidence_at(phi, torch.tensor([slope, slope], dtype=torch.float64)).num_gradients == 2
    mixed = evidence_at(phi, torch.tensor([slope, corner], dtype=torch.float64))
    assert mixed.num_gradients == 2 + 4
    assert float(mixed.kink_angle[0]) == float(mixed.angle[0]) < 0.1
    assert float(mixed.kink_angle[1]) < 0.01
    assert float(mixed.angle[1]) > 0.5


def test_kink_angle_of_a_valley_is_not_excused() -> None:
    """min of two planes: beside the edge the level set is nearer, and no cone of pieces holds (1, 0.9)."""
    phi = objective(lambda z: z[:, 0] - z[:, 1].abs() / 2, torch.zeros(1, 2, dtype=torch.float64))
    away = evidence_at(phi, torch.tensor([[1.0, 0.9]], dtype=torch.float64))
    assert float(away.kink_angle) > 0.5


@pytest.mark.parametrize("norm", [1.0, math.inf])
def test_angle_in_other_norms(norm: float) -> None:
    """Zero at a steepest displacement of its length, not elsewhere."""
    slope = torch.tensor([[3.0, -1.0]], dtype=torch.float64)
    phi = objective(lambda z, g: (g * z).sum(-1), torch.zeros(1, 2, dtype=torch.float64), slope)
    steepest = torch.tensor([[1.0, 0.0]] if norm == 1 else [[1.0, -1.0]], dtype=torch.float64)
    gauge = Gauge(ROUND.scale, norm)
    # arccos near 1 resolves no more than the root of rounding.
    assert float(evidence_at(phi, steepest, gauge).angle) < 1e-6
    other = evidence_at(phi, torch.tensor([[0.6, -0.4]], dtype=torch.float64), gauge)
    share = 2.2 / 3 if norm == 1 else 2.2 / (0.6 * 4)
    assert float(other.angle) == pytest.approx(math.acos(share), rel=1e-6)
    assert float(other.gradient_norm) == pytest.approx(3.0 if norm == 1 else 4.0, rel=1e-12)


def test_coordinates_at_a_bound_do_not_count() -> None:
    """x₀ is at its bound; what is left of the gradient points along what is left of the displacement."""
    slope = torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    phi = objective(lambda z, g: (g * z).sum(-1), torch.zeros(1, 2, dtype=torch.float64), slope)
    bound = torch.tensor([[0.5, 9.0]], dtype=torch.float64)
    v = torch.tensor([[0.5, 2.0]], dtype=torch.float64)
    assert float(evidence_at(phi, v, Gauge(ROUND.scale, 2.0, -bound, bound)).angle) < 1e-9
    assert float(evidence_at(phi, v).angle) > 0.5


@pytest.mark.parametrize("norm", [1.0, 2.0, math.inf])
def test_gradient_norm_is_the_inverse_slope_of_the_distance(norm: float) -> None:
    model = small_net([3, 12, 3], nn.Tanh, seed=3, gain=1.5)
    x = torch.randn(8, 3, generator=Generator().manual_seed(2), dtype=torch.float64)
    y = model(x).argmax(1).detach()
    step = 1e-3
    result = level_set_distance(
        input_objective(model, x, y), [1.5 - step, 1.5, 1.5 + step], norm, tol=1e-4, budget=300
    )
    distance, good = result.distance, result.reached.all(1) & (result.kink_angle < 1e-2).all(1)
    assert good.double().mean() >= 0.5
    slope = (distance[:, 2] - distance[:, 0]) / (2 * step)
    assert torch.allclose(slope[good] * result.gradient_norm[good, 1], torch.ones(1).double(), rtol=0.02)


def single(phi: FunctionObjective, level: float, **settings: object) -> tuple[str, LevelSetDistance]:
    result = level_set_distance(phi, [level], **settings)  # type: ignore[arg-type]
    return result.grade[0][0], result


def at(*coordinates: float) -> Tensor:
    return torch.tensor([coordinates], dtype=torch.float64)


def test_grades() -> None:
    bowl = ellipse(4.0, 1.0)
    assert single(bowl, 1.0)[0] == "strong"
    assert single(bowl, -1.0)[0] == "below_minimum"
    assert single(objective(lambda z: torch.tanh((z**2).sum(-1)), at(0.1, 0.0)), 1.5)[0] == "saturated"
    climbs_too_far = objective(lambda z: torch.log1p((z**2).sum(-1)), at(0.1, 0.0))
    assert single(climbs_too_far, 1e4)[0] == "not_reached"


def test_a_single_search_is_at_most_fair() -> None:
    phi = objective(lambda z: z[:, 0] + z[:, 1] / 2, torch.zeros(1, 2, dtype=torch.float64))
    none = torch.zeros(0, 1, 2, dtype=torch.float64)
    grade, result = single(phi, 1.0, starts=none, num_random=0, restarts=0)
    assert (grade, int(result.agreeing)) == ("fair", 1)
    assert float(result.agreement) == 1
    assert single(phi, 1.0, starts=none, num_random=4, restarts=0)[0] == "strong"


def test_what_speaks_against_a_distance_lowers_its_grade() -> None:
    result = level_set_distance(ellipse(4.0, 1.0), [1.0])
    ones = torch.ones_like(result.distance)
    assert grades(replace(result, curvature=2 * ones)) == [["weak"]]  # not a minimum
    assert grades(replace(result, curvature=0.5 * ones)) == [["strong"]]
    assert grades(replace(result, kink_angle=0.2 * ones)) == [["fair"]]
    assert grades(replace(result, kink_angle=0.5 * ones)) == [["weak"]]
    assert grades(replace(result, agreeing=ones.long())) == [["fair"]]


def test_a_search_cut_short_is_weak() -> None:
    """One gradient at the level of a long ellipse, from a start in between the axes."""
    start = torch.tensor([[[0.5, 0.5]]], dtype=torch.float64)
    result = level_set_distance(ellipse(4.0, -3.0), [0.125], starts=start, num_random=0, budget=1, restarts=0)
    assert float(result.distance) > 0.25
    assert result.grade == [["weak"]]


def test_searches_are_counted_once_each() -> None:
    """Agreement is the share of searches that ended at the distance, restarts among them."""
    phi = ellipse(4.0, 1.0)
    starts = torch.tensor([[[1.0, 0.2]], [[-1.0, 0.3]], [[0.9, -0.1]]], dtype=torch.float64)
    result = level_set_distance(phi, [1.0], starts=starts, num_random=1, restarts=0)
    assert 2 <= int(result.agreeing) <= 5  # three given ones, the steepest (none, at a minimum), a random one
    again = level_set_distance(phi, [1.0], starts=starts, num_random=1, restarts=1)
    assert int(again.agreeing) <= int(result.agreeing) + 3
    assert 0 < float(again.agreement) <= 1
