"""The sandwich d_X(ln 2) ≤ d_adv ≤ d_X(ln 10) of ten classes in ℓ2, against attacks of two other libraries.

Let d(·) be true distances. Where the margin is not negative, some wrong class is at least as probable as y, so
p_y ≤ 1/2 and CE ≥ ln 2: d(CE = ln 2) ≤ d(margin = 0). Where CE ≥ ln 10, p_y ≤ 1/10 is at most the mean of ten
probabilities, so some wrong class has at least as much: d(margin = 0) ≤ d(CE = ln 10). Everything measured, ours
and theirs, is the distance of a point that was found, an upper bound of the true one. What follows for it:

- Ours d(ln 2) ≤ the distance of every attack. The attack's point has CE ≥ ln 2, so the true d(ln 2) is no longer,
  and only a search that misses the nearest point can violate it. This is the sharp test.
- Ours d(ln 2) ≤ ours d(margin = 0) ≤ ours d(ln 10), for the same reason: the ray to the farther of the points
  crosses the nearer level set. Again a violation is a miss of the search, here of the smaller level.
- Ours at ln 10 are adversarials, and the attacks' points have CE ≥ ln 2: facts about points, whoever found them.

That an attack's distance ≤ ours d(ln 10) does *not* follow: an attack that misses may be longer. It is not tested.
"""

from __future__ import annotations

import importlib
import logging
import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from landscape.geometry.level_sets import LevelSetDistance, level_set_distance
from landscape.problem.directions import targeted_starts
from landscape.problem.input_objective import input_objective
from landscape.problem.losses import loss_by_name
from landscape.snapshots import load_snapshot
from landscape.study.problems import load_problem

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
pytest.importorskip("foolbox")
torchattacks: Any = pytest.importorskip("torchattacks")
rivals: Any = importlib.import_module("rivals_x")
benchmark: Any = importlib.import_module("level_set_x")

LOG = logging.getLogger(__name__)
SNAPSHOTS = ("adam_lr0.0015_b16_seed0", "sgd_lr0.2_b16_seed1")
LN2, LN10 = math.log(2), math.log(10)
# What the search may miss by, for all images but one in thirty, and for every one: a nearer basin that no start of
# ours leads to has been seen. Some images take 500 gradients a level; many 2000, less than the attacks together.
TOLERANCE, LIMIT, EXCEPTIONS = 0.03, 0.25, 1 / 30
BUDGET, RESTARTS = 500, 20
IMAGES, STEPS = 30, 300
MANY_IMAGES, MANY_STEPS, REFINEMENT = 500, 1000, 400
MANY_BUDGET, MANY_RESTARTS, MANY_EXCEPTIONS, MANY_LIMIT = 2000, 80, 1 / 100, 0.1
OTHER_CLASSES = 9

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:eagerpy", "ignore::UserWarning:foolbox"),
    pytest.mark.thorough,
]


@dataclass(frozen=True)
class Case:
    """Correctly classified images of a trained network, and our distances for them."""

    model: nn.Module
    x: Tensor
    y: Tensor
    cross_entropy: LevelSetDistance  # levels ln 2, ln 10
    margin: LevelSetDistance  # level 0

    def loss(self, name: str, images: Tensor) -> Tensor:
        with torch.no_grad():
            return loss_by_name(name)(self.model(images.reshape(self.x.shape).to(self.x.dtype)), self.y).double()

    def lower(self) -> Tensor:
        """d(ln 2), 0 where the image itself is beyond."""
        found = self.cross_entropy
        return torch.where(found.below_minimum[:, 0], 0.0, found.distance[:, 0])


def case(snapshot: str, images: int, budget: int, restarts: int) -> Case:
    problem = load_problem(load_snapshot(f"embedded:runs/{snapshot}", "last"), "cpu")
    x, y = benchmark.correct_images(problem.model, problem.test, images, seed=0)
    starts = targeted_starts(problem.model, x, y, OTHER_CLASSES)

    def search(loss: str, levels: list[float]) -> LevelSetDistance:
        phi = input_objective(problem.model, x, y, loss=loss)
        return level_set_distance(phi, levels, starts=starts, num_random=0, budget=budget, restarts=restarts)

    return Case(problem.model, x, y, search("cross_entropy", [LN2, LN10]), search("margin", [0.0]))


