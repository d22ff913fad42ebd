"""Attacks against those of others, against closed forms, and against what every attack must keep to."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from oracles import linear_model
from small_runs import trained_cnn
from torch import Generator, Tensor, nn

from landscape.errors import ConfigurationError, ObjectiveError
from landscape.problem.datasets import load_dataset
from landscape.robustness.accuracy import margins, predict, robust_accuracy
from landscape.robustness.apgd import _checkpoints, apgd, apgd_targeted, ranked_classes
from landscape.robustness.ascent import Ascent, mim, pgd
from landscape.robustness.balls import Ball, distances
from landscape.robustness.draws import Draws, random_points
from landscape.robustness.minimum_norm import carlini_wagner, fab
from landscape.robustness.single_step import fast_gradient, random_noise, random_start_fast_gradient
from landscape.robustness.square import square
from landscape.robustness.targets import AttackResult, difference_ratio

EPS = {math.inf: 0.1, 2.0: 1.5}
Attack = Callable[[nn.Module, Tensor, Tensor, Ball, Draws], AttackResult]

ATTACKS: dict[str, Attack] = {
    "noise": random_noise,
    "published": lambda m, x, y, b, d: fast_gradient(m, x, y, [b], "cross_entropy_as_published")[0],
    "exact": lambda m, x, y, b, d: fast_gradient(m, x, y, [b])[0],
    "margin": lambda m, x, y, b, d: fast_gradient(m, x, y, [b], "margin")[0],
    "random start": random_start_fast_gradient,
    "mim": lambda m, x, y, b, d: mim(m, x, y, b, steps=5),
    "pgd": lambda m, x, y, b, d: pgd(m, x, y, b, Ascent(steps=5, restarts=2), d),
    "pgd margin": lambda m, x, y, b, d: pgd(m, x, y, b, Ascent("margin", 5), d),
    "apgd": lambda m, x, y, b, d: apgd(m, x, y, b, d, steps=10),
    "apgd targeted": lambda m, x, y, b, d: apgd_targeted(m, x, y, b, d, steps=5, classes=2),
    "square": lambda m, x, y, b, d: square(m, x, y, b, d, queries=20),
    "fab": lambda m, x, y, b, d: fab(m, x, y, [b], steps=7)[0],
    "carlini wagner": lambda m, x, y, b, d: carlini_wagner(m, x, y, [b], steps=10, searches=2)[0],
}
CASES = [(name, norm) for name in ATTACKS for norm in EPS if name != "carlini wagner" or norm == 2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    return trained_cnn(tmp_path_factory.mktemp("attacks") / "run")


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    test = load_dataset("mnist", "test")
    return test.images[:1000], test.labels[:1000]


@pytest.fixture(scope="module")
def some(data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return data[0][:60], data[1][:60]


def numbered(count: int, seed: int = 0) -> Draws:
    return Draws(torch.arange(count), seed)


def torchattacks() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its dependencies
        return pytest.importorskip("torchattacks")


def same_share(first: Tensor, second: Tensor) -> float:
    return (first == second).double().mean().item()


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_results_are_what_they_say(
    model: nn.Sequential, some: tuple[Tensor, Tensor], name: str, norm: float
) -> None:
    """Inside the ball and the range; fell says what is decided; some samples fall and the attack was paid for."""
    x, y = some
    result = ATTACKS[name](model, x, y, Ball(EPS[norm], norm), numbered(len(y)))
    assert result.images.min() >= 0 and result.images.max() <= 1
    assert distances(result.images, x, norm).max() <= EPS[norm] * (1 + 1e-6)
    assert torch.equal(result.fell, predict(model, result.images) != y)
    assert (result.num_gradients + result.num_queries >= 1).all()
    clean = predict(model, x) != y
    assert result.fell.sum() >= clean.sum() + (0 if name in ("noise", "square") else 6)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_radius_zero_is_the_clean_decision(
    model: nn.Sequential, some: tuple[Tensor, Tensor], name: str, norm: float
) -> None:
    x, y = some
    result = ATTACKS[name](model, x, y, Ball(0.0, norm), numbered(len(y)))
    assert torch.equal(result.images, x)
    assert torch.equal(result.fell, predict(model, x) != y)


@pytest.mark.parametrize(("name", "norm"), [case for case in CASES if case[0] != "published"])
def test_samples_do_not_know_of_each_other(
    model: nn.Sequential, some: tuple[Tensor, Tensor], name: str, norm: float
) -> None:
    """Neither the batch nor the order matters; in float64, where rounding does not decide."""
    net, x, y = copy.deepcopy(model).double(), some[0].double(), some[1]
    if name == "fab":  # which computes in float32
        net, x = model, some[0]
    ball = Ball(EPS[norm], norm)
    whole = ATTACKS[name](net, x, y, ball, numbered(len(y)))
    order = torch.randperm(len(y), generator=Generator().manual_seed(3))
    for rows in (order, order[:7], order[-1:]):
        part = ATTACKS[name](net, x[rows], y[rows], ball, Draws(rows))
        assert torch.equal(part.fell, whole.fell[rows])
        assert torch.equal(part.num_gradients, whole.num_gradients[rows]) or name == "fab"
        assert torch.allclose(part.images, whole.images[rows], atol=1e-5 if name != "fab" else 1e-2)


@pytest.mark.parametrize(("name", "norm"), CASES)
@pytest.mark.parametrize("training", [False, True])
def test_nothing_of_the_caller_changes(
    model: nn.Sequential, some: tuple[Tensor, Tensor], name: str, norm: float, training: bool
) -> None:
    net = copy.deepcopy(model).train(training)
    before = [p.detach().clone() for p in net.parameters()]
    x, y = some[0][:10].clone(), some[1][:10].clone()
    torch.manual_seed(5)
    state = torch.get_rng_state(), str(np.random.get_state())
    ATTACKS[name](net, x, y, Ball(EPS[norm], norm), numbered(10))
    assert torch.equal(torch.get_rng_state(), state[0])
    assert str(np.random.get_state()) == state[1]
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert all(torch.equal(p, old) for p, old in zip(net.parameters(), before, strict=True))
    assert net.training is training and all(m.training is training for m in net.modules())
    assert torch.equal(x, some[0][:10]) and not x.requires_grad and torch.equal(y, some[1][:10])


@pytest.mark.parametrize("name", ["noise", "random start", "pgd", "apgd", "square"])
def test_random_numbers_are_those_of_the_seed(
    model: nn.Sequential, some: tuple[Tensor, Tensor], name: str
) -> None:
    x, y, ball = *some, Ball(0.02)
    first, again, other = (ATTACKS[name](model, x, y, ball, numbered(len(y), seed)).images for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", ["margin", "pgd margin", "apgd targeted", "square"])
def test_scaled_logits_change_nothing(model: nn.Sequential, some: tuple[Tensor, Tensor], name: str) -> None:
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in scaled[-1].parameters():
            parameter.mul_(64)  # a power of two, so that nothing rounds differently
    results = [ATTACKS[name](net, *some, Ball(0.1), numbered(60)) for net in (model, scaled)]
    assert torch.equal(results[0].fell, results[1].fell)
    if name != "apgd targeted":  # whose divisor has an absolute term
        assert torch.equal(results[0].images, results[1].images)


# ---- closed forms


@pytest.mark.parametrize("norm", [2.0, math.inf])
@pytest.mark.parametrize("name", ["margin", "pgd margin", "apgd targeted", "carlini wagner"])
def test_linear_classifiers_fall_at_their_distance(norm: float, name: str) -> None:
    """Margin m_k towards class k falls iff m_k < ε ‖w_y − w_k‖_q for some k, far from the ends of the range."""
    if name == "carlini wagner" and norm != 2:
        return
    random = Generator().manual_seed(1)
    weight, bias = (torch.randn(s, generator=random, dtype=torch.float64) for s in ((2, 12), (2,)))
    net = linear_model(weight, bias * 0.1 - weight.sum(1) * 0.5)
    x = 0.5 + 0.05 * torch.randn(400, 12, generator=random, dtype=torch.float64).clamp(-3, 3)
    y = predict(net, x)
    dual = torch.linalg.vector_norm(weight[0] - weight[1], 1 if norm == math.inf else 2)
    distance = margins(net, x, y) / dual
    eps = distance.median().item()
    assert 1e-3 < eps < 0.3
    attacks = ATTACKS | {
        "pgd margin": lambda m, x, y, b, d: pgd(m, x, y, b, Ascent("margin", 5, restarts=0)),
        "carlini wagner": lambda m, x, y, b, d: carlini_wagner(m, x, y, [b], 200, 6, 0.01)[0],
        "apgd targeted": lambda m, x, y, b, d: apgd_targeted(m, x, y, b, d, steps=50),
    }
    fell = attacks[name](net, x, y, Ball(eps, norm), numbered(len(y))).fell
    slack = {"carlini wagner": 0.02, "apgd targeted": 1e-3}.get(name, 1e-6)
    sure = (distance - eps).abs() > slack * eps
    assert sure.sum() > 300
    assert torch.equal(fell[sure], (distance < eps)[sure])


def test_projections_are_nearest_points_in_the_ball() -> None:
    x = torch.tensor([[0.5, 0.5], [0.9, 0.1]], dtype=torch.float64)
    points = torch.tensor([[3.5, 4.5], [0.9, 0.2]], dtype=torch.float64)
    two = Ball(0.1, 2.0).project(points, x)
    assert torch.allclose(two, torch.tensor([[0.56, 0.58], [0.9, 0.2]], dtype=torch.float64))
    assert torch.allclose(Ball(0.2).project(points, x), torch.tensor([[0.7, 0.7], [0.9, 0.2]]).double())
    assert torch.allclose(Ball(9.0, 2.0).project(points, x)[0], torch.ones(2).double())


def test_steepest_directions_survive_tiny_gradients() -> None:
    gradient = torch.tensor([[3e-30, -4e-30], [0.0, 0.0]])
    assert torch.allclose(Ball(1, 2.0).steepest(gradient), torch.tensor([[0.6, -0.8], [0.0, 0.0]]))
    assert Ball(1).steepest(gradient).tolist() == [[1, -1], [0, 0]]


def test_difference_ratio_by_hand() -> None:
    logits = torch.tensor([[5.0, 1.0, 3.0, 2.0, 0.0]])
    found = difference_ratio(logits, torch.tensor([0]), torch.tensor([2]))
    assert found.item() == pytest.approx((3 - 5) / (5 - (2 + 1) / 2))
    few = difference_ratio(logits[:, :3], torch.tensor([0]), torch.tensor([1]))
    assert few.item() == -4


def test_classes_are_tried_from_the_most_likely_down() -> None:
    logits = torch.tensor([[5.0, 1.0, 3.0], [0.0, 1.0, 2.0]])
    assert torch.stack(ranked_classes(logits, torch.tensor([0, 1])), 1).tolist() == [[2, 1], [2, 0]]


def test_checkpoints_are_those_of_the_paper() -> None:
    """p₁ = 0.22, p_{j+1} = p_j + max(p_j − p_{j−1} − 0.03, 0.06), in steps of 100."""
    assert [at for at, _ in _checkpoints(100)] == [22, 41, 57, 70, 80, 87, 93, 99]


# ---- what makes an attack strong


class Peak(nn.Module):
    """Adversarial only where the first pixel is within 0.004 of 0.6137; the way there is smooth."""

    def forward(self, x: Tensor) -> Tensor:
        s = x.flatten(1)[:, 0] - 0.6137
        return torch.stack([0 * s, 0.004**2 - s**2], 1)


class TwoWays(nn.Module):
    """Class 1 is near and cannot be reached; class 2 is less likely, and can."""

    def forward(self, x: Tensor) -> Tensor:
        s = x.flatten(1)[:, 0]
        return torch.stack([0 * s, 0 * s - 0.1, 5 * (s - 0.55)], 1)


def test_steps_of_apgd_shrink_until_they_fit() -> None:
    x, y = torch.full((5, 1), 0.5), torch.zeros(5, dtype=torch.int64)
    ball, draws = Ball(0.4), numbered(5)
    assert apgd(Peak(), x, y, ball, draws, "margin", steps=60).fell.all()
    assert not pgd(Peak(), x, y, ball, Ascent("margin", 60, step_size=0.4), draws).fell.all()


def test_every_class_is_tried() -> None:
    x, y = torch.full((5, 1), 0.5), torch.zeros(5, dtype=torch.int64)
    net = TwoWays()
    assert not apgd_targeted(net, x, y, Ball(0.02), steps=5).fell.any()
    tried = [apgd_targeted(net, x, y, Ball(0.07), steps=5, classes=count) for count in (1, None)]
    assert tried[1].fell.all()
    assert tried[0].num_gradients.max() < tried[1].num_gradients.max()


def test_streams_differ_between_samples_purposes_and_starts() -> None:
    draws = numbered(3)
    numbers = torch.cat([draws.uniform((4,), *purpose) for purpose in (("a", 0), ("a", 1), ("b", 0))])
    assert len({tuple(row) for row in numbers.tolist()}) == 9
    x = torch.full((3, 8), 0.5)
    for ball in (Ball(0.1), Ball(0.1, 2.0)):
        points = [random_points(x, ball, draws, "start", restart) for restart in range(200)]
        lengths = distances(torch.cat(points), x.repeat(200, 1), ball.norm)
        assert 0.09 < lengths.max() <= 0.1 + 1e-7
        assert len(torch.cat(points).unique(dim=0)) == 600


def test_a_random_start_is_half_a_step(model: nn.Sequential, some: tuple[Tensor, Tensor]) -> None:
    """Half a step of random sign and half a step of the gradient's: together a step, or nothing."""
    x, y = some[0].clamp(0.2, 0.8), some[1]
    offset = (random_start_fast_gradient(model, x, y, Ball(0.1), numbered(60)).images - x).abs()
    assert torch.minimum(offset, (offset - 0.1).abs()).quantile(0.9) < 1e-6
    assert 0.3 < (offset > 0.05).double().mean() < 0.7


