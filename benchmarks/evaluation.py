"""Logits and first derivatives of the paper's network by our layers and by torch's modules, in turn on one thread.

python benchmarks/evaluation.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Generator, Tensor

from landscape.problem.datasets import load_dataset
from landscape.problem.evaluation import Evaluation, evaluation
from landscape.problem.models import build_model, initialise
from landscape.problem.network import ravel

COUNTS = (8, 40, 300, 2000)


def main() -> None:
    """Measure, and print milliseconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = build_model(options.model)
    initialise(model, Generator().manual_seed(0))
    ours = evaluation(model, (1, 28, 28))
    theirs = replace(ours, layers=None)
    print("| images | what | ours, ms | torch, ms | times faster |")
    print("| --- | --- | --- | --- | --- |")
    for count in COUNTS:
        images = load_dataset("mnist", "test").images[:count]
        for name, work in WORK.items():
            seconds = in_turn([partial(work, found, images) for found in (ours, theirs)], options.rounds)
            times = " | ".join(f"{1e3 * second:.2f}" for second in seconds)
            print(f"| {count} | {name} | {times} | {seconds[1] / seconds[0]:.1f} |")


def in_turn(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of each call."""
    spent: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, seconds in zip(calls, spent, strict=True):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in spent]


def logits(found: Evaluation, images: Tensor) -> None:
    with torch.no_grad():
        found.of_images(images)


def by_images(found: Evaluation, images: Tensor) -> None:
    found.image_gradients(images, lambda logits: logits.square().sum(1))


def by_parameters(found: Evaluation, images: Tensor) -> None:
    found.parameter_gradient(ravel(found.model), images, lambda logits: logits.square().sum(1))


WORK: dict[str, Callable[[Evaluation, Tensor], None]] = {
    "logits": logits,
    "gradient by images": by_images,
    "gradient by parameters": by_parameters,
}


if __name__ == "__main__":
    main()
