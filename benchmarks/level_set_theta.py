"""Level-set distances in θ against the best known ones, and against what is usually done instead.

φ is the mean cross-entropy of the stored ``cnn`` runs over n = 2000 training images; levels 0.5, ln 2, 1, ln 10.
*Ours* is one call of ``level_set_distance`` with the settings of ``landscape.study.measure``. Its bill is wall
time over that of one gradient at the origin (the median of several taken before and after), so that it holds on
any machine; eigenvectors and evidence are part of it. The same ratio of processor times, which other programs on
the machine disturb less, and counted evaluations stand beside it.

*Reference*: 64 random starts with ten times the budget, read as 10 × 150 = 1500 gradient passes a snapshot for all
starts and levels together, spent by successive halving (``reference_theta.py``, which shares no code with ours).
Where the cache folder does not hold it, it is computed, in minutes a snapshot. *Best known* is the shorter of ours
and the reference. Every length is that of a point on the level set, except for the quadratic estimate, a formula.

    python benchmarks/level_set_theta.py --snapshots 20 --threads 1 --reference-cache DIR --output FILE.json
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from reference_theta import LEVELS, SAMPLES, cache_file, cached_search, snapshots
from rivals_theta import (
    filter_normalised,
    quadratic_estimates,
    random_directions,
    ray_crossings,
    shortest_ray,
    steepest_ascent,
)
from theta_tables import print_snapshots, print_summary, summary
from torch import Tensor

from landscape.geometry.eigenpairs import top_eigenpairs
from landscape.geometry.level_sets import level_set_distance
from landscape.objectives import HessianVectorProduct, Objective, search_form
from landscape.problem.parameter_objective import ParameterObjective
from landscape.provenance import provenance
from landscape.snapshots import load_snapshot
from landscape.study.measure_config import MeasureConfig
from landscape.study.problems import load_problem, theta_objective
from landscape.study.searches import THETA_EFFORT


@dataclass
class Bill:
    """Evaluations of φ, one row each."""

    gradients: int = 0
    values: int = 0
    products: int = 0


@dataclass(frozen=True)
class Counted:
    """An objective that counts."""

    phi: Objective
    bill: Bill

    @property
    def origin(self) -> Tensor:
        return self.phi.origin

    def value(self, z: Tensor) -> Tensor:
        self.bill.values += len(z)
        return self.phi.value(z)

    def value_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        self.bill.gradients += len(z)
        return self.phi.value_and_grad(z)

    def linearize(self, z: Tensor) -> HessianVectorProduct:
        product = self.phi.linearize(z)

        def apply(vectors: Tensor) -> Tensor:
            self.bill.products += vectors.shape[:-1].numel()
            return product(vectors)

        return apply

    def take(self, rows: Tensor) -> Counted:
        return Counted(self.phi.take(rows), self.bill)

    def search_form(self) -> tuple[Objective, Callable[[Tensor], Tensor]]:
        psi, to_search = search_form(self.phi)
        return Counted(psi, self.bill), to_search


def clocks() -> Tensor:
    """Wall time and processor time of this process, seconds."""
    return torch.tensor([time.perf_counter(), time.process_time()], dtype=torch.float64)


def gradient_times(phi: Objective, repetitions: int = 5) -> list[Tensor]:
    """Both times of single gradients at the origin; the first, which warms up, is not among them."""
    phi.value_and_grad(phi.origin)
    times = []
    for _ in range(repetitions):
        began = clocks()
        phi.value_and_grad(phi.origin)
        times.append(clocks() - began)
    return times


def ours(phi: ParameterObjective, config: MeasureConfig) -> dict[str, Any]:
    """Distances by the study's settings, with their bill; the eigenvectors among the starts are part of it."""
    bill = Bill()
    counted: Any = Counted(phi, bill)
    times = gradient_times(phi)
    began = clocks()
    found = level_set_distance(counted, LEVELS, seed=config.seed, tol=config.tol, **asdict(THETA_EFFORT))
    total = clocks() - began
    gradient = torch.stack(times + gradient_times(phi)).median(0).values
    return {
        "distance": found.distance[0].tolist(),
        "angle": found.angle[0].tolist(),
        "level_error": found.level_error[0].tolist(),
        "spread": found.spread[0].tolist(),
        "passes": float((total / gradient)[0]),
        "passes_processor": float((total / gradient)[1]),
        "seconds": float(total[0]),
        "seconds_of_a_gradient": float(gradient[0]),
        **asdict(bill),
    }


