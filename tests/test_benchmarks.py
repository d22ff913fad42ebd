"""The benchmark's reference and rivals on closed forms: right where there is an answer, never below it."""

from __future__ import annotations

import functools
import importlib
import math
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import distance_to_quadric, quadratic, ray_scan, rotation, small_net, symmetric
from torch import Generator, Tensor

from landscape.objectives import FunctionObjective, objective
from landscape.problem.datasets import DATASETS, load_dataset
from landscape.problem.model_sources import model_with
from landscape.robustness.rungs import Effort
from landscape.snapshots import load_snapshot
from landscape.training.evaluate import evaluate

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
reference: Any = importlib.import_module("reference_theta")
rivals: Any = importlib.import_module("rivals_theta")
benchmark: Any = importlib.import_module("level_set_theta")
training: Any = importlib.import_module("training")
attacks: Any = importlib.import_module("attacks")

SPECTRUM = torch.tensor([9.0, 5, 3, 1, 0.5, 0.1, 0, -0.05], dtype=torch.float64)
LEVELS = (0.3, 0.7, 2.0)
BOTTOM = 0.05


def raised(phi: FunctionObjective, by: float = BOTTOM) -> FunctionObjective:
    """φ + constant, so that its logarithm exists."""
    return objective(lambda z, *data: by + phi.function(z, *data), phi.origin, *phi.data)


def bowl() -> FunctionObjective:
    return raised(quadratic(symmetric(SPECTRUM)[None]))


def bowl_distances() -> list[float]:
    return [math.sqrt(2 * (c - BOTTOM) / float(SPECTRUM[0])) for c in LEVELS]


def test_reference_finds_the_answer_of_quadratics_from_random_starts() -> None:
    matrix = symmetric(SPECTRUM, seed=3)
    slope = torch.randn(8, generator=Generator().manual_seed(1), dtype=torch.float64) * 0.2
    sloping = [distance_to_quadric(matrix, slope, c - BOTTOM) for c in LEVELS]
    for linear, truths in ((torch.zeros_like(slope), bowl_distances()), (slope, sloping)):
        found = reference.search(raised(quadratic(matrix[None], linear[None])), LEVELS, starts=6)
        for distance, truth in zip(found["distance"], truths, strict=True):
            assert truth * (1 - 1e-6) <= distance <= truth * (1 + 1e-4)


def test_reference_finds_the_nearest_of_many_minima() -> None:
    net = small_net([2, 12, 12, 1], torch.nn.Tanh, seed=4, gain=2.5)

    def positive(z: Tensor) -> Tensor:
        return torch.exp(2 * net(z)[:, 0])

    origin = torch.tensor([0.1, -0.3], dtype=torch.float64)
    value = float(positive(origin[None]).detach())
    levels = [1.5 * value, 2.5 * value]
    found = reference.search(objective(positive, origin[None]), levels, starts=24)
    for distance, level in zip(found["distance"], levels, strict=True):
        truth = ray_scan(positive, origin, level, reach=3.0)
        assert truth * (1 - 1e-4) <= distance <= truth * (1 + 1e-3)


def test_descent_is_fast_where_fixed_point_iteration_crawls() -> None:
    """At eigenvalue ratios near 1 the iteration u ← g/‖g‖, a power iteration, needs hundreds of gradients."""
    spectrum = torch.cat([torch.tensor([1.0, 0.97, 0.95]), torch.linspace(0.9, 0.01, 20)]).double()
    level_set = reference.LevelSet(raised(quadratic(symmetric(spectrum)[None])), 0.7, reference.Bill())
    (start,) = reference.random_starts([level_set], 1, seed=2)
    start.run(60, 1e-3)
    assert start.point.tangent < 1e-3
    assert start.point.radius == pytest.approx(math.sqrt(2 * (0.7 - BOTTOM)), rel=1e-4)
    assert level_set.bill.gradients < 80


