"""Worst-case sharpness, the envelope identity and stored curves, against closed forms and brute force."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import distance_to_quadric, linear_model, quadratic, small_net, symmetric
from torch import Generator, Tensor, nn

from landscape.errors import ConfigurationError, ObjectiveError
from landscape.geometry.envelope import (
    distance_of_climb,
    distance_within,
    envelope_deviation,
    envelope_increments,
    inverse_disagreement,
)
from landscape.geometry.level_sets import level_set_distance
from landscape.geometry.sharpness import WorstCaseSharpness, worst_case_sharpness
from landscape.objectives import FunctionObjective, objective
from landscape.problem.input_objective import input_objective
from landscape.report.curve import draw, draw_curves
from landscape.report.style import style
from landscape.snapshots import Snapshot
from landscape.study import trace as tracing
from landscape.study.curve import MARKED, Band, Curve, CurveConfig, SpaceCurve, level_grid, read_curve, write_curve
from landscape.study.searches import SearchEffort
from landscape.study.trace import trace

RUNS = "embedded:runs/sgd_lr0.05_b16_seed0", "embedded:runs/sgd_lr0.05_b16_seed1"
SMALL = ("--samples", "30", "--x-samples", "3", "--threads", "1", "--level", "ln2")


EFFORT = SearchEffort(num_random=0, budget=60, restarts=0)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def smooth(rows: int, seed: int) -> FunctionObjective:
    """Random smooth functions with a quadratic part, near a minimum but not at it."""
    weights = 0.5 * normal(rows, 6, 4, seed=seed)
    return objective(
        lambda z, w: (torch.einsum("bi,bij->bj", z, w).tanh() ** 2).sum(-1) + 0.5 * (z**2).sum(-1),
        0.1 * normal(rows, 6, seed=seed + 1),
        weights,
    )


def assert_attained(result: WorstCaseSharpness, phi: FunctionObjective, norm: float = 2) -> None:
    """Each number is the rise of φ at its point, which lies in its ball; and it grows with the radius."""
    for i in range(result.radii.shape[1]):
        points = result.points[:, i]
        assert torch.allclose(phi.value(points) - result.value, result.sharpness[:, i], rtol=1e-9, atol=1e-12)
        length = torch.linalg.vector_norm(points - phi.origin, norm, dim=-1)
        assert (length <= result.radii[:, i] * (1 + 1e-9)).all()
    ordered = result.sharpness.gather(1, result.radii.argsort(1))
    assert (ordered.diff(dim=1) >= 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_sharpness_of_quadratics_solves_the_trust_region_problem(seed: int) -> None:
    """S(ρ) is the climb whose quadric lies at ρ, by the secular equation; saddles and minima."""
    matrices = torch.stack(
        [symmetric(normal(8, seed=10 * seed + i) + shift, seed) for i, shift in enumerate((0, 2))]
    )
    slopes = normal(2, 8, seed=seed + 70)
    phi = quadratic(matrices, slopes)
    radii = [30.0, 0.05, 1.0]  # in any order
    result = worst_case_sharpness(phi, radii, tol=1e-3, budget=200)
    assert_attained(result, phi)
    for row in range(2):
        for i, radius in enumerate(radii):
            distance = distance_to_quadric(matrices[row], slopes[row], float(result.sharpness[row, i]))
            assert 1 - 1e-4 <= distance / radius <= 1 + 1e-9


def test_sharpness_at_a_stationary_point() -> None:
    """At a minimum there is no gradient to start from; S(ρ) = ½ λ₁ ρ². At a maximum it is zero."""
    spectra = [[9.0, 4, 1, 0.1], [5.0, -1, -2, -7], [-1.0, -2, -3, -4]]
    phi = quadratic(torch.stack([symmetric(s, seed=i) for i, s in enumerate(spectra)]))
    result = worst_case_sharpness(phi, [0.1, 2.0])
    truth = column(4.5, 2.5, 0)[:, None] * column(0.1, 2.0) ** 2
    assert torch.allclose(result.sharpness, truth, rtol=1e-4, atol=1e-12)
    assert (result.points[2] == phi.origin[2]).all()
    assert result.misalignment[2].isnan().all()
    assert (result.misalignment[:2] < 1e-4).all()


@pytest.mark.parametrize(("norm", "dual"), [(1, math.inf), (2, 2), (math.inf, 1)])
def test_sharpness_of_linear_functions_is_the_dual_norm(norm: float, dual: float) -> None:
    slopes = normal(3, 20)
    phi = objective(lambda z, g: (z * g).sum(-1), normal(3, 20, seed=1), slopes)
    result = worst_case_sharpness(phi, [0.5, 7.0], norm=norm)
    truth = torch.linalg.vector_norm(slopes, dual, dim=-1)[:, None] * column(0.5, 7.0)
    assert torch.allclose(result.sharpness, truth, rtol=1e-9)
    assert_attained(result, phi, norm)
    scale = normal(3, 20, seed=2).abs()
    stretched = worst_case_sharpness(phi, [0.5, 7.0], norm=norm, metric=scale)
    truth = torch.linalg.vector_norm(slopes * scale, dual, dim=-1)[:, None] * column(0.5, 7.0)
    assert torch.allclose(stretched.sharpness, truth, rtol=1e-9)


def test_maximum_norm_on_a_convex_quadratic_is_at_a_corner() -> None:
    matrices = torch.stack([symmetric(normal(6, seed=i).abs(), seed=i) for i in range(4)])
    slopes = normal(4, 6, seed=9)
    corners = torch.cartesian_prod(*[column(-1, 1)] * 6)
    phi = quadratic(matrices, slopes)
    result = worst_case_sharpness(phi, [0.5], norm=math.inf, num_random=20)
    truth = torch.stack([phi.take(torch.full((64,), i)).value(0.5 * corners).amax() for i in range(4)])
    assert torch.allclose(result.sharpness[:, 0], truth, rtol=1e-6)


def test_sharpness_of_logistic_regression_and_sphere() -> None:
    weight, bias, x = normal(2, 9), normal(2, seed=1), normal(10, 9, seed=2)
    y = (x @ (weight[1] - weight[0]) + bias[1] - bias[0] > 0).long()
    phi = input_objective(linear_model(weight, bias), x, y)
    log_odds = -(x @ (weight[1] - weight[0]) + bias[1] - bias[0]).abs()
    result = worst_case_sharpness(phi, [0.1, 1.0, 10.0])
    rise = column(0.1, 1, 10) * (weight[1] - weight[0]).norm()
    truth = nn.functional.softplus(log_odds[:, None] + rise) - nn.functional.softplus(log_odds)[:, None]
    assert torch.allclose(result.sharpness, truth, rtol=1e-6)
    origin = column(0.3, 0, 0.4)[None]
    sphere = objective(lambda z: (z**2).sum(-1), origin)
    assert torch.allclose(
        worst_case_sharpness(sphere, [0.1, 2.0]).sharpness, (0.5 + column(0.1, 2.0)) ** 2 - 0.25, rtol=1e-4
    )


def test_one_dimension() -> None:
    """A ball keeps the rise of the smaller balls inside of it, when φ falls again beyond its peak."""
    phi = objective(lambda z: -z[:, 0].cos(), torch.zeros(1, 1, dtype=torch.float64))
    radii = column(0.5, 2.0, 3.0, 5.0, 6.0)
    result = worst_case_sharpness(phi, radii)
    assert torch.allclose(result.sharpness[0], (1 - radii.cos()).cummax(0).values, rtol=1e-12)
    assert_attained(result, phi)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_plane_networks_against_a_polar_grid(activation: type[nn.Module]) -> None:
    model = small_net([2, 16, 3], activation, seed=0, gain=2.0)
    x = 1.5 * normal(16, 2)
    y = model(x).argmax(1).detach()
    phi, radii = input_objective(model, x, y), column(0.1, 0.4, 2.0)
    result = worst_case_sharpness(phi, radii, num_random=8)
    angles = torch.linspace(0, 2 * math.pi, 1000, dtype=torch.float64)
    circle = torch.stack([angles.cos(), angles.sin()], 1)
    disc = torch.cat([radius * circle for radius in torch.linspace(0, 2, 101, dtype=torch.float64)])
    for i in range(16):
        values = phi.take(torch.full((len(disc),), i)).value(x[i] + disc) - result.value[i]
        inside = disc.norm(dim=-1)[:, None] <= radii + 1e-9
        truth = torch.where(inside, values[:, None], -torch.inf).amax(0)
        assert (result.sharpness[i] <= truth * (1 + 1e-3) + 1e-9).all()
        assert (result.sharpness[i] >= truth * 0.99).double().mean() >= 0.75
    assert (result.misalignment > -1e-12).all()


@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 1000))
def test_distance_and_sharpness_are_inverse_functions(seed: int) -> None:
    """d(φ* + S(ρ)) = ρ, of two searches that share no code; one level at a time, so that none leads to another."""
    phi, radii = smooth(1, seed), column(0.2, 1.0)
    sharp = worst_case_sharpness(phi, radii, num_random=8)
    for radius, level in zip(radii, sharp.sharpness[0] + sharp.value, strict=True):
        found = level_set_distance(phi, level[None], num_random=6)
        assert float(found.distance) == pytest.approx(float(radius), rel=3e-3)


def test_given_directions_are_used_and_nan_is_none() -> None:
    """A bump that nothing at the origin points to."""
    bump = column(0.0, 0, 0, 0, 1)

    def function(z: Tensor) -> Tensor:
        return z[:, 0] + 50 * (1 - 4 * ((z - 3 * bump) ** 2).sum(-1)).clamp_min(0)

    phi = objective(function, torch.zeros(1, 5, dtype=torch.float64))
    nowhere = torch.full((1, 1, 5), math.nan, dtype=torch.float64)
    blind = worst_case_sharpness(phi, [3.0], starts=nowhere, num_random=0)
    told = worst_case_sharpness(phi, [3.0], starts=torch.cat([nowhere, bump[None, None]]), num_random=0)
    assert float(blind.sharpness) == pytest.approx(3, rel=1e-9)
    assert float(told.sharpness) >= 50


def test_directions_of_one_radius_are_tried_at_all_others() -> None:
    """A ridge that widens outwards: the start leads onto it at the large radius, and past it at the small one."""

    def function(z: Tensor) -> Tensor:
        ridge = 1 - (z[:, 0] / (0.05 * z[:, 1].clamp_min(0.1) ** 3)) ** 2
        return z[:, 0] + 10 * (z[:, 1] - 0.5).clamp_min(0) * ridge.clamp_min(0)

    phi = objective(function, torch.zeros(1, 2, dtype=torch.float64))
    start = column(math.sin(0.3), math.cos(0.3))[None, None]
    apart = worst_case_sharpness(phi, [1.0], starts=start, num_random=0)
    together = worst_case_sharpness(phi, [1.0, 3.0], starts=start, num_random=0)
    assert float(apart.sharpness) < 1.01
    assert float(together.sharpness[0, 0]) > 4.99


def test_each_row_may_have_radii_of_its_own() -> None:
    phi = smooth(3, 5)
    common = worst_case_sharpness(phi, [0.3, 1.0, 3.0])
    order = torch.tensor([[0, 1, 2], [2, 1, 0], [1, 0, 2]])
    own = worst_case_sharpness(phi, column(0.3, 1, 3)[order])
    assert torch.allclose(own.sharpness, common.sharpness.gather(1, order), rtol=1e-9)


def test_values_that_are_not_finite_are_never_reported() -> None:
    phi = objective(lambda z: -torch.log(1 - z[:, 0]), torch.zeros(1, 2, dtype=torch.float64))
    result = worst_case_sharpness(phi, [0.5, 2.0])
    assert float(result.sharpness[0, 0]) == pytest.approx(math.log(2), rel=1e-6)
    assert torch.isfinite(result.sharpness).all()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"radii": [0.0]}, "above zero"),
        ({"radii": [math.nan]}, "above zero"),
        ({"radii": []}, "fit"),
        ({"radii": torch.ones(3, 2)}, "fit"),
        ({"radii": [1.0], "norm": 3}, "norm"),
        ({"radii": [1.0], "tol": 0}, "tol"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, object], what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        worst_case_sharpness(smooth(2, 0), **arguments)  # type: ignore[arg-type]


def test_a_function_without_a_value_at_the_origin_is_refused() -> None:
    with pytest.raises(ObjectiveError, match="not finite"):
        worst_case_sharpness(objective(lambda z: z[:, 0].log(), torch.zeros(1, 2)), [1.0])


LEVELS = 0.1 * 1.3 ** torch.arange(16, dtype=torch.float64)


def cubic(levels: Tensor) -> tuple[Tensor, Tensor]:
    """d(c) and ‖∇φ‖ of φ(r) = 0.05 + r² + r³, by bisection."""
    low, high = torch.zeros_like(levels), torch.full_like(levels, 10.0)
    for _ in range(80):
        middle = (low + high) / 2
        below = 0.05 + middle**2 + middle**3 < levels
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return low[None], (2 * low + 3 * low**2)[None]


@pytest.mark.parametrize("power", [0.25, 0.5, 1.0, 1.5])
def test_envelope_is_exact_for_power_laws(power: float) -> None:
    value = column(0.05, 0.0)
    climb = LEVELS - value[:, None]
    distance = 3 * climb**power
    steps = envelope_increments(LEVELS, value, distance, climb / (power * distance))
    assert (steps.abs() < 1e-9).all()


def test_envelope_is_of_second_order() -> None:
    worst = []
    for count in (16, 31, 61):
        levels = torch.linspace(math.log(0.1), math.log(10), count, dtype=torch.float64).exp()
        worst.append(float(envelope_increments(levels, column(0.05), *cubic(levels)).abs().max()))
    assert worst[0] < 0.01
    assert worst[0] / worst[1] == pytest.approx(4, rel=0.3)
    assert worst[1] / worst[2] == pytest.approx(4, rel=0.3)


def test_a_distance_that_is_too_long_breaks_the_envelope() -> None:
    distance, norms = cubic(LEVELS)
    wrong = distance.clone()
    wrong[0, 7] *= 1.1
    deviation = envelope_deviation(LEVELS, column(0.05), wrong, norms)[0]
    assert (deviation[6:9].abs() > 0.5).all()
    assert (deviation[[0, 1, 2, 3, 4, 5, 9, 10, 15]].abs() < 0.01).all()


def test_envelope_has_no_number_where_a_distance_has_none() -> None:
    distance, norms = cubic(LEVELS)
    distance[0, 8:] = math.nan
    deviation = envelope_deviation(LEVELS, column(0.3), distance, norms)[0]
    assert torch.isnan(deviation[LEVELS <= 0.3]).all() and torch.isnan(deviation[8:]).all()
    assert torch.isfinite(deviation[5:8]).all()
    assert torch.isnan(envelope_deviation(LEVELS[:1], column(0.0), distance[:, :1], norms[:, :1])).all()
    with pytest.raises(ConfigurationError, match="ascend"):
        envelope_deviation(LEVELS.flip(0), column(0.0), distance, norms)


def test_envelope_of_a_search() -> None:
    phi = smooth(5, 3)
    levels = torch.linspace(math.log(0.5), math.log(4), 12, dtype=torch.float64).exp()
    found = level_set_distance(phi, levels, num_random=4, tol=1e-3)
    deviation = envelope_deviation(levels, found.value, found.distance, found.gradient_norm)
    assert deviation.abs().nanmedian() < 0.02


def test_reading_distances_off_a_curve() -> None:
    distance, norms = cubic(LEVELS)
    radii = torch.linspace(0.3, 1.0, 8, dtype=torch.float64)[None]
    climbs = radii**2 + radii**3
    read = distance_of_climb(LEVELS, column(0.05), distance, norms, climbs)
    assert torch.allclose(read, radii, rtol=1e-4)
    nodes = distance_of_climb(LEVELS, column(0.05), distance, norms, LEVELS[None] - 0.05)
    assert torch.allclose(nodes, distance, rtol=1e-9)
    assert torch.isnan(distance_of_climb(LEVELS, column(0.05), distance, norms, column(1e-3, 99.0)[None])).all()


def test_disagreement_says_which_search_was_wrong() -> None:
    distance, norms = cubic(LEVELS)
    radii = torch.linspace(0.3, 1.0, 8, dtype=torch.float64)[None]
    true = radii**2 + radii**3
    agree = inverse_disagreement(LEVELS, column(0.05), distance, norms, radii, true)
    long = inverse_disagreement(LEVELS, column(0.05), 1.1 * distance, norms / 1.1, radii, true)
    low = inverse_disagreement(LEVELS, column(0.05), distance, norms, radii, 0.8 * true)
    assert agree.abs().max() < 1e-4
    assert torch.allclose(long, torch.full_like(long, 0.1), atol=1e-3)
    assert (low < -0.05).all()


def test_distance_within_is_the_smallest_radius_that_exceeds_the_level() -> None:
    radii, sharpness = column(1, 2, 3)[None], column(0.5, 0.5, 4)[None]
    assert distance_within(radii, sharpness, column(0.1, 0.5, 0.6, 5)[None]).tolist() == [[1, 1, 3, math.inf]]


@pytest.mark.parametrize("minimum", [1e-6, 0.07, 2.0])
def test_level_grid(minimum: float) -> None:
    grid = level_grid(minimum, CurveConfig())
    assert len(grid) == 25 + 2 * (minimum > 1) and list(grid) == sorted(set(grid))
    assert set(MARKED) <= set(grid)
    assert grid[-1] == pytest.approx(10)
    ratios = np.diff(np.log([c for c in grid if c > minimum]))
    assert ratios.max() / ratios.min() < 4


@pytest.mark.parametrize("minimum", [math.nan, 20.0, 0.0])
def test_level_grid_without_room(minimum: float) -> None:
    with pytest.raises(ConfigurationError, match="highest level"):
        level_grid(minimum, CurveConfig())


def test_trace_of_a_quadratic() -> None:
    phi = quadratic(torch.stack([symmetric([2.0, 1, 0.5]), symmetric([8.0, 1, 0.5])]))
    levels = level_grid(0.1, CurveConfig())
    curve = trace(phi, levels, normal(4, 2, 3), CurveConfig(), EFFORT)
    short, long = (torch.tensor(levels) * 2 / lam for lam in (8, 2))
    assert curve.distance.q10 == pytest.approx((0.9 * short.sqrt() + 0.1 * long.sqrt()).tolist(), rel=1e-3)
    assert np.nanmax(np.abs(curve.remaining.median)) < 1e-3
    assert np.nanmax(curve.envelope) < 1e-2
    assert curve.reached == (1.0,) * 25


def test_trace_uses_the_points_of_each_search_in_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both searches are crippled: d by 10 % above a level, S at one radius."""
    phi = quadratic(symmetric([2.0, 1, 0.5])[None])
    levels = level_grid(0.1, CurveConfig())
    search_distance, search_sharpness = tracing._search_distance, tracing._search_sharpness

    def long(phi: FunctionObjective, levels: Tensor, *rest: object, **more: object) -> tracing._Distances:
        found = search_distance(phi, levels, *rest, **more)  # type: ignore[arg-type]
        if len(found.levels) == 1:
            return found
        factor = torch.where(found.levels > 1, 1.1, 1.0)
        return replace(found, distance=found.distance * factor, gradient_norm=found.gradient_norm / factor)

    calls = []

    def low(*arguments: object, **more: object) -> tracing._Sharpness:
        found = search_sharpness(*arguments, **more)  # type: ignore[arg-type]
        calls.append(found)
        if len(calls) > 1:
            return found
        factor = torch.ones(len(found.radii), dtype=torch.float64)
        factor[2] = 0.8
        return replace(found, sharpness=found.sharpness * factor)

    monkeypatch.setattr(tracing, "_search_distance", long)
    monkeypatch.setattr(tracing, "_search_sharpness", low)
    curve = trace(phi, levels, normal(4, 1, 3), CurveConfig(), EFFORT)
    assert curve.num_shortened == sum(c > 1 for c in levels)
    assert curve.num_raised == 1
    assert curve.distance.median == pytest.approx([math.sqrt(c) for c in levels], rel=1e-3)
    assert max(curve.disagreement.median[6:-1]) == pytest.approx(0.1, abs=0.01)
    assert np.nanmax(np.abs(curve.remaining.median)) < 1e-3


