"""Widths of one snapshot with all their evidence: in θ, in X, per sample, jointly, and from below."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from landscape.errors import ConfigurationError
from landscape.geometry.eigenpairs import top_eigenpairs
from landscape.geometry.level_sets import LevelSetDistance, level_set_distance
from landscape.problem.directions import targeted_starts
from landscape.problem.input_objective import input_objective
from landscape.problem.memory import MEMORY
from landscape.problem.metrics import parameter_metric
from landscape.problem.parameter_objective import ParameterObjective, parameter_objective
from landscape.robustness.bounds import as_network
from landscape.robustness.certified import CertifiedDistance, certified_distance
from landscape.study.columns import LEVELS
from landscape.study.cost import width_cost
from landscape.study.problems import Problem, theta_objective, x_objective
from landscape.study.searches import EIGENVECTOR_STARTS, TARGETED_STARTS, THETA_EFFORT, X_EFFORT, leading_starts

BOX = (0.0, 1.0)


@dataclass(frozen=True)
class WidthConfig:
    """What is measured around one snapshot."""

    levels: tuple[float, ...] = tuple(LEVELS.values())
    theta_samples: int = 2000  # training samples in φ(θ)
    x_samples: int = 100  # test samples whose d_X is searched
    per_sample: int = 0  # of those, how many have a distance in θ of their own
    certified: int = 0  # of those, how many get a certified lower bound
    joint: bool = False  # also search the whole matrix X with the mean loss
    theta_norm: float = 2.0
    metric: str = "euclidean"
    biases: bool = True  # whether biases may move
    x_norm: float = 2.0
    box: bool = False  # whether images stay in [0, 1]
    seed: int = 0
    eigen_tol: float = 3e-2
    tol: float = 1e-2
    balanced: bool = False  # as many samples of each class

    def __post_init__(self) -> None:
        for name in ("per_sample", "certified"):
            if getattr(self, name) > self.x_samples:
                raise ConfigurationError(
                    f"{name} = {getattr(self, name)} of {self.x_samples} images cannot be; measure more images."
                )


@dataclass(frozen=True)
class Minimum:
    """How far a snapshot is from a minimum of φ(θ)."""

    loss: float
    gradient_norm: float
    largest_eigenvalue: float
    smallest_eigenvalue: float


@dataclass(frozen=True)
class Widths:
    """Distances around one snapshot; None for what was not asked for."""

    minimum: Minimum
    theta: LevelSetDistance
    x: LevelSetDistance
    joint: LevelSetDistance | None
    per_sample: LevelSetDistance | None  # in θ, one row for each of the first images
    certified: CertifiedDistance | None  # in X, of the first images


def measure_widths(
    problem: Problem, config: WidthConfig, tell: Callable[[str], None], memory: int = MEMORY
) -> Widths:
    """Search the distances that ``config`` asks for; ``tell`` hears what comes next.

    ``memory`` is for activations and linearisations, in bytes.

    Raises:
        LandscapeError: If the settings make no sense, or φ cannot be used.
    """
    if config.certified:
        as_network(problem.model, problem.test.images[:1])  # what has no bounds is refused before all else
    theta = theta_objective(problem, config.theta_samples, config.seed, memory, balanced=config.balanced)
    tell(width_cost(theta, len(config.levels), config.x_samples, memory).text)
    tell("curvature over θ")
    pairs = top_eigenpairs(theta, EIGENVECTOR_STARTS + 1, "BE", config.eigen_tol, config.seed)
    tell("distances over θ")
    in_theta = _search_theta(theta, config, leading_starts(theta, pairs, config.levels))
    tell(f"distances over X, {config.x_samples} images")
    in_x = _search_x(problem, config, memory)
    return Widths(
        _minimum(theta, pairs.eigenvalues[0]),
        in_theta,
        in_x,
        _search_joint(problem, config, tell) if config.joint else None,
        _search_per_sample(problem, config, tell) if config.per_sample else None,
        _certify(problem, config, tell) if config.certified else None,
    )


def _search_theta(phi: ParameterObjective, config: WidthConfig, starts: Tensor) -> LevelSetDistance:
    metric = parameter_metric(phi.model, config.metric, config.biases)
    return level_set_distance(
        phi,
        config.levels,
        norm=config.theta_norm,
        metric=metric,
        starts=torch.where(metric > 0, starts, 0.0),
        seed=config.seed,
        tol=config.tol,
        second_order=True,
        **asdict(THETA_EFFORT),
    )


def _search_x(problem: Problem, config: WidthConfig, memory: int) -> LevelSetDistance:
    phi = x_objective(problem, config.x_samples, config.seed, memory, balanced=config.balanced)
    images = phi.origin.reshape(-1, *phi.shape)
    # The few pixels along which a 1-norm start would go have no room in a box.
    norm = 2 if config.box and config.x_norm == 1 else config.x_norm
    starts = targeted_starts(problem.model, images, phi.y, TARGETED_STARTS, norm)
    return level_set_distance(
        phi,
        config.levels,
        norm=config.x_norm,
        starts=starts,
        box=BOX if config.box else None,
        seed=config.seed,
        tol=config.tol,
        second_order=True,
        **asdict(X_EFFORT),
    )


def _search_joint(problem: Problem, config: WidthConfig, tell: Callable[[str], None]) -> LevelSetDistance:
    """The whole matrix X as one point; its mean loss is dominated by the samples that are nearest to failing."""
    tell("distances over X jointly")
    data = problem.test.subset(config.x_samples, config.seed, balanced=config.balanced)
    phi = input_objective(problem.model, data.images, data.labels, joint=True)
    none = phi.origin.new_zeros((0, *phi.origin.shape))
    effort = asdict(replace(X_EFFORT, num_random=THETA_EFFORT.num_random))
    box = BOX if config.box else None
    return level_set_distance(
        phi, config.levels, norm=config.x_norm, starts=none, box=box, seed=config.seed, tol=config.tol, **effort
    )


def _search_per_sample(problem: Problem, config: WidthConfig, tell: Callable[[str], None]) -> LevelSetDistance:
    """d_θ,i(c): how far θ must move until the loss of one sample alone is c."""
    tell(f"distances over θ of {config.per_sample} samples")
    data = problem.test.subset(config.x_samples, config.seed, balanced=config.balanced)
    images, labels = data.images[: config.per_sample], data.labels[: config.per_sample]
    phi = parameter_objective(problem.model, images, labels, per_sample=True)
    metric = parameter_metric(problem.model, config.metric, config.biases)
    none = phi.origin.new_zeros((0, *phi.origin.shape))
    effort = asdict(THETA_EFFORT)
    return level_set_distance(
        phi, config.levels, config.theta_norm, metric, none, seed=config.seed, tol=config.tol, **effort
    )


def _certify(problem: Problem, config: WidthConfig, tell: Callable[[str], None]) -> CertifiedDistance:
    tell(f"certified lower bounds for {config.certified} images")
    data = problem.test.subset(config.x_samples, config.seed, balanced=config.balanced)
    images, labels = data.images[: config.certified], data.labels[: config.certified]
    box = BOX if config.box else None
    return certified_distance(problem.model, images, labels, config.levels, norm=config.x_norm, box=box)


def _minimum(theta: ParameterObjective, eigenvalues: Tensor) -> Minimum:
    value, gradient = theta.value_and_grad(theta.origin)
    norm = torch.linalg.vector_norm(gradient.double()).item()
    return Minimum(value.item(), norm, eigenvalues[0].item(), eigenvalues[-1].item())


def quantile(values: Tensor, q: float) -> float:
    """Quantile of the numbers among ``values``; NaN if there is none."""
    known = values[~values.isnan()].double()
    return known.quantile(q).item() if len(known) else math.nan