def test_reference_stores_points_that_lie_where_it_says() -> None:
    phi = bowl()
    found = reference.search(phi, LEVELS, starts=4)
    for level, minima in found["minima"].items():
        points = phi.origin + torch.tensor(minima["radii"])[:, None] * minima["directions"].double()
        assert torch.allclose(
            phi.take(torch.zeros(len(points), dtype=torch.long)).value(points),
            torch.tensor(level).double(),
            rtol=1e-4,
        )
        assert max(minima["tangents"]) < 0.05


def test_reference_leaves_out_levels_below_the_origin() -> None:
    found = reference.search(bowl(), (BOTTOM / 2, 0.7), starts=2)
    assert math.isnan(found["distance"][0])
    assert math.isfinite(found["distance"][1])


def test_lines_and_formula_are_exact_on_a_quadratic() -> None:
    phi = bowl()
    leading = rotation(8, 0)[:, 0]
    assert rivals.quadratic_estimates(BOTTOM, float(SPECTRUM[0]), LEVELS) == pytest.approx(bowl_distances())
    shortest, _ = rivals.shortest_ray(phi, [leading, -leading], LEVELS, 0.01)
    assert shortest == pytest.approx(bowl_distances(), rel=1e-5)
    # From far outside the bracket, too.
    assert rivals.ray_crossings(phi, leading, LEVELS, 100.0) == pytest.approx(bowl_distances(), rel=1e-5)


def test_rays_and_ascent_are_never_shorter_than_the_truth() -> None:
    phi = bowl()
    shortest, middle = rivals.shortest_ray(phi, rivals.random_directions(phi, 20, seed=0), LEVELS, 0.01)
    away = FunctionObjective(phi.function, phi.origin, phi.data)
    ascent = rivals.steepest_ascent(shifted(away), LEVELS, 1e-3)
    for i, truth in enumerate(bowl_distances()):
        assert truth <= shortest[i] <= middle[i]
        assert ascent[i] > 0
    assert shortest[0] > 1.01 * bowl_distances()[0]


def shifted(phi: FunctionObjective) -> FunctionObjective:
    """The same function seen from a point beside its minimum, where it has a gradient."""
    beside = torch.full_like(phi.origin, 1e-3)
    return FunctionObjective(phi.function, beside, phi.data)


def test_steepest_ascent_is_exact_on_an_exponential() -> None:
    slope = torch.tensor([3.0, -4.0, 0.0], dtype=torch.float64)
    phi = objective(lambda z: torch.exp(z @ slope), torch.zeros(1, 3, dtype=torch.float64))
    truth = [math.log(c) / 5 for c in (1.5, 4.0)]
    assert rivals.steepest_ascent(phi, (1.5, 4.0), 1e-3) == pytest.approx(truth, rel=1e-3)
    assert rivals.ray_crossings(phi, slope, (1.5, 4.0), 1e-3) == pytest.approx(truth, rel=1e-5)
    assert all(math.isnan(d) for d in rivals.ray_crossings(phi, -slope, (1.5, 4.0), 1e-3))


def test_filter_normalised_directions_have_the_norms_of_the_filters() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 5), torch.nn.Flatten(), torch.nn.Linear(3, 4)).double()
    size = sum(p.numel() for p in model.parameters())
    direction = torch.randn(size, generator=Generator().manual_seed(0), dtype=torch.float64)
    (scaled,) = rivals.filter_normalised([direction], model)
    for part, raw, weight in zip(
        *(v.split([p.numel() for p in model.parameters()]) for v in (scaled, direction)),
        model.parameters(),
        strict=True,
    ):
        if weight.ndim == 1:
            assert not part.any()
            continue
        rows = part.reshape(len(weight), -1)
        assert torch.allclose(rows.norm(dim=1), weight.reshape(len(weight), -1).norm(dim=1))
        cosine = torch.nn.functional.cosine_similarity(rows, raw.reshape(len(weight), -1))
        assert torch.allclose(cosine, torch.ones_like(cosine))


def test_snapshots_are_shipped_and_any_prefix_is_spread_over_the_settings() -> None:
    names = reference.snapshots(20)
    assert len(set(names)) == 20
    assert len({name.rpartition("_seed")[0] for name in names[:12]}) == 12
    shipped = {entry.name for entry in (resources.files("landscape_data") / "runs").iterdir()}
    assert set(names) <= shipped