def made_up(run: str = "a", factor: float = 1.0, rows: int = 5) -> Curve:
    levels = level_grid(0.05, CurveConfig())
    distance = tuple(factor * math.sqrt(c) for c in levels)
    nothing = (math.nan, *distance[1:])
    band = Band(tuple(0.5 * d for d in nothing), nothing, tuple(2 * d for d in nothing))
    width = Band(
        *(tuple(d / c for d, c in zip(q, levels, strict=True)) for q in (band.q10, band.median, band.q90))
    )
    rise = Band(*[tuple(factor * 0.1 * 2.0**i for i in range(6))] * 3)
    radii, gap = tuple(0.1 * 1.4**i for i in range(6)), Band(*[(math.nan,) * 6] * 3)
    share = (1.0,) * 25
    space = SpaceCurve(rows, band, width, share, share, nothing, radii, rise, gap, gap, 1, 2, 3.5, 4.0)
    return Curve(run, "k", "p", "s", 6, 0.05, 1.5, levels, distance, space, space, {"seed": 0}, 1.0)


def test_stored_curves_come_back_and_others_do_not(tmp_path: Path) -> None:
    curve, path = made_up(), tmp_path / "c.json"
    write_curve(curve, path)
    assert "NaN" not in path.read_text()
    assert repr(read_curve(path, "k")) == repr(curve)
    assert read_curve(path, "other") is None
    assert read_curve(tmp_path / "none.json", "k") is None
    document = json.loads(path.read_text())
    del document["curve"]["theta"]["radii"]
    path.write_text(json.dumps(document))
    assert read_curve(path, "k") is None
    path.write_text('{"curve": [')
    assert read_curve(path, "k") is None


