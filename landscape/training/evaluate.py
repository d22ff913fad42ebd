"""What is measured after each epoch."""

from __future__ import annotations

from torch import nn

from landscape.problem.datasets import Dataset
from landscape.problem.parameter_objective import parameter_objective
from landscape.robustness.accuracy import accuracy, robust_accuracy
from landscape.robustness.fgsm import READINGS


def evaluate(model: nn.Module, train: Dataset, test: Dataset, epsilon: float) -> dict[str, float]:
    """Train loss over all training data, clean test accuracy, FGSM test accuracy in both readings."""
    phi = parameter_objective(model, train.images, train.labels)
    metrics = {
        "train_loss": phi.value(phi.origin).item(),
        "clean_accuracy": accuracy(model, test.images, test.labels),
    }
    for reading, loss in READINGS.items():
        attacked = robust_accuracy(model, test.images, test.labels, epsilon, loss)
        metrics[f"fgsm_accuracy_{reading}"] = attacked.accuracy
    return metrics
