"""How long the statistics of a study take, by its number of runs, and which part of them takes how long.

The rows are made up: two optimizers, five learning rates each, and as many batch sizes as it takes for cells of
five runs; every column that is correlated, four levels, covariates. One thread; draws as by default.

    python benchmarks/correlations.py --rows 100 1000 10000
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import cProfile
import math
import pstats
import resource
import time

import numpy as np

from landscape.study.associations import CorrelateConfig
from landscape.study.columns import LEVELS, Row
from landscape.study.correlate import correlate

PARTS = (
    "_associate_all",
    "_panels",
    "_leave_one_out",
    "adjust",
    "over_levels",
    "over_settings",
    "compare_repeats",
    "exclusion_reasons",
)


def main() -> None:
    """Print seconds, in all and by part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[60, 1000, 10_000])
    parser.add_argument("--repeats", type=int, default=0)
    parser.add_argument("--profile", action="store_true", help="Print where the time goes, function by function.")
    arguments = parser.parse_args()
    for count in arguments.rows:
        rows = made_up_rows(count, 0)
        repeats = [made_up_rows(count, k + 1) for k in range(arguments.repeats)]
        profile = cProfile.Profile()
        begin, spent = time.perf_counter(), time.process_time()
        profile.enable()
        found = correlate(rows, CorrelateConfig(), repeats)
        profile.disable()
        took, processor = time.perf_counter() - begin, time.process_time() - spent
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        cells = found.primary.num_cells
        print(
            f"{count} rows, {cells} cells: {took:.2f} s, of the processor {processor:.2f} s, peak {memory:.0f} MB"
        )
        print("  " + ", ".join(f"{name} {seconds:.2f}" for name, seconds in _parts(profile).items()))
        if arguments.profile:
            pstats.Stats(profile).sort_stats("tottime").print_stats(18)


def _parts(profile: cProfile.Profile) -> dict[str, float]:
    """Seconds in each part, with what it calls."""
    times = {key[2]: value[3] for key, value in pstats.Stats(profile).stats.items()}  # type: ignore[attr-defined]
    return {name: times[name] for name in PARTS if name in times}


def made_up_rows(count: int, seed: int) -> list[Row]:
    """Runs whose columns depend on their settings, on one another a little, and on chance."""
    truth, noise = np.random.default_rng(0), np.random.default_rng(seed)
    rows: list[Row] = []
    for number in range(count):
        cell, run = divmod(number, 5)
        optimizer, rate, batch = cell % 2, cell // 2 % 5, cell // 10
        setting = 0.5 * rate - 0.1 * (batch % 7)
        loss, common = truth.normal(size=2)
        row: Row = {
            "run": f"run {number}", "run_id": f"id {number}", "theta_sha256": f"sha {number}", "status": "ok",
            "model": "cnn", "optimizer": ("adam", "sgd")[optimizer], "method": "plain", "step": 900,
            "learning_rate": 10.0 ** (rate - 4), "batch_size": 16 + batch, "seed": run,
            "train_loss": 0.05 * math.exp(0.3 * loss - 0.1 * setting), "margin_median": 5 + truth.normal(),
            "theta_norm": 30 + truth.normal() + setting, "lambda_1": 20 * math.exp(truth.normal() - setting),
            "fgsm_published[0.3]": truth.uniform(), "fgsm_exact[0.3]": truth.uniform(),
            "worst_case[0.3]": truth.uniform(), "masking[0.3]": "sound",
        }  # fmt: skip
        for level, c in LEVELS.items():
            x, y = np.exp(0.1 * (setting + loss + common + noise.normal(size=2))) * c
            row |= {f"d_theta[{level}]": x, f"d_x_median[{level}]": y, f"d_theta_flag[{level}]": "ok"}
            row |= {f"w_theta[{level}]": x / 0.7, f"w_x_median[{level}]": y / 0.7}
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