def test_searches_are_stored_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "snapshot_objective", lambda name, samples: bowl())
    monkeypatch.setattr(reference, "LEVELS", LEVELS)
    first = reference.cached_search("name", tmp_path, 10, 0)
    monkeypatch.setattr(reference, "snapshot_objective", None)
    assert reference.cached_search("name", tmp_path, 10, 0)["distance"] == first["distance"]
    assert [p.suffix for p in tmp_path.iterdir()] == [".pt"]


def test_counting_sees_every_row() -> None:
    bill = benchmark.Bill()
    counted = benchmark.Counted(bowl(), bill).take(torch.tensor([0, 0, 0]))
    counted.value(counted.origin)
    counted.value_and_grad(counted.origin)
    product = benchmark.Counted(bowl(), bill).linearize(bowl().origin)
    product(torch.ones(2, 1, 8, dtype=torch.float64))
    assert (bill.values, bill.gradients, bill.products) == (3, 3, 2)


def test_summary_counts_what_is_too_long_or_missing() -> None:
    nan = math.nan
    rows = [
        measured(ours=[1.0, 2.0, 3.3, nan], reference=[1.0, 2.01, 3.0, nan]),
        measured(ours=[nan, 2.0, 3.0, 4.0], reference=[1.0, 2.0, 3.0, 4.0]),
    ]
    found = benchmark.summary(rows)
    assert found["distances"] == 7
    assert found["share_within_goal"] == pytest.approx(5 / 7)
    assert found["snapshots_within_goal"] == 0
    assert found["too_long"]["ours"]["worst"] == math.inf
    assert found["too_long"]["reference"]["worst"] == pytest.approx(2.01 / 2.0)
    assert found["passes_most"] == 100


def measured(ours: list[float], reference: list[float]) -> dict[str, Any]:
    best = [benchmark._least(pair) for pair in zip(ours, reference, strict=True)]
    return {
        "ours": {"distance": ours, "passes": 100.0, "passes_processor": 90.0},
        "reference": {"distance": reference},
        "best": best,
        "rivals": {"line": [2 * b for b in best]},
    }


def test_the_plain_loop_measures_what_we_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss and three accuracies of one network on one part of the data."""
    monkeypatch.setitem(DATASETS, training.PART, functools.partial(training.part_of_mnist, 1200))
    train, test = (load_dataset(training.PART, split) for split in ("train", "test"))
    snapshot = load_snapshot("embedded:runs/adam_lr0.0015_b16_seed0")
    model = model_with(snapshot.model, snapshot.model_args, snapshot.parameters)
    expected = evaluate(model, train, test, 0.1)
    loss, accuracies = training.plain_evaluation(model, train, test, 0.1)
    names = ("clean_accuracy", "fgsm_accuracy_published", "fgsm_accuracy_exact")
    assert loss == pytest.approx(expected["train_loss"], rel=1e-3)
    assert accuracies == pytest.approx([expected[name] for name in names], abs=0.011)
    assert expected["fgsm_accuracy_exact"] < 0.95


@pytest.mark.parametrize("norm", [2.0, math.inf])
def test_both_sides_of_the_attack_benchmark_attack_alike(norm: float) -> None:
    """Same settings, same samples: the deterministic rungs decide alike, and the others nearly."""
    pytest.importorskip("torchattacks")
    snapshot = load_snapshot("embedded:runs/adam_lr0.0015_b16_seed0")
    model = model_with(snapshot.model, snapshot.model_args, snapshot.parameters)
    test = load_dataset("mnist", "test")
    effort = Effort(3, 6, 1, 5, 2, 6, 20, 10, 1)
    found = attacks.compare(model, test.images[:40], test.labels[:40], {2.0: 1.0}.get(norm, 0.1), norm, 1, effort)
    assert len(found) == (8 if norm == math.inf else 6)
    for name, row in found.items():
        assert len(row["ours"]) == len(row["theirs"]) == 1
        assert row["accuracy"] == pytest.approx(row["their_accuracy"], abs=0.15) or name == "carlini_wagner", name
