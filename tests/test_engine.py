"""Tasks on executors: results, errors, and workers that die. Workers of most tests never load torch."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

from landscape.engine import _interrupts_held, _LocalExecutor, default_workers, local_executor, run_tasks
from landscape.errors import ConfigurationError


def spawned_pool() -> Executor:
    return _LocalExecutor(2, mp_context=multiprocessing.get_context("spawn"))


def square(task: int) -> int:
    if task == 9:
        raise ValueError("nine is refused")
    return task * task


def poisoned(task: int) -> int:
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if task == 6:
        os._exit(1)
    time.sleep(0.05)  # innocent tasks are under way when a worker dies
    return square(task)


def worker_report(_: int) -> tuple[int, int, bool]:
    import torch

    return os.getpid(), torch.get_num_threads(), signal.getsignal(signal.SIGINT) is not signal.default_int_handler


@pytest.mark.parametrize("window", [1, 3, 100])
def test_results_and_errors_of_all_tasks(window: int) -> None:
    outcomes = {o.task: o for o in run_tasks(partial(ThreadPoolExecutor, 2), square, range(20), window=window)}
    assert sorted(outcomes) == list(range(20))
    refused = outcomes.pop(9)
    assert refused.result is None
    assert isinstance(refused.error, ValueError)
    assert {task: o.result for task, o in outcomes.items()} == {t: t * t for t in range(20) if t != 9}
    assert all(o.error is None for o in outcomes.values())


def test_a_dying_worker_takes_only_its_own_task_with_it() -> None:
    pools = 0

    def counted() -> Executor:
        nonlocal pools
        pools += 1
        return spawned_pool()

    outcomes = list(run_tasks(counted, poisoned, range(12), window=4))
    assert sorted(o.task for o in outcomes) == list(range(12))
    failed = {o.task: o.error for o in outcomes if o.error}
    assert sorted(failed) == [3, 6, 9]
    assert isinstance(failed[3], BrokenExecutor)
    assert isinstance(failed[6], BrokenExecutor)
    assert isinstance(failed[9], ValueError)
    assert {o.task: o.result for o in outcomes if not o.error} == {t: t * t for t in range(12) if t not in failed}
    assert pools <= 5


def test_local_executor_spawns_workers_with_their_threads() -> None:
    (outcome,) = run_tasks(local_executor(1, threads=3), worker_report, [0], window=1)
    assert outcome.error is None
    assert outcome.result is not None
    process, threads, leaves_interrupts_to_parent = outcome.result
    assert process != os.getpid()
    assert threads == 3
    assert leaves_interrupts_to_parent
    with local_executor(1, 1)() as executor:
        assert isinstance(executor, ProcessPoolExecutor)
        assert executor._mp_context is multiprocessing.get_context("spawn")


def test_workers_start_together() -> None:
    """None may start while the pool cleans up after one that died."""
    with spawned_pool() as pool:
        assert isinstance(pool, _LocalExecutor)
        assert pool.submit(square, 2).result() == 4
        started = list(pool._processes)
        assert len(started) == 2
        assert [f.result() for f in [pool.submit(square, task) for task in range(8)]] == [t * t for t in range(8)]
        assert list(pool._processes) == started


def test_no_more_than_window_tasks_are_in_flight() -> None:
    started: list[int] = []

    def note(task: int) -> int:
        started.append(task)
        return task

    outcomes = run_tasks(partial(ThreadPoolExecutor, 4), note, range(50), window=2)
    next(outcomes)
    time.sleep(0.05)
    assert len(started) <= 3
    outcomes.close()  # type: ignore[attr-defined]
    assert len(started) <= 3


def test_an_executor_that_is_always_broken_ends_every_task() -> None:
    def broken(workers: int) -> Executor:
        class Broken(ThreadPoolExecutor):
            def submit(self, fn: Callable[..., object], /, *args: object, **kwargs: object):  # type: ignore[no-untyped-def]
                raise BrokenExecutor("no worker starts")

        return Broken(workers)

    outcomes = list(run_tasks(partial(broken, 2), square, range(5), window=3))
    assert sorted(o.task for o in outcomes) == list(range(5))
    assert all(isinstance(o.error, BrokenExecutor) for o in outcomes)


def test_nothing_to_do_makes_no_executor() -> None:
    def never() -> Executor:
        raise AssertionError

    assert list(run_tasks(never, square, [], window=1)) == []


def test_interrupts_wait_though_another_thread_takes_them() -> None:
    """The kernel gives a signal that the main thread masks to any other thread, such as one of a BLAS."""
    reached = threading.Event()
    thread = threading.Thread(target=reached.wait, daemon=True)
    thread.start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), _interrupts_held():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            reached.set()
        assert reached.is_set()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
        reached.set()
    thread.join()


def test_interrupt_within_submit_cancels_what_was_submitted() -> None:
    cancelled = []

    class Interrupted(ThreadPoolExecutor):
        def submit(self, *_: object) -> NoReturn:  # type: ignore[override]
            raise KeyboardInterrupt

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            cancelled.append(cancel_futures)
            super().shutdown(wait, cancel_futures=cancel_futures)

    with pytest.raises(KeyboardInterrupt):
        list(run_tasks(partial(Interrupted, 1), square, [1, 2], window=2))
    assert cancelled[0]


def test_senseless_window_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="window = 0"):
        list(run_tasks(partial(ThreadPoolExecutor, 1), square, [1], window=0))


def test_default_workers() -> None:
    assert 1 <= default_workers() <= (os.cpu_count() or 1)


def test_workers_leave_when_their_parent_is_killed() -> None:
    script = (
        "import time\n"
        "from landscape.engine import local_executor\n"
        "executor = local_executor(1, 1)()\n"
        "print(executor.submit(os.getpid).result(), flush=True)\n"
        "executor.submit(time.sleep, 600).result()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", f"import os\n{script}"], stdout=subprocess.PIPE, text=True)
    stdout = parent.stdout
    if stdout is None:
        raise AssertionError("the pipe was asked for")
    worker = int(stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    stdout.close()
    for _ in range(200):
        if not Path(f"/proc/{worker}").exists():
            return
        time.sleep(0.05)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlived its parent")
