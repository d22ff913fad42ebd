"""What a default row of the study costs: in seconds and gradient passes, against the same row by other tools.

*Ours* is `landscape.study.measure.measure_samples` with its defaults, in parts and as a whole. *Theirs* is the
same row put together from PyHessian, foolbox's DDN and torchattacks (``rivals_study.py``): five eigenpairs, d_θ
and d_X at four levels, FGSM, PGD, Square and the nearest boundary at two radii. Each of theirs gets its
cheapest setting that is as good: PyHessian the largest tolerance whose true residuals are within ours, DDN and
FAB (once for all radii) the fewest steps at which their distances are, on average, at most 1 % longer than ours.
Their row lacks λ_min, the evidence of d_θ, exact FGSM and the audit of masking. Both sides take turns on one
thread.

A gradient pass is the time that torch's autograd takes for one gradient of φ(θ) over the same 300 samples.

    python benchmarks/study.py
    python benchmarks/study.py --scaling 40 --rounds 0
    python benchmarks/study.py --effort --rounds 0     # by how much longer searches are better
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rivals_study as rivals
import torch
from hessian import exact_product, worst_residual
from rivals_hessian import RIVALS, Workload
from torch import Tensor, nn
from torch.func import functional_call

from landscape.geometry.eigenpairs import top_eigenpairs
from landscape.problem.datasets import Dataset
from landscape.problem.losses import cross_entropy
from landscape.problem.network import channels_last, ravel, unravel
from landscape.robustness.balls import Ball
from landscape.robustness.boundary import nearest_boundary
from landscape.snapshots import find_runs, load_snapshot
from landscape.study.measure import EIGENVALUES, measure_samples
from landscape.study.measure_config import MeasureConfig
from landscape.study.problems import Problem, load_problem, theta_objective, x_objective
from landscape.study.robustness import EFFORT, robustness_columns
from landscape.study.searches import X_EFFORT, SearchEffort, theta_distance, x_distance
from landscape.traces import Traces

RUNS = ("adam_lr0.0015_b16_seed0", "sgd_lr0.2_b128_seed1", "sgd_lr0.01_b16_seed2")
CONFIG = MeasureConfig()
STEPS = {"d_theta": (50, 100, 200, 400, 1000), "d_x": (50, 100, 200, 400, 1000), "boundary": (10, 20, 50, 70, 100)}
LONGER = 1.01
TOLERANCES = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5, 1e-6, 1e-7)
PYHESSIAN = next(rival for rival in RIVALS if rival.name == "PyHessian")
PARTS = ("eigenpairs", "d_theta", "d_x", "attacks")


def main() -> None:
    """Measure, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", default=list(RUNS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scaling", type=int, default=0, help="stored runs to measure by one and by two workers")
    parser.add_argument("--effort", action="store_true", help="compare our distances in X with longer searches")
    parser.add_argument("--output", type=Path, help="JSON of all numbers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    if options.rounds:
        found["rows"] = [compare(name, options.rounds) for name in options.runs]
        print_rows(found["rows"])
    if options.scaling:
        found["scaling"] = {workers: seconds_of_study(options.scaling, workers) for workers in (1, 2)}
        print_scaling(found["scaling"], options.scaling)
    if options.effort:
        for name in options.runs:
            print_effort(name)
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n")


def compare(name: str, rounds: int) -> dict[str, Any]:
    """Seconds of each part and of our whole row, both sides in turn, on one stored run."""
    snapshot = load_snapshot(f"embedded:runs/{name}")
    problem = load_problem(snapshot, "cpu")
    own, found = our_parts(problem)
    traces = Traces()  # which a worker makes once for all networks that are alike
    measure_samples(snapshot, CONFIG, "cpu", traces=traces)
    settings = their_settings(problem, found)
    theirs = their_parts(problem, settings)
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for side, parts in (("ours", own), ("theirs", theirs)):
            for part in PARTS:
                seconds.setdefault(f"{side} {part}", []).append(clock(parts[part]))
        whole = clock(lambda: measure_samples(snapshot, CONFIG, "cpu", traces=traces))
        seconds.setdefault("ours row", []).append(whole)
    medians = {what: statistics.median(values) for what, values in seconds.items()}
    medians["theirs row"] = sum(medians[f"theirs {part}"] for part in PARTS)
    return {"run": name, "settings": settings, "seconds": medians, "pass": gradient_pass(problem)}


def our_parts(problem: Problem) -> tuple[dict[str, Callable[[], object]], dict[str, Tensor]]:
    """The parts of our row, and the distances that they find."""
    theta = theta_objective(problem, CONFIG.theta_samples, CONFIG.seed)
    x = x_objective(problem, CONFIG.x_samples, CONFIG.seed)
    attacked = problem.test.subset(CONFIG.attack_samples, CONFIG.seed)
    pairs = top_eigenpairs(theta, (EIGENVALUES, 1), "BE", CONFIG.eigen_tol, CONFIG.seed)
    parts: dict[str, Callable[[], object]] = {
        "eigenpairs": lambda: top_eigenpairs(theta, (EIGENVALUES, 1), "BE", CONFIG.eigen_tol, CONFIG.seed),
        "d_theta": lambda: theta_distance(theta, pairs, CONFIG),
        "d_x": lambda: x_distance(problem, x, CONFIG, evidence=False),
        "attacks": lambda: robustness_columns(
            problem.model, attacked, CONFIG.eps, CONFIG.ladder_samples, CONFIG.seed
        ),
    }
    in_theta, in_x = theta_distance(theta, pairs, CONFIG), x_distance(problem, x, CONFIG)
    few = attacked.images[: CONFIG.ladder_samples], attacked.labels[: CONFIG.ladder_samples]
    effort = EFFORT.boundary_budget, EFFORT.boundary_restarts, EFFORT.boundary_classes
    boundary = nearest_boundary(problem.model, *few, [Ball(1.0)], *effort)[0].nearest
    return parts, {
        "d_theta": torch.where(in_theta.reached, in_theta.distance, torch.inf),
        "d_x": torch.where(in_x.reached, in_x.distance, torch.inf),
        "boundary": boundary,
    }


def their_settings(problem: Problem, found: dict[str, Tensor]) -> dict[str, Any]:
    """The cheapest settings that are as good, and by how much their distances are longer on average."""
    settings: dict[str, Any] = {}
    train = problem.train.subset(CONFIG.theta_samples, CONFIG.seed)
    tolerances = (tol for tol in TOLERANCES if are_eigenpairs(problem.model, train, CONFIG.eigen_tol, tol))
    settings["tolerance"] = next(tolerances, TOLERANCES[-1])
    for part, choices in STEPS.items():
        tried = []
        for steps in choices:
            begin = time.perf_counter()
            distances = their_distances(problem, part, steps)
            seconds = time.perf_counter() - begin
            ratio = mean_ratio(distances, found[part])
            tried.append({"steps": steps, "longer": ratio - 1, "seconds": seconds})
            settings[part] = {"steps": steps, "longer": ratio - 1}
            if ratio <= LONGER:
                break
        settings[f"{part} tried"] = tried
    print(f"settings: {settings}", file=sys.stderr, flush=True)
    return settings


def find_eigenpairs(model: nn.Module, data: Dataset, setting: float) -> Tensor:
    """Five eigenvectors by PyHessian, ``(5, n)``."""
    load = Workload("cnn", model, [(data.images, data.labels)]).fresh().channels_last()
    vectors: Tensor = PYHESSIAN.solve(load, setting, 0, None).vectors
    return vectors


def are_eigenpairs(model: nn.Module, data: Dataset, tol: float, setting: float) -> bool:
    """Whether the true residuals of PyHessian's pairs are within ``tol``."""
    load = Workload("cnn", model, [(data.images, data.labels)]).fresh()
    return worst_residual(find_eigenpairs(model, data, setting), exact_product(load), torch.float64) <= tol


def mean_ratio(theirs: Tensor, ours: Tensor) -> float:
    """Mean of theirs ÷ ours over what both have reached; infinite if theirs lacks more than a tenth of ours."""
    both = theirs.isfinite() & ours.isfinite() & (ours > 0)
    if both.sum() < 0.9 * ours.isfinite().sum():
        return float("inf")
    return float((theirs / ours)[both].mean())


def their_distances(problem: Problem, part: str, steps: int) -> Tensor:
    if part == "d_theta":
        psi, origin = rivals.log_loss_of_parameters(
            problem.model, problem.train.subset(CONFIG.theta_samples, CONFIG.seed)
        )
        targets = [float(torch.tensor(level).log()) for level in CONFIG.levels]
        return rivals.ddn_distances(psi, origin, targets, steps)
    if part == "boundary":
        attacked = problem.test.subset(CONFIG.attack_samples, CONFIG.seed)
        few = attacked.images[: CONFIG.ladder_samples], attacked.labels[: CONFIG.ladder_samples]
        return rivals.boundary_distances(problem.model, *few, steps)
    data = problem.test.subset(CONFIG.x_samples, CONFIG.seed)
    psi = rivals.log_odds_of_images(problem.model, data.labels)
    targets = [rivals.log_odds_of(level) for level in CONFIG.levels]
    return rivals.ddn_distances(psi, data.images, targets, steps)


def their_parts(problem: Problem, settings: dict[str, Any]) -> dict[str, Callable[[], object]]:
    train = problem.train.subset(CONFIG.theta_samples, CONFIG.seed)
    attacked = problem.test.subset(CONFIG.attack_samples, CONFIG.seed)
    boundary = settings["boundary"]["steps"]
    return {
        "eigenpairs": lambda: find_eigenpairs(problem.model, train, settings["tolerance"]),
        "d_theta": lambda: their_distances(problem, "d_theta", settings["d_theta"]["steps"]),
        "d_x": lambda: their_distances(problem, "d_x", settings["d_x"]["steps"]),
        "attacks": lambda: rivals.attack(
            problem.model, attacked, CONFIG.eps, CONFIG.ladder_samples, EFFORT, boundary
        ),
    }


def clock(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def gradient_pass(problem: Problem) -> float:
    """Median seconds of one gradient of φ(θ) by autograd."""
    data = problem.train.subset(CONFIG.theta_samples, CONFIG.seed)
    images, row = channels_last(data.images), ravel(problem.model).requires_grad_()

    def gradient() -> None:
        logits = functional_call(problem.model, unravel(problem.model, row), (images,))
        torch.autograd.grad(cross_entropy(logits, data.labels).mean(), row)

    return statistics.median(clock(gradient) for _ in range(20))


def print_effort(name: str) -> None:
    """How much longer a row's distances in X are than those of searches with 400 gradients an image and level."""
    problem = load_problem(load_snapshot(f"embedded:runs/{name}"), "cpu")
    attacked = problem.test.subset(CONFIG.attack_samples, CONFIG.seed)
    few = attacked.images[: CONFIG.ladder_samples], attacked.labels[: CONFIG.ladder_samples]
    x = x_objective(problem, CONFIG.x_samples, CONFIG.seed)
    levels = [x_distance(problem, x, CONFIG, effort=e).distance for e in (X_EFFORT, SearchEffort(0, 400, 8))]
    efforts = (EFFORT.boundary_budget, EFFORT.boundary_restarts, EFFORT.boundary_classes), (400, 4, 4)
    boundaries = [nearest_boundary(problem.model, *few, [Ball(1.0)], *effort)[0].nearest for effort in efforts]
    for what, (row, longer) in (("d_x", levels), ("boundary", boundaries)):
        ratio = row / longer
        print(f"{name} {what}: mean {ratio.nanmean() - 1:+.1%}, median {ratio.nanmedian() - 1:+.1%}", end="; ")
    shares = [(boundary > CONFIG.eps[0]).double().mean() for boundary in boundaries]
    print(f"beyond ε = {CONFIG.eps[0]}: {shares[0]:.1%} instead of {shares[1]:.1%}", flush=True)


def seconds_of_study(count: int, workers: int) -> float:
    """Wall time of ``landscape measure`` on the first stored runs, start of all processes included."""
    paths = [str(path) for path in find_runs(["embedded:runs"])[:count]]
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger.sqlite"
        command = [str(Path(sys.executable).with_name("landscape")), "measure", *paths]
        command += ["--workers", str(workers), "--ledger", str(ledger)]
        seconds = clock(lambda: subprocess.run(command, check=True, capture_output=True))
        with contextlib.closing(sqlite3.connect(ledger)) as database:
            (measured,) = database.execute("SELECT count(*) FROM measurements WHERE status = 'ok'").fetchone()
        if measured != len(paths):
            raise RuntimeError(f"{measured} of {len(paths)} rows were measured")
        return seconds


def print_rows(rows: list[dict[str, Any]]) -> None:
    """A line for each part: medians over the runs."""
    print("| part | ours, s | ours, passes | theirs, s | theirs, passes | times cheaper |")
    print("| --- | --- | --- | --- | --- | --- |")
    unit = statistics.median(row["pass"] for row in rows)
    for part in (*PARTS, "row"):
        ours, theirs = (statistics.median(r["seconds"][f"{s} {part}"] for r in rows) for s in ("ours", "theirs"))
        sides = " | ".join(f"{seconds:.2f} | {seconds / unit:.0f}" for seconds in (ours, theirs))
        print(f"| {part} | {sides} | {theirs / ours:.1f} |")
    for row in rows:
        ratio = row["seconds"]["theirs row"] / row["seconds"]["ours row"]
        settings = {name: value for name, value in row["settings"].items() if not name.endswith("tried")}
        print(f"{row['run']}: {ratio:.1f} times cheaper; pass {1000 * row['pass']:.1f} ms; {settings}")
        for part in STEPS:
            for other in row["settings"][f"{part} tried"]:
                passes, name = other["seconds"] / row["pass"], "FAB" if part == "boundary" else "DDN"
                print(f"  {part}, {name} with {other['steps']} steps: {passes:.0f} passes, {other['longer']:+.1%}")


def print_scaling(seconds: dict[int, float], count: int) -> None:
    """Rows an hour, and the speed-up of two workers."""
    for workers, spent in seconds.items():
        print(f"{count} rows by {workers} workers: {spent:.0f} s, {3600 * count / spent:.0f} rows an hour")
    print(f"two workers are {seconds[1] / seconds[2]:.2f} times as fast as one")


if __name__ == "__main__":
    main()
