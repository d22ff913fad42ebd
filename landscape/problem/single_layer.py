"""The paper's single-layer example: log-loss of p = σ(Xθ), with its derivatives and distances in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from landscape.errors import ConfigurationError
from landscape.problem.losses import log_odds_level

# Points at which the one free coordinate of `separable_distance` is tried before bisection.
_GRID = 128
# Parts into which an interval with a root is cut, and how often: to the last digits of float64, too.
_CUTS = 64
_ROUNDS = 7
# Halvings of an interval in a bisection: to the last digits of float64.
_HALVINGS = 50


class SingleLayer(nn.Module):
    """The perceptron as a two-class network with logits (0, xᵀθ), for the code that takes any network."""

    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Logits of both classes, ``(n, d) -> (n, 2)``."""
        z = x @ self.theta
        return torch.stack([torch.zeros_like(z), z], 1)


@dataclass(frozen=True)
class Perceptron:
    """L(X, y; θ) = −1/n Σ [y ln p + (1 − y) ln(1 − p)] with p = σ(Xθ), and what follows from it by hand.

    Written in the margins m = (2y − 1) ⊙ Xθ, L = 1/n Σ softplus(−m), which does not round where p does
    (Khritankov et al., section 4).
    """

    X: Tensor  # (n, d)
    y: Tensor  # (n,) of 0 and 1
    theta: Tensor  # (d,)

    def __post_init__(self) -> None:
        n, d = self.X.shape if self.X.ndim == 2 else (-1, -1)
        if self.theta.shape != (d,) or self.y.shape != (n,) or not ((self.y == 0) | (self.y == 1)).all():
            raise ConfigurationError(
                f"X {tuple(self.X.shape)}, y {tuple(self.y.shape)} and θ {tuple(self.theta.shape)} do not belong "
                f"together; pass (n, d), (n,) with labels 0 and 1, and (d,)."
            )

    @property
    def signs(self) -> Tensor:
        """Labels as ±1, ``(n,)``."""
        return 2 * self.y.to(self.X.dtype) - 1

    @property
    def margins(self) -> Tensor:
        """Margins m = (2y − 1) ⊙ Xθ, ``(n,)``; negative where a sample is misclassified."""
        return self.signs * (self.X @ self.theta)

    @property
    def loss(self) -> float:
        """L(X, y; θ)."""
        return functional.softplus(-self.margins).mean().item()

    @property
    def error(self) -> Tensor:
        """Error p − y = −(2y − 1) σ(−m), without cancellation, ``(n,)``."""
        return -self.signs * torch.sigmoid(-self.margins)

    @property
    def multiplier(self) -> Tensor:
        """Diagonal of D = diag(p ⊙ (1 − p)), ``(n,)``: what both Hessians share."""
        return torch.sigmoid(self.margins) * torch.sigmoid(-self.margins)

    def gradient_theta(self) -> Tensor:
        """∇_θ L = 1/n Xᵀ(p − y), ``(d,)``."""
        return self.X.T @ self.error / len(self.y)

    def hessian_theta(self) -> Tensor:
        """∇²_θ L = 1/n XᵀDX, ``(d, d)``."""
        return self.X.T @ (self.multiplier[:, None] * self.X) / len(self.y)

    def gradient_inputs(self) -> Tensor:
        """∇_X L = 1/n (p − y) θᵀ, ``(n, d)``."""
        return torch.outer(self.error, self.theta) / len(self.y)

    def hessian_inputs(self) -> Tensor:
        """∇²_X L = 1/n D ⊗ θθᵀ with respect to X read row by row, ``(n d, n d)``.

        Block diagonal, one block d_i θθᵀ / n for each sample, so that its eigenvalues are d_i ‖θ‖²/n, each
        once, and 0. With X read column by column it is θθᵀ ⊗ D / n.
        """
        return torch.kron(torch.diag(self.multiplier), torch.outer(self.theta, self.theta)) / len(self.y)

    def largest_eigenvalue_theta(self) -> float:
        """λ₁ of ∇²_θ L."""
        root = self.multiplier.sqrt()[:, None] * self.X
        return float(torch.linalg.matrix_norm(root, 2).square()) / len(self.y)

    def largest_eigenvalue_inputs(self) -> float:
        """λ₁ of ∇²_X L, max_i d_i ‖θ‖²/n."""
        return (self.multiplier.max() * self.theta.square().sum()).item() / len(self.y)

    def sample_input_distances(self, levels: Tensor) -> Tensor:
        """Exact d_X(c) of each sample's own loss, ``(C,) -> (n, C)``; NaN where c is not above the loss.

        The level set of a sample is the hyperplane m = −ln(eᶜ − 1), so that d = (m + ln(eᶜ − 1)) / ‖θ‖.
        """
        gap = self.margins[:, None] + log_odds_level(levels.to(self.X.dtype))
        return torch.where(gap > 0, gap, torch.nan).div(torch.linalg.vector_norm(self.theta))

    def joint_input_distance(self, level: float) -> float:
        """Exact d_X(c) of the mean loss over the whole matrix X, in the Frobenius norm.

        Only the part of a row along θ changes the loss: min ‖t‖ with 1/n Σ softplus(‖θ‖ t_i − m_i) = c.
        """
        return separable_distance(self.margins, torch.linalg.vector_norm(self.theta).item(), level)

    def orthogonal_theta_distance(self, level: float) -> float:
        """Exact d_θ(c) where the rows of X are orthogonal and of equal norm: each then moves one margin alone.

        Raises:
            ConfigurationError: If they are not.
        """
        gram = self.X @ self.X.T
        scale = gram[0, 0].sqrt().item()
        if not torch.allclose(gram, scale**2 * torch.eye(len(gram), dtype=gram.dtype), atol=1e-10 * scale**2):
            raise ConfigurationError("the rows of X are not orthogonal and equally long; search for d_θ instead.")
        return separable_distance(self.margins, scale, level)


