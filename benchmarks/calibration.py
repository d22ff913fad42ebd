"""How often the tests of a study reject what is true, find what is planted, and how often intervals cover.

Grids of 5 x 5 settings with five seeds each are simulated; settings move all quantities strongly.

    python benchmarks/calibration.py --replications 1000
    python benchmarks/calibration.py --part nulls --replications 2000
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from landscape.statistics.association import associate
from landscape.statistics.granulated import granulate
from landscape.statistics.multiplicity import max_t
from landscape.statistics.partial import partial_associate
from landscape.statistics.power import detectable_correlation

Array: TypeAlias = NDArray[np.float64]
Noise: TypeAlias = Literal["normal", "heavy tails", "ties"]
ALPHA = 0.05
PERMUTATIONS = 199  # 5 % of 200: a test with so few draws keeps its level exactly, and loses little power
BOOTSTRAP = 300


@dataclass(frozen=True)
class Grid:
    """Five learning rates, five batch sizes, ``seeds`` runs of each; ``unequal``: one to almost twice as many.

    ``effect``: size of what settings do, in standard deviations of a run within its cell. ``shared``: whether they
    do the same to all quantities. ``link``: correlation within cells of the normal variables behind the noise of x
    and y. ``confounder``: how strongly a third quantity z drives both within cells.
    """

    effect: float = 3.0
    shared: bool = True
    link: float = 0.0
    noise: Noise = "normal"
    unequal: bool = False
    confounder: float = 0.0
    seeds: int = 5


@dataclass(frozen=True)
class Runs:
    """Quantities of runs, ``(n,)`` each, and their settings."""

    x: Array
    y: Array
    z: Array
    rate: Array
    batch: Array

    @property
    def cells(self) -> Array:
        """Number of the cell of each run."""
        return 5 * self.rate + self.batch


def simulate(grid: Grid, rng: np.random.Generator) -> Runs:
    """Runs of a grid."""
    sizes = rng.integers(1, 2 * grid.seeds, 25) if grid.unequal else np.full(25, grid.seeds)
    cells = np.repeat(np.arange(25), sizes)
    rate, batch = np.divmod(cells, 5)
    effects = np.stack([_surface(rng) for _ in range(3)])
    effects = effects[[0, 0, 0]] if grid.shared else effects
    x, y, z = grid.effect * effects[:, cells] + _noise(grid, len(cells), rng)
    if grid.noise == "ties":
        x, y, z = (np.round(2 * v) / 2 for v in (x, y, z))
    return Runs(x, y, z, rate.astype(float), batch.astype(float))


def _surface(rng: np.random.Generator) -> Array:
    """A smooth function of the two settings on their 25 cells, with standard deviation one."""
    rate, batch = (np.divmod(np.arange(25), 5)[k] / math.sqrt(2) - math.sqrt(2) for k in (0, 1))
    a, b, c, d = rng.normal(size=4)
    surface = a * rate + b * batch + 0.5 * c * rate * batch + 0.5 * d * (rate**2 - 1)
    return np.asarray(surface / surface.std())


def _noise(grid: Grid, n: int, rng: np.random.Generator) -> Array:
    """What differs between runs of one cell, ``(3, n)``, of x, y and z."""
    draw = (lambda: rng.standard_t(2, n)) if grid.noise == "heavy tails" else (lambda: rng.normal(size=n))
    x, y, z, common = draw(), draw(), draw(), draw()
    weight = math.sqrt(abs(grid.link))
    own = math.sqrt(1 - abs(grid.link))
    x, y = own * x + weight * common, own * y + math.copysign(weight, grid.link) * common
    return np.stack([x + grid.confounder * z, y + grid.confounder * z, z])


def rate_of(event: Callable[[Runs, int], bool], grid: Grid, replications: int, seed: int) -> float:
    """Share of ``replications`` in which ``event`` happens."""
    rng = np.random.default_rng(seed)
    return float(np.mean([event(simulate(grid, rng), number) for number in range(replications)]))


def primary_rejects(runs: Runs, number: int) -> bool:
    """The within-cell permutation test."""
    found = associate(runs.x, runs.y, runs.cells, permutations=PERMUTATIONS, bootstrap=1, seed=number)
    return found.p_within <= ALPHA


def pooled_rejects(runs: Runs, number: int) -> bool:
    """Spearman's test over all runs."""
    return bool(spearmanr(runs.x, runs.y).pvalue <= ALPHA)


def means_reject(runs: Runs, number: int) -> bool:
    """Spearman's test over the means of cells."""
    x, y = (np.bincount(runs.cells.astype(int), v) / np.bincount(runs.cells.astype(int)) for v in (runs.x, runs.y))
    return bool(spearmanr(x, y).pvalue <= ALPHA)


def partial_rejects(runs: Runs, number: int) -> bool:
    """Freedman and Lane's test given z."""
    found = partial_associate(
        runs.x, runs.y, [runs.z], runs.cells, permutations=PERMUTATIONS, bootstrap=1, seed=number
    )
    return found.p <= ALPHA


