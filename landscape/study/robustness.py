"""What a row of the study says of accuracy under attack: FGSM in both readings, the worst case, and the audit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from landscape.problem.datasets import Dataset
from landscape.problem.losses import margin
from landscape.robustness.accuracy import logits_of
from landscape.robustness.balls import Ball
from landscape.robustness.draws import Draws
from landscape.robustness.ladder import Ladder, run_ladder
from landscape.robustness.masking import GradientHealth, gradient_health_by_ball
from landscape.robustness.rungs import CLEAN, EXACT_STEP, NOISE, PUBLISHED_STEP, Effort, Rung, ladder_rungs
from landscape.robustness.targets import wrong
from landscape.robustness.verdict import verdict
from landscape.study.columns import Reading, Row, attack_column, fgsm_column

Arrays = dict[str, NDArray[Any]]

# The rungs of a row: one of each kind, cheap enough for thousands of snapshots. They are in every installation.
RUNGS = (CLEAN, NOISE, PUBLISHED_STEP, EXACT_STEP, "pgd_log_odds", "nearest_boundary", "square")
EFFORT = Effort(
    pgd_steps=10, pgd_restarts=1, boundary_budget=34, boundary_restarts=2, boundary_classes=3, queries=50
)
_READINGS: dict[Reading, str] = {"published": PUBLISHED_STEP, "exact": EXACT_STEP}
# Rungs that have a column of their own.
_SHOWN = (NOISE, "pgd_log_odds", "nearest_boundary", "square")


def robustness_columns(
    model: nn.Module, data: Dataset, eps: Sequence[float], ladder_samples: int, seed: int
) -> tuple[Row, Arrays]:
    """Columns of accuracy under attack in ℓ∞, and the decisions on the samples behind them.

    FGSM is measured on all images, the ladder and the audit on the first ``ladder_samples`` of them.
    """
    row, arrays = _fgsm_columns(model, data, eps)
    x, y = data.images[:ladder_samples], data.labels[:ladder_samples]
    draws = Draws(torch.arange(len(y), device=y.device), seed)
    ladder = run_ladder(model, x, y, eps, math.inf, _rungs(*RUNGS), draws)
    row |= _ladder_columns(ladder)
    healths = gradient_health_by_ball(model, x, y, [Ball(radius) for radius in eps], draws)
    for i, (radius, health) in enumerate(zip(eps, healths, strict=True)):
        found = verdict(health, ladder, radius)
        row[attack_column("masking", radius)] = found.judgement
        row[attack_column("masking_reasons", radius)] = "; ".join((*found.reasons, *found.notes))
        if not i:
            row |= _health_columns(health)
            arrays |= _health_arrays(health)
    return row, arrays | _ladder_arrays(ladder)


def _fgsm_columns(model: nn.Module, data: Dataset, eps: Sequence[float]) -> tuple[Row, Arrays]:
    ladder = run_ladder(model, data.images, data.labels, eps, math.inf, _rungs(*_READINGS.values()))
    logits = logits_of(model, data.images)
    row: Row = {"clean_accuracy": (~wrong(logits, data.labels)).double().mean().item()}
    margins = -margin(logits, data.labels)
    row |= {f"margin_{name}": _quantile(margins, q) for name, q in (("q10", 0.1), ("median", 0.5), ("q90", 0.9))}
    for reading, name in _READINGS.items():
        shares = ladder.accuracy[ladder.names.index(name)].tolist()
        row |= {fgsm_column(reading, radius): share for radius, share in zip(eps, shares, strict=True)}
    return row, {f"fgsm_{reading}": ladder.of(name).numpy() for reading, name in _READINGS.items()}


def _rungs(*names: str) -> list[Rung]:
    return [rung for rung in ladder_rungs(math.inf, EFFORT) if rung.name in names]


def _ladder_columns(ladder: Ladder) -> Row:
    row: Row = {"boundary_median": _quantile(ladder.nearest, 0.5), "audit_samples": ladder.correct.shape[2]}
    for i, radius in enumerate(ladder.eps):
        row[attack_column("worst_case", radius)] = ladder.worst_accuracy[i].item()
        for name in _SHOWN:
            if name in ladder.names:
                row[attack_column(name, radius)] = ladder.of(name)[i].double().mean().item()
    return row


def _ladder_arrays(ladder: Ladder) -> Arrays:
    return {
        "ladder_rungs": np.array(ladder.names),
        "ladder_correct": ladder.correct.numpy(),
        "ladder_distance": ladder.distance.numpy(),
    }


def _health_columns(health: GradientHealth) -> Row:
    return {
        "rounded_share": health.rounded.double().mean().item(),
        "vanished_share": health.vanished.double().mean().item(),
        "zero_loss_share": health.loss_is_zero.double().mean().item(),
        "balance_median": _quantile(health.balance, 0.5),
        "cosine_median": _quantile(health.cosine, 0.5),
    }


def _health_arrays(health: GradientHealth) -> Arrays:
    names = ("margin", "balance", "cosine", "step_deviation", "step_climb", "random_climb")
    return {f"health_{name}": getattr(health, name).float().numpy() for name in names}


def _quantile(values: Tensor, q: float) -> float:
    """Quantile of what is a number, NaN if nothing is; of values that may be infinite none lies between two."""
    return torch.nanquantile(values.double(), q, interpolation="lower").item()
