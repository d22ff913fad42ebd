"""A study of many snapshots on two workers: memory over time, the share of measuring, the time of what follows.

Runs of made-up snapshots are written by the project's own writer into a temporary folder: a small network that
was trained for a moment, with another random step for each snapshot. `landscape measure`, `correlate` and `report`
then run as a user calls them, and the resident memory of the command and its workers is read every half second.
At last the table is read by Python, and the page opened in headless Chromium (``report.py``).

    python benchmarks/study_scale.py --snapshots 10000
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from report import opened
from torch import nn

from landscape.problem.datasets import Dataset, load_dataset
from landscape.problem.models import build_model, initialise
from landscape.snapshots import Role, RunWriter, Segment
from landscape.study.table import read_rows_csv
from landscape.training.config import TrainingConfig
from landscape.training.loop import describe

SEEDS = 10
RATES = (0.01, 0.05, 0.2, 0.5)
SIZES = ("--theta-samples", "50", "--x-samples", "4", "--attack-samples", "100", "--ladder-samples", "10")
COMMON = (*SIZES, "--level", "ln2", "--eps", "0.3", "--select", "every:1")
PERIOD = 0.5


def main() -> None:
    """Make the runs, run the three commands, and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshots", type=int, default=10_000)
    parser.add_argument("--per-run", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--browser", default=shutil.which("chromium") or shutil.which("google-chrome"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs, ledger = Path(folder, "runs"), Path(folder, "ledger.sqlite")
        write_runs(runs, arguments.snapshots, arguments.per_run)
        options = (str(runs), *COMMON, "--ledger", str(ledger), "--workers", str(arguments.workers))
        measure = watched("measure", *options, "--csv", str(Path(folder, "rows.csv")))
        again = watched("measure", *options, "--csv", str(Path(folder, "again.csv")))
        correlate = watched("correlate", *options, "--test-level", "ln2", "--output", str(Path(folder, "out")))
        page = Path(folder, "report.html")
        report = watched("report", *options, "--test-level", "ln2", "--output", str(page))
        same = Path(folder, "rows.csv").read_bytes() == Path(folder, "again.csv").read_bytes()
        print_table(arguments, measure, seconds_of_rows(ledger), folder)
        for name, run in {"measure again": again, "correlate": correlate, "report": report}.items():
            print(f"{name:<28}{run.seconds:8.1f} s, peak {max(run.command):.0f} MB")
        print(f"{'page':<28}{page.stat().st_size / 1e6:8.1f} MB")
        print(f"{'table read from the ledger':<28}{'equal' if same else 'DIFFERENT'}")
        print_opening(Path(folder, "rows.csv"), page, arguments.browser)


def write_runs(folder: Path, count: int, per_run: int) -> None:
    """Runs of ``per_run`` snapshots, ten seeds for each of two optimizers and four learning rates in turn."""
    data = load_dataset("mnist", "train")
    theta = _trained(data.subset(2000, 0))
    generator = np.random.default_rng(0)
    for number, start in enumerate(range(0, count, per_run)):
        optimizer, rate = ("sgd", "adam")[number // SEEDS % 2], RATES[number // (2 * SEEDS) % len(RATES)]
        config = TrainingConfig(
            model="mlp",
            model_args={"hidden": [4]},
            optimizer=optimizer,
            learning_rate=rate,
            seed=number % SEEDS + SEEDS * (number // (2 * SEEDS * len(RATES))),
            epochs=1,
        )
        size = min(per_run, count - start)
        steps = generator.standard_normal((size, len(theta))).astype(np.float32)
        _write(folder / f"run{number:04d}", config, data, theta + np.float32(0.02 + rate / 20) * steps)


def _trained(data: Dataset) -> np.ndarray:
    model = build_model("mlp", {"hidden": [4]})
    initialise(model, torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.images), data.labels).backward()
        optimizer.step()
    return nn.utils.parameters_to_vector(model.parameters()).detach().numpy()


def _write(path: Path, config: TrainingConfig, data: Dataset, theta: np.ndarray) -> None:
    steps = np.arange(1, len(theta) + 1)
    with RunWriter(path, describe(config, build_model(config.model, config.model_args), data)) as writer:
        writer.append(
            Segment(
                theta=theta,
                samples_seen=steps * config.batch_size,
                step=steps,
                epoch=np.zeros(len(steps), dtype=int),
                role=np.full(len(steps), int(Role.AFTER)),
                batch_loss=np.zeros(len(steps), np.float32),
                metrics={"epoch": np.empty(0)},
                resume={"none": np.zeros(1, np.float32)},
            )
        )
        writer.finish("completed", epochs=1)


@dataclass
class Watched:
    """Seconds that a command took; resident megabytes of it, and of all its children together, over time."""

    seconds: float = 0.0
    command: list[float] = field(default_factory=list)
    children: list[float] = field(default_factory=list)


def watched(*arguments: str) -> Watched:
    """Run a command of `landscape`, and watch its memory; an error ends the benchmark."""
    found, begin = Watched(), time.perf_counter()
    command = [sys.executable, "-c", "from landscape_cli.main import main; main()", *arguments]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors) as run,
    ):
        while run.poll() is None:
            found.command.append(_resident(run.pid))
            found.children.append(sum(map(_resident, _children(run.pid))))
            time.sleep(PERIOD)
        errors.seek(0)
        if run.returncode:
            raise SystemExit(f"{arguments[0]} ended with {run.returncode}: {errors.read().decode()}")
    found.seconds = time.perf_counter() - begin
    return found


