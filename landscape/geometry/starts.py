"""Displacements at which a search looks first, all at once or, where they are large, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

from landscape.geometry.vectors import is_large


@dataclass(frozen=True)
class Starts:
    """S displacements ``(B, n)``, each made anew whenever it is looked at, so that none is held."""

    makers: tuple[Callable[[], Tensor], ...]

    def __len__(self) -> int:
        return len(self.makers)

    def __iter__(self) -> Iterator[Tensor]:
        return (make() for make in self.makers)

    def __getitem__(self, number: int) -> Tensor:
        return self.makers[number]()

    @staticmethod
    def of(displacements: Tensor) -> Starts:
        """Starts that are held anyway, ``(S, B, n)``."""
        return Starts(tuple(lambda v=v: v for v in displacements))  # type: ignore[misc]

    def tiled(self, count: int) -> Starts:
        """The same for so many copies of the origins, ``(count B, n)``."""
        return Starts(tuple(partial(_repeated, make, count) for make in self.makers))

    def among(self, rows: Tensor) -> Starts:
        """The same, NaN outside of the rows, ``(B,)`` bool."""

        def masked(make: Callable[[], Tensor]) -> Callable[[], Tensor]:
            return lambda: torch.where(rows[:, None], make(), torch.nan)

        return self if rows.all() else Starts(tuple(masked(make) for make in self.makers))


def _repeated(make: Callable[[], Tensor], count: int) -> Tensor:
    return make().repeat(count, 1)


def random_directions(like: Tensor, count: int, generator: Generator) -> list[Callable[[], Tensor]]:
    """Makers of normal random vectors ``(B, n)``; of large ones only the seed is kept."""
    if not is_large(like):
        drawn = torch.randn((count, *like.shape), generator=generator, dtype=torch.float64)
        return [lambda v=v: v.to(like) for v in drawn]  # type: ignore[misc]
    seeds = torch.randint(2**62, (count,), generator=generator).tolist()

    def draw(seed: int) -> Tensor:
        return torch.randn(like.shape, generator=Generator().manual_seed(seed), dtype=torch.float32).to(like)

    return [lambda seed=seed: draw(seed) for seed in seeds]  # type: ignore[misc]
