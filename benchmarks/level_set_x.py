"""Distances to the decision boundary in X against minimum-norm attacks, all in one run on the same images.

Level: margin = 0, without a box. The attacks are foolbox's; ``rivals_x.py`` says with which settings and why. Each
one's adversarials are pulled back to the boundary along the ray from the image; ours are taken as the search
returns them. *Best* is the shortest distance of all attacks, image by image; ours is no part of it. Images are
handled in batches, every method in turn on each batch, so that a disturbance of the machine hits all of them.

Gradients are backward passes, counted in the network itself, for all methods alike. Ratios of cost are to the
attack with 1000 steps that the table names: DDN in ℓ2, FMN in ℓ∞, where there is no DDN. Brendel-Bethge starts
from the nearest points of the others, which its own costs do not include.

    python benchmarks/level_set_x.py --samples 500 --norm 2 --threads 1 --output FILE.json
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rivals_x import CountedNetwork, Found, find, pull_back, rivals
from torch import Tensor, nn

import landscape
from landscape.problem.datasets import Dataset
from landscape.problem.directions import targeted_starts
from landscape.provenance import provenance
from landscape.study.measure_config import MeasureConfig
from landscape.study.problems import load_problem
from landscape.study.searches import TARGETED_STARTS, X_EFFORT

OURS = "ours"
# Distances that differ by less count as equal.
TIE = 1e-3
WITHIN = 1.01
WARM_UP_IMAGES, WARM_UP_STEPS = 8, 3

Method = Callable[[nn.Module, Tensor, Tensor, Mapping[str, Found]], Found]


def ours(model: nn.Module, x: Tensor, y: Tensor, norm: float) -> Found:
    """The search with the starts and the tolerance of ``landscape.study.measure``."""
    network = CountedNetwork(model)
    wall, cpu = time.perf_counter(), time.process_time()
    phi = landscape.input_objective(network, x, y, loss="margin")
    result = landscape.level_set_distance(
        phi,
        [0.0],
        norm=norm,
        starts=targeted_starts(network, x, y, TARGETED_STARTS, norm),
        tol=MeasureConfig().tol,
        seed=0,
        **asdict(X_EFFORT),
    )
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    distance = torch.where(result.reached[:, 0], result.distance[:, 0], math.inf)
    points = result.points[:, 0].reshape(x.shape).to(x.dtype)
    spent = network.gradients / len(x), network.forwards / len(x)
    return Found(distance, points, points, *spent, wall, cpu)


def methods(norm: float, steps: int, refinement: int) -> dict[str, Method]:
    """All methods by name, each given what the earlier ones found on the same images."""
    table: dict[str, Method] = {OURS: lambda model, x, y, _: ours(model, x, y, norm)}
    for name, prepare in rivals(norm, steps, refinement).items():
        table[name] = lambda model, x, y, found, prepare=prepare: find(prepare(found), model, x, y, norm)  # type: ignore[misc]
    return table


def correct_images(model: nn.Module, data: Dataset, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """The first ``count`` images of a permutation drawn from ``seed`` that the model classifies correctly."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        correct = model(data.images[order]).argmax(1) == data.labels[order]
    chosen = order[correct][:count]
    return data.images[chosen], data.labels[chosen]


def run(table: Mapping[str, Method], model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Found]:
    found: dict[str, Found] = {}
    for name, method in table.items():
        found[name] = method(model, x, y, found)
        message = f"  {name}: {found[name].wall:.1f} s, median distance {found[name].distance.median():.4f}"
        print(message, file=sys.stderr, flush=True)
    return found


def joined(parts: Sequence[Found]) -> Found:
    """One result of the results on several batches."""
    sizes = torch.tensor([len(part.distance) for part in parts], dtype=torch.float64)
    weights = sizes / sizes.sum()

    def mean(numbers: Sequence[float]) -> float:
        return float(weights @ torch.tensor(numbers, dtype=torch.float64))

    return Found(
        torch.cat([part.distance for part in parts]),
        torch.cat([part.points for part in parts]),
        torch.cat([part.adversarials for part in parts]),
        mean([part.gradients for part in parts]),
        mean([part.forwards for part in parts]),
        sum(part.wall for part in parts),
        sum(part.cpu for part in parts),
    )


def summary(found: Mapping[str, Found]) -> dict[str, dict[str, float]]:
    """Each method against the best of all attacks, against ours, and against the cost of the reference."""
    best = torch.stack([f.distance for name, f in found.items() if name != OURS]).amin(0)
    yard = found[reference(found)]
    return {
        name: _row(f, best, best if name == OURS else f.distance, found[OURS], yard) for name, f in found.items()
    }


