"""Random numbers that belong to a sample, whatever batch it is in and whatever happens to other samples."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from landscape.errors import ConfigurationError
from landscape.robustness.balls import Ball, as_images


@dataclass(frozen=True)
class Draws:
    """One stream of random numbers for each sample and purpose.

    Samples are known by their index, so that neither the size of a batch nor the order matters.
    """

    index: Tensor  # (N,) whole numbers
    seed: int = 0

    def __post_init__(self) -> None:
        if self.index.ndim != 1 or self.index.is_floating_point():
            raise ConfigurationError(
                f"an index of shape {tuple(self.index.shape)} and type {self.index.dtype} cannot name samples; "
                "pass one whole number a sample."
            )

    def take(self, rows: Tensor) -> Draws:
        """Select samples."""
        return Draws(self.index[rows], self.seed)

    def normal(self, shape: tuple[int, ...], *purpose: str | int) -> Tensor:
        """Standard normal numbers, ``(N, *shape)`` float32."""
        return self._rows(torch.randn, shape, purpose)

    def uniform(self, shape: tuple[int, ...], *purpose: str | int) -> Tensor:
        """Numbers uniform on [0, 1), ``(N, *shape)`` float32."""
        return self._rows(torch.rand, shape, purpose)

    def signs(self, shape: tuple[int, ...], *purpose: str | int) -> Tensor:
        """−1 or 1 with equal chance, ``(N, *shape)`` float32."""
        return torch.where(self.uniform(shape, *purpose) < 0.5, -1.0, 1.0)

    def _rows(self, draw: Callable[..., Tensor], shape: tuple[int, ...], purpose: tuple[str | int, ...]) -> Tensor:
        rows = torch.empty(len(self.index), *shape)
        source = Generator()
        for row, index in zip(rows, self.index.tolist(), strict=True):
            digest = hashlib.sha256(repr((self.seed, *purpose, index)).encode()).digest()
            draw(shape, generator=source.manual_seed(int.from_bytes(digest[:8], "little") >> 1), out=row)
        return rows.to(self.index.device)


def random_points(x: Tensor, ball: Ball, draws: Draws, *purpose: str | int) -> Tensor:
    """One random point of the ball around each image, ``(N, …) -> (N, …)``.

    ℓ∞: uniform in the cube. ℓ2: a uniform direction, and a length uniform on [0, ε].
    """
    shape = tuple(x.shape[1:])
    if ball.norm == math.inf:
        offset = ball.eps * (2 * draws.uniform(shape, *purpose) - 1)
    else:
        share = as_images(draws.uniform((), *purpose, "length"), x)
        offset = ball.eps * share * ball.steepest(draws.normal(shape, *purpose))
    return ball.project(x + offset.to(x.dtype), x)


def draws_for(x: Tensor, draws: Draws | None) -> Draws:
    """The draws given, or those of seed 0 for samples numbered in order.

    Raises:
        ConfigurationError: If there is not one index a sample.
    """
    draws = draws or Draws(torch.arange(len(x), device=x.device))
    if len(draws.index) != len(x):
        raise ConfigurationError(f"{len(draws.index)} indices cannot name {len(x)} samples; pass one a sample.")
    return draws
