"""What a level-set distance costs in a large model: memory in parameter vectors, time in gradient passes.

φ is the mean cross-entropy over 256 images of MNIST as a function of the float32 parameters of a fully connected
network, trained until it is small. Two levels, ½ and ln 2. Starts are those of ``landscape.study.measure``: ± the
two leading eigenvectors, the gradient and two random directions; eigenvectors are found beforehand, by a few
Lanczos steps, and are billed apart. ``--starts none`` lets the call find them itself.

Each network is measured in a process of its own. Its memory is the largest resident set during the call
(``getrusage``) less that just before, in units of one parameter vector of 4 n bytes. What was there before, the
model, the data, θ and the given starts, does not count; what the call returns does.

    python benchmarks/large_models.py --parameters 1e6 1e7 --threads 1
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from landscape.geometry.continuation import eigenvector_starts
from landscape.geometry.eigenpairs import top_eigenpairs
from landscape.geometry.level_sets import LevelSetDistance, level_set_distance
from landscape.problem.datasets import Dataset, load_dataset
from landscape.problem.models import build_model, initialise
from landscape.problem.network import ravel
from landscape.problem.parameter_objective import ParameterObjective, parameter_objective
from landscape.study.measure_config import MeasureConfig
from landscape.study.searches import THETA_EFFORT

LEVELS = (0.5, math.log(2))
IMAGES, INPUTS, CLASSES = 256, 784, 10
TRAINED_LOSS, MOST_STEPS = 0.02, 200
LANCZOS_STEPS = 8


def hidden_width(parameters: float) -> int:
    """Width of two equal hidden layers with about so many parameters in all."""
    linear = INPUTS + CLASSES + 2
    return round((-linear + math.sqrt(linear**2 + 4 * parameters)) / 2)


def prepare(parameters: float, path: Path, eigenvectors: bool) -> dict[str, float]:
    """Train a network; store its parameters, the data and, as starts, ± its leading eigenvectors."""
    width = hidden_width(parameters)
    model = build_model("mlp", {"hidden": [width, width]})
    initialise(model, Generator().manual_seed(0))
    data = load_dataset("mnist", "train").subset(IMAGES, seed=0)
    train(model, data)
    phi = parameter_objective(model, data.images, data.labels)
    stored: dict[str, Any] = {"width": width, "theta": ravel(model), "x": data.images, "y": data.labels}
    began = time.perf_counter()
    if eigenvectors:
        pairs = top_eigenpairs(phi, 2, tol=0.1, max_steps=LANCZOS_STEPS)
        stored["starts"] = eigenvector_starts(pairs, LEVELS[0], phi.value(phi.origin))
    torch.save(stored, path)
    return {"seconds_eigenvectors": time.perf_counter() - began}


def train(model: nn.Module, data: Dataset) -> None:
    """Adam on all images until the loss is small."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.3 / math.sqrt(ravel(model).numel()))
    for _ in range(MOST_STEPS):
        loss = nn.functional.cross_entropy(model(data.images), data.labels)
        if loss < TRAINED_LOSS:
            break
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def measure(path: Path) -> dict[str, Any]:
    """Distances of a stored network, with their bill."""
    stored = torch.load(path)
    model = build_model("mlp", {"hidden": [stored["width"]] * 2})
    torch.nn.utils.vector_to_parameters(stored.pop("theta"), model.parameters())
    phi = parameter_objective(model, stored["x"], stored["y"])
    size, gradient = phi.origin.shape[1], gradient_time(phi)
    before, began = resident(), time.perf_counter()
    found = search(phi, stored.get("starts"))
    seconds = time.perf_counter() - began
    return {
        "parameters": size,
        "value": float(phi.value(phi.origin)[0]),
        "distance": found.distance[0].tolist(),
        "level_error": found.level_error[0].tolist(),
        "angle": found.angle[0].tolist(),
        "agreement": found.agreement[0].tolist(),
        "vectors": (peak() - before) / (4 * size),
        "megabytes": (peak() - before) / 2**20,
        "gradients": found.num_gradients + found.num_evidence_gradients,
        "values": found.num_values,
        "seconds": seconds,
        "passes": seconds / gradient,
    }


def search(phi: ParameterObjective, starts: Tensor | None) -> LevelSetDistance:
    """The call that is measured, with the settings of the study."""
    effort = asdict(THETA_EFFORT)
    return level_set_distance(phi, LEVELS, starts=starts, tol=MeasureConfig().tol, **effort)


def gradient_time(phi: ParameterObjective) -> float:
    """Seconds of one gradient at the origin, the median of five after one to warm up."""
    times = []
    for _ in range(6):
        began = time.perf_counter()
        phi.value_and_grad(phi.origin)
        times.append(time.perf_counter() - began)
    return sorted(times[1:])[2]


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak() -> int:
    """Most bytes that this process ever had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def in_a_process(options: argparse.Namespace, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--threads", str(options.threads), "--starts", options.starts, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout))


def benchmark(parameters: float, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "network.pt")
        prepared = in_a_process(options, "--prepare", path, "--parameters", str(parameters))
        return prepared | in_a_process(options, "--measure", path)


def print_table(rows: list[dict[str, Any]]) -> None:
    levels = "".join(f"{f'd(c = {c:.3f})':>14}{'angle':>7}" for c in LEVELS)
    print(
        f"{'parameters':>11}{'loss':>8}{levels}{'vectors':>9}{'MiB':>7}{'gradients':>11}{'values':>8}{'passes':>8}"
    )
    for row in rows:
        cells = "".join(f"{d:14.4f}{a:7.3f}" for d, a in zip(row["distance"], row["angle"], strict=True))
        print(
            f"{row['parameters']:11,}{row['value']:8.4f}{cells}{row['vectors']:9.1f}{row['megabytes']:7.0f}"
            f"{row['gradients']:11.0f}{row['values']:8.0f}{row['passes']:8.0f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=float, nargs="+", default=[1e6, 1e7])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--starts", choices=["eigenvectors", "none"], default="eigenvectors")
    parser.add_argument("--output", type=Path, help="JSON of all numbers")
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.prepare:
        print(json.dumps(prepare(options.parameters[0], options.prepare, options.starts == "eigenvectors")))
    elif options.measure:
        print(json.dumps(measure(options.measure)))
    else:
        rows = [benchmark(p, options) for p in options.parameters]
        print_table(rows)
        if options.output:
            options.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
