"""How long a report on many runs takes to make, how large it is, and how long a browser takes to open it.

The rows are made up: two optimizers, seven batch sizes, 25 learning rates, as many seeds as it takes. The page is
opened in headless Chromium by playwright; *drawn* is when two frames have been drawn after loading.

    python benchmarks/report.py --rows 10000
"""

from __future__ import annotations

import argparse
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, sync_playwright

from landscape.report import html_report
from landscape.study.associations import CorrelateConfig
from landscape.study.columns import Row
from landscape.study.correlate import correlate

VERDICTS = ("sound", "arithmetic masking", "gradient masking")
REASONS = (
    "FGSM as published leaves more standing than exact FGSM (fgsm_published 52.7 %, fgsm_exact 20.3 %): 100.0 % "
    "of the samples it spares have a rounded gradient or none; 57.7 % of the published gradients are rounded and "
    "0.0 % are gone; accuracy under a single step is no robustness: iterative attacks leave less (iterative "
    "0.0 %, fgsm_exact 20.3 %)"
)
FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def main() -> None:
    """Make the report, open it, and print seconds and megabytes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--browser", default=shutil.which("chromium") or shutil.which("google-chrome"))
    arguments = parser.parse_args()
    rows = made_up_rows(arguments.rows)
    found = correlate(rows, CorrelateConfig(permutations=9, bootstrap=9))  # statistics are not what is timed
    begin = time.perf_counter()
    page = html_report(rows, found, settings={}, provenance={})
    print(f"{len(rows)} rows: made in {time.perf_counter() - begin:.1f} s, {len(page.encode()) / 1e6:.1f} MB")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "report.html")
        file.write_text(page, encoding="utf-8")
        for name, seconds in opened(file, arguments.browser, arguments.rounds).items():
            print(f"{name:<8} median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s")


def made_up_rows(count: int) -> list[Row]:
    """Runs with every column that the report shows."""
    rng = np.random.default_rng(0)
    rates = np.geomspace(1e-4, 0.5, 25)
    return [_row(i, float(rates[rng.integers(25)]), 2 ** int(rng.integers(2, 9)), rng) for i in range(count)]


def _row(i: int, rate: float, batch: int, rng: np.random.Generator) -> Row:
    wide, optimizer = rng.normal(), ("adam", "sgd")[i % 2]
    name = f"{optimizer}_lr{rate:.4g}_b{batch}_seed{i}"
    identity: Row = {"run": name, "run_id": name, "path": f"runs/{name}", "at": "last", "status": "ok"}
    settings: Row = {"optimizer": optimizer, "learning_rate": rate, "batch_size": batch, "seed": i, "epoch": 6}
    return {
        **identity,
        **settings,
        "train_loss": 0.01,
        "gradient_norm": 1.2,
        "lambda_1": 20 * math.exp(-wide),
        "lambda_1_residual": 1e-6,
        "d_theta[ln2]": math.exp(wide - 1.5),
        "w_theta[ln2]": 1.5 * math.exp(wide - 1.5),
        "d_theta_angle[ln2]": float(rng.uniform(0, 0.5)),
        "d_theta_spread[ln2]": float(rng.uniform(0, 0.02)),
        "d_theta_level_error[ln2]": 1e-7,
        "d_x_reached[ln2]": 1.0,
        "d_x_median[ln2]": math.exp(0.3 * rng.normal()),
        "w_x_median[ln2]": 2 * math.exp(0.3 * rng.normal()),
        "clean_accuracy": 0.98,
        "fgsm_published[0.3]": float(rng.uniform(0.02, 0.6)),
        "fgsm_exact[0.3]": float(rng.uniform(0, 0.3)),
        "worst_case[0.3]": float(rng.uniform(0, 0.1)),
        "masking[0.3]": VERDICTS[int(rng.integers(3))],
        "masking_reasons[0.3]": REASONS,
        "rounded_share": float(rng.uniform(0, 0.3)),
    }


def opened(file: Path, browser: str | None, rounds: int) -> dict[str, list[float]]:
    """Seconds of each step, a list of rounds."""
    found: dict[str, list[float]] = {"loaded": [], "drawn": [], "hover": [], "filter": []}
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=browser)
        for _ in range(rounds):
            page = running.new_page(viewport={"width": 1280, "height": 900})
            begin = time.perf_counter()
            page.goto(file.as_uri(), timeout=120_000)
            found["loaded"].append(time.perf_counter() - begin)
            page.evaluate(FRAMES)
            found["drawn"].append(time.perf_counter() - begin)
            page.locator("svg.plot").first.scroll_into_view_if_needed()
            box = page.locator("svg.plot").first.bounding_box() or {"x": 0, "y": 0, "width": 0, "height": 0}
            middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
            found["hover"].append(_seconds(page, lambda p, at=middle: p.mouse.move(*at)))
            found["filter"].append(_seconds(page, lambda p: p.locator("#filters input").nth(3).uncheck()))
            page.close()
        running.close()
    return found


def _seconds(page: Page, act: Callable[[Page], object]) -> float:
    begin = time.perf_counter()
    act(page)
    page.evaluate(FRAMES)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
