"""One snapshot to one row: curvature, level-set distances and widths in θ and X, accuracy under attack."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.geometry.eigenpairs import Eigenpairs, top_eigenpairs
from landscape.geometry.level_sets import LevelSetDistance, width
from landscape.problem.parameter_objective import ParameterObjective
from landscape.snapshots import Snapshot
from landscape.study.columns import NORMS, OK, Row, level_label
from landscape.study.given import NOTHING, Given
from landscape.study.measure_config import MeasureConfig
from landscape.study.problems import Problem, load_problem, theta_objective, with_median_margin, x_objective
from landscape.study.robustness import Arrays, robustness_columns
from landscape.study.searches import flag, quadratic_distance, theta_distance, x_distance
from landscape.traces import Traces

# To be raised by hand whenever what a row holds changes, so that ledgers compute it anew.
VERSION = 9

# Largest eigenvalues of the Hessian over θ in a row, beside the smallest one.
EIGENVALUES = 5


@dataclass(frozen=True)
class Measured:
    """A row, and what was measured of each sample."""

    row: Row
    arrays: Arrays


def measure(
    snapshot: Snapshot, config: MeasureConfig | None = None, device: str = "auto", given: Given = NOTHING
) -> Row:
    """Measure one snapshot; the row holds plain numbers, NaN where there is none.

    Raises:
        LandscapeError: If the snapshot does not fit its model or data.
    """
    return measure_samples(snapshot, config, device, given).row


def measure_samples(
    snapshot: Snapshot,
    config: MeasureConfig | None = None,
    device: str = "auto",
    given: Given = NOTHING,
    traces: Traces | None = None,
) -> Measured:
    """Measure one snapshot as `measure`, and keep what was found of each sample.

    Snapshots of equal networks that share ``traces`` are traced once for all; their rows are the same.

    Arrays: ``d_x`` and ``w_x`` ``(C, x_samples)``; ``fgsm_published`` and ``fgsm_exact``, who stands,
    ``(E, attack_samples)``; ``ladder_correct`` ``(R, E, ladder_samples)``, ``ladder_distance``
    ``(R, ladder_samples)``, ``ladder_rungs`` ``(R,)`` names; columns of `GradientHealth`, at the first radius, as
    ``health_…``.
    """
    config = config or MeasureConfig()
    problem = load_problem(snapshot, device, given, traces)
    attacked = problem.test.subset(config.attack_samples, config.seed, config.repeat, config.balanced)
    factor = 1.0
    if config.equal_margin is not None:
        problem, factor = with_median_margin(problem, config.equal_margin, attacked)
    theta, inputs = _theta_columns(problem, config), _input_columns(problem, config)
    attacks, decisions = robustness_columns(
        problem.model, attacked, config.eps, config.ladder_samples, config.search_seed
    )
    row: Row = {"status": OK, "repeat": config.repeat, "logit_factor": factor}
    return Measured(row | theta | inputs.row | attacks, inputs.arrays | decisions)


def _theta_columns(problem: Problem, config: MeasureConfig) -> Row:
    phi = theta_objective(problem, config.theta_samples, config.seed, part=config.repeat, balanced=config.balanced)
    pairs = top_eigenpairs(phi, (EIGENVALUES, 1), "BE", config.eigen_tol, config.search_seed)
    value, gradient = phi.value_and_grad(phi.origin)
    row: Row = {
        "train_loss": value.item(),
        "gradient_norm": torch.linalg.vector_norm(gradient.double()).item(),
        "theta_norm": torch.linalg.vector_norm(phi.origin.double()).item(),
    }
    row |= _curvature_columns(pairs)
    found = theta_distance(phi, pairs, config)
    for i, level in enumerate(config.levels):
        row |= _labelled(_distance_columns(found, i, value.item(), pairs.eigenvalues[0, 0].item()), level)
    for metric in config.metrics:
        row |= _metric_columns(phi, pairs, config, metric)
    return row


def _curvature_columns(pairs: Eigenpairs) -> Row:
    row: Row = {f"lambda_{i + 1}": value for i, value in enumerate(pairs.eigenvalues[0, :-1].tolist())}
    return row | {
        "lambda_min": pairs.eigenvalues[0, -1].item(),
        "lambda_1_residual": pairs.residuals[0, 0].item(),
        "lambda_residual": pairs.residuals.max().item(),
    }


def _distance_columns(found: LevelSetDistance, i: int, value: float, eigenvalue: float) -> dict[str, float | str]:
    return {
        "d_theta": found.distance[0, i].item(),
        "w_theta": width(found)[0, i].item() if found.reached[0, i] else math.nan,
        "d_theta_quadratic": quadratic_distance(float(found.levels[i]), value, eigenvalue),
        "d_theta_level_error": found.level_error[0, i].item(),
        "d_theta_angle": found.angle[0, i].item(),
        "d_theta_spread": found.spread[0, i].item(),
        "d_theta_flag": flag(found, 0, i),
    }


def _metric_columns(phi: ParameterObjective, pairs: Eigenpairs, config: MeasureConfig, metric: str) -> Row:
    found, row = theta_distance(phi, pairs, config, metric), Row()
    for i, level in enumerate(config.levels):
        columns: dict[str, float | str] = {
            f"d_theta_{metric}": found.distance[0, i].item(),
            f"d_theta_{metric}_angle": found.angle[0, i].item(),
            f"d_theta_{metric}_flag": flag(found, 0, i),
        }
        row |= _labelled(columns, level)
    return row


def _input_columns(problem: Problem, config: MeasureConfig) -> Measured:
    phi = x_objective(problem, config.x_samples, config.seed, part=config.repeat, balanced=config.balanced)
    found = x_distance(problem, phi, config, evidence=False)
    widths = torch.where(found.reached, width(found), torch.nan)
    row: Row = {}
    for i, level in enumerate(config.levels):
        reached = found.reached[:, i]
        distances = found.distance[reached, i]
        columns: dict[str, float | str] = {
            "d_x_q10": _quantile(distances, 0.1),
            "d_x_median": _quantile(distances, 0.5),
            "d_x_q90": _quantile(distances, 0.9),
            "w_x_median": _quantile(widths[reached, i], 0.5),
            "d_x_reached": reached.double().mean().item(),
            "d_x_below": found.below_minimum[:, i].double().mean().item(),
        }
        row |= _labelled(columns, level)
    arrays = {"d_x": found.distance.T, "w_x": widths.T}
    for name in config.x_norms:
        other = x_distance(problem, phi, config, NORMS[name], evidence=False)
        for i, level in enumerate(config.levels):
            reached = other.reached[:, i]
            columns = {
                f"d_x_{name}_median": _quantile(other.distance[reached, i], 0.5),
                f"d_x_{name}_reached": reached.double().mean().item(),
            }
            row |= _labelled(columns, level)
        arrays[f"d_x_{name}"] = other.distance.T
    return Measured(row, {name: values.cpu().numpy() for name, values in arrays.items()})


def _labelled(columns: Mapping[str, float | str], level: float) -> Row:
    return {f"{name}[{level_label(level)}]": value for name, value in columns.items()}


def _quantile(values: Tensor, q: float) -> float:
    return torch.quantile(values, q).item() if len(values) else math.nan