def test_every_restart_starts_elsewhere(model: nn.Sequential, some: tuple[Tensor, Tensor]) -> None:
    x, y, ball = *some, Ball(0.03)
    once, twice = (pgd(model, x, y, ball, Ascent(steps=1, restarts=count)) for count in (1, 2))
    stands = ~twice.fell
    assert stands.sum() > 20
    assert not torch.allclose(once.images[stands], twice.images[stands], atol=1e-3)
    assert (twice.fell | ~once.fell).all()


# ---- other libraries


def test_fgsm_equals_robust_accuracy(model: nn.Sequential, data: tuple[Tensor, Tensor]) -> None:
    for loss in ("cross_entropy_as_published", "log_odds", "margin"):
        results = fast_gradient(model, *data, [Ball(e) for e in (0.05, 0.1)], loss)
        for eps, result in zip((0.05, 0.1), results, strict=True):
            assert torch.equal(~result.fell, robust_accuracy(model, *data, eps, loss).correct)


def theirs_at_any_step(attack: Callable[[int], Tensor], model: nn.Module, y: Tensor, steps: int) -> Tensor:
    """Whether one of the iterates of a deterministic attack is adversarial; ours stops there."""
    fell = [predict(model, attack(count)) != y for count in range(1, steps + 1)]
    return torch.stack(fell).any(0)


