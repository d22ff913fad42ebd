"""The masking audit on faults that are put in on purpose, and on networks that have none."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch
from oracles import linear_model
from small_runs import trained_cnn
from torch import Generator, Tensor, nn

from landscape.errors import ConfigurationError, ObjectiveError
from landscape.problem.datasets import load_dataset
from landscape.problem.losses import cross_entropy, log_odds
from landscape.problem.model_sources import model_with
from landscape.problem.models import build_model, initialise
from landscape.robustness.audit import masking_audit, transferred
from landscape.robustness.balls import Ball
from landscape.robustness.draws import Draws
from landscape.robustness.fgsm import fgsm
from landscape.robustness.ladder import Ladder, run_ladder
from landscape.robustness.masking import GradientHealth, gradient_health
from landscape.robustness.rungs import QUICK, Effort, Rung, ladder_rungs
from landscape.robustness.verdict import ARITHMETIC, GRADIENT, SOUND, compare, verdict
from landscape.snapshots import load_snapshot

EPS = 0.1
COUNT = 300


class SteepSigmoid(nn.Module):
    """A step in all but name: its derivative is lost nearly everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(3000 * x)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    return trained_cnn(tmp_path_factory.mktemp("audit") / "run")


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    test = load_dataset("mnist", "test")
    return test.images[:COUNT], test.labels[:COUNT]


@pytest.fixture(scope="module")
def confident(model: nn.Sequential) -> nn.Sequential:
    return scaled(model, 50)


def scaled(model: nn.Sequential, factor: float) -> nn.Sequential:
    """The same decisions with larger margins."""
    net = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in net[-1].parameters():
            parameter.mul_(factor)
    return net


def fit(net: nn.Module, parameters: Iterable[nn.Parameter], epochs: int, count: int, eps: float = 0) -> None:
    """Train with Adam; with ε, on images of one gradient step from a random start (Wong et al. 2020)."""
    train, random = load_dataset("mnist", "train"), Generator().manual_seed(0)
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    for _ in range(epochs):
        for rows in torch.randperm(count, generator=random).split(64):
            x, y = train.images[rows], train.labels[rows]
            if eps:
                start = eps * (2 * torch.rand(x.shape, generator=random) - 1)
                point = (x + start).clamp(0, 1).requires_grad_()
                (gradient,) = torch.autograd.grad(cross_entropy(net(point), y).sum(), point)
                x = (x + (start + 1.25 * eps * gradient.sign()).clamp(-eps, eps)).clamp(0, 1)
            optimizer.zero_grad()
            cross_entropy(net(x), y).mean().backward()
            optimizer.step()


@pytest.fixture(scope="module")
def defended() -> nn.Module:
    net = build_model("cnn")
    initialise(net, Generator().manual_seed(0))
    fit(net, net.parameters(), 12, 2000, EPS)
    return net


@pytest.fixture(scope="module")
def saturated() -> nn.Module:
    first = nn.Linear(784, 200)
    net = nn.Sequential(nn.Flatten(), first, SteepSigmoid(), nn.Linear(200, 10))
    initialise(net, Generator().manual_seed(0))
    with torch.no_grad():
        first.bias.copy_(-first.weight.sum(1) * 0.13)  # thresholds amid the images
    fit(net, net[3].parameters(), 10, 1000)
    return net.eval()


# ---- faults that are put in


@pytest.mark.thorough
def test_rounding_is_called_arithmetic_masking(
    model: nn.Sequential, confident: nn.Sequential, data: tuple[Tensor, Tensor]
) -> None:
    """Larger logits look more robust as published, and the audit says why; FGSM on the margin sees none of it."""
    plain, masked = (masking_audit(net, *data, EPS) for net in (model, confident))
    assert masked.verdict.judgement == ARITHMETIC
    assert any("rounded" in reason for reason in masked.verdict.reasons)
    assert masked.comparisons["published_exact"].gap > 0.1
    for rung in ("fgsm_margin", "clean", "random_noise"):
        assert torch.equal(plain.ladder.of(rung), masked.ladder.of(rung)), rung
    published = [a.ladder.of("fgsm_published").double().mean() for a in (plain, masked)]
    assert published[1] > published[0] + 0.1, "it improves"
    assert masked.health.unreliable.double().mean() > 0.9 > plain.health.unreliable.double().mean() + 0.3


