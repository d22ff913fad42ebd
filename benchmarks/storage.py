"""What a stored run takes on disk against its forecast, and how long it takes to read one snapshot of it.

python benchmarks/storage.py RUN
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from landscape.snapshots import Run, load_snapshot, open_run
from landscape.training.config import TrainingConfig
from landscape.training.forecast import storage_of


def bytes_of(run: Path) -> int:
    return sum(file.stat().st_size for file in run.rglob("*") if file.is_file())


def milliseconds(run: Run, reads: int, seed: int) -> list[float]:
    """Times to read one snapshot, at random places; each is verified against its digest."""
    times = []
    for place in np.random.default_rng(seed).integers(len(run), size=reads):
        begin = time.perf_counter()
        run.read(int(place))
        times.append(1e3 * (time.perf_counter() - begin))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--reads", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    begin = time.perf_counter()
    run = open_run(arguments.run)
    opening = time.perf_counter() - begin
    description = run.description
    config = TrainingConfig(model=description.model, model_args=description.model_args, **description.config)
    forecast, real = storage_of(config), bytes_of(arguments.run)
    print(f"snapshots  {len(run)}, forecast {forecast.snapshots}")
    print(f"bytes      {real}, forecast {forecast.num_bytes} ({100 * (real / forecast.num_bytes - 1):+.2f} %)")
    times = milliseconds(run, arguments.reads, arguments.seed)
    print(f"open       {1e3 * opening:.0f} ms, all digests of the index checked")
    quantiles = statistics.quantiles(times, n=20)
    print(f"read one   {statistics.median(times):.2f} ms (5 to 95 %: {quantiles[0]:.2f} to {quantiles[-1]:.2f})")
    begin = time.perf_counter()
    load_snapshot(arguments.run)
    print(f"load       {1e3 * (time.perf_counter() - begin):.0f} ms: opening, and one snapshot as tensors")


if __name__ == "__main__":
    main()
