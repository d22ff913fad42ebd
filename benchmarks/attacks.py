"""The whole ladder against the same attacks of torchattacks one by one, in turn, on one network of the paper.

Both sides get the same settings: steps, step sizes, restarts, queries, radius. torchattacks is given a frozen copy
of the network, so that it computes no gradient of parameters, and all images at once. Where it has no restarts
(PGD), it is run again, and samples count as fallen if any run made them. Its PGD differentiates cross-entropy
only: ours on log-odds and on the margin are both held against it.

Accuracies of ours must be the same or lower, up to the chance of other random numbers.

    python benchmarks/attacks.py --samples 1000
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from landscape.problem.datasets import load_dataset
from landscape.problem.model_sources import model_with
from landscape.robustness.accuracy import predict
from landscape.robustness.balls import distances
from landscape.robustness.ladder import run_ladder
from landscape.robustness.minimum_norm import load_torchattacks
from landscape.robustness.rungs import Effort, ladder_rungs
from landscape.snapshots import load_snapshot

NORMS = {"2": 2.0, "inf": math.inf}
DEFAULT = Effort()


def main() -> None:
    """Measure both sides in turn, and print seconds and accuracies of each rung."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="embedded:runs/adam_lr0.0015_b16_seed0")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--norm", choices=NORMS, default="inf")
    parser.add_argument("--eps", type=float, default=None, help="0.1 (inf) or 1 (2) if not given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=None, help="JSON file of all that is printed")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    norm = NORMS[arguments.norm]
    eps = arguments.eps or {2.0: 1.0, math.inf: 0.1}[norm]
    snapshot = load_snapshot(arguments.run)
    model = model_with(snapshot.model, snapshot.model_args, snapshot.parameters)
    test = load_dataset("mnist", "test")
    x, y = test.images[: arguments.samples], test.labels[: arguments.samples]
    found = compare(model, x, y, eps, norm, arguments.rounds)
    report(found, arguments, eps)
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps({"eps": eps, "norm": arguments.norm, "rungs": found}, indent=2))


def compare(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, norm: float, rounds: int, effort: Effort = DEFAULT
) -> dict[str, dict[str, Any]]:
    """Seconds and accuracies of each rung, ours and theirs in turn."""
    others = rivals(eps, norm, effort)
    found: dict[str, dict[str, Any]] = {}
    rungs = [rung for rung in ladder_rungs(norm, effort) if rung.name in others]
    for _ in range(rounds):
        for rung in rungs:
            row = found.setdefault(rung.name, {"ours": [], "theirs": []})
            start = time.perf_counter()
            ladder = run_ladder(model, x, y, [eps], norm, [rung])
            row["ours"].append(time.perf_counter() - start)
            row["accuracy"] = ladder.accuracy.item()
            network = copy.deepcopy(model).requires_grad_(False)
            start = time.perf_counter()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                stands = others[rung.name](network, x, y)
            row["theirs"].append(time.perf_counter() - start)
            row["their_accuracy"] = stands.double().mean().item()
    return found


def rivals(eps: float, norm: float, effort: Effort) -> dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]]:
    """Attacks of torchattacks by rung, as functions to the samples that stand."""
    library = load_torchattacks()
    name = {2.0: "L2", math.inf: "Linf"}[norm]
    pgd = library.PGD if norm == math.inf else library.PGDL2
    size = 2.5 * eps / effort.pgd_steps

    def stands(make: Callable[[nn.Module], Any], times: int = 1) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
        def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            decisions = []
            for _ in range(times):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    images = make(model)(x, y)
                right = predict(model, images) == y
                decisions.append(right | (distances(images, x, norm) > eps * (1 + 1e-5)))
            return torch.stack(decisions).all(0) & (predict(model, x) == y)

        return run

    restarts = stands(lambda m: pgd(m, eps, size, effort.pgd_steps, random_start=True), effort.pgd_restarts)
    classes = 10 if effort.apgd_classes is None else effort.apgd_classes + 1
    table = {
        "pgd_log_odds": restarts,
        "pgd_margin": restarts,
        "apgd_targeted": stands(
            lambda m: library.APGDT(m, norm=name, eps=eps, steps=effort.apgd_steps, n_classes=classes)
        ),
        "fab": stands(lambda m: library.FAB(m, norm=name, eps=eps, steps=effort.fab_steps)),
        "square": stands(lambda m: library.Square(m, norm=name, eps=eps, n_queries=effort.queries)),
    }
    if norm == math.inf:
        table |= {
            "fgsm_published": stands(lambda m: library.FGSM(m, eps)),
            "fgsm_random_start": stands(lambda m: library.RFGSM(m, eps, eps / 2, 1)),
            "mim": stands(lambda m: library.MIFGSM(m, eps, eps / effort.mim_steps, effort.mim_steps)),
        }
    else:  # it has neither binary search nor restarts: as many runs as we have searches
        table["carlini_wagner"] = stands(lambda m: library.CW(m, steps=effort.cw_steps), effort.cw_searches)
    return table


def report(found: dict[str, dict[str, Any]], arguments: argparse.Namespace, eps: float) -> None:
    """Print the table and the ratio of the sums."""
    print(f"{arguments.samples} images, ε = {eps}, norm {arguments.norm}, median of {arguments.rounds} rounds")
    print("| rung | ours, s | torchattacks, s | times faster | accuracy | theirs |")
    print("|---|---|---|---|---|---|")
    totals = [0.0, 0.0]
    for name, row in found.items():
        seconds = [statistics.median(row[side]) for side in ("ours", "theirs")]
        totals = [total + s for total, s in zip(totals, seconds, strict=True)]
        ratio = seconds[1] / seconds[0]
        print(
            f"| {name} | {seconds[0]:.3f} | {seconds[1]:.3f} | {ratio:.1f} | {row['accuracy']:.4f} "
            f"| {row['their_accuracy']:.4f} |"
        )
    print(f"| all | {totals[0]:.3f} | {totals[1]:.3f} | {totals[1] / totals[0]:.1f} | | |")


if __name__ == "__main__":
    main()