@pytest.mark.thorough
def test_figure_is_drawn_in_all_formats_and_repeats(tmp_path: Path) -> None:
    paths = draw_curves([made_up()], tmp_path / "one")
    assert [path.suffix for path in paths] == [".pdf", ".svg", ".png"]
    again = draw_curves([made_up()], tmp_path / "two")
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in again]
    assert matplotlib.image.imread(paths[-1]).shape[1] == 1400


def test_figure_names_all_snapshots(tmp_path: Path) -> None:
    curves = [made_up(f"run{i}", 1 + 0.3 * i, rows=1 + i) for i in range(9)]
    (path,) = draw_curves(curves, tmp_path, ["svg"])
    for i in range(9):
        assert f"run{i}, epoch 6" in path.read_text()


def test_sharpness_near_zero_leaves_room_for_the_medians() -> None:
    curve = made_up()
    band = replace(curve.x.sharpness, q10=(1e-12,) * 6)
    with style():
        figure = draw([replace(curve, x=replace(curve.x, sharpness=band))])
    lowest = min(band.median)
    assert lowest / 20 < figure.axes[5].get_ylim()[0] < lowest


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no curve"):
        draw_curves([], tmp_path)
    with pytest.raises(ConfigurationError, match="gif"):
        draw_curves([made_up()], tmp_path, ["gif"])


