"""One snapshot to one row: curvature, level-set distances and widths in θ and X, accuracy under attack."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

from landscape.errors import ConfigurationError, DatasetError
from landscape.geometry.continuation import eigenvector_starts
from landscape.geometry.eigenpairs import Eigenpairs, top_eigenpairs
from landscape.geometry.level_sets import LevelSetDistance, level_set_distance, width
from landscape.problem.datasets import Dataset, load_dataset
from landscape.problem.device import resolve_device
from landscape.problem.directions import targeted_starts
from landscape.problem.input_objective import InputObjective, input_objective
from landscape.problem.memory import MEMORY
from landscape.problem.models import check_fit, model_with
from landscape.problem.parameter_objective import ParameterObjective, parameter_objective
from landscape.snapshots import Snapshot
from landscape.study.columns import BELOW_MINIMUM, LEVELS, NOT_REACHED, OK, Row, level_label
from landscape.study.robustness import Arrays, robustness_columns

# To be raised by hand whenever what a row holds changes, so that ledgers compute it anew.
VERSION = 6

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
THETA_EFFORT = SearchEffort(num_random=2, budget=60, restarts=0)
X_EFFORT = SearchEffort(num_random=0, budget=60, restarts=2)


@dataclass(frozen=True)
class MeasureConfig:
    """What is measured, on how many samples; every field is part of a row's key in the ledger."""

    levels: tuple[float, ...] = tuple(LEVELS.values())
    eps: tuple[float, ...] = (0.1, 0.3)
    theta_samples: int = 300  # training samples in φ(θ)
    x_samples: int = 40  # test samples whose d_X is searched
    attack_samples: int = 2000  # test samples under FGSM
    ladder_samples: int = 300  # the first of those, under all attacks
    seed: int = 0  # of the subsets and of the searches
    eigen_tol: float = 3e-2
    tol: float = 6e-2

    def __post_init__(self) -> None:
        if not self.levels or not all(math.isfinite(c) and c > 0 for c in self.levels):
            raise ConfigurationError(f"levels {self.levels} cannot be; pass finite numbers above zero.")
        if not self.eps or not all(math.isfinite(e) and e > 0 for e in self.eps):
            raise ConfigurationError(f"ε = {self.eps} cannot be; pass finite numbers above zero.")
        for name in ("theta_samples", "x_samples", "attack_samples", "ladder_samples"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} = {getattr(self, name)} cannot be; pass a whole number ≥ 1.")

    def as_settings(self) -> dict[str, object]:
        """All fields as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Problem:
    """A snapshot's model with the data on which it is measured."""

    model: nn.Module
    train: Dataset
    test: Dataset

    def double(self) -> Problem:
        """The same problem in float64."""
        return Problem(copy.deepcopy(self.model).double(), self.train.double(), self.test.double())


@dataclass(frozen=True)
class Measured:
    """A row, and what was measured of each sample."""

    row: Row
    arrays: Arrays


def measure(snapshot: Snapshot, config: MeasureConfig | None = None, device: str = "auto") -> Row:
    """Measure one snapshot; the row holds plain numbers, NaN where there is none.

    Raises:
        LandscapeError: If the snapshot does not fit its model or data.
    """
    return measure_samples(snapshot, config, device).row


def measure_samples(snapshot: Snapshot, config: MeasureConfig | None = None, device: str = "auto") -> Measured:
    """Measure one snapshot as `measure`, and keep what was found of each sample.

    Arrays: ``d_x`` and ``w_x`` ``(C, x_samples)``; ``fgsm_published`` and ``fgsm_exact``, who stands,
    ``(E, attack_samples)``; ``ladder_correct`` ``(R, E, ladder_samples)``, ``ladder_distance``
    ``(R, ladder_samples)``, ``ladder_rungs`` ``(R,)`` names; columns of `GradientHealth`, at the first radius, as
    ``health_…``.
    """
    config = config or MeasureConfig()
    problem = load_problem(snapshot, device)
    phi = theta_objective(problem, config.theta_samples, config.seed)
    pairs = top_eigenpairs(phi, EIGENVECTOR_STARTS + 1, "BE", config.eigen_tol, config.seed)
    theta, inputs = _theta_columns(phi, pairs, config), _input_columns(problem, config)
    attacks, decisions = robustness_columns(
        problem.model, problem.test, config.eps, config.attack_samples, config.ladder_samples, config.seed
    )
    return Measured({"status": OK} | theta | inputs.row | attacks, inputs.arrays | decisions)


def load_problem(snapshot: Snapshot, device: str = "auto", dataset: str | None = None) -> Problem:
    """Rebuild a snapshot's model, and load its data.

    Raises:
        ModelError: If the parameters do not fit the model.
        DatasetError: If the dataset is not the one that the snapshot was trained on.
    """
    where = resolve_device(device)
    model = model_with(snapshot.model, snapshot.model_args, snapshot.parameters).to(where)
    name = dataset or str(snapshot.config.get("dataset", "mnist"))
    train, test = load_dataset(name, "train"), load_dataset(name, "test")
    if dataset is None and train.sha256 != snapshot.data_sha256:
        raise DatasetError(
            f"{snapshot.path} was trained on other data than the {name} found here "
            f"(digest {snapshot.data_sha256[:12]}, not {train.sha256[:12]}); measure it where that data is."
        )
    check_fit(model, train.images[:1].to(where), train.num_classes)
    return Problem(model, train.to(where), test.to(where))