def rivals(phi: ParameterObjective, scale: float, rays: int) -> dict[str, list[float]]:
    """What the other methods find; ``scale`` is the length of the shortest distance known."""
    leading = top_eigenpairs(phi, 1)
    vector, eigenvalue = leading.eigenvectors[0, 0], float(leading.eigenvalues[0, 0])
    value, levels = float(phi.value(phi.origin)[0]), sorted(LEVELS)
    above = [c for c in levels if c > value]
    random = random_directions(phi, rays, seed=1)
    isotropic, isotropic_median = shortest_ray(phi, random, above, 10 * scale)
    filtered, filtered_median = shortest_ray(phi, filter_normalised(random, phi.model), above, 3 * scale)
    found = {
        "quadratic estimate": quadratic_estimates(value, eigenvalue, above),
        "± leading eigenvector": shortest_ray(phi, [vector, -vector], above, scale / 2)[0],
        "gradient ray": ray_crossings(phi, _gradient(phi), above, scale / 2),
        "steepest ascent": steepest_ascent(phi, above, scale / 50),
        f"shortest of {rays} random rays": isotropic,
        "median random ray": isotropic_median,
        f"shortest of {rays} filter-normalised rays": filtered,
        "median filter-normalised ray": filtered_median,
    }
    return {name: _by_level(lengths, above) for name, lengths in found.items()}


def _gradient(phi: Objective) -> Tensor:
    return phi.value_and_grad(phi.origin)[1][0]


def _by_level(lengths: Sequence[float], above: Sequence[float]) -> list[float]:
    table = dict(zip(above, lengths, strict=True))
    return [table.get(c, math.nan) for c in LEVELS]


def benchmark(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """All methods on one snapshot."""
    config = MeasureConfig(levels=LEVELS, theta_samples=options.samples)
    problem = load_problem(load_snapshot(f"embedded:runs/{name}"), "cpu")
    phi = theta_objective(problem, options.samples, config.seed)
    row = ours(phi, config)
    reference = cached_search(name, options.reference_cache, options.samples, options.seed)
    best = [_least(pair) for pair in zip(row["distance"], reference["distance"], strict=True)]
    return {
        "snapshot": name,
        "value": float(phi.value(phi.origin)[0]),
        "ours": row,
        "reference": {k: reference[k] for k in ("distance", "gradients", "values", "seconds") if k in reference},
        "best": best,
        "rivals": {} if options.no_rivals else rivals(phi, _least(best), options.rays),
    }


def _least(values: Sequence[float]) -> float:
    return min((v for v in values if math.isfinite(v)), default=math.nan)


def chosen(options: argparse.Namespace) -> list[str]:
    """Snapshots to measure: with ``--cached-only`` those whose reference is there."""
    names = snapshots(options.snapshots)
    if not options.cached_only:
        return names
    return [n for n in names if cache_file(n, options.reference_cache, options.samples, options.seed).exists()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshots", type=int, default=20)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the reference's random starts")
    parser.add_argument("--rays", type=int, default=64, help="random rays of each kind")
    parser.add_argument("--reference-cache", type=Path, default=Path("benchmarks/cache/theta"))
    parser.add_argument(
        "--cached-only", action="store_true", help="leave out snapshots without a stored reference"
    )
    parser.add_argument("--no-rivals", action="store_true", help="ours and the reference only")
    parser.add_argument("--output", type=Path, help="JSON of all numbers")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for name in chosen(options):
        print(name, file=sys.stderr, flush=True)
        rows.append(benchmark(name, options))
        if options.output:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            document = {"levels": LEVELS, "summary": summary(rows), "rows": rows, "provenance": provenance()}
            options.output.write_text(json.dumps(_plain(document), indent=1, ensure_ascii=False) + "\n")
    print_snapshots(LEVELS, rows)
    print_summary(summary(rows))


def _plain(value: Any) -> Any:
    """The same document with null for what is not finite."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    main()
