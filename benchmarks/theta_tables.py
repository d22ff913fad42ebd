"""How much too long the methods of ``level_set_theta.py`` are, and what ours costs: numbers and tables.

A row is what the benchmark knows of one snapshot: the lengths of each method, the best known ones, and our bill.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

GOAL_RATIO, GOAL_SHARE, GOAL_PASSES = 1.01, 0.95, 150


def ratios(rows: Sequence[dict[str, Any]], method: Callable[[dict[str, Any]], Sequence[float]]) -> list[float]:
    """Length over the best known one, for every snapshot and level that has one; inf where nothing was found."""
    return [
        length / best if math.isfinite(length) else math.inf
        for row in rows
        for length, best in zip(method(row), row["best"], strict=True)
        if math.isfinite(best)
    ]


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How much too long each method is, the share of ours within 1 % of the reference, and what ours costs."""
    methods: dict[str, Callable[[dict[str, Any]], Sequence[float]]] = {
        "ours": lambda row: row["ours"]["distance"],
        "reference": lambda row: row["reference"]["distance"],
    }
    for name in rows[0]["rivals"] if rows else ():
        methods[name] = lambda row, name=name: row["rivals"][name]  # type: ignore[misc]
    lengths = {name: ratios(rows, method) for name, method in methods.items()}
    against = [r for row in rows for r in against_reference(row) if not math.isnan(r)]
    whole = [all(not r > GOAL_RATIO for r in against_reference(row)) for row in rows]
    passes = [row["ours"]["passes"] for row in rows]
    processor = [row["ours"]["passes_processor"] for row in rows]
    return {
        "too_long": {
            name: {"median": statistics.median(r), "worst": max(r), "shortest": min(r)}
            for name, r in lengths.items()
            if r
        },
        "distances": len(against),
        "share_within_goal": sum(r <= GOAL_RATIO for r in against) / max(1, len(against)),
        "snapshots": len(rows),
        "snapshots_within_goal": sum(whole),
        "passes_median": statistics.median(passes) if passes else math.nan,
        "passes_most": max(passes, default=math.nan),
        "passes_processor_median": statistics.median(processor) if processor else math.nan,
        "passes_processor_most": max(processor, default=math.nan),
    }


def against_reference(row: dict[str, Any]) -> list[float]:
    """Ours over the reference, one a level; below 1 where ours is the shorter one."""
    pairs = zip(row["ours"]["distance"], row["reference"]["distance"], strict=True)
    return [math.inf if math.isnan(o) and not math.isnan(r) else o / r for o, r in pairs]


def print_snapshots(levels: Sequence[float], rows: Sequence[dict[str, Any]]) -> None:
    print(
        f"{'snapshot':26}" + "".join(f"{f'c = {c:.3f}':>18}" for c in levels) + "   passes   cpu  grad  value  hvp"
    )
    print(f"{'':26}" + f"{'d  ours/reference':>18}" * len(levels))
    for row in rows:
        cells = zip(row["ours"]["distance"], against_reference(row), strict=True)
        lengths = "".join(f"{f'{d:.4f}  {r:.4f}':>18}" for d, r in cells)
        bill = row["ours"]
        counts = f"{bill['gradients']:6}{bill['values']:7}{bill['products']:5}"
        print(f"{row['snapshot']:26}{lengths}{bill['passes']:9.0f}{bill['passes_processor']:6.0f}{counts}")


def print_summary(found: dict[str, Any]) -> None:
    print(f"\n{'how much too long (1 = best known)':44}{'median':>10}{'worst':>10}{'shortest':>10}")
    for name, numbers in found["too_long"].items():
        print(f"{name:44}" + "".join(f"{numbers[k]:10.3f}" for k in ("median", "worst", "shortest")))
    print(
        f"\nours within {GOAL_RATIO - 1:.0%} of the reference: {found['share_within_goal']:.1%} of "
        f"{found['distances']} distances, all levels of {found['snapshots_within_goal']} of {found['snapshots']} "
        f"snapshots (goal: {GOAL_SHARE:.0%})"
    )
    for clock, key in (("wall", "passes"), ("processor", "passes_processor")):
        median, most = found[f"{key}_median"], found[f"{key}_most"]
        print(f"gradient passes of ours, {clock} time: median {median:.0f}, most {most:.0f} (goal: {GOAL_PASSES})")
