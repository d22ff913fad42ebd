"""What the paper's Figures 1, 2, 4 and 5 show, of stored runs: learning curves, accuracy over ε, and examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from landscape.problem.datasets import Dataset
from landscape.robustness.accuracy import accuracy_curve, predict
from landscape.robustness.fgsm import READINGS, fgsm
from landscape.snapshots import Role, Run, open_run, snapshot_of
from landscape.snapshots.select import epoch_end_rows
from landscape.study.paper import AttackedImages, AttackedModel, Examples, LearningCurve
from landscape.study.paper_runs import TrainedRun, nearest_run, open_trained_run
from landscape.study.problems import Problem, load_problem

Array = np.ndarray

# Cells of the paper's Figures 1 and 2: optimizer, learning rate, batch size.
LEARNING_CURVES = {1: ("adam", 0.001, 2), 2: ("sgd", 0.1, 16)}
# Models of its Figures 4 and 5: cell, and whether it is trained for 5 epochs (early) or for 100 (late).
MODELS = (("sgd", 0.1, 16, "late"), ("sgd", 0.1, 16, "early"), ("adam", 0.001, 16, "early"))
EPOCHS = {"early": 5, "late": 100}
RADII = tuple(round(0.05 * step, 2) for step in range(21))


def learning_curve(figure: int, runs: Sequence[TrainedRun]) -> LearningCurve | None:
    """The curve of the run whose settings are nearest to the paper's; None if no run of its kind completed."""
    run = nearest_run(runs, *LEARNING_CURVES[figure])
    if run is None:
        return None
    opened, samples = open_trained_run(run)
    rows = _pairs(opened)
    return LearningCurve(
        figure,
        run.subject,
        positions=opened.samples_seen[rows] / samples,
        batch_loss=opened.batch_loss[rows].astype(np.float64),
        step_norm=_step_norms(opened, rows),
        metrics=dict(run.metrics),
    )


def _pairs(run: Run) -> Array:
    """Rows of iterates whose predecessor in training lies in the row before."""
    after = np.flatnonzero(run.role & int(Role.AFTER))
    after = after[after > 0]
    before = (run.role[after - 1] & int(Role.BEFORE)).astype(bool) & (run.step[after - 1] == run.step[after] - 1)
    pairs: Array = after[before]
    return pairs


def _step_norms(run: Run, rows: Array) -> Array:
    wanted, norms, previous = set(rows.tolist()), [], np.empty(0)
    for row, (theta, _) in enumerate(run.read_all()):
        if row in wanted:
            norms.append(float(np.linalg.norm(theta.astype(np.float64) - previous)))
        previous = theta
    return np.array(norms)


@dataclass(frozen=True)
class ChosenModel:
    """The end of an epoch of a run, as the network of Figures 4 and 5 that the paper trained early or late."""

    role: str
    run: TrainedRun
    epoch: int

    def load(self, device: str) -> Problem:
        """Its network and data."""
        opened = open_run(self.run.path)
        return load_problem(snapshot_of(opened, epoch_end_rows(opened)[self.epoch]), device)


def find_models(runs: Sequence[TrainedRun]) -> list[ChosenModel]:
    """The networks nearest to those of the paper's Figures 4 and 5, as far as there are such; each once."""
    chosen: dict[tuple[str, int], ChosenModel] = {}
    for *cell, role in MODELS:
        run = nearest_run(runs, *cell)  # type: ignore[arg-type]
        epochs = epoch_end_rows(open_run(run.path)) if run else {}
        if run and epochs:
            epoch = min(epochs, key=lambda stored: (abs(stored - EPOCHS[role]), stored))
            chosen.setdefault((run.path, epoch), ChosenModel(role, run, epoch))
    return list(chosen.values())


def attack_model(model: ChosenModel, samples: int, device: str = "auto") -> AttackedModel:
    """Accuracy of a network at all radii, in both readings, on the first so many test samples."""
    problem = model.load(device)
    x, y = problem.test.images[:samples], problem.test.labels[:samples]
    curves = {
        str(name): tuple(accuracy_curve(problem.model, x, y, RADII, loss)) for name, loss in READINGS.items()
    }
    return AttackedModel(model.role, model.run.subject, model.epoch, RADII, curves, len(y))


def adversarial_examples(models: Sequence[ChosenModel], eps: float, count: int, device: str = "auto") -> Examples:
    """The first test image of each of ``count`` classes that all networks see rightly, attacked in both readings.

    Args:
        models: At least one.
        eps: Radius of FGSM.
        count: Images at most; there are fewer if no image of a class is seen rightly by all.
        device: Where the networks run.
    """
    problems = [model.load(device) for model in models]
    test = problems[0].test
    chosen = _right_for_all([problem.model for problem in problems], test, count)
    x, y = test.images[chosen], test.labels[chosen]
    attacked = []
    for model, problem in zip(models, problems, strict=True):
        for reading, loss in READINGS.items():
            images = fgsm(problem.model, x, y, eps, loss)
            decisions = predict(problem.model, images).cpu().numpy()
            attacked.append(
                AttackedImages(model.role, model.run.subject, model.epoch, reading, _grey(images), decisions)
            )
    return Examples(eps, _grey(x), y.cpu().numpy(), tuple(attacked))


def _right_for_all(models: Sequence[nn.Module], test: Dataset, count: int) -> Tensor:
    right = torch.stack([predict(model, test.images) == test.labels for model in models]).all(0)
    places = [torch.nonzero(right & (test.labels == k)).flatten()[:1] for k in range(test.num_classes)]
    return torch.cat(places)[:count]


def _grey(images: Tensor) -> Array:
    """Images ``(k, C, H, W)`` as mean over channels."""
    grey: Array = images.mean(1).cpu().numpy()
    return grey
