"""What attacks see of a network, and what they report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from landscape.problem.evaluation import Evaluation, evaluation
from landscape.problem.losses import loss_by_name
from landscape.problem.network import check_problem
from landscape.robustness.fgsm import check_range

# Images in one forward pass at most.
CHUNK = 1000

# A loss of logits (N, K), labels (N,) and target classes (N,), which untargeted losses ignore.
TargetedLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class AttackResult:
    """What an attack made of each sample."""

    images: Tensor  # (N, …) in the ball and in [0, 1]
    fell: Tensor  # (N,) bool: the decision on these images is wrong
    num_gradients: Tensor  # (N,) backward passes
    num_queries: Tensor  # (N,) further forward passes
    nearest: Tensor | None = None  # (N,) distance of the nearest wrong image, of attacks that look for it


@dataclass(frozen=True)
class Target:
    """A network to be attacked on some samples; its parameters get no gradients."""

    model: nn.Module
    x: Tensor  # (N, …)
    y: Tensor  # (N,)
    evaluation: Evaluation

    def logits(self, points: Tensor) -> Tensor:
        """Logits without a trace, ``(N, …) -> (N, K)``."""
        with torch.no_grad():
            return torch.cat([self.evaluation.of_images(part) for part in points.split(CHUNK)])

    def gradient(
        self, points: Tensor, loss: Callable[..., Tensor], *labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits ``(N, K)``, losses ``(N,)`` and gradients ``(N, …)`` in one pass."""
        return self.evaluation.image_gradients(points.detach(), loss, *labels)

    def result(self, images: Tensor, num_gradients: Tensor, num_queries: Tensor) -> AttackResult:
        """The result, with the decisions on the final images."""
        fell = wrong(self.logits(images), self.y)
        return AttackResult(images, fell, num_gradients, num_queries)

    def untouched(self) -> AttackResult:
        """The result of an attack that changes nothing."""
        zeros = torch.zeros_like(self.y)
        return self.result(self.x.clone(), zeros, zeros + 1)


class Standing:
    """Which samples still stand during an attack; those that fell are attacked no further."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.images = target.x.clone()
        self.fell = torch.zeros_like(target.y, dtype=torch.bool)
        self.num_gradients = torch.zeros_like(target.y)
        self.num_queries = torch.zeros_like(target.y)

    def rows(self) -> Tensor:
        """Samples that still stand."""
        return (~self.fell).nonzero()[:, 0]

    def gradient(self, rows: Tensor, points: Tensor, loss: TargetedLoss, towards: Tensor) -> tuple[Tensor, ...]:
        """Logits, losses and gradients at points of some samples; counted."""
        self.num_gradients[rows] += 1
        return self.target.gradient(points, loss, self.target.y[rows], towards)

    def query(self, rows: Tensor, points: Tensor) -> Tensor:
        """Logits at points of some samples; counted."""
        self.num_queries[rows] += 1
        return self.target.logits(points)

    def judge(self, rows: Tensor, points: Tensor, logits: Tensor) -> Tensor:
        """Take note of new points and their logits; which of them are still decided rightly, ``(R,)``."""
        fell = wrong(logits, self.target.y[rows])
        self.images[rows] = points.to(self.images.dtype)
        self.fell[rows] = fell
        return ~fell

    def judge_clean(self) -> None:
        """The images themselves lie in every ball."""
        rows = self.rows()
        self.judge(rows, self.target.x, self.query(rows, self.target.x))

    def result(self) -> AttackResult:
        """What has been found."""
        return self.target.result(self.images, self.num_gradients, self.num_queries)


def target_of(model: nn.Module, x: Tensor, y: Tensor) -> Target:
    """Check the samples, and prepare the network.

    Raises:
        ObjectiveError: If shapes disagree, or the model is random or lets samples interact.
        ConfigurationError: If images leave [0, 1].
    """
    check_range(x)
    check_problem(model, x, y, "log_odds")
    return Target(model, x.detach(), y, evaluation(model, tuple(x.shape[1:])))


def wrong(logits: Tensor, y: Tensor) -> Tensor:
    """Whether the decision is wrong; a logit that is not a number is, ``(N, K), (N,) -> (N,)``."""
    return logits.isnan().any(1) | (logits.argmax(1) != y)


def difference_ratio(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Targeted difference of logits ratio, (z_t − z_y) / (z_(1) − (z_(3) + z_(4)) / 2), ``-> (N,)``.

    Its direction does not change when logits are scaled. With fewer than four classes the divisor does not exist,
    and the difference itself is returned (Croce and Hein 2020, eq. 7).
    """
    rise = (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None]))[:, 0]
    if logits.shape[1] < 4:
        return rise
    top = logits.topk(4, dim=1).values
    return rise / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


def targeted_loss(name: str) -> TargetedLoss:
    """A loss by name: one of `landscape.problem.losses`, or ``difference_ratio`` towards a target class."""
    if name == "difference_ratio":
        return difference_ratio
    plain = loss_by_name(name)
    return lambda logits, y, _: plain(logits, y)
