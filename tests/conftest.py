"""What all tests share: helper modules beside the tests, and one torch thread, so that bits repeat."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# Tests are imported without their folder on the path; `oracles`, and what worker processes import, live there.
sys.path.insert(0, str(Path(__file__).parent))

# The same examples in every run: what a property test finds, it finds before the change is in.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


def pytest_configure() -> None:
    """If there are as many workers as processors, each keeps to its own.

    Commands take a thread for each processor that they may use: those of two tests at a time would wait for each
    other.
    """
    worker, workers = (os.environ.get(f"PYTEST_XDIST_WORKER{name}", "") for name in ("", "_COUNT"))
    if worker and hasattr(os, "sched_setaffinity"):
        processors = sorted(os.sched_getaffinity(0))
        if len(processors) == int(workers):
            os.sched_setaffinity(0, {processors[int(worker.removeprefix("gw")) % len(processors)]})


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread_again() -> Iterator[None]:
    """Commands that a test calls in this process set another number."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def fast_disk() -> Iterator[Path]:
    """A folder in memory where there is one: thousands of fsyncs of a real disk would only cost time."""
    memory = Path("/dev/shm")
    place = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    yield place
    shutil.rmtree(place)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies are measured by a thread: to start a process takes longer than a small row, and has own tests."""
    monkeypatch.setattr("landscape.engine.local_executor", lambda *_, **__: partial(ThreadPoolExecutor, 1))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20)


@pytest.fixture
def small_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of MNIST under a name of its own."""
    from small_runs import SMALL, small_mnist

    from landscape.problem.datasets import DATASETS

    monkeypatch.setitem(DATASETS, SMALL, small_mnist)
