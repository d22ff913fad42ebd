"""How ``landscape width`` shows its results."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .output import print_json, print_table, say

if TYPE_CHECKING:
    from torch import Tensor

    from landscape.geometry.level_sets import LevelSetDistance
    from landscape.robustness.certified import CertifiedDistance
    from landscape.study.widths import WidthConfig, Widths

Rows = list[dict[str, Any]]


def print_widths(found: Widths, config: WidthConfig) -> None:
    """Tables of all that was measured."""
    say("  ".join(f"{name} {value:.4g}" for name, value in asdict(found.minimum).items()))
    metric = f"{config.metric} metric{'' if config.biases else ' without biases'}"
    _print_rows(f"\nparameters θ, {_norm(config.theta_norm)}, {metric}", _theta_rows(found))
    say("every d is an upper bound; no lower bound in θ is known")
    place = f"{_norm(config.x_norm)}{' in [0, 1]' if config.box else ''}"
    _print_rows(f"\ninputs X, {place}, over {config.x_samples} images", _sample_rows(found.x))
    if found.joint is not None:
        _print_rows("\nmatrix X jointly, mean loss", _joint_rows(found.joint))
    if found.per_sample is not None:
        _print_rows(f"\nparameters θ, loss of one of {config.per_sample} images", _sample_rows(found.per_sample))
    if found.certified is not None:
        _print_rows(f"\nbracket of d_X, {config.certified} images", _bracket_rows(found.certified, found.x))


def print_widths_json(found: Widths, config: WidthConfig, snapshot: dict[str, Any]) -> None:
    """One document with all numbers of every row."""
    parts = {"x": found.x, "joint": found.joint, "per_sample": found.per_sample}
    results: dict[str, Any] = {"minimum": asdict(found.minimum), "theta": _theta_rows(found)}
    results |= {name: _everything(part) for name, part in parts.items() if part is not None}
    if found.certified is not None:
        results["certified"] = {"distance": found.certified.distance}
    results["cost"] = {"theta": _cost(found.theta)} | {
        name: _cost(part) for name, part in parts.items() if part is not None
    }
    print_json("width", {"snapshot": snapshot} | asdict(config), results)


def _norm(norm: float) -> str:
    return {1.0: "1-norm", 2.0: "2-norm", math.inf: "∞-norm"}[norm]


def _print_rows(title: str, rows: Rows) -> None:
    say(title)
    print_table(list(rows[0]), [list(row.values()) for row in rows])


def _theta_rows(found: Widths) -> Rows:
    """One row a level: the distance, and the evidence for it."""
    from landscape.study.searches import quadratic_distance

    minimum = found.minimum
    levels = found.theta.levels.tolist()
    quadratic = [quadratic_distance(c, minimum.loss, minimum.largest_eigenvalue) for c in levels]
    return [
        {"c": row.pop("c"), "d": row.pop("d"), "w": row.pop("w"), "quadratic_d": estimate, **row}
        for row, estimate in zip(_joint_rows(found.theta), quadratic, strict=True)
    ]


def _joint_rows(found: LevelSetDistance) -> Rows:
    """One row a level, of a search with one origin."""
    from landscape.geometry.level_sets import width
    from landscape.study.columns import level_label

    widths, grades = width(found), found.grade[0]
    names = ("level_error", "angle", "kink_angle", "curvature", "spread")
    return [
        {
            "c": level_label(c),
            "d": found.distance[0, i].item(),
            "w": widths[0, i].item(),
            **{name: getattr(found, name)[0, i].item() for name in names},
            "agreeing": int(found.agreeing[0, i]),
            "grade": grades[i],
        }
        for i, c in enumerate(found.levels.tolist())
    ]


def _sample_rows(found: LevelSetDistance) -> Rows:
    """One row a level: quantiles over samples, and how many have which grade."""
    from landscape.geometry.level_sets import width
    from landscape.study.columns import level_label
    from landscape.study.widths import quantile

    widths, grades = width(found), found.grade
    rows = []
    for i, c in enumerate(found.levels.tolist()):
        counts = Counter(row[i] for row in grades)
        rows.append(
            {
                "c": level_label(c),
                "d_q10": quantile(found.distance[:, i], 0.1),
                "d_median": quantile(found.distance[:, i], 0.5),
                "d_q90": quantile(found.distance[:, i], 0.9),
                "w_median": quantile(widths[:, i], 0.5),
                "kink_angle_median": quantile(found.kink_angle[:, i], 0.5),
                **{grade: counts[grade] for grade in ("strong", "fair", "weak", "below_minimum")},
                "not_reached": counts["not_reached"] + counts["saturated"],
            }
        )
    return rows


def _bracket_rows(certified: CertifiedDistance, found: LevelSetDistance) -> Rows:
    """Certified lower bounds beside the distances found for the same images."""
    from landscape.study.columns import level_label
    from landscape.study.widths import quantile

    shown = found.distance[: len(certified.distance)]
    ratio = certified.distance / shown
    return [
        {
            "c": level_label(c),
            "certified_median": quantile(certified.distance[:, i], 0.5),
            "found_median": quantile(shown[:, i], 0.5),
            "ratio_min": quantile(ratio[:, i], 0.0),
            "ratio_median": quantile(ratio[:, i], 0.5),
            "ratio_max": quantile(ratio[:, i], 1.0),
        }
        for i, c in enumerate(found.levels.tolist())
    ]


def _everything(found: LevelSetDistance) -> dict[str, Any]:
    """All numbers of every row."""
    names = ("level_error", "angle", "kink_angle", "curvature", "gradient_norm", "spread", "agreeing")
    columns: dict[str, Tensor] = {name: getattr(found, name) for name in names}
    return (
        {"summary": _sample_rows(found), "loss": found.value, "distance": found.distance}
        | columns
        | {"grade": found.grade}
    )


def _cost(found: LevelSetDistance) -> dict[str, float]:
    """What a search took, for each point that it started at."""
    names = ("num_gradients", "num_values", "num_evidence_gradients", "num_evidence_hvp")
    return {name: getattr(found, name) for name in names}
