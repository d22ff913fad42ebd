"""Competition of rays from one origin: a common budget, and who is ahead."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Contest:
    """Which rays compete, and what each competition may still spend."""

    number: Tensor  # (R,) int64; rays with the same number compete
    left: Tensor  # (B,) int64 gradients left; shared by all contests made from this one

    @property
    def open(self) -> Tensor:
        """Whether a ray's competition has gradients left, ``(R,)``."""
        return self.left[self.number] > 0

    def charge(self, rows: Tensor) -> None:
        """Book one gradient for each of the rows."""
        self.left.index_add_(0, self.number[rows], -torch.ones_like(rows))

    def take(self, rows: Tensor) -> Contest:
        """Only some of the rays; they spend from the same budget."""
        return Contest(self.number[rows], self.left)

    def size(self) -> Tensor:
        """Number of competitors of each ray, itself included, ``(R,)``."""
        return torch.bincount(self.number, minlength=len(self.left))[self.number]

    def rank(self, value: Tensor) -> Tensor:
        """How many competitors have a smaller value; equal ones count in their order, ``(R,)``."""
        order = torch.argsort(value, stable=True)
        order = order[torch.argsort(self.number[order], stable=True)]
        sizes = torch.bincount(self.number, minlength=len(self.left))
        first = torch.cumsum(sizes, 0) - sizes
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device) - first[self.number[order]]
        return rank

    def best(self, value: Tensor) -> Tensor:
        """The smallest value among a ray's competitors, ``(R,)``."""
        least = torch.full((len(self.left),), torch.inf, dtype=value.dtype, device=value.device)
        return least.scatter_reduce(0, self.number, value, "amin")[self.number]