def test_a_saturated_layer_is_called_gradient_masking(saturated: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    audit = masking_audit(saturated, *data, EPS)
    assert audit.ladder.of("clean").double().mean() > 0.7
    assert audit.verdict.judgement == GRADIENT
    assert audit.verdict.reasons


def test_both_at_once_is_gradient_masking(saturated: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    assert isinstance(saturated, nn.Sequential)
    assert masking_audit(scaled(saturated, 50), *data, EPS).verdict.judgement == GRADIENT


# ---- networks without a fault


@pytest.mark.parametrize("norm", [2.0, math.inf])
@pytest.mark.thorough
def test_a_plain_network_is_sound(model: nn.Sequential, data: tuple[Tensor, Tensor], norm: float) -> None:
    """Though it has no robustness at all."""
    audit = masking_audit(model, *data, {2.0: 2.0, math.inf: 0.2}[norm], norm)
    assert audit.verdict.judgement == SOUND, audit.verdict
    assert audit.ladder.worst_accuracy < 0.1
    assert len(audit.verdict.reasons) > 3


@pytest.mark.thorough
def test_an_adversarially_trained_network_is_sound_and_robust(
    defended: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    """It keeps most of its accuracy under FGSM under iterative attacks too."""
    audit = masking_audit(defended, *data, EPS)
    assert audit.verdict.judgement == SOUND, audit.verdict
    fgsm_accuracy = audit.ladder.of("fgsm_exact").double().mean()
    assert fgsm_accuracy > 0.75
    assert audit.ladder.worst_accuracy > 0.85 * fgsm_accuracy


def test_a_shipped_run_is_sound(data: tuple[Tensor, Tensor]) -> None:
    snapshot = load_snapshot("embedded:runs/sgd_lr0.01_b128_seed0")
    net = model_with(snapshot.model, snapshot.model_args, snapshot.parameters)
    assert masking_audit(net, *data, 0.3).verdict.judgement == SOUND


# ---- the measurements


def test_balance_and_its_states_on_logits_that_are_known() -> None:
    """Two classes with margin m: g = (p − 1, p) with p = 1 / (1 + eᵐ); float32 loses p − 1 from m = 17 on."""
    net = linear_model(torch.tensor([[0.5], [-0.5]]), torch.tensor([0.0, 0.0]))
    stretched = nn.Sequential(net, Times(120.0))
    x = torch.tensor([5.0, 10.0, 20.0, 50.0, 119.0])[:, None] / 120
    found = gradient_health(stretched, x, torch.zeros(5, dtype=torch.int64), Ball(0.01))
    assert torch.allclose(found.margin, x[:, 0].double() * 120)
    assert found.rounded.tolist() == [False, False, True, True, False]
    assert found.vanished.tolist() == [False] * 4 + [True]
    assert found.balance[0] < 1e-3 and found.balance[4].isnan()
    assert found.loss_is_zero.tolist() == [False, False, True, True, True]
    assert found.unreliable.tolist() == [False, False, True, True, True]
    assert torch.allclose(found.cosine[:4], torch.ones(4).double()) and found.cosine[4].isnan()
    assert found.zero_published.tolist() == [0, 0, 0, 0, 1]
    assert not found.exact_is_zero.any()
    assert found.margin_quantiles((0.0, 0.5, 1.0)) == pytest.approx((5, 20, 119), rel=1e-6)


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def test_rounding_turns_the_gradient_away(model: nn.Sequential, data: tuple[Tensor, Tensor]) -> None:
    """In float64, with moderate margins, published and exact gradients are parallel; in float32 they are not."""
    net = copy.deepcopy(model).double()
    healthy = gradient_health(net, data[0].double(), data[1], Ball(EPS))
    moderate = healthy.margin < 15
    assert torch.allclose(healthy.cosine[moderate], torch.ones(int(moderate.sum())).double())
    rounded = gradient_health(scaled(model, 4), *data, Ball(EPS))
    lost = rounded.rounded
    assert lost.sum() > 20 and rounded.cosine[lost].median() < 0.95


def test_linear_networks_are_linear(data: tuple[Tensor, Tensor]) -> None:
    """Two classes: log-odds is a linear function, and every deviation is rounding."""
    random = Generator().manual_seed(0)
    weight = torch.randn(2, 784, generator=random, dtype=torch.float64)
    net = nn.Sequential(nn.Flatten(), linear_model(weight, torch.zeros(2).double()))
    x, y = data[0].double(), data[1] % 2
    for norm in (2.0, math.inf):
        found = gradient_health(net, x, y, Ball(0.05, norm))
        assert max(found.step_deviation.max(), found.random_deviation.max()) < 1e-12
        assert (found.step_climb > 0).all() and (found.step_climb > found.random_climb).all()


def test_curved_networks_deviate_as_computed(data: tuple[Tensor, Tensor]) -> None:
    """Logits (0, s²): ℓ(x + δ) − ℓ(x) − δ·∇ℓ = (wᵀδ)² on log-odds."""
    weight = torch.rand(784, generator=Generator().manual_seed(0), dtype=torch.float64)

    class Squared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(weight)

        def forward(self, x: Tensor) -> Tensor:
            s = x.flatten(1) @ self.weight
            return torch.stack([0 * s, s**2], 1)

    x = data[0][:20].double().clamp(0.2, 0.8)  # no step is cut
    found = gradient_health(Squared(), x, torch.zeros(20, dtype=torch.int64), Ball(0.1))
    s, most = x.flatten(1) @ weight, 0.1 * weight.sum()
    assert torch.allclose(found.step_climb, (s + most) ** 2 - s**2)
    assert torch.allclose(found.step_deviation, most**2 / (2 * s * most))


def test_health_does_not_depend_on_batches(model: nn.Sequential, data: tuple[Tensor, Tensor]) -> None:
    whole = gradient_health(model, *data, Ball(EPS))
    split = gradient_health(model, *data, Ball(EPS), batch=77)
    assert torch.allclose(whole.random_climb, split.random_climb, atol=1e-3)
    rows = torch.arange(100, 130)
    part = gradient_health(model, data[0][rows], data[1][rows], Ball(EPS), Draws(rows))
    assert torch.allclose(whole.random_climb[rows], part.random_climb, atol=1e-3)


@pytest.mark.thorough
def test_transferred_images_are_those_of_the_sibling(
    model: nn.Sequential, defended: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    x, y = data
    with torch.no_grad():
        expected = defended(fgsm(model, x, y, EPS)).argmax(1) == y
    assert torch.equal(transferred(defended, model, x, y, Ball(EPS), batch=90), expected)
    audit = masking_audit(defended, x, y, EPS, sibling=model)
    assert audit.verdict.judgement == SOUND
    assert audit.comparisons["white_transfer"].second_accuracy == expected.double().mean().item()


# ---- the verdict by itself, on measurements that are made up


def made_up(stands: dict[str, float], count: int = 1000) -> Ladder:
    """A ladder in which the first samples stand."""
    rungs: list[Rung] = [rung for rung in ladder_rungs(effort=Effort()) if rung.name in stands]
    place = torch.arange(count)
    correct = torch.stack([(place < stands[rung.name] * count)[None] for rung in rungs])
    zeros = torch.zeros(len(rungs), 1, dtype=torch.int64)
    distance = torch.where(correct[:, 0], torch.inf, EPS).double()
    return Ladder(tuple(rungs), (EPS,), math.inf, correct, distance, zeros, zeros, {})


def healthy(count: int = 1000) -> GradientHealth:
    ones, no = torch.ones(count).double(), torch.zeros(count, dtype=torch.bool)
    zero = torch.zeros(count).double()
    return GradientHealth(5 * ones, zero, no, no, ones, zero, zero, zero, zero, ones, zero)


PLAIN = {
    "clean": 1.0,
    "random_noise": 0.95,
    "fgsm_published": 0.2,
    "fgsm_exact": 0.2,
    "pgd_margin": 0.1,
    "square": 0.3,
}


@pytest.mark.parametrize(
    ("changes", "expected", "word"),
    [
        ({}, SOUND, "not weaker"),
        ({"square": 0.08}, GRADIENT, "logits only"),
        ({"square": 0.099}, SOUND, ""),
        ({"random_noise": 0.15}, GRADIENT, "random noise"),
        ({"pgd_margin": 0.4, "square": 0.9}, GRADIENT, "single step"),
        ({"fgsm_published": 0.5}, SOUND, ""),
    ],
)
def test_comparisons_decide(changes: dict[str, float], expected: str, word: str) -> None:
    found = verdict(healthy(), made_up(PLAIN | changes), EPS)
    assert found.judgement == expected
    assert any(word in reason for reason in found.reasons)


def test_a_gap_counts_as_arithmetic_only_with_rounded_gradients() -> None:
    ladder = made_up(PLAIN | {"fgsm_published": 0.5})
    unexplained = verdict(healthy(), ladder, EPS)
    assert unexplained.judgement == SOUND and "but only 0.0 %" in unexplained.notes[0]
    rounded = replace(healthy(), balance=torch.ones(1000).double())
    assert verdict(rounded, ladder, EPS).judgement == ARITHMETIC
    assert verdict(rounded, made_up(PLAIN), EPS).judgement == SOUND
    assert "changes no accuracy" in verdict(rounded, made_up(PLAIN), EPS).notes[0]


def test_blind_and_useless_gradients_decide() -> None:
    some = (torch.arange(1000) < 20).double()
    blind = verdict(replace(healthy(), zero_exact=some), made_up(PLAIN), EPS)
    assert blind.judgement == GRADIENT and "zero for 2.0 %" in blind.reasons[0]
    useless = verdict(replace(healthy(), step_climb=-some), made_up(PLAIN), EPS)
    assert useless.judgement == GRADIENT and "climbs higher" in useless.reasons[0]


def test_climbs_are_those_of_the_log_odds(model: nn.Sequential, data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    found = gradient_health(model, x, y, Ball(EPS))
    with torch.no_grad():
        expected = log_odds(model(fgsm(model, x, y, EPS)), y) - log_odds(model(x), y)
    assert torch.allclose(found.step_climb, expected.double(), atol=1e-3)
    assert (found.step_climb > found.random_climb).double().mean() > 0.95


def test_a_gap_that_may_be_chance_decides_nothing() -> None:
    """Three more samples in 100."""
    stands = PLAIN | {"square": 0.07}
    assert verdict(healthy(100), made_up(stands, 100), EPS).judgement == SOUND
    assert verdict(healthy(1000), made_up(stands, 1000), EPS).judgement == GRADIENT


def test_transfer_decides() -> None:
    ladder = made_up(PLAIN)
    strong, weak = torch.arange(1000) < 50, torch.arange(1000) < 500
    assert verdict(healthy(), ladder, EPS, strong).judgement == GRADIENT
    assert verdict(healthy(), ladder, EPS, weak).judgement == SOUND


def test_comparisons_need_their_rungs() -> None:
    assert set(compare(made_up({"clean": 1, "fgsm_exact": 0.3}), EPS)) == set()
    assert set(compare(made_up(PLAIN), EPS)) == {
        "published_exact",
        "exact_noise",
        "iterative_single",
        "iterative_noise",
        "white_black",
    }


def test_bad_input_is_refused(model: nn.Sequential, data: tuple[Tensor, Tensor]) -> None:
    x, y = data[0][:5], data[1][:5]
    with pytest.raises(ConfigurationError, match="ε = 0"):
        masking_audit(model, x, y, 0)
    rungs = [rung for rung in ladder_rungs(effort=QUICK) if rung.kind == "clean"]
    ladder = run_ladder(model, x, y, [0.1], rungs=rungs)
    with pytest.raises(ConfigurationError, match="samples"):
        masking_audit(model, *data, 0.1, ladder=ladder)
    with pytest.raises(ConfigurationError, match="not measured"):
        masking_audit(model, x, y, 0.2, ladder=ladder)
    with pytest.raises(ConfigurationError, match="norm"):
        masking_audit(model, x, y, 0.1, 2.0, ladder=ladder)
    with pytest.raises(ObjectiveError):
        gradient_health(model, x, y[:2], Ball(0.1))
