"""Rows as a study measures them, made up: with evidence, attacks, and runs that cannot be used."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from landscape.study.associations import CorrelateConfig
from landscape.study.columns import Row

FAST = CorrelateConfig(permutations=99, bootstrap=50)
VERDICTS = ("sound", "arithmetic masking", "gradient masking")


def study_rows(seeds: int = 3, **changes: Any) -> list[Row]:
    """Two optimizers, three learning rates, two batch sizes; ``changes`` are made to all rows."""
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    for optimizer, rate, batch, seed in itertools.product(
        ("adam", "sgd"), (1e-3, 0.01, 0.1), (16, 128), range(seeds)
    ):
        wide, name = rng.normal(), f"{optimizer}_lr{rate:g}_b{batch}_seed{seed}"
        row: Row = {
            "run": name, "run_id": f"id of {name}", "theta_sha256": f"sha256 of {name}", "path": f"runs/{name}",
            "at": "last", "model": "cnn", "optimizer": optimizer, "method": "plain", "learning_rate": rate,
            "batch_size": batch, "seed": seed, "epoch": 6, "status": "ok", "error": None, "train_loss": 0.01,
            "gradient_norm": 0.5, "lambda_1": 20 * math.exp(-wide), "lambda_1_residual": 1e-6,
            "d_theta[ln2]": math.exp(wide - 1.5), "w_theta[ln2]": 1.5 * math.exp(wide - 1.5),
            "d_theta_angle[ln2]": (0.02, 0.2, 0.5)[seed % 3], "d_theta_spread[ln2]": 0.005,
            "d_theta_level_error[ln2]": 1e-7, "d_theta_flag[ln2]": "ok", "d_x_reached[ln2]": 0.95,
            "d_x_median[ln2]": 1.5 * math.exp(0.3 * rng.normal()), "clean_accuracy": 0.98,
            "w_x_median[ln2]": 2.0 * math.exp(0.3 * rng.normal()), "fgsm_published[0.3]": rng.uniform(0.3, 0.6),
            "fgsm_exact[0.3]": rng.uniform(0.1, 0.3), "worst_case[0.3]": rng.uniform(0.0, 0.1),
            "masking[0.3]": VERDICTS[(seed + (optimizer == "sgd")) % 3],
            "masking_reasons[0.3]": f"reason of {name}", "rounded_share": 0.25,
        }  # fmt: skip
        rows.append(row | changes)
    return rows


def with_unusable(rows: list[Row]) -> list[Row]:
    """The same, and a failed run, one that diverged, one not reached, and an earlier snapshot of the first."""
    damaged: Row = {"run": "damaged", "path": "runs/damaged", "status": "failed", "error": "segment 3 is cut off"}
    diverged = rows[0] | {"run": "diverged", "run_id": "d", "theta_sha256": "d", "train_loss": math.nan}
    far = rows[0] | {"run": "far", "run_id": "f", "theta_sha256": "f", "d_theta_flag[ln2]": "not_reached"}
    earlier = rows[0] | {"theta_sha256": "e", "step": 1}
    return [damaged, diverged, far, earlier, rows[0] | {"step": 2}, *rows[1:]]
