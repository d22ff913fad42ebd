"""Real processes: killed at every system call of a commit, short of disk space, and competing for a run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Runs in a process of its own, which forks one child per point of death: the imports are paid once.
DRIVER = '''
import json, os, resource, shutil, signal, sys
from pathlib import Path
import numpy as np
from landscape.errors import LandscapeError, SnapshotError
from landscape.snapshots import ParameterSlot, RunDescription, RunWriter, Segment, open_run, verify_run

SEGMENTS, P = 3, 500
DESCRIPTION = RunDescription("net", {}, (ParameterSlot("w", (P,), 0, P),), {"seed": 0}, "ab" * 32)
CALLS = ("mkdir", "open", "write", "fsync", "rename", "unlink")


def segment(number):
    rows = np.arange(2 * number, 2 * number + 2)
    theta = np.random.default_rng(number).normal(size=(2, P)).astype(np.float32)
    return Segment(theta, rows * 10, rows, rows // 2, rows * 0, np.zeros(2, np.float32),
                   {"epoch": np.array([float(number)])}, {"momentum": theta[0]})


def train(path, acknowledge=lambda number: None):
    """Goes on where the run stands; the weights depend on the position alone."""
    with RunWriter(path, DESCRIPTION, {}) as writer:
        last = writer.last_segment
        for number in range(0 if last is None else int(last.step[-1]) // 2 + 1, SEGMENTS):
            writer.append(segment(number))
            acknowledge(number)
        writer.finish("completed")
        acknowledge("finished")


def die_at(position):
    """Kill this process at the n-th system call; a write is done by half before that."""
    done = []
    for name in CALLS:
        def call(*arguments, _real=getattr(os, name), _name=name, **options):
            if len(done) == position:
                if _name == "write":
                    _real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(_name)
            return _real(*arguments, **options)
        setattr(os, name, call)


def in_child(body):
    """Exit status of a forked child, and what it acknowledged before its end."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        status, real_write = 3, os.write
        try:
            body(lambda what: real_write(sending, (json.dumps(what) + "\\n").encode()))
            status = 0
        finally:
            os._exit(status)
    os.close(sending)
    with os.fdopen(receiving) as stream:
        acknowledged = [json.loads(line) for line in stream]
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), acknowledged


