"""What a row of the study costs when it is put together from PyHessian, foolbox's DDN and torchattacks.

None of them measures the distance to a level of the loss. DDN does when it is shown two logits, 0 for the class
that is right and ψ − t for the other: its decision turns where ψ = t, and all that it uses of the gradient is
the direction. So it measures d_X, with ψ = LO of each image, and d_θ, with ψ = log φ and the parameters as the
one image.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
from attacks import rivals as torchattacks_by_rung
from foolbox.attacks.ddn import DDNAttack
from foolbox.models.pytorch import PyTorchModel
from torch import Tensor, nn
from torch.func import functional_call

from landscape.problem.datasets import Dataset
from landscape.problem.losses import log_odds
from landscape.problem.network import channels_last
from landscape.robustness.accuracy import predict
from landscape.robustness.balls import distances
from landscape.robustness.minimum_norm import load_torchattacks
from landscape.robustness.rungs import Effort

BOUNDS = (-100.0, 100.0)  # never reached
BISECTIONS = 20
# Attacks of torchattacks at one radius, by the names of our rungs.
RUNGS = ("pgd_log_odds", "square")


class TwoLogits(nn.Module):
    """Logits 0 and ψ(z) − t of each row z, from a function ``(B, …) -> (B,)``."""

    def __init__(self, psi: Callable[[Tensor], Tensor], target: float) -> None:
        super().__init__()
        self.psi, self.target = psi, target
        self.eval()

    def forward(self, z: Tensor) -> Tensor:
        value = self.psi(z) - self.target
        return torch.stack([torch.zeros_like(value), value], 1)


def log_loss_of_parameters(model: nn.Module, data: Dataset) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """ψ = log φ of one parameter vector ``(1, n) -> (1,)``, and the vector at which the model is."""
    network = model.to(memory_format=torch.channels_last)
    named = dict(network.named_parameters())
    sizes = [p.numel() for p in named.values()]
    images = channels_last(data.images)

    def psi(z: Tensor) -> Tensor:
        parts = zip(named.items(), z[0].split(sizes), strict=True)
        logits = functional_call(network, {n: part.view_as(p) for (n, p), part in parts}, (images,))
        return nn.functional.softplus(log_odds(logits, data.labels)).mean().log()[None]

    return psi, torch.cat([p.detach().reshape(-1) for p in named.values()])[None]


def log_odds_of_images(model: nn.Module, labels: Tensor) -> Callable[[Tensor], Tensor]:
    """ψ = LO of each image, ``(B, C, H, W) -> (B,)``."""
    network = model.to(memory_format=torch.channels_last)
    return lambda images: log_odds(network(channels_last(images)), labels)


def log_odds_of(level: float) -> float:
    """The log-odds t at which the cross-entropy is the level."""
    return math.log(math.expm1(level))


def ddn_distances(psi: Callable[[Tensor], Tensor], origin: Tensor, targets: Sequence[float], steps: int) -> Tensor:
    """Distances from each row of ``origin`` to ψ = t, for each t, ``(B, C)``; inf where none was found.

    Rows that are beyond t already are not searched for: they have no distance, and count as infinite.
    """
    return torch.stack([_ddn(psi, origin, target, steps) for target in targets], 1)


def _ddn(psi: Callable[[Tensor], Tensor], origin: Tensor, target: float, steps: int) -> Tensor:
    network = TwoLogits(psi, target).requires_grad_(False)
    labels = torch.zeros(len(origin), dtype=torch.long)
    attack = DDNAttack(steps=steps)
    found = attack.run(PyTorchModel(network, bounds=BOUNDS, device="cpu"), origin, labels)
    offset, shape = found - origin, (-1, *[1] * (origin.ndim - 1))
    low, high = torch.zeros(len(origin)), torch.ones(len(origin))
    with torch.no_grad():
        beyond = psi(found) >= target
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            over = psi(origin + middle.view(shape) * offset) >= target
            low, high = torch.where(over, low, middle), torch.where(over, middle, high)
        valid = beyond & (psi(origin) < target)
    return torch.where(valid, high * offset.flatten(1).norm(dim=1), torch.inf)


def attack(
    model: nn.Module, data: Dataset, eps: Sequence[float], few: int, effort: Effort, fab_steps: int
) -> None:
    """FGSM on all images, and the other rungs of a row on the first ``few``, at every radius."""
    x, y = data.images[:few], data.labels[:few]
    for radius in eps:
        table = torchattacks_by_rung(radius, math.inf, effort)
        table["fgsm_published"](model, data.images, data.labels)
        for name in RUNGS:
            table[name](model, x, y)
    boundary_distances(model, x, y, fab_steps)


def boundary_distances(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> Tensor:
    """Distances of the nearest wrong images that FAB finds, ``(N,)``, once for all radii; inf where none is."""
    network = copy.deepcopy(model).requires_grad_(False)
    images = load_torchattacks().FAB(network, norm="Linf", eps=1.0, steps=steps)(x, y)
    found = torch.where(predict(model, images) != y, distances(images, x, math.inf).double(), torch.inf)
    return torch.where(predict(model, x) == y, found, 0.0)
