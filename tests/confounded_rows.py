"""Runs whose distances follow the training loss within cells, with errors of measurement: rows, made up."""

from __future__ import annotations

import math

import numpy as np

from landscape.study.associations import CorrelateConfig
from landscape.study.columns import LEVELS, Row

FAST = CorrelateConfig(permutations=199, bootstrap=100)
DISTANCES = ("d_theta[ln2]", "d_x_median[ln2]")
RATES, BATCHES, SEEDS = (0.01, 0.05, 0.2), (16, 64, 128), 5


def make_rows(seed: int = 0, *, by_loss: float = 2.0, link: float = 0.0, error: float = 0.0) -> list[Row]:
    """45 runs: within cells d_θ and d_X follow the training loss by ``by_loss`` and each other by ``link``.

    Distances carry an error of measurement of size ``error``; a repeat has the same runs and other errors.
    """
    truth, noise = np.random.default_rng(0), np.random.default_rng(seed + 1)
    rows: list[Row] = []
    for rate in RATES:
        for batch in BATCHES:
            for run in range(SEEDS):
                loss, common, a, b, margin, norm = truth.normal(size=6)
                setting, name = math.log(rate) - 0.5 * math.log(batch), f"{rate}-{batch}-{run}"
                row: Row = {
                    "run": name, "run_id": f"id-{name}", "path": f"runs/{name}", "step": 900, "status": "ok",
                    "optimizer": "sgd", "learning_rate": rate, "batch_size": batch, "seed": run,
                    "train_loss": 0.05 * math.exp(0.3 * loss - 0.1 * setting), "margin_median": 5 + margin,
                    "theta_norm": 30 + norm, "lambda_1": truth.uniform(), "fgsm_published[0.3]": truth.uniform(),
                    "fgsm_exact[0.3]": truth.uniform(), "worst_case[0.3]": truth.uniform(),
                }  # fmt: skip
                for level, c in LEVELS.items():
                    x, y = (
                        0.3 * setting + by_loss * loss + own + link * common + error * noise.normal()
                        for own in (a, b)
                    )
                    row |= {
                        f"d_theta[{level}]": c * math.exp(0.1 * x),
                        f"d_x_median[{level}]": c * math.exp(0.1 * y),
                    }
                    row |= {f"w_theta[{level}]": row[f"d_theta[{level}]"], f"w_x_median[{level}]": math.exp(y)}
                rows.append(row)
    return rows
