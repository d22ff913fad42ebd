"""One table, however it comes about: any number of workers, processes that are killed, a full disk, Dask.

Real processes are really killed; after each, the same command ends in the same bytes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from small_runs import HERE, SMALL, TINY, run_driver, small_config, small_mnist, small_workers

from landscape.dask_engine import dask_cluster
from landscape.engine import MakeExecutor
from landscape.errors import ConfigurationError, EngineError
from landscape.problem.datasets import DATASETS
from landscape.study import survey
from landscape.study.columns import FAILED, OK, Row
from landscape.study.ledger import Ledger
from landscape.study.survey import Plan, chunks_of, execute, make_plan
from landscape.study.table import write_rows_csv
from landscape.training.loop import train

RUNS, SELECT = ("a", "b", "c"), "every:8"
DRIVER = """
import resource, signal, sys
from concurrent.futures import ThreadPoolExecutor
import torch
from small_runs import TINY, register, small_workers
from landscape.study.ledger import Ledger
from landscape.study.survey import execute, make_plan

if __name__ == "__main__":
    register()
    torch.set_num_threads(1)  # rows are equal to the last bit for equal numbers of threads
    if len(sys.argv) > 4:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]),) * 2)
    with Ledger(sys.argv[2]) as ledger:
        plan = make_plan([sys.argv[1]], sys.argv[3], TINY, ledger, "cpu")
        make = small_workers(2) if len(sys.argv) < 5 else lambda: ThreadPoolExecutor(1)
        for row in execute(plan, ledger, make, workers=2):
            print(row["status"], flush=True)
"""


@pytest.fixture(scope="module", autouse=True)
def small_data() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, SMALL, small_mnist)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "runs"
    for seed, name in enumerate(RUNS):
        train(small_config(epochs=2, seed=seed), folder / name)
    return folder


@pytest.fixture(scope="module")
def expected(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The table as one thread of this process makes it."""
    with Ledger(tmp_path_factory.mktemp("expected") / "ledger.sqlite") as ledger:
        table, rows = finish(runs, ledger, lambda: ThreadPoolExecutor(1))
    assert len(rows) >= 8 and {row["status"] for row in rows} == {OK}
    return table


def plan_of(runs: Path, ledger: Ledger) -> Plan:
    return make_plan([runs], SELECT, TINY, ledger, "cpu")


def finish(runs: Path, ledger: Ledger, make: MakeExecutor, workers: int = 1) -> tuple[bytes, list[Row]]:
    """Measure what is missing; the whole table as CSV."""
    plan = plan_of(runs, ledger)
    measured = list(execute(plan, ledger, make, workers=workers))
    rows = sorted([*plan.known, *measured], key=lambda row: (str(row["path"]), int(row["step"] or 0)))
    file = ledger.path.with_suffix(".csv")
    write_rows_csv(rows, file)
    return file.read_bytes(), rows


@pytest.mark.parametrize(
    "workers",
    [pytest.param(1, marks=pytest.mark.slow), *(pytest.param(n, marks=pytest.mark.thorough) for n in (2, 4))],
)
def test_any_number_of_workers(runs: Path, expected: bytes, tmp_path: Path, workers: int) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert finish(runs, ledger, small_workers(workers), workers)[0] == expected
        assert plan_of(runs, ledger).tasks == ()