def family(runs: Runs, number: int) -> list[float]:
    """Adjusted p of nine tests: three noisy readings of x against three of y."""
    rng = np.random.default_rng(number)
    columns = np.stack([v + 0.3 * rng.normal(size=len(v)) for v in (runs.x,) * 3 + (runs.y,) * 3], axis=1)
    pairs = [(i, j) for i in range(3) for j in range(3, 6)]
    return list(max_t(columns, runs.cells, pairs, permutations=PERMUTATIONS, seed=number).p_adjusted)


def family_rejects(runs: Runs, number: int) -> bool:
    """Any of nine tests, adjusted by max-T."""
    return min(family(runs, number)) <= ALPHA


def coverage(grid: Grid, replications: int, seed: int) -> dict[str, float]:
    """Share of intervals that hold the mean of their estimator over all replications."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[tuple[float, float, float]]] = {"within-cell ρ": [], "partial ρ": [], "granulated τ": []}
    for number in range(replications):
        runs = simulate(grid, rng)
        given = partial_associate(
            runs.x, runs.y, [runs.z], runs.cells, permutations=1, bootstrap=BOOTSTRAP, seed=number
        )
        axes = {"rate": runs.rate.tolist(), "batch": runs.batch.tolist()}
        tau = granulate(runs.x, runs.y, axes, bootstrap=BOOTSTRAP, seed=number).tau
        estimates = zip(found, (given.total, given.direct, tau), strict=True)
        for name, estimate in estimates:
            found[name].append((estimate.value, estimate.low, estimate.high))
    return {name: _covered(np.array(values)) for name, values in found.items()}


def _covered(values: Array) -> float:
    centre = np.nanmean(values[:, 0])
    return float(np.mean((values[:, 1] <= centre) & (centre <= values[:, 2])))


NULLS = {
    "normal": Grid(),
    "settings act in unlike ways": Grid(shared=False),
    "heavy tails": Grid(noise="heavy tails"),
    "ties": Grid(noise="ties"),
    "cells of 1 to 9 runs": Grid(unequal=True),
    "heavy tails, cells of 1 to 9 runs": Grid(noise="heavy tails", unequal=True),
}
TESTS: dict[str, Callable[[Runs, int], bool]] = {
    "within cells": primary_rejects,
    "Spearman, all runs": pooled_rejects,
    "Spearman, means of cells": means_reject,
    "given z": partial_rejects,
    "max-T of nine": family_rejects,
}


def main() -> None:
    """Print a table of each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=1000)
    parser.add_argument("--part", choices=list(_TABLES), nargs="+", default=list(_TABLES))
    arguments = parser.parse_args()
    error = 100 * math.sqrt(0.05 * 0.95 / arguments.replications)
    print(f"{arguments.replications} replications; standard error of a rate of 5 %: {error:.1f} %")
    for part in arguments.part:
        print()
        _TABLES[part](arguments.replications)


def print_nulls(count: int) -> None:
    print("no link: percentage of tests that reject at 5 %")
    _print_row("", TESTS)
    for name, grid in NULLS.items():
        _print_row(name, [f"{100 * rate_of(test, grid, count, 1):.1f}" for test in TESTS.values()])


def print_confounded(count: int) -> None:
    print("a third quantity drives both within cells: percentage of tests that reject at 5 %")
    _print_row("", ["within cells", "given z"])
    for name, grid in CONFOUNDED.items():
        _print_row(name, [f"{100 * rate_of(t, grid, count, 2):.1f}" for t in (primary_rejects, partial_rejects)])


def print_power(count: int) -> None:
    rho = detectable_correlation(99)
    print(f"link ρ = {rho:.2f}, of which 80 % should be found: percentage that is found")
    for name, grid in {"normal": Grid(link=rho), "no settings": Grid(link=rho, effect=0.0)}.items():
        _print_row(name, [f"{100 * rate_of(primary_rejects, grid, count, 3):.1f}"])


def print_coverage(count: int) -> None:
    print("percentage of 95 % intervals that cover")
    _print_row("", ["within-cell ρ", "partial ρ", "granulated τ"])
    for name, grid in COVERED.items():
        _print_row(name, [f"{100 * value:.1f}" for value in coverage(grid, count, 4).values()])


_TABLES = {
    "nulls": print_nulls,
    "confounded": print_confounded,
    "power": print_power,
    "coverage": print_coverage,
}


def _print_row(name: str, values: object) -> None:
    print(f"{name:<36}" + "".join(f"{value!s:>26}" for value in values), flush=True)  # type: ignore[attr-defined]


CONFOUNDED = {
    "half as strong as the noise": Grid(confounder=0.5),
    "as strong as the noise": Grid(confounder=1.0),
    "as strong, no settings": Grid(confounder=1.0, effect=0.0),
    "as strong, heavy tails": Grid(confounder=1.0, noise="heavy tails"),
    "as strong, cells of 1 to 9 runs": Grid(confounder=1.0, unequal=True),
    "half as strong, unlike settings": Grid(confounder=0.5, shared=False),
    "as strong, unlike settings": Grid(confounder=1.0, shared=False),
}
COVERED = {
    "no link": Grid(),
    "link 0.5": Grid(link=0.5),
    "link 0.5, heavy tails": Grid(link=0.5, noise="heavy tails"),
    "link 0.5, cells of 1 to 9 runs": Grid(link=0.5, unequal=True),
    "link 0.5, driven by z": Grid(link=0.5, confounder=1.0),
}


if __name__ == "__main__":
    main()
