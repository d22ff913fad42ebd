"""What defines a training run, and where its random numbers come from."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Generator

from landscape.errors import ConfigurationError
from landscape.problem.losses import loss_by_name
from landscape.robustness.fgsm import AS_PUBLISHED
from landscape.training.methods import PLAIN, Method, make_method

OPTIMIZERS = ("sgd", "adam")
# Settings in which runs that are trained as one stack may differ.
OWN_SETTINGS = frozenset({"seed", "learning_rate", "momentum", "epochs", "epsilon"})

_KINDS: dict[str, tuple[type, ...]] = {
    "a text": (str,),
    "a table": (Mapping,),
    "a whole number": (int,),
    "a number": (int, float),
}
_NUMBERS = ("learning_rate", "momentum", "epsilon")


@dataclass(frozen=True)
class TrainingConfig:
    """The paper's protocol (its §5): constant learning rate, no augmentation, fixed batch size."""

    model: str = "cnn"
    model_args: Mapping[str, Any] = field(default_factory=dict)
    dataset: str = "mnist"
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.0  # sgd only
    batch_size: int = 16
    epochs: int = 5
    seed: int = 0
    loss: str = AS_PUBLISHED
    epsilon: float = 0.3  # radius of the FGSM evaluation after each epoch
    snapshot_every: int = 1024  # samples seen between two stored pairs
    method: str = PLAIN
    method_args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_types()
        for name in _NUMBERS:
            # A learning rate of 1 and one of 1.0 are the same run, and must have the same text.
            object.__setattr__(self, name, float(getattr(self, name)))
        loss_by_name(self.loss)
        if self.optimizer not in OPTIMIZERS:
            raise ConfigurationError(
                f"unknown optimizer {self.optimizer!r}; choose one of {', '.join(OPTIMIZERS)}."
            )
        if not 0 <= self.seed < 2**63:
            raise ConfigurationError(f"seed = {self.seed} cannot be; pass a whole number from 0 to 2⁶³ − 1.")
        for name in ("batch_size", "epochs", "snapshot_every"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} = {getattr(self, name)} cannot be; pass a whole number ≥ 1.")
        for name in ("learning_rate", "epsilon"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ConfigurationError(f"{name} = {getattr(self, name)} cannot be; pass a finite number > 0.")
        if not 0 <= self.momentum < 1 or (self.momentum and self.optimizer != "sgd"):
            raise ConfigurationError(
                f"momentum = {self.momentum} with {self.optimizer} cannot be; pass 0 ≤ momentum < 1, for sgd only."
            )
        method = make_method(self.method, self.method_args)
        object.__setattr__(self, "method_args", {name: getattr(method, name) for name in self.method_args})

    def _check_types(self) -> None:
        kinds = dict.fromkeys(_NUMBERS, "a number")
        kinds |= dict.fromkeys(("model", "dataset", "optimizer", "loss", "method"), "a text")
        kinds |= dict.fromkeys(("batch_size", "epochs", "seed", "snapshot_every"), "a whole number")
        for name, kind in (kinds | dict.fromkeys(("model_args", "method_args"), "a table")).items():
            value = getattr(self, name)
            if not isinstance(value, _KINDS[kind]) or isinstance(value, bool):
                raise ConfigurationError(f"{name} = {value!r} cannot be; pass {kind}.")

    def make_method(self) -> Method:
        """What a step descends, with all arguments."""
        return make_method(self.method, self.method_args)

    def as_settings(self) -> dict[str, Any]:
        """All fields but the model's as plain values, for storage and for the names of cells.

        A method comes with all of its arguments, so that no default decides what a stored run was. Plain runs
        have neither: theirs are the settings, and the names, of runs that were stored before there were methods.
        """
        settings = asdict(self)
        del settings["model"], settings["model_args"], settings["method"], settings["method_args"]
        if self.method == PLAIN:
            return settings
        return settings | {"method": self.method, "method_args": asdict(self.make_method())}


def shared_settings(config: TrainingConfig) -> str:
    """What runs must have in common to be trained as one stack, as a text."""
    settings = {name: value for name, value in asdict(config).items() if name not in OWN_SETTINGS}
    return json.dumps(settings, sort_keys=True)


def generator(seed: int, *purpose: str | int) -> Generator:
    """A random generator that depends on nothing but the seed and what it is for."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
