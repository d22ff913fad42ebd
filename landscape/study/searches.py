"""The level-set searches of a row: from where they start, how hard they try, and what came of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from landscape.geometry.continuation import eigenvector_starts
from landscape.geometry.eigenpairs import Eigenpairs
from landscape.geometry.level_sets import LevelSetDistance, level_set_distance
from landscape.problem.directions import targeted_starts
from landscape.problem.input_objective import InputObjective
from landscape.problem.metrics import parameter_metric
from landscape.problem.parameter_objective import ParameterObjective
from landscape.study.columns import BELOW_MINIMUM, NOT_REACHED, OK
from landscape.study.measure_config import MeasureConfig
from landscape.study.problems import Problem

# Leading eigenvectors, with both signs, from which the search in parameter space starts.
EIGENVECTOR_STARTS = 2
# Classes towards which the search in input space starts.
TARGETED_STARTS = 4


@dataclass(frozen=True)
class SearchEffort:
    """How hard a search for level sets tries; its cost is in gradients."""

    num_random: int  # random directions among the starts
    budget: int  # gradients for each row and level
    restarts: int


# θ is smooth, and its minima are told apart by their starts; X has many kinks, and restarts find lower ones.
THETA_EFFORT = SearchEffort(num_random=1, budget=60, restarts=0)
X_EFFORT = SearchEffort(num_random=0, budget=60, restarts=2)


def theta_distance(
    phi: ParameterObjective, pairs: Eigenpairs, config: MeasureConfig, metric: str = "euclidean"
) -> LevelSetDistance:
    """Level-set distances in θ, from ± the leading eigenvectors, the gradient and random directions."""
    scale = parameter_metric(phi.model, metric)
    starts = torch.where(scale > 0, leading_starts(phi, pairs, config.levels), 0.0)
    return level_set_distance(
        phi,
        config.levels,
        metric="euclidean" if metric == "euclidean" else scale,
        starts=starts,
        seed=config.search_seed,
        tol=config.tol,
        **asdict(THETA_EFFORT),
    )


def leading_starts(phi: ParameterObjective, pairs: Eigenpairs, levels: Sequence[float]) -> Tensor:
    """± the leading eigenvectors, as long as the quadratic model is to the lowest level above φ*."""
    value = phi.value(phi.origin)
    lowest = min((c for c in levels if c > value.item()), default=max(levels))
    leading = replace(
        pairs,
        eigenvalues=pairs.eigenvalues[:, :EIGENVECTOR_STARTS],
        eigenvectors=pairs.eigenvectors[:, :EIGENVECTOR_STARTS],
    )
    return eigenvector_starts(leading, lowest, value)


def x_distance(
    problem: Problem,
    phi: InputObjective,
    config: MeasureConfig,
    norm: float = 2.0,
    effort: SearchEffort = X_EFFORT,
    evidence: bool = True,
) -> LevelSetDistance:
    """Level-set distances in X per sample, from the points where each class would win if logits were linear."""
    images = phi.origin.reshape(-1, *phi.shape)
    starts = targeted_starts(problem.model, images, phi.y, TARGETED_STARTS, norm)
    return level_set_distance(
        phi,
        config.levels,
        norm,
        starts=starts,
        seed=config.search_seed,
        tol=config.tol,
        evidence=evidence,
        **asdict(effort),
    )


def quadratic_distance(level: float, value: float, eigenvalue: float) -> float:
    """The quadratic estimate √(2 (c − φ*) / λ₁); NaN below the minimum or without positive curvature."""
    return math.sqrt(2 * (level - value) / eigenvalue) if level > value and eigenvalue > 0 else math.nan


def flag(found: LevelSetDistance, row: int, level: int) -> str:
    """What a distance is: ok, not_reached or below_minimum."""
    if found.below_minimum[row, level]:
        return BELOW_MINIMUM
    return OK if found.reached[row, level] else NOT_REACHED
