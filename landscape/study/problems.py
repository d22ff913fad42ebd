"""A snapshot's network with the data on which it is measured."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import nn

from landscape.errors import DatasetError, ModelError
from landscape.problem.datasets import Dataset, load_dataset
from landscape.problem.device import resolve_device
from landscape.problem.input_objective import InputObjective, input_objective
from landscape.problem.memory import MEMORY
from landscape.problem.models import check_fit, model_with, scale_logits
from landscape.problem.parameter_objective import ParameterObjective, parameter_objective
from landscape.robustness.accuracy import margins
from landscape.snapshots import Snapshot


@dataclass(frozen=True)
class Problem:
    """A snapshot's model with the data on which it is measured."""

    model: nn.Module
    train: Dataset
    test: Dataset

    def double(self) -> Problem:
        """The same problem in float64."""
        return Problem(copy.deepcopy(self.model).double(), self.train.double(), self.test.double())


def load_problem(snapshot: Snapshot, device: str = "auto", dataset: str | None = None) -> Problem:
    """Rebuild a snapshot's model, and load its data.

    Raises:
        ModelError: If the parameters do not fit the model.
        DatasetError: If the dataset is not the one that the snapshot was trained on.
    """
    where = resolve_device(device)
    model = model_with(snapshot.model, snapshot.model_args, snapshot.parameters).to(where)
    name = dataset or snapshot.config.get("dataset", "mnist")
    if name is None:
        raise DatasetError(f"{snapshot.path} was imported without its dataset; import it again with --dataset.")
    name = str(name)
    train, test = load_dataset(name, "train"), load_dataset(name, "test")
    if dataset is None and train.sha256 != snapshot.data_sha256:
        raise DatasetError(
            f"{snapshot.path} was trained on other data than the {name} found here "
            f"(digest {snapshot.data_sha256[:12]}, not {train.sha256[:12]}); measure it where that data is."
        )
    check_fit(model, train.images[:1].to(where), train.num_classes)
    return Problem(model, train.to(where), test.to(where))


def with_median_margin(problem: Problem, margin: float, data: Dataset) -> tuple[Problem, float]:
    """The same network with logits multiplied so that the median margin on ``data`` is ``margin``; and the factor.

    Decisions stay as they are, and so does every boundary. The confidence, by which the loss and its flatness
    differ among networks that decide alike, becomes that of all others.

    Raises:
        ModelError: If the median margin is not above zero: no factor makes it so.
    """
    # Of an even number the lower of both middle ones, as the row's quantiles are.
    median = torch.median(margins(problem.model, data.images, data.labels)).item()
    if not median > 0:
        raise ModelError(
            f"the median margin is {median:g}, so that no factor of the logits makes it {margin:g}: less than "
            f"half of the images are told right; leave the run out, or measure it without an equal margin."
        )
    factor = margin / median
    return replace(problem, model=scale_logits(problem.model, factor, data.images[:16])), factor


def theta_objective(
    problem: Problem, samples: int, seed: int, memory: int = MEMORY, part: int = 0
) -> ParameterObjective:
    """φ over θ: the mean cross-entropy of a fixed subset of the training data."""
    data = problem.train.subset(samples, seed, part)
    return parameter_objective(problem.model, data.images, data.labels, memory=memory)


def x_objective(problem: Problem, samples: int, seed: int, memory: int = MEMORY, part: int = 0) -> InputObjective:
    """φ over X: the cross-entropy of each sample of a fixed subset of the test data."""
    data = problem.test.subset(samples, seed, part)
    return input_objective(problem.model, data.images, data.labels, memory=memory)