def theta_objective(problem: Problem, samples: int, seed: int, memory: int = MEMORY) -> ParameterObjective:
    """φ over θ: the mean cross-entropy of a fixed subset of the training data."""
    data = problem.train.subset(samples, seed)
    return parameter_objective(problem.model, data.images, data.labels, memory=memory)


def x_objective(problem: Problem, samples: int, seed: int, memory: int = MEMORY) -> InputObjective:
    """φ over X: the cross-entropy of each sample of a fixed subset of the test data."""
    data = problem.test.subset(samples, seed)
    return input_objective(problem.model, data.images, data.labels, memory=memory)


def theta_distance(phi: ParameterObjective, pairs: Eigenpairs, config: MeasureConfig) -> LevelSetDistance:
    """Level-set distances in θ, from ± the leading eigenvectors, the gradient and random directions."""
    starts = leading_starts(phi, pairs, config.levels)
    effort = asdict(THETA_EFFORT)
    return level_set_distance(phi, config.levels, starts=starts, seed=config.seed, tol=config.tol, **effort)


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


def x_distance(problem: Problem, phi: InputObjective, config: MeasureConfig) -> LevelSetDistance:
    """Level-set distances in X per sample, from the points where each class would win if logits were linear."""
    images = phi.origin.reshape(-1, *phi.shape)
    starts = targeted_starts(problem.model, images, phi.y, TARGETED_STARTS)
    effort = asdict(X_EFFORT)
    return level_set_distance(phi, config.levels, starts=starts, seed=config.seed, tol=config.tol, **effort)


def quadratic_distance(level: float, value: float, eigenvalue: float) -> float:
    """The quadratic estimate √(2 (c − φ*) / λ₁); NaN below the minimum or without positive curvature."""
    return math.sqrt(2 * (level - value) / eigenvalue) if level > value and eigenvalue > 0 else math.nan


def _theta_columns(phi: ParameterObjective, pairs: Eigenpairs, config: MeasureConfig) -> Row:
    value, gradient = phi.value_and_grad(phi.origin)
    row: Row = {
        "train_loss": value.item(),
        "gradient_norm": torch.linalg.vector_norm(gradient.double()).item(),
        "theta_norm": torch.linalg.vector_norm(phi.origin.double()).item(),
        "lambda_1": pairs.eigenvalues[0, 0].item(),
        "lambda_1_residual": pairs.residuals[0, 0].item(),
        "lambda_min": pairs.eigenvalues[0, -1].item(),
    }
    found = theta_distance(phi, pairs, config)
    widths = width(found)
    for i, level in enumerate(config.levels):
        columns = {
            "d_theta": found.distance[0, i].item(),
            "w_theta": widths[0, i].item() if found.reached[0, i] else math.nan,
            "d_theta_quadratic": quadratic_distance(level, value.item(), pairs.eigenvalues[0, 0].item()),
            "d_theta_level_error": found.level_error[0, i].item(),
            "d_theta_angle": found.angle[0, i].item(),
            "d_theta_spread": found.spread[0, i].item(),
            "d_theta_flag": flag(found, 0, i),
        }
        row |= _labelled(columns, level)
    return row


def flag(found: LevelSetDistance, row: int, level: int) -> str:
    """What a distance is: ok, not_reached or below_minimum."""
    if found.below_minimum[row, level]:
        return BELOW_MINIMUM
    return OK if found.reached[row, level] else NOT_REACHED


def _input_columns(problem: Problem, config: MeasureConfig) -> Measured:
    phi = x_objective(problem, config.x_samples, config.seed)
    found = x_distance(problem, phi, config)
    widths = width(found)
    row: Row = {}
    for i, level in enumerate(config.levels):
        reached, below = found.reached[:, i], found.below_minimum[:, i]
        distances = found.distance[reached, i]
        columns = {
            "d_x_q10": _quantile(distances, 0.1),
            "d_x_median": _quantile(distances, 0.5),
            "d_x_q90": _quantile(distances, 0.9),
            "w_x_median": _quantile(widths[reached, i], 0.5),
            "d_x_reached": reached.double().mean().item(),
            "d_x_below": below.double().mean().item(),
        }
        row |= _labelled(columns, level)
    arrays = {"d_x": found.distance.T, "w_x": torch.where(found.reached, widths, torch.nan).T}
    return Measured(row, {name: values.cpu().numpy() for name, values in arrays.items()})


def _labelled(columns: Mapping[str, float | str], level: float) -> Row:
    return {f"{name}[{level_label(level)}]": value for name, value in columns.items()}


def _quantile(values: Tensor, q: float) -> float:
    return torch.quantile(values, q).item() if len(values) else math.nan
