"""What gradients and a ladder say of accuracies under attack: sound, or masked by arithmetic or by the network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from landscape.robustness.ladder import Ladder
from landscape.robustness.masking import GradientHealth
from landscape.robustness.mcnemar import McNemar, mcnemar
from landscape.robustness.rungs import EXACT_STEP, NOISE, PUBLISHED_STEP

Judgement = Literal["sound", "arithmetic masking", "gradient masking"]
SOUND: Judgement = "sound"
ARITHMETIC: Judgement = "arithmetic masking"
GRADIENT: Judgement = "gradient masking"

# A difference of accuracies counts from here on, in shares: AutoAttack's flag for a black-box attack that beats
# white-box ones (Croce and Hein 2020) goes up at 0.2 points, too.
GAP = 0.002
# It must also be more than chance. Some ten comparisons are made for a verdict, hence not 0.05.
SIGNIFICANCE = 0.01
# Of the samples on which published and exact reading differ, the share whose published gradient is rounded or gone
# from which on that is the cause: the majority.
CAUSED = 0.5
# Share of samples with no exact gradient at all from which on attacks are blind: dead ReLUs leave a plain network
# with none, saturated units with most.
BLIND = 0.01
# Share of samples on which the gradient's step must climb higher than a random one. Curvature makes it overshoot
# on a few samples of a plain network; half would be chance.
USEFUL = 0.75


@dataclass(frozen=True)
class Comparison:
    """Two accuracies on the same samples."""

    first: str
    second: str
    first_accuracy: float
    second_accuracy: float
    test: McNemar

    @property
    def gap(self) -> float:
        """By how much the first accuracy is higher."""
        return self.first_accuracy - self.second_accuracy

    @property
    def first_is_higher(self) -> bool:
        """By more than `GAP`, and more than chance."""
        return self.gap > GAP and self.test.p_value < SIGNIFICANCE


@dataclass(frozen=True)
class Verdict:
    """What the accuracies are worth, and why."""

    judgement: Judgement
    reasons: tuple[str, ...]  # for the judgement; of a sound network, what was looked at
    notes: tuple[str, ...]  # what is worth knowing beside it


def compare(ladder: Ladder, eps: float, transfer: Tensor | None = None) -> dict[str, Comparison]:
    """All comparisons that say something about masking and whose rungs were measured, by name.

    In each but the first pair, exact and useful gradients would make the first attack the stronger one: where it
    leaves the higher accuracy, something is wrong.
    """
    at = ladder.at(eps)
    stands = {name: ladder.of(name)[at] for name in ladder.names}
    for name, kinds in (
        ("iterative", ("iterative",)),
        ("white_box", ("single step", "iterative", "minimum norm")),
    ):
        members = [stands[rung.name] for rung in ladder.rungs if rung.kind in kinds and rung.white_box]
        if members:
            stands[name] = torch.stack(members).all(0)
    if transfer is not None:
        stands["transfer"] = transfer
    pairs = {
        "published_exact": (PUBLISHED_STEP, EXACT_STEP),
        "exact_noise": (EXACT_STEP, NOISE),
        "iterative_single": ("iterative", EXACT_STEP),
        "iterative_noise": ("iterative", NOISE),
        "white_black": ("white_box", "square"),
        "white_transfer": ("white_box", "transfer"),
    }
    return {
        name: comparison(first, second, stands[first], stands[second])
        for name, (first, second) in pairs.items()
        if first in stands and second in stands
    }


def comparison(first: str, second: str, stands: Tensor, other: Tensor) -> Comparison:
    """Compare two attacks on the same samples, ``(N,), (N,)`` bool."""
    shares = stands.double().mean().item(), other.double().mean().item()
    return Comparison(first, second, *shares, mcnemar(stands, other))


def verdict(health: GradientHealth, ladder: Ladder, eps: float, transfer: Tensor | None = None) -> Verdict:
    """Judge by the gradients and the ladder at one radius; only samples that are right without attack count.

    ``gradient masking`` outweighs ``arithmetic masking``: then not even exact gradients lead anywhere.
    """
    compared = compare(ladder, eps, transfer)
    gradient = _blindness(health) + _weakness(compared)
    arithmetic, notes = _arithmetic(health, ladder, eps, compared.get("published_exact"))
    notes += _remainder(compared.get("iterative_single"))
    if gradient:
        return Verdict(GRADIENT, tuple(gradient + arithmetic), tuple(notes))
    if arithmetic:
        return Verdict(ARITHMETIC, tuple(arithmetic), tuple(notes))
    return Verdict(SOUND, tuple(_soundness(health, compared)), tuple(notes))


def _blindness(health: GradientHealth) -> list[str]:
    """Reasons to call exact gradients zero or useless."""
    right = health.margin > 0
    reasons = []
    blind = _share(health.exact_is_zero, right)
    if blind > BLIND:
        reasons.append(f"the exact gradient is zero for {_percent(blind)} of the samples")
    seeing = right & ~health.exact_is_zero
    useful = _share(health.step_climb > health.random_climb, seeing)
    if useful < USEFUL:
        reasons.append(
            f"a step along the exact gradient climbs higher than a random one for {_percent(useful)} of the "
            "samples only"
        )
    return reasons


_WEAKNESSES = {
    "exact_noise": "random noise is stronger than exact FGSM",
    "iterative_single": "iterative attacks are weaker than a single step",
    "iterative_noise": "random noise is stronger than iterative attacks",
    "white_black": "an attack that sees logits only breaks samples that gradients do not",
    "white_transfer": "images made for another network break samples that this one's gradients do not",
}


def _weakness(compared: dict[str, Comparison]) -> list[str]:
    """Reasons from an attack that is weaker than it should be."""
    return [
        f"{text} ({_accuracies(compared[name])})"
        for name, text in _WEAKNESSES.items()
        if name in compared and compared[name].first_is_higher
    ]


def _arithmetic(
    health: GradientHealth, ladder: Ladder, eps: float, found: Comparison | None
) -> tuple[list[str], list[str]]:
    """Reasons to blame rounding for the published accuracy, and notes."""
    right = health.margin > 0
    state = (
        f"{_percent(_share(health.rounded, right))} of the published gradients are rounded and "
        f"{_percent(_share(health.vanished, right))} are gone"
    )
    if found is None or not found.first_is_higher:
        return [], [state + ", which changes no accuracy"] if (health.unreliable & right).any() else []
    at = ladder.at(eps)
    spared = ladder.of(PUBLISHED_STEP)[at] & ~ladder.of(EXACT_STEP)[at]
    caused = _share(health.unreliable, spared)
    text = f"FGSM as published leaves more standing than exact FGSM ({_accuracies(found)})"
    if caused < CAUSED:
        return [], [f"{text}, but only {_percent(caused)} of the samples it spares have a rounded gradient"]
    return [f"{text}: {_percent(caused)} of the samples it spares have a rounded gradient or none", state], []


def _remainder(found: Comparison | None) -> list[str]:
    """A note on what iterative attacks leave of the accuracy under a single step."""
    if found is None or not (found.gap < -GAP and found.test.p_value < SIGNIFICANCE):
        return []
    return [f"accuracy under a single step is no robustness: iterative attacks leave less ({_accuracies(found)})"]


def _soundness(health: GradientHealth, compared: dict[str, Comparison]) -> list[str]:
    """What was looked at and found in order."""
    right = health.margin > 0
    useful = _share(health.step_climb > health.random_climb, right)
    reasons = [f"exact gradients exist, and climb higher than noise for {_percent(useful)} of the samples"]
    return reasons + [f"{c.first} is not weaker than {c.second} ({_accuracies(c)})" for c in compared.values()]


def _accuracies(found: Comparison) -> str:
    return f"{found.first} {_percent(found.first_accuracy)}, {found.second} {_percent(found.second_accuracy)}"


def _share(which: Tensor, among: Tensor) -> float:
    """Share of samples among some; NaN, which passes no threshold, if there are none."""
    return which[among].double().mean().item() if among.any() else math.nan


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
