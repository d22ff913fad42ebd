"""The paper's single-layer example: its closed forms against the general code, and widths of its solutions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from landscape.errors import ConfigurationError
from landscape.geometry.eigenpairs import top_eigenpairs
from landscape.geometry.level_sets import level_set_distance
from landscape.objectives import Objective, objective
from landscape.problem.input_objective import input_objective
from landscape.problem.log_objective import LogObjective
from landscape.problem.parameter_objective import parameter_objective
from landscape.problem.single_layer import Perceptron, SingleLayer
from landscape.study.columns import Row
from landscape.study.solutions import Design, draw_design, mean_loss, solutions
from landscape.study.theorem2 import Solution

# Samples of the single-layer example, and the numbers of features that give dim ker X = 0, 0, 12 and 48.
NUM_SAMPLES = 12
NUM_FEATURES = (6, 12, 24, 60)
# The loss of the solutions that are compared at equal loss.
SOLUTION_LOSS = 0.01
_TOL = 1e-3


def agreement_rows(level: float, seed: int) -> list[Row]:
    """The closed forms of the single-layer example against the code that takes any network.

    d_θ has a closed form where the rows of X are orthogonal and equally long: then the samples separate.
    """
    generator = Generator().manual_seed(seed)
    design = draw_design(6, 9, generator)
    X = torch.linalg.qr(design.X.T).Q.T
    example = Perceptron(X, (design.signs > 0).double(), X.T @ (design.signs * torch.arange(1.0, 7.0)).double())
    free = Perceptron(design.X, example.y, example.theta)
    return [*_derivative_rows(free), *_distance_rows(example, level, seed)]


def _derivative_rows(example: Perceptron) -> list[Row]:
    model, labels = SingleLayer(example.theta), example.y.long()
    theta = parameter_objective(model, example.X, labels)
    inputs = input_objective(model, example.X, labels, joint=True)
    pairs: dict[str, tuple[Tensor | float, Tensor]] = {
        "gradient over θ": (example.gradient_theta(), theta.value_and_grad(theta.origin)[1]),
        "Hessian over θ": (example.hessian_theta(), _dense(theta)),
        "gradient over X": (example.gradient_inputs(), inputs.value_and_grad(inputs.origin)[1]),
        "Hessian over X": (example.hessian_inputs(), _dense(inputs)),
        "λ₁ over θ": (example.largest_eigenvalue_theta(), top_eigenpairs(theta, 1, tol=_TOL**2).eigenvalues),
        "λ₁ over X": (example.largest_eigenvalue_inputs(), top_eigenpairs(inputs, 1, tol=_TOL**2).eigenvalues),
    }
    return [_agreement(name, closed, general) for name, (closed, general) in pairs.items()]


def _distance_rows(example: Perceptron, level: float, seed: int) -> list[Row]:
    model, labels = SingleLayer(example.theta), example.y.long()
    levels = torch.tensor([level], dtype=torch.float64)

    def search(phi: Objective, starts: Tensor) -> Tensor:
        return level_set_distance(phi, levels, starts=starts, seed=seed, tol=_TOL, budget=200).distance

    descents = -example.signs[:, None, None] * example.X[:, None]
    moves = torch.diag_embed(example.signs)[:, :, None] * -example.theta  # each sample alone towards the boundary
    separate = input_objective(model, example.X, labels)
    joint = input_objective(model, example.X, labels, joint=True)
    along = -(example.signs[:, None] * example.theta)[None]
    return [
        _agreement(
            "d over θ",
            example.orthogonal_theta_distance(level),
            search(parameter_objective(model, example.X, labels), descents),
        ),
        _agreement("d over X, per sample", example.sample_input_distances(levels), search(separate, along)),
        _agreement(
            "d over X, joint",
            example.joint_input_distance(level),
            search(joint, moves.reshape(len(moves), 1, -1)),
        ),
    ]


def _dense(phi: Objective) -> Tensor:
    """The Hessian at the origin of one row, ``(n, n)``."""
    identity = torch.eye(phi.origin.shape[1], dtype=phi.origin.dtype)
    return phi.linearize(phi.origin)(identity[:, None])[:, 0]


def _agreement(name: str, closed: Tensor | float, general: Tensor) -> Row:
    """Largest entries side by side, and the largest difference relative to the largest entry."""
    expected = torch.as_tensor(closed, dtype=torch.float64).reshape(-1)
    got = general.double().reshape(-1)
    scale = expected.abs().max()
    return {
        "quantity": name,
        "closed_form": scale.item(),
        "general": got.abs().max().item(),
        "error": ((got - expected).abs().max() / scale).item(),
    }


def theorem2_solutions(level: float, seed: int, note: Callable[[str], None] = lambda _: None) -> list[Solution]:
    """Widths in θ and X of families of solutions of separable problems, dim ker X varied.

    Raises:
        ConfigurationError: If the level is not above the loss of the solutions.
    """
    if not level > 2 * SOLUTION_LOSS:
        raise ConfigurationError(f"level {level:g} cannot be; solutions have losses near {SOLUTION_LOSS:g}.")
    generator = Generator().manual_seed(seed)
    found = []
    for num_features in NUM_FEATURES:
        design = draw_design(NUM_SAMPLES, num_features, generator)
        note(f"solutions with dim ker X = {design.dim_kernel} …")
        for family, thetas in solutions(design, SOLUTION_LOSS, generator).items():
            inside = thetas[mean_loss(design, thetas) < level]
            found += _measure_family(design, family, inside, level, seed)
    return found


def _measure_family(design: Design, family: str, thetas: Tensor, level: float, seed: int) -> list[Solution]:
    phi = LogObjective(objective(lambda z: mean_loss(design, z), thetas))
    # Towards the boundary of each sample alone: the nearest point may give up any one of them.
    starts = -(design.signs[:, None] * design.X)[:, None].expand(-1, len(thetas), -1)
    target = torch.tensor([level], dtype=torch.float64).log()
    distances = level_set_distance(phi, target, starts=starts, seed=seed, tol=_TOL, budget=200).distance[:, 0]
    examples = [Perceptron(design.X, (design.signs > 0).double(), theta) for theta in thetas]
    return [
        _measure_solution(design, family, example, level, d)
        for example, d in zip(examples, distances.tolist(), strict=True)
    ]


def _measure_solution(design: Design, family: str, example: Perceptron, level: float, d_theta: float) -> Solution:
    climb = level - example.loss
    losses = torch.nn.functional.softplus(-example.margins)
    separate = example.sample_input_distances(torch.tensor([level]))[:, 0] / (level - losses)
    return Solution(
        len(design.X),
        design.X.shape[1],
        design.dim_kernel,
        family,
        example.loss,
        example.theta.norm().item(),
        d_theta / climb,
        example.joint_input_distance(level) / climb,
        separate.nanmedian().item(),
        math.sqrt(2 / (climb * example.largest_eigenvalue_theta())),
        math.sqrt(2 / (climb * example.largest_eigenvalue_inputs())),
    )
