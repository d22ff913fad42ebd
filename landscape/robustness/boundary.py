"""The nearest image beyond the decision boundary, by the search for level sets that measures widths."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from landscape.errors import ConfigurationError
from landscape.geometry.level_sets import level_set_distance
from landscape.problem.directions import targeted_starts
from landscape.problem.input_objective import input_objective
from landscape.robustness.balls import Ball
from landscape.robustness.minimum_norm import Nearest
from landscape.robustness.targets import AttackResult, target_of, wrong

# A point of the boundary is a tie: lengthened by one of these, most of them are decided wrongly.
_BEYOND = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)
# The tangent of the angle at which a descent stops: then a distance is accurate to 0.05 %.
_TOLERANCE = 3e-2


def nearest_boundary(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    balls: Sequence[Ball],
    budget: int = 85,
    restarts: int = 2,
    classes: int = 4,
) -> list[AttackResult]:
    """Nearest point of the decision boundary, min ‖x' − x‖_p with margin(x') = 0 and 0 ≤ x' ≤ 1, for all balls.

    The search is that of `landscape.geometry.level_sets`. The displacement found is lengthened by up to 1 %, until
    the image is decided wrongly: what counts is a wrong image and its distance.

    Args:
        model: In eval mode; never changed.
        x: Images ``(N, …)`` in [0, 1].
        y: Labels ``(N,)``.
        balls: Where to look, all of one norm.
        budget: Gradients for each image.
        restarts: How often the search begins anew from its best point. Their noise belongs to the batch.
        classes: Wrong classes towards which the search starts, most likely first.

    Raises:
        ObjectiveError: If shapes disagree, or the model is random or lets samples interact.
        ConfigurationError: If images leave [0, 1], norms differ, or the effort is not positive.
    """
    if len({ball.norm for ball in balls}) > 1 or budget < 1 or restarts < 0 or classes < 1:
        raise ConfigurationError(
            f"budget {budget}, {restarts} restarts and {classes} classes in norms {[ball.norm for ball in balls]} "
            "cannot be; pass positive numbers and balls of one norm."
        )
    nearest = Nearest(target_of(model, x, y), balls)
    rows = nearest.open()
    if len(rows):
        points = _boundary_points(nearest, rows, budget, restarts, classes)
        origins = nearest.target.x[rows]
        for factor in _BEYOND:
            left = (nearest.distance[rows].isinf() & points.flatten(1).isfinite().all(1)).nonzero()[:, 0]
            if not len(left):
                break
            images = (origins[left] + (1 + factor) * (points[left] - origins[left])).clamp(0, 1)
            fell = wrong(nearest.standing.query(rows[left], images), nearest.target.y[rows[left]])
            nearest.keep(rows[left[fell]], images[fell])
    return nearest.results()


def _boundary_points(nearest: Nearest, rows: Tensor, budget: int, restarts: int, classes: int) -> Tensor:
    """Nearest points with margin 0 of some samples, ``(R, …)``; NaN where there is none."""
    x, y, model = nearest.target.x[rows], nearest.target.y[rows], nearest.target.model
    starts = targeted_starts(model, x, y, classes, nearest.norm)
    found = level_set_distance(
        input_objective(model, x, y, "margin"),
        [0.0],
        norm=nearest.norm,
        starts=starts,
        box=(0.0, 1.0),
        num_random=0,
        tol=_TOLERANCE,
        budget=budget,
        restarts=restarts,
        evidence=False,
    )
    gradients = len(starts) + found.num_gradients
    nearest.standing.num_gradients[rows] += math.ceil(gradients)
    nearest.standing.num_queries[rows] += math.ceil(found.num_values)
    return torch.where(found.reached[:, :1], found.points[:, 0], torch.nan).reshape(x.shape)
