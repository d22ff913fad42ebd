"""A run from foreign checkpoints: read apart, fitted to a model, and stored as any run is."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from landscape.errors import ConfigurationError
from landscape.interchange.collecting import Collected, Expected, collect
from landscape.interchange.folders import expand
from landscape.interchange.naming import Mapping
from landscape.interchange.ordering import Order, Place, order_of
from landscape.interchange.storing import store
from landscape.problem.datasets import DATASETS, Dataset
from landscape.problem.model_sources import UNKNOWN, make_model, state_buffers
from landscape.problem.models import MODELS, check_fit
from landscape.problem.normalisation import Normalisation, Normalised
from landscape.problem.own_data import open_dataset
from landscape.provenance import provenance
from landscape.snapshots import RunDescription
from landscape.snapshots.claim import check_writable
from landscape.snapshots.commit import beside, check_free
from landscape.snapshots.directory import file_digest

# Settings that a trained run has and a foreign one may not tell; by them runs are told apart in studies.
SETTINGS: dict[str, type | tuple[type, ...]] = {
    "optimizer": str,
    "learning_rate": (int, float),
    "batch_size": int,
    "seed": int,
}
# Whether it is told decides whether there is an edge of stability to be drawn.
_OPTIONAL: dict[str, type | tuple[type, ...]] = {"momentum": (int, float)}
UNKNOWN_DATA = "0" * 64


@dataclass(frozen=True)
class ImportOptions:
    """What the files do not say: the model and data they belong to, and how names and order are to be read."""

    model: str | None = None  # a name of ours, of torchvision's, or package.module:function
    model_args: dict[str, Any] = field(default_factory=dict)
    normalisation: Normalisation | None = None  # becomes part of the network, which takes images in [0, 1]
    dataset: str | None = None  # a name of ours, a file, an image folder, or package.module:function
    settings: dict[str, Any] = field(default_factory=dict)  # of the training, by which studies tell runs apart
    mappings: tuple[Mapping, ...] = ()  # tensors to rename or transpose
    strip: tuple[str, ...] = ()  # prefixes of names
    key: str | None = None  # entry of a torch checkpoint that holds the weights
    order_given: bool = False  # as the files are listed, not by step, epoch or number


@dataclass(frozen=True)
class Imported:
    """A run that was imported, and what the user must know of it."""

    path: Path
    run_id: str
    num_snapshots: int
    notes: tuple[str, ...]


def import_run(paths: Sequence[str | Path], output: str | Path, options: ImportOptions | None = None) -> Imported:
    """Store the weights in files or folders as one run; nothing is written unless all of it is sound.

    Raises:
        SnapshotError: The family of it, for files that are missing, damaged, hostile, of no known format, or that
            do not fit each other; RunConflictError when ``output`` exists.
        ModelError, DatasetError: If the weights do not fit the model, or the dataset cannot be had.
        ConfigurationError: For settings, mappings or prefixes that cannot be used.
    """
    options = options or ImportOptions()
    target = Path(output)
    check_free(target)
    check_writable(target)
    source = expand([Path(path) for path in paths])
    settings = _checked_settings(source.settings | options.settings)
    data = open_dataset(options.dataset, "train") if options.dataset else None
    model = make_model(options.model, options.model_args, permitted=options.model) if options.model else None
    if model is not None and data is not None:
        shown = model if options.normalisation is None else Normalised(model, options.normalisation)
        check_fit(shown, data.images[:1], data.num_classes)
    expected = _expected(options.model or UNKNOWN, model)
    with tempfile.TemporaryFile() as rows:
        found = collect(source, options.mappings, options.strip, options.key, expected, rows)
        names = [str(file) for file in found.files]
        told = order_of(names, found.positions, options.order_given)
        order = told.places
        description = _describe(found, order, options, settings, data)
        seen = [_samples_seen(place, settings, len(data) if data else 0) for place in order]
        facts = [{"file": str(file), "sha256": file_digest(file)} for file in dict.fromkeys(found.files)]
        with beside(target) as temporary:
            store(temporary, description, provenance() | {"imported": facts}, order, seen, rows)
    notes = (*source.notes, *found.notes, *_said_of(told, names), *_advice(options))
    return Imported(target, description.run_id, len(order), notes)


def _said_of(order: Order, names: Sequence[str]) -> list[str]:
    """How snapshots became a run, which the user must see to be right."""
    if len(names) == 1:
        return []
    shown = [
        f"{Path(names[i]).name} (step {order.places[i].step}, epoch {order.places[i].epoch})" for i in order.ranks
    ]
    listed = shown if len(shown) <= 4 else [*shown[:2], "…", shown[-1]]
    return [f"{len(names)} snapshots of one run, in order of {order.kind}: {', '.join(listed)}"]


def _checked_settings(given: dict[str, Any]) -> dict[str, Any]:
    """Settings as a run stores them: those that every run has, momentum if it is told, and further ones."""
    known = SETTINGS | _OPTIONAL
    wrong = [name for name, value in given.items() if not _is_setting(value, known.get(name, (str, int, float)))]
    if wrong:
        raise ConfigurationError(
            f"The settings {', '.join(wrong)} are of a wrong kind: optimizer is a text, learning_rate and "
            "momentum are numbers, batch_size and seed whole numbers, further ones texts or numbers."
        )
    low = [name for name in ("learning_rate", "batch_size") if name in given and not given[name] > 0]
    if low or not 0 <= given.get("momentum", 0) < 1:
        raise ConfigurationError(
            f"The settings {', '.join(low) or 'momentum'} cannot be: learning_rate and batch_size are above 0, "
            "and 0 ≤ momentum < 1."
        )
    settings = {name: given.get(name) for name in SETTINGS}
    settings |= {name: given[name] for name in _OPTIONAL if name in given}
    further = {name: value for name, value in given.items() if name not in known}
    return settings | ({"further_settings": further} if further else {})


def _is_setting(value: Any, kind: type | tuple[type, ...]) -> bool:
    finite = not isinstance(value, float) or math.isfinite(value)
    return isinstance(value, kind) and not isinstance(value, bool) and finite


def _expected(name: str, model: nn.Module | None) -> Expected | None:
    if model is None:
        return None
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    every = model.named_parameters(remove_duplicate=False)
    aliases = {name: first[id(parameter)] for name, parameter in every if first[id(parameter)] != name}
    return Expected(name, dict(model.named_parameters()), state_buffers(model), aliases)


def _describe(
    found: Collected,
    order: Sequence[Place],
    options: ImportOptions,
    settings: dict[str, Any],
    data: Dataset | None,
) -> RunDescription:
    # By the contents, so that runs of other weights are other runs, whatever their files are called.
    ordered = sorted(range(len(order)), key=lambda i: order[i].number)
    digest = hashlib.sha256(b"".join(found.digests[i] for i in ordered)).hexdigest()
    config = settings | _stored_data(options.dataset, data) | {"imported": {"theta_sha256": digest}}
    if options.normalisation is not None:
        config["normalisation"] = options.normalisation.as_settings()
    name = options.model or UNKNOWN
    data_sha256 = data.sha256 if data else UNKNOWN_DATA
    return RunDescription(name, options.model_args, found.layout, config, data_sha256, found.buffers)


def _stored_data(name: str | None, data: Dataset | None) -> dict[str, Any]:
    """What a run stores of its data, beside their digest; of own data never where they lie."""
    if name is None or data is None or data.name in DATASETS:
        return {"dataset": name}
    return {"dataset": data.name, "test_sha256": open_dataset(name, "test").sha256}


def _samples_seen(place: Place, settings: dict[str, Any], samples: int) -> int:
    """Samples seen as far as step and batch size, or epoch and dataset, tell; else 0."""
    if place.step_known and settings["batch_size"]:
        return place.step * int(settings["batch_size"])
    return place.epoch * samples


def _advice(options: ImportOptions) -> list[str]:
    notes = []
    if options.model is None:
        notes.append("no --model was given: the run can be verified and exported, but not measured")
    if options.normalisation is None and options.model not in (None, *MODELS):
        notes.append("no --mean and --std were given: the network gets images in [0, 1] as they are")
    if options.dataset is None:
        notes.append("no --dataset was given: it has to be named when the run is measured")
    return notes