def _resident(process: int) -> float:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024
    return 0.0


def _children(process: int) -> list[int]:
    with contextlib.suppress(OSError):
        tasks = os.listdir(f"/proc/{process}/task")
        texts = [Path(f"/proc/{process}/task/{task}/children").read_text() for task in tasks]
        return [int(child) for text in texts for child in text.split()]
    return []


def print_opening(table: Path, page: Path, browser: str | None) -> None:
    """Seconds until Python has the rows of the table, and until headless Chromium has drawn the report."""
    begin = time.perf_counter()
    rows = read_rows_csv(table)
    print(f"{'table opens':<28}{time.perf_counter() - begin:8.1f} s, {len(rows)} rows")
    drawn = opened(page, browser, 3)["drawn"]
    print(f"{'page opens':<28}{statistics.median(drawn):8.1f} s, longest {max(drawn):.1f} s")


def seconds_of_rows(ledger: Path) -> list[float]:
    """Seconds that each row took in its worker; failures end the benchmark."""
    with contextlib.closing(sqlite3.connect(ledger)) as database:
        rows = database.execute("SELECT status, seconds FROM measurements").fetchall()
    if any(status != "ok" for status, _ in rows):
        raise SystemExit(f"{sum(status != 'ok' for status, _ in rows)} snapshots failed")
    return [seconds for _, seconds in rows]


def print_table(arguments: argparse.Namespace, run: Watched, rows: list[float], folder: str) -> None:
    """Rows, time, share of measuring, and memory in each quarter of the time."""
    share = sum(rows) / (arguments.workers * run.seconds)
    disk = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    print(f"{len(rows)} snapshots, {arguments.per_run} a run, {arguments.workers} workers; {disk / 1e6:.0f} MB")
    print(f"{'measure':<28}{run.seconds:8.1f} s, {statistics.median(rows):.3f} s a row (median)")
    print(f"{'share that is measuring':<28}{share:8.1%} of workers x wall time, start included")
    print(f"{'memory, MB (median, peak)':<28}" + "".join(f"{f'quarter {i}':>18}" for i in range(1, 5)))
    for name, series in {"command": run.command, "workers together": run.children}.items():
        quarters = [part for part in np.array_split(np.array(series), 4) if len(part)]
        print(f"{name:<28}" + "".join(f"{np.median(q):>10.0f}{q.max():>8.0f}" for q in quarters))


if __name__ == "__main__":
    main()
