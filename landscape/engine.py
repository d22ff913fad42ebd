"""Map a function over tasks on any ``concurrent.futures.Executor``, surviving workers that die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from typing import Any, Generic, TypeVar

from landscape.errors import ConfigurationError, EngineError

Task = TypeVar("Task")
Result = TypeVar("Result")
MakeExecutor = Callable[[], Executor]

# Seconds without any result after which the caller hears of it.
_IDLE = 1.0


@dataclass(frozen=True)
class Outcome(Generic[Task, Result]):
    """What became of one task: its result, or the error that ended it."""

    task: Task
    result: Result | None
    error: BaseException | None


def run_tasks(
    make_executor: MakeExecutor,
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    window: int,
    split: Callable[[Task], Iterable[Task]] = lambda task: (task,),
    idle: Callable[[], None] = lambda: None,
) -> Iterator[Outcome[Task, Result]]:
    """Yield an outcome for each task, in the order in which they end.

    At most ``window`` tasks are in flight. When a worker process dies, the executor is made anew and the
    tasks that were in flight run one at a time, so that only the one that kills its worker fails. ``split``
    divides such a task into the parts that are tried alone; ``idle`` is called in each second in which none ends.

    Raises:
        EngineError: If the workers cannot be reached any more.
    """
    if window < 1:
        raise ConfigurationError(f"window = {window} tasks in flight cannot be; pass 1 or more.")
    waiting, suspects = deque(tasks), deque[Task]()
    while waiting or suspects:
        with make_executor() as executor:
            yield from _run_until_broken(executor, function, waiting, suspects, window, split, idle)


def _run_until_broken(
    executor: Executor,
    function: Callable[[Task], Result],
    waiting: deque[Task],
    suspects: deque[Task],
    window: int,
    split: Callable[[Task], Iterable[Task]],
    idle: Callable[[], None],
) -> Iterator[Outcome[Task, Result]]:
    pending: dict[Future[Result], Task] = {}
    alone, broken = bool(suspects), False
    try:
        while pending or (not broken and (suspects or waiting)):
            alone = bool(suspects) or (alone and bool(pending))
            source, limit = (suspects, 1) if suspects or alone else (waiting, window)
            while source and not broken and len(pending) < limit:
                task = source.popleft()
                pending[_submit(executor, function, task)] = task
            for future in _first_ended(pending, idle):
                task, error = pending.pop(future), future.exception()
                if isinstance(error, EngineError):
                    raise error
                if isinstance(error, BrokenExecutor):
                    broken = True
                    if not alone:
                        suspects.extend(split(task))
                        continue
                yield Outcome(task, None if error else future.result(), error)
    except BaseException:  # interrupted, perhaps within `submit`; or the caller lost interest
        executor.shutdown(wait=False, cancel_futures=True)
        raise


def _first_ended(pending: Iterable[Future[Result]], idle: Callable[[], None]) -> set[Future[Result]]:
    while not (ended := wait(pending, timeout=_IDLE, return_when=FIRST_COMPLETED).done):
        idle()
    return ended


def _submit(executor: Executor, function: Callable[[Task], Result], task: Task) -> Future[Result]:
    try:
        return executor.submit(function, task)
    except BrokenExecutor as error:
        failed: Future[Result] = Future()
        failed.set_exception(error)
        return failed


def local_executor(workers: int, threads: int) -> MakeExecutor:
    """Factory of process pools: spawned (never forked: torch deadlocks), ``threads`` torch threads each."""
    context = multiprocessing.get_context("spawn")
    return partial(
        _LocalExecutor, workers, mp_context=context, initializer=_initialise_worker, initargs=(threads,)
    )


class _LocalExecutor(ProcessPoolExecutor):
    """A pool that also ends running tasks when it is told to cancel: they are safe to kill and resume.

    Workers start with interrupts held back, until they have their own way to leave; and all at once: one
    that starts while the pool cleans up after another that died can crash the clean-up, whose survivors then
    wait for ever (Python < 3.12.1).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._safe_to_dynamically_spawn_children = False

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        resource_tracker.ensure_running()  # by itself it would let interrupts through again
        with _interrupts_held():
            return super().submit(*args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        # Public from Python 3.14 on, as `terminate_workers`.
        processes = list((self._processes or {}).values()) if cancel_futures else []
        manager: Any = self._executor_manager_thread
        super().shutdown(wait and not processes, cancel_futures=cancel_futures)
        for process in processes:
            process.terminate()
        if processes and manager is not None:
            manager.join()  # the interpreter, leaving meanwhile, would wake it through a pipe that it just closed


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold SIGINT back, here and in processes started meanwhile; what arrived is delivered afterwards.

    The mask is for the processes, which inherit it. It does not spare this one: the kernel hands the signal to
    any thread that takes it (those of a BLAS do), and Python then interrupts the main thread all the same.
    """
    arrived: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    replace = in_main_thread and callable(handler)
    masked = hasattr(signal, "pthread_sigmask")
    if replace:
        signal.signal(signal.SIGINT, lambda number, _: arrived.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if masked else set()
    try:
        yield
    finally:
        if masked:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if replace:
            signal.signal(signal.SIGINT, handler)
        if arrived:
            signal.raise_signal(signal.SIGINT)


def _initialise_worker(threads: int) -> None:
    # Ctrl-C reaches the whole process group: a worker leaves at once and silently, the parent reports.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_leave_with_parent, daemon=True).start()

    import torch  # noqa: PLC0415  (the engine itself must not load torch)

    torch.set_num_threads(threads)


def _leave_with_parent() -> None:
    """End this worker when its parent has died: a pool does not notice, and would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def default_workers() -> int:
    """Number of CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
