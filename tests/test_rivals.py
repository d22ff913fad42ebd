"""The attacks that the benchmark and the sandwich lean on: right on linear classifiers, never below the answer."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import linear_model
from torch import Generator, Tensor, nn

from landscape.problem.datasets import load_dataset
from landscape.problem.model_sources import model_with
from landscape.snapshots import load_snapshot

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
pytest.importorskip("foolbox")
rivals: Any = importlib.import_module("rivals_x")
row: Any = importlib.import_module("rivals_study")
benchmark: Any = importlib.import_module("level_set_x")

NORMS = (2.0, math.inf)
DIMENSION, IMAGES = 20, 12
ATTACKS = [
    (name, norm) for norm in NORMS for name in ("DDN", "FMN", "DeepFool") if (name, norm) != ("DDN", math.inf)
]
LOOSE = 1.02

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:eagerpy", "ignore::UserWarning:foolbox")


def classifier(classes: int) -> nn.Linear:
    random = Generator().manual_seed(1)
    return linear_model(torch.randn(classes, DIMENSION, generator=random), torch.randn(classes, generator=random))


@pytest.fixture(scope="module")
def model() -> nn.Linear:
    return classifier(4)


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(IMAGES, DIMENSION, generator=Generator().manual_seed(2))


@pytest.fixture(scope="module")
def y(model: nn.Linear, x: Tensor) -> Tensor:
    return predicted(model, x)


def predicted(model: nn.Linear, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1)  # type: ignore[no-any-return]


def hyperplanes(model: nn.Linear, x: Tensor, y: Tensor, norm: float) -> Tensor:
    """min over k ≠ y of (z_y − z_k) / ‖w_y − w_k‖ in the dual norm, by hand."""
    weight, bias = model.weight.detach().double(), model.bias.detach().double()
    logits = x.double() @ weight.T + bias
    distances = torch.full((len(x), len(weight)), math.inf, dtype=torch.float64)
    for i, label in enumerate(y.tolist()):
        for k in set(range(len(weight))) - {label}:
            normal = weight[label] - weight[k]
            length = normal.abs().sum() if norm == math.inf else normal.square().sum().sqrt()
            distances[i, k] = (logits[i, label] - logits[i, k]) / length
    return distances.amin(1)


def ratio_to_nearest(attack: Any, model: nn.Linear, x: Tensor, norm: float) -> Tensor:
    y = predicted(model, x)
    ratio: Tensor = rivals.find(attack, model, x, y, norm).distance / hyperplanes(model, x, y, norm)
    return ratio


@pytest.mark.parametrize(("name", "norm"), ATTACKS)
def test_attack_finds_the_one_hyperplane(name: str, norm: float, x: Tensor) -> None:
    ratio = ratio_to_nearest(rivals.rivals(norm, steps=300)[name]({}), classifier(2), x, norm)
    assert ratio.min() >= 1 - 1e-5
    assert ratio.max() <= LOOSE


@pytest.mark.parametrize(("name", "norm"), ATTACKS)
def test_attack_finds_most_of_the_nearest_of_several_hyperplanes(
    name: str, norm: float, model: nn.Linear, x: Tensor
) -> None:
    """Each follows the strongest wrong class, which need not be the nearest one: some images may be far off."""
    ratio = ratio_to_nearest(rivals.rivals(norm, steps=300)[name]({}), model, x, norm)
    assert ratio.min() >= 1 - 1e-5
    assert ratio.median() <= LOOSE


@pytest.mark.slow  # its solver is compiled first
@pytest.mark.parametrize("norm", NORMS)
def test_brendel_bethge_ends_nearer_than_it_starts(norm: float, model: nn.Linear, x: Tensor, y: Tensor) -> None:
    start = rivals.find(rivals.deepfool(norm, steps=1, overshoot=3.0), model, x, y, norm)
    assert torch.isfinite(start.distance).all()
    found = rivals.find(rivals.brendel_bethge(norm, start, steps=200), model, x, y, norm)
    ratio = found.distance / hyperplanes(model, x, y, norm)
    assert ratio.min() >= 1 - 1e-5
    assert ratio.max() <= 1.03


def test_the_ball_of_fast_minimum_norm_binds(model: nn.Linear, x: Tensor) -> None:
    eagerpy = pytest.importorskip("eagerpy")
    far = x + 10
    radius = torch.linspace(0.1, 2, len(x))
    attack = rivals.ProjectedL2FMN(steps=1)
    projected = attack.project(*(eagerpy.astensor(t) for t in (far, x, radius))).raw
    torch.testing.assert_close((projected - x).norm(dim=1), radius)


def test_pulled_back_to_the_first_crossing() -> None:
    def bump(images: Tensor) -> Tensor:
        """Class 1 between 1 and 2 and beyond 3, class 0 elsewhere."""
        r = images[:, 0]
        return torch.stack([torch.zeros_like(r), -(r - 1) * (r - 2) * (3 - r)], 1)

    x, ends = torch.zeros(4, 1), torch.tensor([[4.0], [1.5], [0.9], [2.5]])
    labels = torch.zeros(4, dtype=torch.int64)
    points, crossed = rivals.pull_back(bump, x, labels, ends)
    assert crossed.tolist() == [True, True, False, True]
    torch.testing.assert_close(points[crossed, 0], torch.ones(3))


def test_costs_are_counted_and_the_model_is_left_alone(model: nn.Linear, x: Tensor, y: Tensor) -> None:
    found = rivals.find(rivals.ddn(steps=7), model, x, y, 2.0)
    assert (found.gradients, found.forwards) == (7, 7)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_forward_passes_without_a_gradient_are_told_apart(model: nn.Linear, x: Tensor) -> None:
    network = rivals.CountedNetwork(model)
    network(x)
    point = x.clone().requires_grad_()
    network(point).sum().backward()
    assert (network.gradients, network.forwards) == (len(x), 2 * len(x))


def test_nearest_of_several_results() -> None:
    def found(distances: list[float]) -> Any:
        points = torch.tensor(distances)[:, None]
        return rivals.Found(torch.tensor(distances), points, 10 * points, 1, 1, 1, 1)

    best = rivals.nearest([found([1.0, 5.0, math.inf]), found([2.0, 4.0, 3.0])])
    assert best.distance.tolist() == best.points[:, 0].tolist() == [1, 4, 3]
    assert best.adversarials[:, 0].tolist() == [10, 40, 30]


def test_an_attack_that_finds_nothing_is_infinitely_far(model: nn.Linear, x: Tensor, y: Tensor) -> None:
    found = rivals.find(lambda network, images, labels: images, model, x, y, 2.0)
    assert torch.isinf(found.distance).all()


def test_ratios_are_to_the_best_attack_and_the_reference() -> None:
    def found(distances: list[float], gradients: float, wall: float) -> Any:
        empty = torch.empty(len(distances), 1)
        return rivals.Found(torch.tensor(distances), empty, empty, gradients, gradients, wall, wall)

    rows = benchmark.summary(
        {
            "ours": found([1.0, 2.2, 2.0], 100, 1.0),
            "DDN": found([2.0, 2.0, 2.0], 1000, 4.0),
            "FMN": found([4.0, 1.0, 2.0], 500, 2.0),
        }
    )
    assert rows["ours"]["mean"] == pytest.approx((0.5 + 2.2 + 1) / 3)
    assert rows["ours"]["within"] == pytest.approx(2 / 3)
    assert (rows["ours"]["gradients_ratio"], rows["ours"]["wall_ratio"]) == (0.1, 0.25)
    assert (rows["DDN"]["worst"], rows["DDN"]["median"]) == (2.0, 1.0)
    assert rows["DDN"]["ours_shorter"] == pytest.approx(1 / 3)
    assert rows["ours"]["ours_longer"] == pytest.approx(1 / 3)


def test_ddn_as_a_distance_to_levels() -> None:
    """Planes have known distances; rows beyond the level have none, and neither has a level that is never met."""
    slopes = torch.tensor([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]])
    origin = torch.tensor([[0.0, 0.0], [0.0, 0.5], [7.0, 0.0]])
    found = row.ddn_distances(lambda z: (z * slopes).sum(1), origin, [2.0, 5.0], steps=300)
    assert found[:2].flatten().tolist() == pytest.approx([0.4, 1.0, 0.5, 2.0], rel=0.01)
    assert found[2].isinf().all()
    assert row.ddn_distances(lambda z: -z.square().sum(1), origin[:1], [1.0], steps=20).isinf().all()


def test_losses_that_other_tools_see_are_ours() -> None:
    snapshot = load_snapshot("embedded:runs/sgd_lr0.2_b16_seed0")
    model = model_with(snapshot.model, snapshot.model_args, snapshot.parameters)
    data = load_dataset("mnist", "train").subset(20, 0)
    psi, origin = row.log_loss_of_parameters(model, data)
    with torch.no_grad():
        each = torch.nn.functional.cross_entropy(model(data.images), data.labels, reduction="none")
        odds = row.log_odds_of_images(model, data.labels)(data.images)
        assert psi(origin).exp().item() == pytest.approx(each.mean().item(), rel=1e-4)
    assert torch.nn.functional.softplus(odds).tolist() == pytest.approx(each.tolist(), rel=1e-3, abs=1e-6)
    assert torch.nn.functional.softplus(torch.tensor(row.log_odds_of(0.7))).item() == pytest.approx(0.7)
