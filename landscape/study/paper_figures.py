"""What the paper's Figures 1, 2, 4 and 5 show, of stored runs: learning curves, accuracy over ε, and examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from landscape.errors import MissingSnapshotError
from landscape.problem.datasets import Dataset
from landscape.robustness.accuracy import accuracy_curve, predict
from landscape.robustness.fgsm import READINGS, fgsm
from landscape.snapshots import Role, Run, snapshot_of
from landscape.snapshots.select import epoch_end_rows
from landscape.study.measure import load_problem
from landscape.study.paper import AttackedImages, AttackedModel, Examples, LearningCurve
from landscape.study.paper_runs import TrainedRun, nearest_run, open_trained_run

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
    for row, theta in enumerate(run.read_all()):
        if row in wanted:
            norms.append(float(np.linalg.norm(theta.astype(np.float64) - previous)))
        previous = theta
    return np.array(norms)


def find_models(runs: Sequence[TrainedRun]) -> list[tuple[str, TrainedRun]]:
    """The runs nearest to those of the paper's Figures 4 and 5, each with its role; those there are."""
    found = [(role, nearest_run(runs, *cell)) for *cell, role in MODELS]  # type: ignore[arg-type]
    return [(role, run) for role, run in found if run is not None]


def attack_model(role: str, run: TrainedRun, samples: int, device: str = "auto") -> AttackedModel:
    """Accuracy of a model at all radii, in both readings, on the first so many test samples."""
    epoch, model, test = _load(role, run, device)
    x, y = test.images[:samples], test.labels[:samples]
    curves = {str(name): tuple(accuracy_curve(model, x, y, RADII, loss)) for name, loss in READINGS.items()}
    return AttackedModel(role, run.subject, epoch, RADII, curves, len(y))


def _load(role: str, run: TrainedRun, device: str) -> tuple[int, nn.Module, Dataset]:
    opened, _ = open_trained_run(run)
    rows = epoch_end_rows(opened)
    if not rows:
        raise MissingSnapshotError(f"{run.path} stores no end of an epoch, which a figure needs; leave it out.")
    epoch = min(rows, key=lambda stored: (abs(stored - EPOCHS[role]), stored))
    problem = load_problem(snapshot_of(opened, rows[epoch]), device)
    return epoch, problem.model, problem.test


def adversarial_examples(
    models: Sequence[tuple[str, TrainedRun]], eps: float, count: int, device: str = "auto"
) -> Examples:
    """The first test image of each of ``count`` classes that all models see rightly, attacked in both readings.

    Args:
        models: At least one, each with its role.
        eps: Radius of FGSM.
        count: Images at most; there are fewer if no image of a class is seen rightly by all.
        device: Where the networks run.
    """
    loaded = [_load(role, run, device) for role, run in models]
    test = loaded[0][2]
    chosen = _right_for_all([model for _, model, _ in loaded], test, count)
    x, y = test.images[chosen], test.labels[chosen]
    attacked = []
    for (role, run), (epoch, model, _) in zip(models, loaded, strict=True):
        for reading, loss in READINGS.items():
            images = fgsm(model, x, y, eps, loss)
            decisions = predict(model, images).cpu().numpy()
            attacked.append(AttackedImages(role, run.subject, epoch, reading, _grey(images), decisions))
    return Examples(eps, _grey(x), y.cpu().numpy(), tuple(attacked))


def _right_for_all(models: Sequence[nn.Module], test: Dataset, count: int) -> Tensor:
    right = torch.stack([predict(model, test.images) == test.labels for model in models]).all(0)
    places = [torch.nonzero(right & (test.labels == k)).flatten()[:1] for k in range(test.num_classes)]
    return torch.cat(places)[:count]


def _grey(images: Tensor) -> Array:
    """Images ``(k, C, H, W)`` as mean over channels."""
    grey: Array = images.mean(1).cpu().numpy()
    return grey
