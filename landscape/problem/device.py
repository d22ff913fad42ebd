"""The device that computes."""

from __future__ import annotations

import torch

from landscape.errors import ConfigurationError


def resolve_device(name: str) -> torch.device:
    """The torch device of a name; ``auto`` is CUDA if there is one, else the CPU.

    Raises:
        ConfigurationError: If the name is unknown or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = name.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise ConfigurationError(f"unknown device {name!r}; choose auto, cpu, cuda or cuda:N.")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigurationError(f"unknown device {name!r}; choose auto, cpu, cuda or cuda:N.") from error
    if kind == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(f"device {name!r} is not there: torch sees {torch.cuda.device_count()} GPUs.")
    return device
