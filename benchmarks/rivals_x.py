"""Minimum-norm attacks of foolbox, run as distances to the decision boundary that know nothing of our search.

Each attack is given what serves it best: bounds wide enough never to bind, a network without parameter gradients
in the fast memory layout, the setting that found the shortest distances in a trial, and adversarials pulled back
to the boundary along the ray from the image. Every distance is that of a point with margin ≥ 0, hence an upper
bound.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from foolbox.attacks.brendel_bethge import L2BrendelBethgeAttack, LinfinityBrendelBethgeAttack
from foolbox.attacks.ddn import DDNAttack
from foolbox.attacks.deepfool import L2DeepFoolAttack, LinfDeepFoolAttack
from foolbox.attacks.fast_minimum_norm import L2FMNAttack, LInfFMNAttack
from foolbox.models.pytorch import PyTorchModel
from torch import Tensor, nn

from landscape.problem.losses import loss_by_name
from landscape.problem.network import channels_last

# Images lie in [0, 1]; no attack gets near these. foolbox's Brendel-Bethge attack divides the width of its bounds
# into about 10⁶ steps, so that they should not be wider than needed.
BOUNDS, NARROW_BOUNDS = (-100.0, 101.0), (-2.0, 3.0)
# The first crossing is looked for among so many points of the ray, which ends slightly beyond the adversarial: an
# attack that stops on the boundary itself may be a rounding error short of it.
RAY_POINTS, RAY_END = 64, 1.001
BISECTIONS = 30

Attack = Callable[["CountedNetwork", Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Found:
    """What a method found, and what it cost."""

    distance: Tensor  # (B,) to the decision boundary, inf where none was found
    points: Tensor  # (B, …) where the ray to the adversarial first has margin ≥ 0
    adversarials: Tensor  # (B, …) as the attack returned them
    gradients: float  # backward passes per image
    forwards: float  # forward passes per image
    wall: float  # seconds
    cpu: float  # seconds of this process, which other work on the machine disturbs less


class CountedNetwork(nn.Module):
    """A frozen copy of a network that counts the images in its forward passes and backward passes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(False).to(memory_format=torch.channels_last)
        self.gradients = 0
        self.forwards = 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        if x.requires_grad:
            x = x.view_as(x)
            x.register_hook(self._count)
        logits: Tensor = self.model(channels_last(x))
        return logits

    def _count(self, gradient: Tensor) -> None:
        self.gradients += len(gradient)


class ProjectedL2FMN(L2FMNAttack):
    """FMN with the projection of Pintor et al. 2021, Algorithm 1.

    foolbox 3.3.4 scales by norms / norms = 1 instead of ε / norms, and its ball never binds.
    """

    def project(self, x: Any, x0: Any, epsilon: Any) -> Any:
        offset = (x - x0).raw
        norm = offset.flatten(1).norm(dim=1).clamp_min(1e-12)
        factor = (epsilon.raw / norm).clamp_max(1.0)
        return x0 + type(x)(offset * _as_images(factor, offset))


def ddn(steps: int = 1000, init_epsilon: float = 1.0, gamma: float = 0.05) -> Attack:
    """Decoupled direction and norm, ℓ2 only (Rony et al. 2018); no step depends on the bounds."""
    return _plain(DDNAttack(steps=steps, init_epsilon=init_epsilon, gamma=gamma))


def fmn(norm: float, steps: int = 1000, max_stepsize: float = 10.0, gamma: float = 0.3) -> Attack:
    """Fast minimum norm (Pintor et al. 2021); no step depends on the bounds.

    With foolbox's own max_stepsize = 1, gamma = 0.05 its distances are 3 % longer on the stored networks.
    """
    kind = ProjectedL2FMN if norm == 2 else LInfFMNAttack
    return _plain(kind(steps=steps, max_stepsize=max_stepsize, gamma=gamma))


def deepfool(norm: float, steps: int = 100, overshoot: float = 0.02) -> Attack:
    """DeepFool towards all classes (Moosavi-Dezfooli et al. 2016)."""
    kind = L2DeepFoolAttack if norm == 2 else LinfDeepFoolAttack
    return _plain(kind(steps=steps, candidates=None, overshoot=overshoot))


