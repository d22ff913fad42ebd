"""The ladder: rungs by themselves, their worst case, its order, and the test that compares decisions."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import pytest
import scipy.stats
import torch
from small_runs import trained_cnn
from torch import Generator, Tensor, nn

from landscape.errors import ConfigurationError, ObjectiveError
from landscape.problem.datasets import load_dataset
from landscape.problem.model_sources import model_with
from landscape.robustness.accuracy import predict, robust_accuracy
from landscape.robustness.balls import Ball
from landscape.robustness.draws import Draws
from landscape.robustness.ladder import Ladder, accumulate, run_ladder
from landscape.robustness.mcnemar import mcnemar
from landscape.robustness.rungs import QUICK, ladder_rungs
from landscape.snapshots import find_runs, load_snapshot

EPS = {math.inf: (0.0, 0.05, 0.1), 2.0: (0.0, 0.5, 1.5)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    return trained_cnn(tmp_path_factory.mktemp("ladder") / "run")


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    test = load_dataset("mnist", "test")
    return test.images[:200], test.labels[:200]


@pytest.fixture(scope="module", params=[2.0, math.inf], ids=["l2", "linf"])
def ladder(request: pytest.FixtureRequest, model: nn.Sequential, data: tuple[Tensor, Tensor]) -> Ladder:
    norm = request.param
    return run_ladder(model, *data, EPS[norm], norm, ladder_rungs(norm, QUICK))


def test_rungs_are_in_the_order_of_the_method() -> None:
    names = [rung.name for rung in ladder_rungs(2.0)]
    assert names == [
        "clean",
        "random_noise",
        "fgsm_published",
        "fgsm_exact",
        "fgsm_margin",
        "fgsm_random_start",
        "mim",
        "pgd_log_odds",
        "pgd_margin",
        "apgd_targeted",
        "fab",
        "nearest_boundary",
        "square",
        "carlini_wagner",
    ]
    assert [rung.name for rung in ladder_rungs(math.inf)] == names[:-1]
    assert [rung.name for rung in ladder_rungs() if not rung.white_box] == ["clean", "random_noise", "square"]


def test_radius_zero_is_clean_on_every_rung(
    ladder: Ladder, model: nn.Sequential, data: tuple[Tensor, Tensor]
) -> None:
    clean = predict(model, data[0]) == data[1]
    for name in ladder.names:
        assert torch.equal(ladder.of(name)[0], clean), name
    assert torch.equal(ladder.of("clean")[2], clean)


def test_the_worst_case_is_below_every_rung_and_falls(ladder: Ladder) -> None:
    worst = ladder.worst
    assert (worst[None] <= ladder.correct).all()
    assert (worst[1:] <= worst[:-1]).all()
    assert torch.equal(ladder.worst_accuracy, worst.double().mean(1))
    assert (ladder.worst_accuracy[None] <= ladder.accuracy).all()
    assert 0 < ladder.worst_accuracy[1] < ladder.worst_accuracy[0]


def test_the_nearest_wrong_image_says_who_stands(ladder: Ladder) -> None:
    beyond = ladder.nearest[None] > torch.tensor(ladder.eps, dtype=torch.float64)[:, None]
    assert (beyond == ladder.worst).double().mean() > 0.998  # ties are decided anew in other batches
    assert torch.equal(ladder.accuracy_beyond(ladder.eps), beyond.double().mean(1))
    between = ladder.accuracy_beyond([0.0, 0.5 * ladder.eps[1], ladder.eps[1], 1.2 * ladder.eps[2]])
    assert (between.diff() <= 0).all() and between[1] < between[0]
    assert (ladder.distance[0] == 0).equal(~ladder.of("clean")[0])


def test_no_rung_reaches_further_than_the_search_for_the_boundary_by_much(ladder: Ladder) -> None:
    boundary = ladder.distance[ladder.names.index("nearest_boundary")]
    others = torch.stack([ladder.distance[i] for i, n in enumerate(ladder.names) if n != "nearest_boundary"])
    assert boundary.isfinite().all()
    assert (boundary <= 1.25 * others.amin(0)).double().mean() > 0.95


def test_stronger_ideas_leave_fewer_standing(ladder: Ladder) -> None:
    accuracy = dict(zip(ladder.names, ladder.accuracy[:, 2].tolist(), strict=True))
    assert accuracy["random_noise"] >= accuracy["fgsm_exact"] > accuracy["pgd_log_odds"]
    assert accuracy["pgd_log_odds"] >= ladder.worst_accuracy[2]
    assert accuracy["clean"] >= accuracy["random_noise"] - 0.02


def test_accuracies_carry_their_errors(ladder: Ladder) -> None:
    p = ladder.accuracy
    assert torch.allclose(ladder.standard_error, (p * (1 - p) / 200).sqrt())
    assert ladder.worst_standard_error.shape == (3,)


def test_costs_are_counted(ladder: Ladder, data: tuple[Tensor, Tensor]) -> None:
    count = len(data[1])
    cost = {name: ladder.num_gradients[i] for i, name in enumerate(ladder.names)}
    assert cost["clean"].sum() == cost["random_noise"].sum() == cost["square"].sum() == 0
    assert cost["fgsm_exact"].sum() == count, "one gradient serves all radii"
    assert 0 < cost["pgd_log_odds"][2] <= count * QUICK.pgd_steps * QUICK.pgd_restarts
    assert ladder.num_queries[ladder.names.index("square")].sum() > 0


def test_batches_and_subsets_change_nothing(model: nn.Sequential, data: tuple[Tensor, Tensor]) -> None:
    names = ("random_noise", "fgsm_exact", "pgd_margin", "square")
    rungs = [rung for rung in ladder_rungs(effort=QUICK) if rung.name in names]
    done: list[int] = []
    whole = run_ladder(model, *data, [0.1], rungs=rungs)
    split = run_ladder(model, *data, [0.1], rungs=rungs, batch=64, advance=done.append)
    assert (whole.correct == split.correct).double().mean() > 0.998
    assert sum(done) == len(rungs) * len(data[1]) and max(done) == 64
    rows = torch.arange(50, 120)
    part = run_ladder(model, data[0][rows], data[1][rows], [0.1], rungs=rungs, draws=Draws(rows))
    assert (whole.correct[:, :, rows] == part.correct).double().mean() > 0.995


def test_published_rung_is_the_published_accuracy(model: nn.Sequential, data: tuple[Tensor, Tensor]) -> None:
    rungs = [rung for rung in ladder_rungs() if rung.name == "fgsm_published"]
    found = run_ladder(model, *data, [0.1], rungs=rungs, batch=70)
    expected = robust_accuracy(model, *data, 0.1, "cross_entropy_as_published", batch=70)
    assert torch.equal(found.correct[0, 0], expected.correct)


def test_rungs_that_cannot_run_are_left_out_with_the_reason(
    data: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "torchattacks" else find(n))
    net = nn.Linear(784, 10)
    found = run_ladder(net, data[0][:5].flatten(1), data[1][:5], [0.1], rungs=ladder_rungs(effort=QUICK))
    assert set(found.left_out) == {"fab", "square"}
    assert "pip install" in found.left_out["fab"] and "(N, C, H, W)" in found.left_out["square"]
    with pytest.raises(ConfigurationError, match="pip install"):
        found.of("fab")
    with pytest.raises(ConfigurationError, match="the rungs are"):
        found.of("nonsense")
    with pytest.raises(ConfigurationError, match="not measured"):
        found.at(0.2)


def test_bad_ladders_are_refused(model: nn.Sequential, data: tuple[Tensor, Tensor]) -> None:
    x, y = data[0][:4], data[1][:4]
    cases: list[dict[str, Any]] = [
        {"eps": []},
        {"eps": [-0.1]},
        {"eps": [0.1], "norm": 1},
        {"eps": [0.1], "rungs": []},
        {"eps": [0.1], "rungs": ladder_rungs(2.0)},
        {"eps": [0.1], "batch": 0},
    ]
    for case in cases:
        with pytest.raises(ConfigurationError):
            run_ladder(model, x, y, **case)
    with pytest.raises(ObjectiveError):
        run_ladder(model, x, y[:3], [0.1])


def test_what_fell_at_a_radius_has_fallen_at_larger_ones() -> None:
    stands = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 1], [0, 1, 1, 1]]).bool()
    found = accumulate(stands, [0.2, 0.1, 0.3])
    assert found.int().tolist() == [[1, 1, 0, 1], [1, 1, 1, 1], [0, 1, 0, 1]]


def test_mcnemar_against_the_binomial_law() -> None:
    first = torch.tensor([1] * 9 + [0] * 2 + [1] * 30 + [0] * 5).bool()
    second = torch.tensor([0] * 9 + [1] * 2 + [1] * 30 + [0] * 5).bool()
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (9, 2)
    assert found.p_value == pytest.approx(2 * scipy.stats.binom.cdf(2, 11, 0.5))
    assert mcnemar(second, first).p_value == found.p_value
    assert mcnemar(first, first).p_value == 1
    for other in (second[:-1], second.int()):
        with pytest.raises(ConfigurationError):
            mcnemar(first, other)


def test_mcnemar_is_right_under_the_null() -> None:
    random = Generator().manual_seed(0)
    draws = torch.rand(500, 2, 200, generator=random) < 0.7
    values = torch.tensor([mcnemar(*pair).p_value for pair in draws])
    assert 0.02 < (values < 0.05).double().mean() < 0.06


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.thorough) for part in range(1, 8))])
def test_order_holds_for_every_sample_of_every_shipped_run(part: int) -> None:
    """Worst case ≤ each rung and falls with ε, sample by sample; noise leaves at least what FGSM leaves."""
    names = ("clean", "random_noise", "fgsm_published", "fgsm_exact", "pgd_margin")
    rungs = [rung for rung in ladder_rungs(effort=QUICK) if rung.name in names]
    test = load_dataset("mnist", "test").subset(200, 0)
    runs = find_runs(["embedded:runs", "embedded:masking"])
    assert len(runs) == 62
    for run in runs[part::8]:
        snapshot = load_snapshot(run)
        model = model_with(snapshot.model, snapshot.model_args, snapshot.parameters)
        found = run_ladder(model, test.images, test.labels, [0.0, 0.1, 0.2, 0.3], rungs=rungs)
        assert (found.worst[None] <= found.correct).all(), run
        assert (found.worst[1:] <= found.worst[:-1]).all(), run
        accuracy = {name: found.of(name).double().mean(1) for name in names}
        assert (found.worst_accuracy.diff() <= 0).all(), run
        # By itself a rung may lose at a larger radius what it broke at a smaller one: ten steps are longer there.
        assert (accuracy["pgd_margin"].diff() <= 0.05).all(), run
        assert (accuracy["random_noise"] >= accuracy["fgsm_exact"] - 0.005).all(), run


def test_a_ball_is_one_radius_and_one_norm() -> None:
    assert Ball(0.1) == Ball(0.1, math.inf) != Ball(0.1, 2.0)
