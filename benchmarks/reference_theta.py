"""Reference for level-set distances in θ: many random starts, quasi-Newton descent over directions.

It shares nothing with ``landscape.geometry``: all it asks of an Objective is ``value`` and ``value_and_grad``.

64 rays in random directions, each shortened by quasi-Newton descent over directions (``sphere_descent.py``). Every
result is the length of a displacement that ends on the level set: an upper bound, the shortest of many starts.

The budget is spent by successive halving. Half of the starts descend roughly at one of the lower levels, half at
the highest. The best distinct ones of both are brought to every level and continued there, and the best of those
descend to the end. At last each level is offered the rays of all others. With the defaults this comes to about
1500 gradient passes a snapshot for all starts and levels together: ten times 150.

    python benchmarks/reference_theta.py --snapshots 20 --cache benchmarks/cache/theta
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sphere_descent import Bill, Descent, LevelSet, Point
from torch import Generator

from landscape.objectives import Objective

LEVELS = (0.5, math.log(2), 1.0, math.log(10))
# Cells in the order in which they are measured: a prefix of any length is spread over all settings.
CELLS = tuple(
    f"{setting}_b{batch}"
    for batches in ((128, 16), (16, 128))
    for setting, batch in zip(
        ("adam_lr0.0015", "sgd_lr0.05", "adam_lr0.006", "sgd_lr0.2", "adam_lr0.0003", "sgd_lr0.01"),
        batches * 3,
        strict=True,
    )
)
SAMPLES, SEED = 2000, 0
STARTS = 64
# Gradients of one start at most, and the tangent of the angle at which it stops, in each of three stages.
ROUGH, ROUGH_TOL = 9, 0.1
LEVELLED, LEVELLED_TOL = 6, 0.03
FINE, TOL = 60, 3e-3
# Starts that go on to the second and to the third stage, of those that are distinct: below this cosine.
KEPT_LEVELLED, KEPT_FINE = 12, 5
SAME = 0.9


def snapshots(count: int) -> list[str]:
    """Names of the first ``count`` stored runs: seed 0 of every cell, then seed 1, and so on."""
    return [f"{cell}_seed{seed}" for seed in range(5) for cell in CELLS][:count]


def cosine(a: Descent, b: Descent) -> float:
    """Between the directions of two descents."""
    return float(a.point.direction @ b.point.direction)


def distinct(descents: Sequence[Descent], count: int) -> list[Descent]:
    """The ``count`` shortest descents of which no two point the same way."""
    chosen: list[Descent] = []
    for descent in sorted(descents, key=lambda d: d.point.radius):
        if len(chosen) < count and all(cosine(descent, c) < SAME for c in chosen):
            chosen.append(descent)
    return chosen


def random_starts(level_sets: Sequence[LevelSet], count: int, seed: int) -> list[Descent]:
    """Random rays that meet their level; the level sets take turns."""
    generator = Generator().manual_seed(seed)
    origin = level_sets[0].origin
    radius = 0.1 * max(1.0, float(torch.linalg.vector_norm(origin)))
    starts = []
    for i in range(count):
        draw = torch.randn(len(origin), generator=generator, dtype=torch.float64)
        direction = (draw / torch.linalg.vector_norm(draw)).to(origin.device)
        level_set = level_sets[i % len(level_sets)]
        crossed = level_set.first_crossing(direction, radius)
        point = level_set.meet(direction, crossed, 0.2) if crossed else None
        if point:
            starts.append(Descent(level_set, point))
    return starts


def search(
    phi: Objective, levels: Sequence[float] = LEVELS, starts: int = STARTS, seed: int = SEED
) -> dict[str, Any]:
    """Shortest distances found from the origin of φ (one row) to each level that is above φ there.

    Returns:
        Plain numbers and tensors: ``distance`` (one a level; NaN if not above φ or not reached), ``radii`` of all
        starts after each stage, ``minima`` (per level the directions ``(k, n)``, radii and tangents of the best
        distinct ends), and the bill.
    """
    began, bill = time.perf_counter(), Bill()
    value = float(phi.value(phi.origin)[0])
    sets = {c: LevelSet(phi, c, bill) for c in sorted(levels) if c > value}
    if not sets:
        return {"levels": list(levels), "value": value, "distance": [math.nan] * len(levels), "minima": {}}
    ordered = list(sets)
    begun = random_starts([sets[c] for c in (ordered[len(ordered) // 3], ordered[-1])], starts, seed)
    radii: dict[str, Any] = {"random": [(d.level_set.level, d.point.radius) for d in begun]}
    for descent in begun:
        descent.run(ROUGH, ROUGH_TOL)
    radii["rough"] = [(d.level_set.level, d.point.radius) for d in begun]
    _say(f"    {len(begun)} starts: {_few([r for _, r in radii['rough']])} {bill}")
    kept = [d for c in sorted({d.level_set.level for d in begun}) for d in distinct(_on(begun, c), KEPT_LEVELLED)]
    ends: dict[float, list[Descent]] = {}
    for level in ordered:
        ends[level] = _levelled(sets[level], kept)
        _say(f"    level {level:.3f}: {_few([d.point.radius for d in ends[level]])} {bill}")
    for level in ordered:
        ends[level] = _pooled(sets[level], ends)
    exact = {c: [_exact(sets[c], d.point) for d in distinct(ends[c], KEPT_FINE)] for c in ordered}
    return {
        "levels": list(levels),
        "value": value,
        "distance": [min((p.radius for p in exact.get(c, [])), default=math.nan) for c in levels],
        "radii": radii | {f"ends[{c:.4f}]": [d.point.radius for d in ends[c]] for c in ordered},
        "minima": {
            c: {
                "directions": torch.stack([p.direction for p in points]).float(),
                "radii": [p.radius for p in points],
                "tangents": [p.tangent for p in points],
            }
            for c, points in exact.items()
            if points
        },
        "gradients": bill.gradients,
        "values": bill.values,
        "seconds": time.perf_counter() - began,
    }


def _on(descents: Sequence[Descent], level: float) -> list[Descent]:
    return [d for d in descents if d.level_set.level == level]


def _levelled(level_set: LevelSet, descents: Sequence[Descent]) -> list[Descent]:
    """All descents brought to one level and continued there, the best of them to the end."""
    moved = [m for d in descents if (m := d.moved_to(level_set))]
    going = [d.run(LEVELLED, LEVELLED_TOL) for d in distinct(moved, KEPT_LEVELLED)]
    for descent in distinct(going, KEPT_FINE):
        descent.run(FINE, TOL)
    return going


def _pooled(level_set: LevelSet, ends: dict[float, list[Descent]]) -> list[Descent]:
    """The ends of one level, and of the best of every other level what is shorter or new there."""
    own = ends[level_set.level]
    for level, descents in ends.items():
        for descent in distinct(descents, 2) if level != level_set.level else ():
            if any(cosine(descent, d) > 0.99 for d in own):
                continue
            moved = descent.moved_to(level_set)
            shortest = min((d.point.radius for d in own), default=math.inf)
            if moved and moved.point.radius / math.hypot(1, moved.point.tangent) < shortest:
                own = [*own, moved.run(FINE, TOL)]
    return own


def _exact(level_set: LevelSet, point: Point) -> Point:
    """The point with its radius corrected until log φ misses by no more than float32 rounds."""
    return level_set.meet(point.direction, point.radius, 1e-5) or replace(point, radius=math.inf)


def _few(radii: Sequence[float]) -> str:
    return " ".join(f"{r:.4f}" for r in sorted(radii)[:6])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def snapshot_objective(name: str, samples: int = SAMPLES, seed: int = SEED) -> Objective:
    """φ over θ of the last snapshot of a stored run."""
    from landscape.snapshots import load_snapshot
    from landscape.study.problems import load_problem, theta_objective

    return theta_objective(load_problem(load_snapshot(f"embedded:runs/{name}"), "cpu"), samples, seed)


def cache_file(name: str, cache: Path, samples: int, seed: int) -> Path:
    """Where the search of a snapshot is stored."""
    return cache / f"{name}_n{samples}_seed{seed}.pt"


def cached_search(name: str, cache: Path, samples: int, seed: int) -> dict[str, Any]:
    """The stored search of a snapshot, or a new one, which is then stored."""
    path = cache_file(name, cache, samples, seed)
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        found = search(snapshot_objective(name, samples), seed=seed)
        partial = path.with_suffix(f".{os.getpid()}")
        torch.save(found, partial)
        partial.replace(path)
    return dict(torch.load(path, weights_only=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshots", type=int, default=20)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--seed", type=int, default=SEED, help="of the random starts")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path("benchmarks/cache/theta"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in snapshots(options.snapshots):
        _say(name)
        found = cached_search(name, options.cache, options.samples, options.seed)
        bill = f"{found.get('gradients')} gradients, {found.get('values')} values, {found.get('seconds', 0):.0f} s"
        _say(f"{name}: {' '.join(f'{d:.5f}' for d in found['distance'])}  ({bill})")


if __name__ == "__main__":
    main()
