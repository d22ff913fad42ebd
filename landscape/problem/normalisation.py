"""Normalisation as the first step of a network, so that images, radii and distances stay in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from landscape.errors import ModelError


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel, or one of each for all."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        usable = all(map(math.isfinite, (*self.mean, *self.std))) and all(value > 0 for value in self.std)
        if usable and not all(0 <= value <= 1 for value in self.mean):
            raise ModelError(
                f"a mean of {list(self.mean)} cannot be that of images in [0, 1]; divide mean and std of images "
                "up to 255 by 255."
            )
        if not usable or not self.mean or len(self.mean) != len(self.std):
            raise ModelError(
                f"a normalisation by mean {list(self.mean)} and std {list(self.std)} cannot be: pass as many "
                "means as deviations, finite, and deviations above zero."
            )

    def as_settings(self) -> dict[str, list[float]]:
        """Plain values, as a run's settings hold them."""
        return {"mean": list(self.mean), "std": list(self.std)}


def normalisation_of(config: Mapping[str, Any]) -> Normalisation | None:
    """The normalisation that a run's settings name, if any; ModelError for values that cannot be one."""
    value = config.get("normalisation")
    if value is None:
        return None
    if not isinstance(value, Mapping) or set(value) != {"mean", "std"} or not all(map(_numbers, value.values())):
        raise ModelError(f"the run's normalisation {value!r} is none; import it again with --mean and --std.")
    return Normalisation(tuple(value["mean"]), tuple(value["std"]))


def _numbers(value: object) -> bool:
    return isinstance(value, Sequence) and all(type(number) in (int, float) for number in value)


class Shift(nn.Module):
    """Images x ``(N, C, H, W)`` in [0, 1] to (x − mean) / std, by channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, normalisation: Normalisation) -> None:
        super().__init__()
        for name, values in normalisation.as_settings().items():
            self.register_buffer(name, torch.tensor(values).reshape(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``(N, C, H, W)``; ModelError for another number of channels."""
        if len(self.mean) not in (1, x.shape[-3]):
            raise ModelError(f"there are {len(self.mean)} means (--mean) for images of {x.shape[-3]} channels.")
        return (x - self.mean) / self.std


class Normalised(nn.Module):
    """A network behind its normalisation; `parameter_names` tells the names that the network itself has."""

    def __init__(self, network: nn.Module, normalisation: Normalisation) -> None:
        super().__init__()
        self.shift, self.network = Shift(normalisation), network
        self.train(network.training)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, K)`` of images in [0, 1]."""
        logits: Tensor = self.network(self.shift(x))
        return logits


def parameter_names(model: nn.Module) -> list[str]:
    """Names of all parameters as the network itself has them, with or without normalisation."""
    network = model.network if isinstance(model, Normalised) else model
    return [name for name, _ in network.named_parameters()]
