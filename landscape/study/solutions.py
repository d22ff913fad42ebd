"""Families of solutions θ of the single-layer example that fit the same labels, to test Theorem 2 on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

# Margin of the teacher where there are more samples than features, so that labels stay separable.
_TEACHER_MARGIN = 0.3
# Members of a family: along a curve, and drawn at random.
_CURVE, _DRAWN = 12, 24
_SGD_STEPS = 6000
_INITIAL_NORM = 3.0


@dataclass(frozen=True)
class Design:
    """Separable data: n samples of d features, rows of norm about 1."""

    X: Tensor  # (n, d)
    signs: Tensor  # (n,) labels as ±1
    reference: Tensor  # (d,) separates with least margin 1; of minimum norm where d ≥ n

    @property
    def dim_kernel(self) -> int:
        """Dimension of ker X: how many directions of θ leave all outputs alone."""
        return self.X.shape[1] - int(torch.linalg.matrix_rank(self.X))


def draw_design(n: int, d: int, generator: Generator) -> Design:
    """Gaussian rows with random labels where d ≥ n, else with those of a teacher that keeps a margin."""
    X = torch.randn(n, d, generator=generator, dtype=torch.float64) / d**0.5
    if d >= n:
        signs = 1 - 2 * torch.randint(2, (n,), generator=generator).double()
        return Design(X, signs, torch.linalg.pinv(X) @ signs)
    teacher = functional.normalize(torch.randn(d, generator=generator, dtype=torch.float64), dim=0)
    signs = 1 - 2 * (X @ teacher < 0).double()
    X = X + _TEACHER_MARGIN * signs[:, None] * teacher
    return Design(X, signs, teacher / (signs * (X @ teacher)).min())


def solutions(design: Design, loss: float, generator: Generator) -> dict[str, Tensor]:
    """Solutions by family, each ``(members, d)``; ``loss`` is that of the families with equal loss."""
    equal_loss = _to_loss(design, _directions(design, generator), loss)
    norms = torch.linalg.vector_norm(equal_loss, dim=1, keepdim=True)
    families = {
        "scale": torch.logspace(0.1, 1.0, _CURVE, dtype=torch.float64)[:, None] * design.reference,
        "kernel": _with_kernel(design, _to_loss(design, design.reference[None], loss)[0], generator),
        "margins, equal loss": equal_loss,
        "margins, equal norm": equal_loss * norms.median() / norms,
        "SGD": _descend(design, loss, generator),
    }
    return {name: thetas for name, thetas in families.items() if len(thetas)}


def mean_loss(design: Design, thetas: Tensor) -> Tensor:
    """L of every row, ``(B, d) -> (B,)``."""
    return functional.softplus(-thetas @ (design.signs[:, None] * design.X).T).mean(1)


def _directions(design: Design, generator: Generator) -> Tensor:
    """Separating directions whose margins differ between samples."""
    n, d = design.X.shape
    if d >= n:
        margins = torch.randn(_DRAWN, n, generator=generator, dtype=torch.float64).mul(0.7).exp()
        return torch.matmul(margins * design.signs, torch.linalg.pinv(design.X).T)
    noise = torch.randn(200 * _DRAWN, d, generator=generator, dtype=torch.float64)
    drawn = functional.normalize(design.reference, dim=0) + 0.5 * noise / d**0.5
    separating = (drawn @ (design.signs[:, None] * design.X).T > 0.02).all(1)
    chosen: Tensor = drawn[separating]
    return chosen[:_DRAWN]


def _to_loss(design: Design, directions: Tensor, loss: float) -> Tensor:
    """Every separating direction scaled to the same loss, by bisection."""
    low, high = directions.new_zeros(len(directions)), directions.new_full((len(directions),), 1e4)
    for _ in range(80):
        middle = (low + high) / 2
        over = mean_loss(design, middle[:, None] * directions) > loss
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    return high[:, None] * directions


def _with_kernel(design: Design, theta: Tensor, generator: Generator) -> Tensor:
    """θ plus components of growing norm in ker X, which change no output."""
    drawn = torch.randn(design.X.shape[1], generator=generator, dtype=torch.float64)
    if not design.dim_kernel:
        return theta.new_empty(0, len(theta))
    inside = functional.normalize(drawn - torch.linalg.pinv(design.X) @ (design.X @ drawn), dim=0)
    lengths = torch.cat([torch.zeros(1), torch.logspace(-0.5, 0.7, _CURVE - 1)]).double() * theta.norm()
    return torch.add(theta, lengths[:, None] * inside)


def _descend(design: Design, loss: float, generator: Generator) -> Tensor:
    """SGD from small random θ until L ≤ ``loss``: learning rates 1 to 60, mini-batches of 1, 4 and all samples."""
    n, d = design.X.shape
    rates = torch.logspace(0, 1.8, _DRAWN // 3, dtype=torch.float64).repeat(3)[:, None]
    sizes = torch.tensor([1, 4, n]).repeat_interleave(_DRAWN // 3)
    thetas = functional.normalize(torch.randn(len(rates), d, generator=generator, dtype=torch.float64), dim=1)
    thetas = _INITIAL_NORM * thetas
    signed = design.signs[:, None] * design.X
    for _ in range(_SGD_STEPS):
        moving = mean_loss(design, thetas) > loss
        if not moving.any():
            break
        order = torch.rand(len(rates), n, generator=generator, dtype=torch.float64).argsort(1)
        chosen = (order < sizes[:, None]) / sizes[:, None]
        gradient = -(chosen * torch.sigmoid(-thetas @ signed.T)) @ signed
        thetas = torch.where(moving[:, None], thetas - rates * gradient, thetas)
    return thetas[mean_loss(design, thetas) <= loss]
