"""Curves and images of attacks as plain arrays, for figures."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.errors import ConfigurationError
from landscape.problem.datasets import Dataset
from landscape.robustness.accuracy import BATCH, predict
from landscape.robustness.ascent import Ascent, pgd
from landscape.robustness.balls import Ball
from landscape.robustness.fgsm import AS_PUBLISHED, EXACT
from landscape.robustness.ladder import Ladder
from landscape.robustness.rungs import BOUNDARY
from landscape.robustness.single_step import fast_gradient, random_noise
from landscape.study.attacked import AccuracyCurves, Examples, Line
from landscape.study.problems import Problem

# Points of the line that is known at every radius.
_FINE = 201


def accuracy_curves(ladder: Ladder) -> AccuracyCurves:
    """Accuracy against the radius of all rungs."""
    order = sorted(range(len(ladder.eps)), key=ladder.eps.__getitem__)
    eps = tuple(ladder.eps[i] for i in order)
    accuracy = ladder.accuracy[:, order].tolist()
    return AccuracyCurves(
        norm=ladder.norm,
        num_samples=len(ladder.nearest),
        rungs={rung.name: (rung.kind, Line(eps, tuple(accuracy[r]))) for r, rung in enumerate(ladder.rungs)},
        boundary=_boundary_line(ladder) if BOUNDARY in ladder.names else None,
        worst=Line(eps, tuple(ladder.worst_accuracy[order].tolist())),
    )


def _boundary_line(ladder: Ladder) -> Line:
    radii = torch.linspace(0, max(ladder.eps), _FINE, dtype=torch.float64)
    distance = ladder.distance[ladder.names.index(BOUNDARY)]
    beyond = (distance[None] > radii[:, None]).double().mean(1)
    return Line(tuple(radii.tolist()), tuple(beyond.tolist()))


def adversarial_examples(problem: Problem, count: int, eps: float, norm: float, seed: int) -> Examples:
    """Attack the first images of different classes that are decided rightly: noise, FGSM in both readings, PGD.

    FGSM as published sees them in a batch of 1000, as in the ladder.

    Raises:
        ConfigurationError: If data are no images, or no image is decided rightly.
    """
    data, ball = problem.test.subset(BATCH, seed), Ball(eps, norm)
    if data.images.ndim != 4:
        raise ConfigurationError(f"inputs of shape {tuple(data.images.shape[1:])} are no images to be drawn.")
    rows = _one_of_each_class(data, predict(problem.model, data.images), count)
    x, y, model = data.images, data.labels, problem.model
    attacked = {
        "random noise": random_noise(model, x[rows], y[rows], ball).images,
        "FGSM as published": fast_gradient(model, x, y, [ball], AS_PUBLISHED)[0].images[rows],
        "FGSM exact": fast_gradient(model, x[rows], y[rows], [ball], EXACT)[0].images,
        "PGD": pgd(model, x[rows], y[rows], ball, Ascent("margin", 40, restarts=1)).images,
    }
    predictions = {name: tuple(predict(model, images).tolist()) for name, images in attacked.items()}
    shown = {name: _plain(images) for name, images in attacked.items()}
    return Examples(eps, norm, _plain(x[rows]), tuple(y[rows].tolist()), shown, predictions)


def _one_of_each_class(data: Dataset, predicted: Tensor, count: int) -> Tensor:
    """Rows of images decided rightly: the first of each class, then the second, and so on."""
    seen: dict[int, int] = {}
    right = (predicted == data.labels).nonzero()[:, 0].tolist()
    ranks = []
    for row in right:
        label = int(data.labels[row])
        ranks.append((seen.get(label, 0), label, row))
        seen[label] = seen.get(label, 0) + 1
    if not ranks:
        raise ConfigurationError("no image is decided rightly without attack; there is no example to show.")
    return torch.tensor([row for *_, row in sorted(ranks)[:count]], device=data.labels.device)


def _plain(images: Tensor) -> NDArray[Any]:
    arrays = images.detach().cpu().float()
    return arrays[:, 0].numpy() if arrays.shape[1] == 1 else arrays.permute(0, 2, 3, 1).numpy()