@pytest.mark.thorough
@pytest.mark.parametrize("norm", [2.0, math.inf])
def test_pgd_falls_where_torchattacks_does(model: nn.Sequential, data: tuple[Tensor, Tensor], norm: float) -> None:
    library, (x, y), steps = torchattacks(), data, 6
    eps, alpha = EPS[norm], EPS[norm] / 4
    kind = library.PGD if norm == math.inf else library.PGDL2
    theirs = theirs_at_any_step(
        lambda count: kind(copy.deepcopy(model), eps, alpha, count, random_start=False)(x, y), model, y, steps
    )
    ours = pgd(model, x, y, Ball(eps, norm), Ascent(steps=steps, step_size=alpha, restarts=0))
    clean = predict(model, x) != y
    assert 0.2 < theirs.double().mean() < 0.98
    assert same_share(ours.fell, theirs | clean) >= 0.999


@pytest.mark.parametrize("norm", [2.0, math.inf])
@pytest.mark.thorough
def test_pgd_falls_where_foolbox_does(model: nn.Sequential, data: tuple[Tensor, Tensor], norm: float) -> None:
    foolbox = pytest.importorskip("foolbox")
    (x, y), steps, eps = data, 6, EPS[norm]
    kinds = {2.0: foolbox.attacks.L2PGD, math.inf: foolbox.attacks.LinfPGD}
    net = foolbox.PyTorchModel(copy.deepcopy(model).eval(), bounds=(0, 1), device="cpu")

    def attack(count: int) -> Tensor:
        run = kinds[norm](abs_stepsize=eps / 4, steps=count, random_start=False)
        images: Tensor = run.run(net, x, y, epsilon=eps)
        return images

    ours = pgd(model, x, y, Ball(eps, norm), Ascent(steps=steps, step_size=eps / 4, restarts=0))
    theirs = theirs_at_any_step(attack, model, y, steps)
    assert same_share(ours.fell, theirs | (predict(model, x) != y)) >= 0.999


