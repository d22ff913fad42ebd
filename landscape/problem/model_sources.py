"""Where networks come from: built in, torchvision's, or a function that the caller names; and their weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from landscape.errors import ModelError
from landscape.problem.code import call
from landscape.problem.models import MODELS, build_model, differences

UNKNOWN = "unknown"
# Arguments by which torchvision would fetch weights.
_FETCHING = ("weights", "weights_backbone", "pretrained")


def make_model(name: str, arguments: Mapping[str, Any] | None = None, permitted: str | None = None) -> nn.Module:
    """Build a network in eval mode, by a name of ours, of torchvision's, or ``package.module:function``.

    Code is loaded only if ``permitted``, which comes from the caller and never from a file, is the same name. The
    weights are arbitrary; random numbers of the process are left as they are.

    Raises:
        ModelError: If the name is unknown, its code is not permitted, or the network cannot be built.
    """
    if ":" in name:
        return _from_code(name, dict(arguments or {}), permitted)
    if name in MODELS:
        return build_model(name, arguments)
    if name == UNKNOWN:
        raise ModelError("the run was imported without its model; import it again with --model.")
    return _from_torchvision(name, dict(arguments or {}))


def model_with(
    name: str,
    arguments: Mapping[str, Any],
    parameters: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor] | None = None,
    permitted: str | None = None,
) -> nn.Module:
    """Build a network as `make_model` does, and fill in its parameters and buffers.

    Raises:
        ModelError: If it cannot be built, or names or shapes differ; the message lists how.
    """
    given = dict(parameters) | dict(buffers or {})
    if ":" not in name and name not in MODELS:
        # Arguments may come from a stranger: sizes are compared before memory is taken.
        with torch.device("meta"):
            _check_fit(name, make_model(name, arguments), given)
    model = make_model(name, arguments, permitted)
    _check_fit(name, model, given)
    model.load_state_dict(given, strict=False)  # tied parameters have more names than are compared above
    return model


def _check_fit(name: str, model: nn.Module, given: Mapping[str, Tensor]) -> None:
    if problems := differences(dict(model.named_parameters()) | state_buffers(model), given):
        raise ModelError(f"the parameters do not fit model {name!r}: {'; '.join(problems)}.")


def state_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Buffers that belong to a network's state, such as running means; others are made with the network."""
    state = model.state_dict()
    return {name: buffer for name, buffer in model.named_buffers() if name in state}


def _from_torchvision(name: str, arguments: dict[str, Any]) -> nn.Module:
    from torchvision import models  # noqa: PLC0415  (takes seconds to import)

    if name not in models.list_models(module=models):
        raise ModelError(
            f"unknown model {name!r}; choose one of {', '.join(MODELS)}, a classification model of torchvision "
            "such as resnet18, or package.module:function."
        )
    if fetching := [argument for argument in arguments if argument in _FETCHING]:
        raise ModelError(f"model {name!r}: {', '.join(fetching)} would fetch weights; leave it out.")
    return _built(name, lambda: models.get_model(name, weights=None, **arguments), arguments)


def _from_code(name: str, arguments: dict[str, Any], permitted: str | None) -> nn.Module:
    if name != permitted:
        said = f", not {permitted}" if permitted else ""
        raise ModelError(
            f"the snapshot's network is made by the code {name}{said}. Code is loaded for the caller only, never "
            f"for a file: if you trust it, say --model {name}, or Given(model={name!r}) in Python."
        )
    return _built(name, lambda: call(name, **arguments), arguments)


def _built(name: str, build: Callable[[], Any], arguments: dict[str, Any]) -> nn.Module:
    try:
        # On the CPU, not on the meta device: constants that are no parameters would be lost there.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore"):
            torch.manual_seed(0)
            model = build()
    except Exception as error:  # whatever foreign code raises
        reason = " ".join(str(error).split()) or "no reason given"
        raise ModelError(
            f"model {name!r} cannot be built with {arguments}: {type(error).__name__}: {reason}."
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name} returned {type(model).__name__}; it must return a torch.nn.Module.")
    if not any(True for _ in model.parameters()):
        raise ModelError(f"{name} returned a network without parameters; there is nothing to measure.")
    return model.eval()