def test_chunks_are_neighbours_of_one_run(runs: Path, tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        plan = plan_of(runs, ledger)
    for workers, most in ((1, len(plan.tasks) // 4), (100, 1)):
        chunks = chunks_of(plan, workers)
        assert [task for chunk in chunks for task in chunk] == list(plan.tasks)
        assert all(len({task.identity["run"] for task in chunk}) == 1 for chunk in chunks)
        assert max(map(len, chunks)) == most
    slow = Plan((), (), plan.tasks, (100.0,) * len(plan.tasks))
    assert {len(chunk) for chunk in chunks_of(slow, 1)} == {1}
    assert slow.forecast == 100 * len(plan.tasks)


@pytest.mark.thorough
def test_a_worker_is_killed(runs: Path, expected: bytes, tmp_path: Path) -> None:
    """From outside, once: what it had is tried again, and nothing fails."""
    pools: list[Any] = []

    def make() -> Executor:
        pools.append(small_workers(2)())
        return pools[-1]  # type: ignore[no-any-return]

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        plan = plan_of(runs, ledger)
        statuses = []
        for row in execute(plan, ledger, make, workers=2):
            statuses.append(row["status"])
            if len(statuses) == 2:
                os.kill(next(iter(pools[0]._processes)), signal.SIGKILL)
        assert len(pools) > 1
        assert statuses == [OK] * len(plan.tasks)
        assert finish(runs, ledger, make)[0] == expected


@pytest.mark.thorough
def test_a_snapshot_that_kills_its_worker(runs: Path, tmp_path: Path) -> None:
    """Its chunk is divided, its neighbours are measured, and it is tried again by the next call."""
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        plan = plan_of(runs, ledger)
        guilty = plan.tasks[1]
        chunk = next(chunk for chunk in chunks_of(plan, 1) if guilty in chunk)
        assert len(chunk) > 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(survey, "measure_chunk", Killer(guilty.index))
            rows = list(execute(plan, ledger, small_workers(1), workers=1))
        failed = [row for row in rows if row["status"] == FAILED]
        assert [(row["run"], row["step"]) for row in failed] == [("a", guilty.identity["step"])]
        assert "BrokenProcessPool" in str(failed[0]["error"])
        assert [task.key for task in plan_of(runs, ledger).tasks] == [guilty.key]


class Killer:
    """Measures chunks, and dies when it meets one snapshot of the run ``a``."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(self, chunk: survey.Chunk) -> Any:
        results = []
        for task in chunk:
            if (task.identity["run"], task.index) == ("a", self.index):
                os.kill(os.getpid(), signal.SIGKILL)
            results += _measure_chunk((task,))
        return results


_measure_chunk = survey.measure_chunk


@pytest.mark.thorough
def test_the_parent_is_killed(runs: Path, expected: bytes, tmp_path: Path) -> None:
    """At most what was not committed is measured again, and the workers leave too."""
    command = [sys.executable, "-c", DRIVER, str(runs), str(tmp_path / "ledger.sqlite"), SELECT]
    with subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout is not None
        shown = [parent.stdout.readline() for _ in range(4)]
        parent.kill()
    assert shown == [b"ok\n"] * 4
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        plan = plan_of(runs, ledger)
        assert len(plan.known) >= 1 and plan.tasks and ledger.recovery is None
        assert finish(runs, ledger, lambda: ThreadPoolExecutor(1))[0] == expected
        assert ledger.conflicts == []


@pytest.mark.thorough
def test_the_disk_is_full(runs: Path, expected: bytes, tmp_path: Path) -> None:
    """SQLite is refused more than some pages; with room again, the rest is measured."""
    with pytest.raises(RuntimeError, match="cannot be written"):
        run_driver(DRIVER, runs, tmp_path / "ledger.sqlite", SELECT, 60_000)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert plan_of(runs, ledger).tasks and ledger.recovery is None
        assert finish(runs, ledger, lambda: ThreadPoolExecutor(1))[0] == expected


# ---- Dask


@contextmanager
def running(*command: object) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    arguments = [sys.executable, "-m", *map(str, command)]
    with subprocess.Popen(
        arguments, cwd=HERE, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def cluster(workers: int = 2) -> Iterator[tuple[str, subprocess.Popen[bytes], list[int]]]:
    """A scheduler and workers in processes of their own: its address, its process, and theirs by number."""
    distributed = pytest.importorskip("distributed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    scheduler = ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
    worker = ("distributed.cli.dask_worker", address, "--nworkers", workers, "--nthreads", 1, "--no-dashboard",
              "--host", "127.0.0.1", "--preload", HERE / "dask_preload.py")  # fmt: skip
    with running(*scheduler) as process, running(*worker):
        with distributed.Client(address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=120)
            processes = list(client.run(os.getpid).values())
        yield address, process, processes


@pytest.mark.thorough
def test_dask_gives_the_same_table(runs: Path, expected: bytes, tmp_path: Path) -> None:
    """Also when a worker is killed; a scheduler that is killed ends the command, and the rest is measured then."""
    with cluster() as (address, scheduler, workers), Ledger(tmp_path / "ledger.sqlite") as ledger:
        with dask_cluster(address) as found:
            assert found.workers == 2
            measuring = execute(plan_of(runs, ledger), ledger, found.make_executor, workers=2)
            next(measuring)
            os.kill(workers[0], signal.SIGKILL)
            assert {row["status"] for row in measuring} == {OK}
            assert finish(runs, ledger, found.make_executor)[0] == expected
        with Ledger(tmp_path / "killed.sqlite") as other, dask_cluster(address) as found:
            plan = plan_of(runs, other)
            rows = execute(plan, other, found.make_executor, workers=2)
            next(rows)
            os.killpg(scheduler.pid, signal.SIGKILL)
            with pytest.raises(EngineError, match="is gone; what was measured before is safe"):
                list(rows)
        with Ledger(tmp_path / "killed.sqlite") as other:
            known = len(plan_of(runs, other).known)
            assert 1 <= known < len(plan.tasks)
            assert finish(runs, other, lambda: ThreadPoolExecutor(1))[0] == expected


def test_no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("landscape.dask_engine._CONNECT", 0.5)
    with (
        pytest.raises(EngineError, match=r"no Dask scheduler answers.*dask scheduler"),
        dask_cluster("tcp://127.0.0.1:9"),
    ):
        pass
    with pytest.raises(EngineError, match="no Dask scheduler answers"), dask_cluster("nonsense://x"):
        pass


def test_no_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(ConfigurationError, match=r"pip install 'landscape-torch\[dask\]'"),
        dask_cluster("tcp://h:1"),
    ):
        pass