@pytest.fixture
def runner() -> Iterator[CliRunner]:
    threads = torch.get_num_threads()
    yield CliRunner()
    torch.set_num_threads(threads)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two marked levels, and two radii."""
    monkeypatch.setattr(CurveConfig, "__post_init__", _shrink)


def _shrink(config: CurveConfig) -> None:
    object.__setattr__(config, "num_levels", 2)
    object.__setattr__(config, "num_radii", 2)


@pytest.mark.thorough
@pytest.mark.usefixtures("few")
def test_command_traces_keeps_and_goes_on(
    runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (script,) = entry_points(group="console_scripts", name="landscape")
    main, output = script.load(), tmp_path / "out"
    arguments = ["width", "--curve", "--output", str(output), *SMALL, "--snapshot", RUNS[0]]
    monkeypatch.setattr(
        "landscape.report.curve.draw_curves", lambda curves, where: draw_curves(curves, where, ["png"])
    )
    first = runner.invoke(main, arguments, catch_exceptions=False)
    assert first.exit_code == 0
    names = {path.name for path in output.iterdir()}
    assert names == {"curve-sgd_lr0.05_b16_seed0.json", "curve.png"}
    assert "0 curves known, 1 to trace" in first.stderr and "curve.png" in first.stderr
    table = first.stdout.splitlines()
    assert table[2].split()[:3] == ["c", "d_theta", "w_theta"]
    assert {"ln2", "ln10"} <= {line.split()[0] for line in table if line}
    traced = []

    def pretend(snapshot: Snapshot, config: CurveConfig, device: str, name: str, *_: object) -> Curve:
        traced.append((name, config.seed))
        return made_up(name)

    monkeypatch.setattr(tracing, "trace_curve", pretend)
    second = runner.invoke(main, [*arguments, "--snapshot", RUNS[1], "--json"], catch_exceptions=False)
    assert traced == [("sgd_lr0.05_b16_seed1", 0)]
    document = json.loads(second.stdout)
    assert [curve["run"] for curve in document["results"]["curves"]] == [Path(run).name for run in RUNS]
    assert [Path(file).suffix for file in document["results"]["files"]] == [".json", ".json", ".png"]
    other = runner.invoke(main, [*arguments, "--seed", "1"], catch_exceptions=False)
    assert traced[1:] == [("sgd_lr0.05_b16_seed0", 1)] and other.exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--snapshot", RUNS[0], "--snapshot", RUNS[1]),
        ("--snapshot", RUNS[0], "--output", "x"),
        ("--snapshot", RUNS[0], "--snapshot", RUNS[0], "--curve"),
        ("--curve",),
    ],
)
def test_wrong_use_is_refused_and_writes_nothing(
    runner: CliRunner, arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (script,) = entry_points(group="console_scripts", name="landscape")
    result = runner.invoke(script.load(), ["width", *arguments], catch_exceptions=False)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr and result.stdout == ""
    assert list(tmp_path.iterdir()) == []