def _row(f: Found, best: Tensor, rival: Tensor, own: Found, yard: Found) -> dict[str, float]:
    ratio, against = f.distance / best, own.distance / rival
    return {
        "mean": ratio.mean().item(),
        "median": ratio.median().item(),
        "worst": ratio.max().item(),
        "within": (ratio <= WITHIN).double().mean().item(),
        "ours_shorter": (against < 1 - TIE).double().mean().item(),
        "ours_longer": (against > 1 + TIE).double().mean().item(),
        "gradients": f.gradients,
        "forwards": f.forwards,
        "wall": f.wall,
        "cpu": f.cpu,
        "gradients_ratio": f.gradients / yard.gradients,
        "wall_ratio": f.wall / yard.wall,
        "cpu_ratio": f.cpu / yard.cpu,
    }


def reference(found: Mapping[str, Found]) -> str:
    return "DDN" if "DDN" in found else "FMN"


# Heading, key and format of the table's columns.
COLUMNS = (
    ("mean", "mean", "9.4f"),
    ("median", "median", "9.4f"),
    ("worst", "worst", "9.4f"),
    ("≤ 1.01", "within", "9.1%"),
    ("shorter", "ours_shorter", "10.1%"),
    ("longer", "ours_longer", "9.1%"),
    ("grad", "gradients", "9.1f"),
    ("forward", "forwards", "9.1f"),
    ("wall", "wall", "8.1f"),
    ("CPU", "cpu", "8.1f"),
    ("grad", "gradients_ratio", "8.3f"),
    ("wall", "wall_ratio", "7.3f"),
    ("CPU", "cpu_ratio", "7.3f"),
)


def print_table(rows: Mapping[str, Mapping[str, float]], yard: str) -> None:
    groups = (("distance ÷ best of attacks", 36), ("ours is", 19), ("passes/image", 18), ("seconds", 16))
    print(f"{'':28}" + "".join(f"{name:>{width}}" for name, width in groups) + f"{'÷ ' + yard:>22}")
    widths = [int(spec.split(".")[0]) for _, _, spec in COLUMNS]
    print(f"{'method':28}" + "".join(f"{c[0]:>{width}}" for c, width in zip(COLUMNS, widths, strict=True)))
    for name, row in rows.items():
        print(f"{name:28}" + "".join(f"{row[key]:{spec}}" for _, key, spec in COLUMNS))


def print_check(model: nn.Module, x: Tensor, y: Tensor, own: Found, norm: float) -> None:
    """Whether ours are points of the boundary: pulled back like the others, they stay where they are."""
    points, crossed = pull_back(model, x, y, own.points.nan_to_num())
    back = torch.linalg.vector_norm((points - x).flatten(1).double(), norm, dim=1)
    moved = (back / own.distance - 1)[crossed].abs().max()
    print(
        f"\nours: {crossed.sum()} of {len(x)} rays cross the boundary, within {moved:.1e} (relative) of our point"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshot", default="embedded:runs/adam_lr0.0015_b16_seed0")
    parser.add_argument("--samples", type=int, default=500, help="images that the network classifies correctly")
    parser.add_argument("--norm", type=float, choices=(2.0, math.inf), default=2.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images")
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--steps", type=int, default=1000, help="of DDN and FMN")
    parser.add_argument("--refinement", type=int, default=400, help="steps of Brendel-Bethge")
    parser.add_argument("--output", type=Path, help="JSON of all numbers")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    problem = load_problem(landscape.load_snapshot(options.snapshot, at="last"), "cpu")
    x, y = correct_images(problem.model, problem.test, options.samples, options.seed)
    print("warming up", file=sys.stderr, flush=True)
    few = slice(0, WARM_UP_IMAGES)
    run(methods(options.norm, options.steps, WARM_UP_STEPS), problem.model, x[few], y[few])
    parts = []
    for images, labels in zip(x.split(options.batch), y.split(options.batch), strict=True):
        print(f"{len(images)} images", file=sys.stderr, flush=True)
        parts.append(run(methods(options.norm, options.steps, options.refinement), problem.model, images, labels))
    found = {name: joined([part[name] for part in parts]) for name in parts[0]}
    rows = summary(found)
    print_table(rows, f"{reference(found)}-{options.steps}")
    print_check(problem.model, x, y, found[OURS], options.norm)
    if options.output:
        options.output.write_text(json.dumps(document(options, rows, found), indent=1, ensure_ascii=False) + "\n")


def document(options: argparse.Namespace, rows: Mapping[str, Any], found: Mapping[str, Found]) -> dict[str, Any]:
    settings = {key: value for key, value in vars(options).items() if key != "output"} | {
        "norm": str(options.norm)
    }
    distances = {name: [d if math.isfinite(d) else None for d in f.distance.tolist()] for name, f in found.items()}
    return {"settings": settings, "summary": rows, "distances": distances, "provenance": provenance()}


if __name__ == "__main__":
    main()