def separable_distance(margins: Tensor, scale: float, level: float) -> float:
    """Global min ‖t‖ subject to 1/n Σ softplus(a t_i − m_i) = c, for margins ``(n,)`` and one scale a > 0.

    Not convex: it leaves a convex sublevel set from the inside. Stationarity, t_i = μ a σ(a t_i − m_i), has up to
    three solutions for each sample: two where the Lagrangian is convex in t_i (low and high) and one between, on
    which a minimum can have one sample at most. Exchanging two t shows that larger t belong to smaller margins. So
    the k smallest margins are high, the next is anywhere, the rest low: for each k one equation in one unknown.

    Returns:
        The distance; NaN where c is not above the loss at t = 0.

    Raises:
        ConfigurationError: If the scale is not positive.
    """
    if not scale > 0:
        raise ConfigurationError(f"scale {scale} cannot be; the loss does not depend on a point with scale 0.")
    m = margins.double().sort().values
    losses = functional.softplus(-m)
    if not level > losses.mean():
        return math.nan
    alone = len(m) * level - losses[1:].sum()  # what the loss of the weakest sample must be if it moves alone
    longest = ((m[0] + log_odds_level(alone)) / scale).item()
    return min(longest, _shortest_stationary(m, scale, level, longest))


def _shortest_stationary(m: Tensor, a: float, level: float, longest: float) -> float:
    """Least ‖t‖ among stationary points on the level with k high samples, one anywhere and the rest low, any k."""
    index = torch.arange(len(m))

    def point(free: Tensor, k: Tensor) -> Tensor:
        mu = free / (a * torch.sigmoid(a * free - m[k]))
        t = _branches(mu[:, None], m, a, index < k[:, None])
        return torch.where(index == k[:, None], free[:, None], t)

    def excess(free: Tensor, k: Tensor) -> Tensor:
        return functional.softplus(a * point(free, k) - m).mean(1) - level

    grid = torch.linspace(0, longest, _GRID + 1, dtype=m.dtype)[1:]
    above = (excess(grid.repeat(len(m)), index.repeat_interleave(_GRID)) > 0).reshape(len(m), _GRID)
    k, at = (above[:, 1:] != above[:, :-1]).nonzero(as_tuple=True)
    before = above[k, at]
    low, high = grid[at], grid[at + 1]
    # An evaluation is a bisection of its own: cut each interval into many at once instead of halving it.
    cut = torch.linspace(0, 1, _CUTS + 1, dtype=m.dtype)
    for _ in range(_ROUNDS):
        points = low[:, None] + (high - low)[:, None] * cut
        passed = (excess(points.reshape(-1), k.repeat_interleave(_CUTS + 1)) > 0).reshape(points.shape)
        first = (passed != before[:, None]).int().argmax(1, keepdim=True).clamp_min(1)
        low, high = points.gather(1, first - 1)[:, 0], points.gather(1, first)[:, 0]
    root = (low + high) / 2
    # A branch that ends makes the excess jump: that is a change of sign, too, but no root.
    found = point(root, k).norm(dim=1)[excess(root, k).abs() < 1e-9 * level]
    return found.min().item() if len(found) else math.inf


def _branches(mu: Tensor, m: Tensor, a: float, high: Tensor) -> Tensor:
    """Solutions t ``(G, n)`` of t = μ a σ(a t − m): the largest where ``high``, else the smallest.

    t − μ a σ(a t − m) turns where σ(1 − σ) = 1/(μ a²), at a t = m ± f, which brackets both.
    """
    ratio = (4 / (mu * a * a)).clamp_max(1)
    fold = 2 * torch.log1p((1 - ratio).sqrt()) - ratio.log()
    low_end, high_start = (m - fold) / a, ((m + fold) / a).clamp_min(0)

    def over(t: Tensor) -> Tensor:
        return t - mu * a * torch.sigmoid(a * t - m) >= 0

    has_low = (low_end > 0) & over(low_end)
    has_high = ~over(high_start)
    upper = has_high & (high | ~has_low)
    start = torch.where(upper, high_start, torch.zeros(()).to(m))
    return _bisect(over, start, torch.where(upper, mu * a, low_end))


def _bisect(over: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """Where ``over`` turns from false to true, in every interval at once."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        passed = over(middle)
        low, high = torch.where(passed, low, middle), torch.where(passed, middle, high)
    return (low + high) / 2