def names(path):
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def stored(path):
    """Numbers of the segments that can be read whole, and the outcome."""
    try:
        run = open_run(path)
    except SnapshotError:
        return [], None
    rows = [run.read(row) for row in range(len(run))]
    numbers = [int(step) // 2 for step in run.step[::2]]
    for place, number in enumerate(numbers):
        np.testing.assert_array_equal(np.stack(rows[2 * place : 2 * place + 2]), segment(number).theta)
    return numbers, run.outcome


def check(path, acknowledged):
    numbers, outcome = stored(path)
    lost = [what for what in acknowledged if what not in numbers and what != "finished"]
    if "finished" in acknowledged and outcome is None:
        lost.append("finished")
    return lost


def kill_everywhere(folder, twice):
    reference = folder / f"reference-{twice}"
    train(reference)
    killed, lost, different, position = 0, [], [], 0
    while True:
        path = folder / f"{twice}-{position}"

        def dying(acknowledge, path=path, position=position):
            die_at(position)
            train(path, acknowledge)

        status, acknowledged = in_child(dying)
        if status == 0:
            break
        if status != -signal.SIGKILL:
            raise SystemExit(f"unexpected exit status {status} at {position}")
        killed += 1
        lost += check(path, acknowledged)
        if twice:  # the writer that recovers dies too, at its first calls
            for again in (1, 5, 8, 11):
                def dying_again(acknowledge, path=path, again=again):
                    die_at(again)
                    train(path, acknowledge)
                status, more = in_child(dying_again)
                if status not in (0, -signal.SIGKILL):
                    raise SystemExit(f"unexpected exit status {status} at {position}, {again}")
                acknowledged += more
                lost += check(path, acknowledged)
        train(path)
        if names(path) != names(reference) or not verify_run(path).ok:
            different.append(position)
        shutil.rmtree(path)
        position += 5 if twice else 1
    return {"killed": killed, "lost": lost, "different": different}


def full_disk(folder):
    """A real limit on file sizes, too low for the second segment only."""
    path = folder / "full"

    def limited(acknowledge):
        with RunWriter(path, DESCRIPTION, {}) as writer:
            writer.append(segment(0))
            acknowledge("stored")
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
            try:
                writer.append(segment(1))
            except SnapshotError as error:
                acknowledge(str(error))

    status, said = in_child(limited)
    numbers = stored(path)[0]
    leftovers = [name for name in names(path) if ".tmp-" in name]
    before = verify_run(path).ok
    train(path)
    return {"status": status, "said": said, "numbers": numbers, "leftovers": leftovers, "ok": before,
            "after": len(open_run(path))}


def hold(folder):
    with RunWriter(folder / "held", DESCRIPTION, {}):
        print("held", flush=True)
        sys.stdin.readline()


def many(folder):
    """A thousand commits, fifty runs one after another."""
    for number in range(50):
        with RunWriter(folder / f"run-{number:02}", DESCRIPTION, {}) as writer:
            for place in range(20):
                writer.append(segment(place))
            writer.finish("completed")


def main(task, folder):
    folder = Path(folder)
    if task == "many":
        return many(folder)
    if task == "hold":
        return hold(folder)
    once, twice = kill_everywhere(folder, False), kill_everywhere(folder, True)
    print(json.dumps({"once": once, "twice": twice, "full": full_disk(folder)}))


main(*sys.argv[1:])
'''


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("crash")
    command = [sys.executable, "-c", DRIVER, "all", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("task", ["once", "twice"])
def test_killed_at_every_system_call(results: Any, task: str) -> None:
    """Nothing acknowledged is lost, and whoever resumes ends with the files of an undisturbed run."""
    found = results[task]
    assert found["lost"] == [] and found["different"] == []
    assert found["killed"] >= 5 * (3 + 2) // (5 if task == "twice" else 1)


def test_a_disk_that_is_full(results: Any) -> None:
    found = results["full"]
    assert found["status"] == 0 and found["said"][0] == "stored"
    assert "samples_seen=10 (segment 0)" in found["said"][1] and "goes on from there" in found["said"][1]
    assert found["numbers"] == [0] and found["leftovers"] == [] and found["ok"] and found["after"] == 6


def test_two_processes_want_one_run(tmp_path: Path) -> None:
    """The second writer is refused while the first lives, stopped or not, and not after its SIGKILL."""
    from landscape.errors import RunBusyError
    from landscape.snapshots import ParameterSlot, RunDescription, RunWriter

    description = RunDescription("net", {}, (ParameterSlot("w", (500,), 0, 500),), {"seed": 0}, "ab" * 32)
    command = [sys.executable, "-c", DRIVER, "hold", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            for send in (0, signal.SIGSTOP):
                holder.send_signal(send)
                with pytest.raises(RunBusyError, match="another process"):
                    RunWriter(tmp_path / "held", description)
        finally:
            holder.kill()
        holder.wait(10)
    RunWriter(tmp_path / "held", description).close()


@pytest.mark.thorough
def test_a_reader_never_sees_half_a_commit(fast_disk: Path) -> None:
    """Runs are listed, opened and read in a loop while another process commits a thousand segments."""
    import numpy as np

    from landscape.errors import MissingSnapshotError
    from landscape.snapshots import find_runs, open_run

    command = [sys.executable, "-c", DRIVER, "many", str(fast_disk)]
    looks, least = 0, dict[Path, int]()
    with subprocess.Popen(command, cwd=ROOT) as writer:
        while writer.poll() is None:
            try:
                newest = find_runs([fast_disk])[-1]
                run = open_run(newest)
            except MissingSnapshotError:  # before the first commit of all, or of a run
                continue
            assert len(run) % 2 == 0 and len(run) >= least.get(newest, 0)
            least[newest] = len(run)
            last = np.random.default_rng(len(run) // 2 - 1).normal(size=(2, 500)).astype(np.float32)
            np.testing.assert_array_equal(run.read(len(run) - 1), last[1])
            looks += 1
    assert writer.returncode == 0 and looks >= 10
    assert all(len(open_run(path)) == 40 for path in find_runs([fast_disk]))