def brendel_bethge(norm: float, start: Found, steps: int = 400, lr: float = 1e-3) -> Attack:
    """Descent along the boundary from another attack's points (Brendel et al. 2019).

    foolbox takes as trust region lr · (numbers in the whole batch) · (width of the bounds); batch and width are
    divided out, so that lr means what it means for one image in [0, 1].
    """
    kind = L2BrendelBethgeAttack if norm == 2 else LinfinityBrendelBethgeAttack

    def run(network: CountedNetwork, x: Tensor, y: Tensor) -> Tensor:
        model = PyTorchModel(network, bounds=NARROW_BOUNDS, device=x.device)
        beyond = x + RAY_END * (start.points - x)
        begin = torch.where(_as_images(network(beyond).argmax(1) != y, x), beyond, start.adversarials)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it announces that it compiles, and torch that an array is read-only
            attack = kind(steps=steps, lr=lr / (len(x) * (NARROW_BOUNDS[1] - NARROW_BOUNDS[0])))
            adversarials: Tensor = attack.run(model, x, y, starting_points=begin)
        return adversarials

    return run


def rivals(
    norm: float, steps: int = 1000, refinement: int = 400
) -> dict[str, Callable[[Mapping[str, Found]], Attack]]:
    """The rivals of a norm by name, each given what earlier ones found; Brendel-Bethge starts from the nearest.

    What Brendel-Bethge costs does not include how its starts were found.
    """
    table: dict[str, Callable[[Mapping[str, Found]], Attack]] = {
        "DDN": lambda _: ddn(steps),
        "FMN": lambda _: fmn(norm, steps),
        "DeepFool": lambda _: deepfool(norm),
    }
    if norm != 2:
        del table["DDN"]
    first = tuple(table)
    return table | {
        "Brendel-Bethge": lambda found: brendel_bethge(norm, nearest([found[n] for n in first]), refinement)
    }


def nearest(found: Sequence[Found]) -> Found:
    """The nearest points of several results, image by image; without costs."""
    distance, which = torch.stack([f.distance for f in found]).min(0)
    rows = torch.arange(len(which), device=which.device)
    points = torch.stack([f.points for f in found])[which, rows]
    adversarials = torch.stack([f.adversarials for f in found])[which, rows]
    return Found(distance, points, adversarials, 0, 0, 0, 0)


def find(attack: Attack, model: nn.Module, x: Tensor, y: Tensor, norm: float) -> Found:
    """Run an attack on images that the model classifies correctly, and measure where it crosses the boundary."""
    network = CountedNetwork(model)
    wall, cpu = time.perf_counter(), time.process_time()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # DDN replaces vanished gradients by noise
        adversarials = attack(network, x, y).detach()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    points, crossed = pull_back(model, x, y, adversarials)
    distance = torch.linalg.vector_norm((points - x).flatten(1).double(), norm, dim=1)
    distance = torch.where(crossed, distance, math.inf)
    spent = network.gradients / len(x), network.forwards / len(x)
    return Found(distance, points, adversarials, *spent, wall, cpu)


def pull_back(model: nn.Module, x: Tensor, y: Tensor, adversarials: Tensor) -> tuple[Tensor, Tensor]:
    """First point with margin ≥ 0 on the ray from each image to its adversarial, and whether there is one."""

    def at(fraction: Tensor) -> Tensor:
        return x + _as_images(fraction.to(x.dtype), x) * (adversarials - x)

    def beyond(fraction: Tensor) -> Tensor:
        with torch.no_grad():
            return loss_by_name("margin")(model(at(fraction)), y) >= 0

    grid = torch.linspace(0, RAY_END, RAY_POINTS + 1, dtype=torch.float64, device=x.device)
    crossed = torch.stack([beyond(fraction.expand(len(x))) for fraction in grid])
    first = crossed.int().argmax(0)
    low, high = grid[(first - 1).clamp_min(0)], grid[first]
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        over = beyond(middle)
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    return at(high), crossed.any(0)


def _plain(attack: Any) -> Attack:
    def run(network: CountedNetwork, x: Tensor, y: Tensor) -> Tensor:
        adversarials: Tensor = attack.run(PyTorchModel(network, bounds=BOUNDS, device=x.device), x, y)
        return adversarials

    return run


def _as_images(values: Tensor, images: Tensor) -> Tensor:
    """One value an image, shaped to broadcast over images: ``(B,) -> (B, 1, …)``."""
    return values.reshape(-1, *[1] * (images.ndim - 1))
