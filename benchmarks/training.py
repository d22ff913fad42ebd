"""Seconds of an epoch of one run: ours, several runs as a stack, and a plain PyTorch loop, in turn, on one thread.

Both do the same work: the same runs (seeds) of the paper's network, the same batches, and after the epoch the loss
over all training data, the accuracy, and that under FGSM in both readings. Ours also stores two snapshots every
1024 samples; the share of the time that this takes is printed. The plain loop is what one writes from the manual:
contiguous tensors, PyTorch's optimizer as it comes, no value read back.

Only a part of the data is used, and the seconds are those of 60,000 images.

    python benchmarks/training.py --optimizer sgd adam
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from landscape.problem import datasets
from landscape.problem.models import build_model, initialise
from landscape.snapshots import RunWriter
from landscape.training.config import TrainingConfig, generator
from landscape.training.engines import StackedEngine
from landscape.training.forecast import Forecaster
from landscape.training.loop import epoch_order, train_together
from landscape.training.progress import RunInProgress

WHOLE = 60_000
PART = "part of mnist"


def main() -> None:
    """Measure, and print a table for each optimizer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4, 16, 64, 128])
    parser.add_argument("--optimizer", nargs="+", choices=["sgd", "adam"], default=["sgd"])
    parser.add_argument("--runs", type=int, default=45, help="alike runs that there are to train")
    parser.add_argument("--images", type=int, default=6000, help="of the 60,000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=None, help="JSON file of all that is printed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    datasets.DATASETS[PART] = functools.partial(part_of_mnist, arguments.images)
    results = []
    for optimizer in arguments.optimizer:
        print(f"\n{optimizer}, seconds of an epoch and run (range), one thread")
        print("| batch size | plain loop | stack | ours | times faster | steps alone | storing |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for batch_size in arguments.batch_sizes:
            config = TrainingConfig(dataset=PART, optimizer=optimizer, batch_size=batch_size, epochs=1)
            config = replace(config, learning_rate=1e-3 if optimizer == "adam" else 0.05)
            results.append(compare(config, arguments.runs, arguments.rounds, WHOLE / arguments.images))
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(results, indent=2))


def part_of_mnist(count: int, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The first images of both splits, in the proportion that they have."""
    pixels, labels = datasets.DATASETS["mnist"](split)
    count = count if split == "train" else count * len(labels) // WHOLE
    return pixels[:count], labels[:count]


def compare(config: TrainingConfig, runs: int, rounds: int, scale: float) -> dict[str, Any]:
    """Both ways in turn; prints a line of the table."""
    size = Forecaster().stack_size([config] * runs)
    plain, plain_steps, ours, steps, storing = [], [], [], [], []
    for _ in range(rounds):
        whole, alone = plain_run(config)
        plain.append(whole * scale)
        plain_steps.append(alone * scale)
        whole, alone, share = our_runs(config, size)
        ours.append(whole * scale)
        steps.append(alone * scale)
        storing.append(share)
    faster = statistics.median(plain) / statistics.median(ours)
    by_steps = statistics.median(plain_steps) / statistics.median(steps)
    print(
        f"| {config.batch_size} | {spread(plain)} | {size} | {spread(ours)} | {faster:.2f} | {by_steps:.2f} "
        f"| {statistics.median(storing):.1%} |",
        flush=True,
    )
    facts = {"optimizer": config.optimizer, "batch_size": config.batch_size, "stack": size}
    return facts | {"plain": plain, "ours": ours, "plain_steps": plain_steps, "steps": steps, "storing": storing}


def spread(seconds: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def our_runs(config: TrainingConfig, size: int) -> tuple[float, float, float]:
    """Seconds a run, those of its steps alone, and the share of what storing takes."""
    spent = {"steps": 0.0, "storing": 0.0}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as patches:
        for owner, name, kind in (
            (StackedEngine, "step", "steps"),
            (StackedEngine, "parameters", "storing"),
            (StackedEngine, "optimizer_state", "storing"),
            (RunInProgress, "keep", "storing"),
            (RunWriter, "append", "storing"),
        ):
            timed = clocked(getattr(owner, name), spent, kind)
            patches.enter_context(mock.patch.object(owner, name, timed))
        runs = [(replace(config, seed=seed), Path(folder) / str(seed)) for seed in range(size)]
        begin = time.perf_counter()
        train_together(runs)
        whole = time.perf_counter() - begin
    return whole / size, spent["steps"] / size, spent["storing"] / whole


def clocked(function: Callable[..., Any], spent: dict[str, float], kind: str) -> Callable[..., Any]:
    """The function, which adds its seconds to those spent."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        begin = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            spent[kind] += time.perf_counter() - begin

    return call


def plain_run(config: TrainingConfig) -> tuple[float, float]:
    """Seconds of a run as one writes it from the manual, and those of its steps alone."""
    train, test = datasets.load_dataset(PART, "train"), datasets.load_dataset(PART, "test")
    model = build_model(config.model)
    initialise(model, generator(0, "parameters"))
    maker = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[config.optimizer]
    optimizer = maker(model.parameters(), lr=config.learning_rate)
    begin = time.perf_counter()
    for batch in epoch_order(config, 0, len(train)).split(config.batch_size):
        optimizer.zero_grad()
        functional.cross_entropy(model(train.images[batch]), train.labels[batch]).backward()
        optimizer.step()
    steps = time.perf_counter() - begin
    plain_evaluation(model, train, test, config.epsilon)
    return time.perf_counter() - begin, steps


def plain_evaluation(
    model: nn.Module, train: datasets.Dataset, test: datasets.Dataset, eps: float
) -> tuple[float, list[float]]:
    """Train loss, and accuracies: clean, under FGSM on cross-entropy, and on the log-odds."""
    with torch.no_grad():
        parts = zip(train.images.split(1000), train.labels.split(1000), strict=True)
        loss = sum(functional.cross_entropy(model(x), y, reduction="sum").item() for x, y in parts) / len(train)

    def log_odds(logits: Tensor, y: Tensor) -> Tensor:
        true = logits.gather(1, y[:, None])
        return (logits.scatter(1, y[:, None], -torch.inf).logsumexp(1) - true[:, 0]).sum()

    def attacked(x: Tensor, y: Tensor, objective: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        images = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(model(images), y), images)
        return (x + eps * gradient.sign()).clamp(0, 1)

    right = [0, 0, 0]
    for x, y in zip(test.images.split(1000), test.labels.split(1000), strict=True):
        variants = [x, attacked(x, y, functional.cross_entropy), attacked(x, y, log_odds)]
        with torch.no_grad():
            for number, images in enumerate(variants):
                right[number] += int((model(images).argmax(1) == y).sum())
    return loss, [count / len(test) for count in right]


if __name__ == "__main__":
    main()