@pytest.fixture(scope="module", params=SNAPSHOTS)
def few(request: pytest.FixtureRequest) -> Case:
    return case(request.param, IMAGES, BUDGET, RESTARTS)


@pytest.fixture(scope="module", params=SNAPSHOTS)
def many(request: pytest.FixtureRequest) -> Case:
    return case(request.param, MANY_IMAGES, MANY_BUDGET, MANY_RESTARTS)


def carlini_wagner(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    found: Tensor = torchattacks.CW(network, c=10.0, steps=100, lr=0.05)(x, y)
    return found


def fast_adaptive_boundary(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    found: Tensor = torchattacks.FAB(network, norm="L2", eps=20.0, steps=15)(x, y)
    return found


# The two of torchattacks keep to the box [0, 1], which can only make them longer.
QUICK: dict[str, Callable[[], Any]] = {
    "DDN": lambda: rivals.ddn(STEPS),
    "FMN": lambda: rivals.fmn(2.0, STEPS),
    "DeepFool": lambda: rivals.deepfool(2.0),
    "Carlini-Wagner": lambda: carlini_wagner,
    "FAB": lambda: fast_adaptive_boundary,
}


def attacked(of: Case, attack: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rivals.find(attack, of.model, of.x, of.y, 2.0)


def check_not_longer(short: Tensor, long: Tensor, exceptions: float = EXCEPTIONS, limit: float = LIMIT) -> None:
    """``short`` ≤ ``long`` within the tolerance for almost all images, and within the limit for all."""
    ratio = short / long
    missed = {i: round(r, 4) for i, r in enumerate(ratio.tolist()) if not r <= 1 + TOLERANCE}
    assert len(missed) <= exceptions * len(ratio), missed
    assert all(r <= 1 + limit for r in missed.values()), missed


@pytest.mark.parametrize("name", QUICK)
def test_no_attack_is_nearer_than_ln_2(name: str, few: Case) -> None:
    found = attacked(few, QUICK[name]())
    assert torch.isfinite(found.distance).double().mean() > 0.8, "the attack failed: nothing is tested"
    check_not_longer(few.lower(), found.distance)
    assert few.loss("cross_entropy", found.points)[found.distance.isfinite()].min() >= LN2 - 1e-5


def test_the_boundary_lies_between_ln_2_and_ln_10(few: Case) -> None:
    check_not_longer(few.lower(), few.margin.distance[:, 0])
    check_not_longer(few.margin.distance[:, 0], few.cross_entropy.distance[:, 1])


def test_points_at_ln_10_are_adversarial(few: Case) -> None:
    points = few.cross_entropy.points[:, 1]
    assert few.loss("margin", points).min() >= 0
    assert (few.loss("cross_entropy", points) - LN10).abs().max() <= 1e-2


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_attack_is_nearer_on_many_images(many: Case) -> None:
    found: dict[str, Any] = {}
    for name, prepare in rivals.rivals(2.0, MANY_STEPS, REFINEMENT).items():
        found[name] = attacked(many, prepare(found))
        assert torch.isfinite(found[name].distance).double().mean() > 0.9  # DDN misses 6 % on one network
    for name, attack in found.items():
        ratio = (many.lower() / attack.distance).nan_to_num(0.0)
        beyond = (ratio > 1 + TOLERANCE).double().mean()
        LOG.info(
            "%s: nearer by over 3 %% for %.1f %% of images, at most %.3f times", name, 100 * beyond, ratio.max()
        )
        check_not_longer(many.lower(), attack.distance, MANY_EXCEPTIONS, MANY_LIMIT)


@pytest.mark.slow
def test_the_boundary_lies_between_on_many_images(many: Case) -> None:
    inner, boundary, outer = many.lower(), many.margin.distance[:, 0], many.cross_entropy.distance[:, 1]
    assert torch.isfinite(boundary).all()
    check_not_longer(inner, boundary)
    check_not_longer(boundary, outer)