@pytest.mark.thorough
def test_mim_falls_where_torchattacks_does(model: nn.Sequential, data: tuple[Tensor, Tensor]) -> None:
    library, (x, y), eps, steps = torchattacks(), data, 0.1, 6
    theirs = theirs_at_any_step(
        lambda count: library.MIFGSM(copy.deepcopy(model), eps, eps / steps, count)(x, y), model, y, steps
    )
    ours = mim(model, x, y, Ball(eps), steps=steps)
    assert 0.2 < theirs.double().mean() < 0.98
    assert same_share(ours.fell, theirs | (predict(model, x) != y)) >= 0.999
    without = pgd(model, x, y, Ball(eps), Ascent(steps=steps, step_size=eps / steps, restarts=0))
    assert not torch.equal(without.images, ours.images)


def art_iterates(kind: str, model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int) -> Tensor:
    """Where an iterate of an attack of the Adversarial Robustness Toolbox is adversarial."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its optional dependencies
        pytest.importorskip("art")
        from art.attacks import evasion
        from art.estimators.classification import PyTorchClassifier

        settings = {
            "input_shape": tuple(x.shape[1:]),
            "nb_classes": 10,
            "clip_values": (0, 1),
            "device_type": "cpu",
        }
        net = PyTorchClassifier(copy.deepcopy(model), nn.CrossEntropyLoss(reduction="sum"), **settings)

        def attack(count: int) -> Tensor:
            options = {"eps": eps, "eps_step": eps / steps, "max_iter": count, "verbose": False, "batch_size": 500}
            return torch.from_numpy(getattr(evasion, kind)(net, **options).generate(x.numpy(), y.numpy()))

        return theirs_at_any_step(attack, model, y, steps)


@pytest.mark.parametrize(
    ("kind", "decay"), [("ProjectedGradientDescentPyTorch", 0.0), ("MomentumIterativeMethod", 1.0)]
)
def test_ascents_fall_where_those_of_art_do(
    model: nn.Sequential, data: tuple[Tensor, Tensor], kind: str, decay: float
) -> None:
    (x, y), eps, steps = data, 0.1, 4
    theirs = art_iterates(kind, model, x, y, eps, steps)
    ascent = Ascent(steps=steps, step_size=eps / steps, restarts=0, decay=decay)
    assert same_share(pgd(model, x, y, Ball(eps), ascent).fell, theirs | (predict(model, x) != y)) >= 0.999


def test_fgsm_falls_where_that_of_foolbox_and_art_does(model: nn.Sequential, data: tuple[Tensor, Tensor]) -> None:
    foolbox, (x, y), eps = pytest.importorskip("foolbox"), data, 0.1
    net = foolbox.PyTorchModel(copy.deepcopy(model).eval(), bounds=(0, 1), device="cpu")
    fell = fast_gradient(model, x, y, [Ball(eps)])[0].fell
    theirs = predict(model, foolbox.attacks.LinfFastGradientAttack().run(net, x, y, epsilon=eps)) != y
    moderate = margins(model, x, y) < 15  # beyond, their cross-entropy rounds
    assert moderate.double().mean() > 0.5
    assert same_share(fell[moderate], theirs[moderate]) >= 0.999
    art = art_iterates("ProjectedGradientDescentPyTorch", model, x, y, eps, 1)
    assert same_share(fell[moderate], art[moderate]) >= 0.999


@pytest.mark.parametrize("norm", [2.0, math.inf])
@pytest.mark.thorough
def test_no_weaker_than_torchattacks(model: nn.Sequential, data: tuple[Tensor, Tensor], norm: float) -> None:
    """Where the random numbers differ, so may single samples; the numbers of samples must not."""
    library, (x, y) = torchattacks(), (data[0][:300], data[1][:300])
    ball, names = Ball(EPS[norm] / 3, norm), {2.0: "L2", math.inf: "Linf"}
    settings = {"norm": names[norm], "eps": ball.eps}
    pairs = {
        "apgd": (
            apgd_targeted(model, x, y, ball, steps=15, classes=3),
            library.APGDT(copy.deepcopy(model), steps=15, n_classes=4, **settings),
        ),
        "square": (
            square(model, x, y, ball, queries=200),
            library.Square(copy.deepcopy(model), n_queries=200, **settings),
        ),
    }
    clean = (predict(model, x) != y).sum()
    for name, (ours, attack) in pairs.items():
        with torch.random.fork_rng(devices=[]):
            theirs = (predict(model, attack(x, y)) != y).sum()
        assert theirs > clean + 5, name
        assert ours.fell.sum() >= theirs - 6, name


@pytest.mark.parametrize("norm", [2.0, math.inf])
def test_fab_is_that_of_torchattacks(model: nn.Sequential, some: tuple[Tensor, Tensor], norm: float) -> None:
    """At every radius the decisions of their attack with that radius; the first pass loses nothing."""
    library, (x, y) = torchattacks(), some
    radii = [0.5 * EPS[norm], EPS[norm]]
    name = {2.0: "L2", math.inf: "Linf"}[norm]
    for radius, ours in zip(radii, fab(model, x, y, [Ball(r, norm) for r in radii], steps=12), strict=True):
        attack = library.FAB(copy.deepcopy(model), norm=name, eps=radius, steps=12)
        with torch.random.fork_rng(devices=[]):
            theirs = predict(model, attack(x, y)) != y
        assert 5 < theirs.sum() < 60
        assert (ours.fell == theirs).sum() >= 59


@pytest.mark.thorough
def test_carlini_wagner_finds_nearer_images_than_torchattacks(
    model: nn.Sequential, some: tuple[Tensor, Tensor]
) -> None:
    library, (x, y) = torchattacks(), some
    radii = (0.5, 0.75, 1.0, 1.5)
    ours = carlini_wagner(model, x, y, [Ball(r, 2.0) for r in radii])
    images = library.CW(copy.deepcopy(model), c=1, steps=100)(x, y)
    for radius, result in zip(radii, ours, strict=True):
        theirs = (predict(model, images) != y) & (distances(images, x, 2) <= radius)
        assert result.fell.sum() >= theirs.sum()
    ascent = pgd(model, x, y, Ball(radii[-1], 2.0), Ascent("margin"))
    assert ours[-1].fell.sum() >= ascent.fell.sum() - 2 > 20


# ---- bad input


def test_bad_input_is_refused(model: nn.Sequential, some: tuple[Tensor, Tensor]) -> None:
    x, y, ball = *some, Ball(0.1)
    for wrong in (-0.1, math.inf, math.nan):
        with pytest.raises(ConfigurationError, match="attack radius"):
            Ball(wrong)
    with pytest.raises(ConfigurationError, match="norm 1"):
        Ball(0.1, 1)
    with pytest.raises(ConfigurationError, match=r"\[0, 1\]"):
        pgd(model, x + 0.5, y, ball)
    with pytest.raises(ObjectiveError):
        pgd(model, x, y[:3], ball)
    with pytest.raises(ConfigurationError, match="indices"):
        pgd(model, x, y, ball, draws=numbered(3))
    with pytest.raises(ConfigurationError, match="whole number"):
        Draws(torch.zeros(3))
    for changes in ({"steps": 0}, {"step_size": -1.0}, {"restarts": -1}, {"loss": "hinge"}):
        with pytest.raises(ConfigurationError):
            Ascent(**changes)
    refused: Sequence[Callable[[], object]] = (
        lambda: apgd(model, x, y, ball, steps=0),
        lambda: square(model, x, y, ball, queries=0),
        lambda: square(model, x.flatten(1), y, ball),
        lambda: carlini_wagner(model, x, y, [ball]),
        lambda: carlini_wagner(model, x, y, []),
        lambda: fab(model, x, y, [ball, Ball(0.1, 2.0)]),
    )
    for call in refused:
        with pytest.raises(ConfigurationError):
            call()


def test_without_torchattacks_fab_says_how_to_get_it(
    model: nn.Sequential, some: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(ConfigurationError, match="pip install"):
        fab(model, *some, [Ball(0.1)])
