"""Directions in input space in which a search for a level set may begin."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from landscape.geometry.vectors import steepest_direction
from landscape.problem.evaluation import evaluation


def targeted_starts(model: nn.Module, x: Tensor, y: Tensor, count: int, norm: float = 2) -> Tensor:
    """Displacements at which each image's ``count`` strongest wrong classes reach its own, ``(count, B, n)``.

    They are the shortest ones for the linear model of z_k − z_y at the image; class k is wrong. The nearest point
    of a level set lies towards one of few classes, not always the strongest one. Costs ``count`` gradients.
    """
    with torch.enable_grad():
        images = x.detach().clone().requires_grad_()
        logits = evaluation(model, tuple(x.shape[1:])).of_images(images)
        wrong = logits.detach().scatter(1, y[:, None], float("-inf"))
        targets = wrong.topk(min(count, wrong.shape[1] - 1), dim=1).indices
        gaps = logits.gather(1, y[:, None]) - logits.gather(1, targets)
        gradients = [-torch.autograd.grad(gap.sum(), images, retain_graph=True)[0] for gap in gaps.T]
    gradient = torch.stack(gradients).reshape(len(gradients), len(x), -1)
    steepest = steepest_direction(gradient, norm)
    length = gaps.detach().T.abs() / (steepest * gradient).sum(-1)
    starts: Tensor = length[..., None] * steepest
    return starts
