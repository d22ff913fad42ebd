"""A snapshot's network with the data on which it is measured."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from landscape.errors import DatasetError, ModelError
from landscape.problem.datasets import DATASETS, Dataset, load_dataset
from landscape.problem.device import resolve_device
from landscape.problem.input_objective import InputObjective, input_objective
from landscape.problem.memory import MEMORY
from landscape.problem.model_sources import model_with
from landscape.problem.models import check_fit, scale_logits
from landscape.problem.normalisation import Normalised, normalisation_of
from landscape.problem.own_data import is_own
from landscape.problem.parameter_objective import ParameterObjective, parameter_objective
from landscape.robustness.accuracy import margins
from landscape.snapshots import RunDescription, Snapshot
from landscape.study.given import NOTHING, Given
from landscape.traces import Traces


@dataclass(frozen=True)
class Problem:
    """A snapshot's model with the data on which it is measured."""

    model: nn.Module
    train: Dataset
    test: Dataset
    traces: Traces = field(default_factory=Traces, repr=False, compare=False)

    def double(self) -> Problem:
        """The same problem in float64."""
        return replace(
            self, model=copy.deepcopy(self.model).double(), train=self.train.double(), test=self.test.double()
        )


def load_problem(
    snapshot: Snapshot, device: str = "auto", given: Given = NOTHING, traces: Traces | None = None
) -> Problem:
    """Rebuild a snapshot's model, and load its data, or the data that the caller gives.

    Snapshots of equal networks may share ``traces``; they are used where one consists of its parameters only.

    Raises:
        ModelError: If the parameters do not fit the model, or it needs code that the caller does not name.
        DatasetError: If the dataset is not the one that the snapshot was trained on, and not given.
    """
    where = resolve_device(device)
    model = load_model(snapshot, given).to(where)
    train, test = load_data(snapshot, given)
    check_fit(model, train.images[:1].to(where), train.num_classes)
    shared = traces if traces is not None and _is_all_parameters(snapshot.model, model) else Traces()
    return Problem(model, train.to(where), test.to(where), shared)


def _is_all_parameters(name: str, model: nn.Module) -> bool:
    """Whether networks of that name can differ in nothing else: code of others may keep tensors anywhere."""
    return ":" not in name and next(model.buffers(), None) is None


def load_data(snapshot: Snapshot, given: Given = NOTHING) -> tuple[Dataset, Dataset]:
    """Images for training and for testing: those that are given, else those that the snapshot names.

    Raises:
        DatasetError: If they cannot be had, are not those that the snapshot was trained on, or are neither given
            nor a dataset of this program.
    """
    data = given.open()
    if data is None:
        data = _stored_data(snapshot)
    elif not (is_own(data[0].name) and is_own(str(snapshot.config.get("dataset")))):
        return data  # deliberately other data: one of both is a dataset of this program, or none was known
    if data[0].sha256 != snapshot.data_sha256:
        raise DatasetError(
            f"{snapshot.path} was trained on other data than the {data[0].name} found here "
            f"(digest {snapshot.data_sha256[:12]}, not {data[0].sha256[:12]}); measure it where that data is."
        )
    return data


def _stored_data(snapshot: Snapshot) -> tuple[Dataset, Dataset]:
    stored = snapshot.config.get("dataset", "mnist")
    if stored is None:
        raise DatasetError(
            f"{snapshot.path} was imported without its dataset; name that data by --dataset, here or at import."
        )
    name = str(stored)
    if is_own(name):
        raise DatasetError(
            f"{snapshot.path} was trained on {name[:200]}, which is not built in. Files are opened and code is "
            "run for the caller only, never for a snapshot: name that data by --dataset."
        )
    return load_dataset(name, "train"), load_dataset(name, "test")


def data_subject(description: RunDescription, given: Given) -> dict[str, Any]:
    """What tells the data of a measurement from others; equal data have equal subjects, whatever names them."""
    stored = {"dataset": description.config.get("dataset"), "data_sha256": description.data_sha256}
    data = given.open()
    if data is None:
        return stored
    train, test = data
    if train.sha256 != description.data_sha256:
        return {"dataset": train.name, "data_sha256": train.sha256, "test_sha256": test.sha256}
    # Runs of built-in data do not store the digest of their test images.
    known = description.config.get("test_sha256") or _built_in_test(stored["dataset"])
    return stored if known == test.sha256 else stored | {"test_sha256": test.sha256}


def _built_in_test(name: Any) -> str | None:
    try:
        return load_dataset(name, "test").sha256 if isinstance(name, str) and name in DATASETS else None
    except DatasetError:  # cannot be downloaded here
        return None


def load_model(snapshot: Snapshot, given: Given = NOTHING) -> nn.Module:
    """A snapshot's network with its weights, buffers and normalisation, in eval mode; ModelError."""
    weights = snapshot.parameters, snapshot.buffers
    model = model_with(snapshot.model, snapshot.model_args, *weights, permitted=given.model)
    normalisation = normalisation_of(snapshot.config)
    return model if normalisation is None else Normalised(model, normalisation)


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
    problem: Problem, samples: int, seed: int, memory: int = MEMORY, part: int = 0, balanced: bool = False
) -> ParameterObjective:
    """φ over θ: the mean cross-entropy of a fixed subset of the training data."""
    data = problem.train.subset(samples, seed, part, balanced)
    phi = parameter_objective(problem.model, data.images, data.labels, memory=memory)
    return replace(phi, traces=problem.traces)


def x_objective(
    problem: Problem, samples: int, seed: int, memory: int = MEMORY, part: int = 0, balanced: bool = False
) -> InputObjective:
    """φ over X: the cross-entropy of each sample of a fixed subset of the test data."""
    data = problem.test.subset(samples, seed, part, balanced)
    return input_objective(problem.model, data.images, data.labels, memory=memory)
