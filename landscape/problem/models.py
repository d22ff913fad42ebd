"""Models by name: what a snapshot names, and the only thing that is ever built from it."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Generator, Tensor, nn

from landscape.errors import ModelError

Builder = Callable[..., nn.Sequential]
# Outputs, none below 0, whose sum is as near to 1 are taken for probabilities.
_PROBABILITIES = 1e-4


def cnn(
    in_channels: int = 1,
    image_size: int = 28,
    channels: Sequence[int] = (4, 10),
    hidden: int = 100,
    num_classes: int = 10,
) -> nn.Sequential:
    """The paper's network: (conv 5×5 → ReLU → max-pool 2) twice, then hidden → ReLU → classes.

    The paper leaves the numbers of channels open; 4 and 10 are those of the getting-started network of the
    Adversarial Robustness Toolbox, which the paper uses. On 28×28 images it has 18,224 parameters.
    """
    first, second = channels
    side = ((image_size - 4) // 2 - 4) // 2
    if side < 1:
        raise ValueError(f"images of {image_size}×{image_size} are too small, 16×16 is the least")
    return nn.Sequential(
        nn.Conv2d(in_channels, first, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * side * side, hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )


def mlp(
    in_channels: int = 1, image_size: int = 28, hidden: Sequence[int] = (100,), num_classes: int = 10
) -> nn.Sequential:
    """Fully connected ReLU network with the given hidden widths."""
    layers: list[nn.Module] = [nn.Flatten()]
    widths = (in_channels * image_size**2, *hidden, num_classes)
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def logistic(in_channels: int = 1, image_size: int = 28, num_classes: int = 10) -> nn.Sequential:
    """Multinomial logistic regression."""
    return mlp(in_channels, image_size, (), num_classes)


MODELS: dict[str, Builder] = {"cnn": cnn, "mlp": mlp, "logistic": logistic}


def build_model(name: str, arguments: Mapping[str, Any] | None = None) -> nn.Sequential:
    """Build a model by name, in eval mode, with uninitialised parameters.

    Raises:
        ModelError: If the name or an argument is unknown, or the arguments do not fit together.

    """
    if name not in MODELS:
        raise ModelError(f"unknown model {name!r}; choose one of {', '.join(MODELS)}.")
    arguments = dict(arguments or {})
    known = inspect.signature(MODELS[name]).parameters
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise ModelError(f"model {name!r} takes no argument {', '.join(unknown)}; it takes {', '.join(known)}.")
    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):
            model = MODELS[name](**arguments)
        if empty := [name for name, p in model.named_parameters() if p.numel() == 0]:
            raise ValueError(f"empty parameters {', '.join(empty)}")
        return model.to_empty(device="cpu").eval()
    except (TypeError, ValueError, RuntimeError, MemoryError) as error:
        reason = (str(error).splitlines() or ["no memory"])[0]
        raise ModelError(f"model {name!r} cannot be built with {arguments}: {reason}; change them.") from error


@torch.no_grad()
def initialise(model: nn.Module, generator: Generator) -> None:
    """Draw all parameters of a freshly built model from U(−1/√fan_in, 1/√fan_in), PyTorch's default law."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            bound = module.weight[0].numel() ** -0.5
            for parameter in module.parameters(recurse=False):
                parameter.uniform_(-bound, bound, generator=generator)


def check_fit(model: nn.Module, images: Tensor, num_classes: int) -> None:
    """Refuse a model that cannot classify such images, ``(N, C, H, W)``.

    Raises:
        ModelError: If it does not take an image of this shape, or has too few outputs.
    """
    shape = tuple(images.shape[1:])
    try:
        with torch.no_grad():
            outputs = model(images[:1])
    except ModelError:
        raise
    except Exception as error:  # whatever the code of a network raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"the model does not take images of shape {shape} ({reason}); set its arguments, such as "
            f'{{"in_channels": {shape[0]}, "image_size": {shape[-1]}}} for those of ours.'
        ) from error
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != 1:
        said = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ModelError(f"the model returns {said} for one image; it must return logits of shape (1, K).")
    if outputs.shape[1] < num_classes:
        raise ModelError(
            f"the model has {outputs.shape[1]} outputs for {num_classes} classes; set its num_classes."
        )
    if outputs.shape[1] > 1 and bool((outputs >= 0).all()) and abs(float(outputs.sum()) - 1) < _PROBABILITIES:
        raise ModelError(
            "the model returns probabilities, ≥ 0 and of sum 1; it must return logits: leave its softmax out, or "
            "return the logarithm of its outputs."
        )


def scale_logits(model: nn.Module, factor: float, images: Tensor) -> nn.Module:
    """A copy whose logits are ``factor`` times as large, by the weights and the bias of its last dense layer.

    Args:
        model: Never changed.
        factor: Above zero.
        images: ``(N, C, H, W)``, on which it is confirmed that the logits are those.

    Raises:
        ModelError: If there is no dense layer whose scale is that of the logits.
    """
    scaled = copy.deepcopy(model)
    layers = [module for module in scaled.modules() if isinstance(module, nn.Linear)]
    if layers:
        with torch.no_grad():
            for parameter in layers[-1].parameters():
                parameter.mul_(factor)
            expected, found = factor * model(images), scaled(images)
            if torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
                return scaled
    raise ModelError(
        "the logits are not those of a last dense layer, so that they cannot be multiplied through its weights; "
        "measure without an equal margin."
    )


def differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """One line per tensor that is missing, unexpected or of another shape."""
    missing = [f"missing {name} {tuple(expected[name].shape)}" for name in expected if name not in found]
    surplus = [f"unexpected {name} {tuple(found[name].shape)}" for name in found if name not in expected]
    reshaped = [
        f"{name} has shape {tuple(found[name].shape)}, the model needs {tuple(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    return missing + surplus + reshaped
