"""Training in processes that are killed: whoever goes on ends in the bytes of an undisturbed run."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import interrupt, run_driver, segment_names, small_config, stored_files

from landscape.errors import ConfigurationError, CorruptSnapshotError, SnapshotError
from landscape.snapshots import RunWriter, Segment, open_run
from landscape.training import progress
from landscape.training.loop import train

# Runs in a process of its own, which forks one child per death: imports and torch's first step are paid once.
# Children report epochs over a pipe that is written with the real os.write, at once.
DRIVER = """
import json, os, random, shutil, signal, sys, time
from pathlib import Path
from small_runs import register, small_config, stored_files
import torch
from landscape.errors import SnapshotError
from landscape.snapshots import open_run
from landscape.training import loop, progress

torch.set_num_threads(1)  # a pool of threads would not survive the fork
register()
progress.SEGMENT_SNAPSHOTS = 4  # two segments an epoch
CONFIG = small_config(optimizer="adam", learning_rate=0.002)
CALLS = ("write", "fsync", "rename")


def die_at(position):
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


def attempt(path, position=None, delay=None):
    '''Whether a child that trained came to the end, and the epochs it reported.'''
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        status, real_write = 3, os.write
        try:
            if position is not None:
                die_at(position)
            loop.train(CONFIG, path, report=lambda m: real_write(sending, (json.dumps(m) + "\\n").encode()))
            status = 0
        finally:
            os._exit(status)
    os.close(sending)
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(receiving) as stream:
        reported = [json.loads(line) for line in stream]
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise SystemExit(f"unexpected exit status {status} at {position}, {delay}")
    return status == 0, reported


def stored_metrics(path):
    try:
        run = open_run(path)
    except SnapshotError:
        return []
    names = sorted(run.metrics)
    return [dict(zip(names, map(float, row))) for row in zip(*(run.metrics[name] for name in names))]


folder, rng = Path(sys.argv[1]), random.Random(5)
loop.train(CONFIG, folder / "reference")
begin = time.perf_counter()
assert attempt(folder / "child")[0] and stored_files(folder / "child") == stored_files(folder / "reference")
duration = time.perf_counter() - begin
reference = stored_files(folder / "reference")


def disturbed(name, deaths):
    '''Die as told, then go on to the end.'''
    path, killed, reported, lost = folder / name, 0, [], 0
    for death in [*deaths, {}]:
        ended, told = attempt(path, **death)
        killed += not ended
        reported += told
        stored = stored_metrics(path)
        lost += sum(epoch not in stored for epoch in reported)
    same = stored_files(path) == reference
    left = [str(file) for file in path.rglob(".tmp-*")]
    shutil.rmtree(path)
    return {"killed": killed, "lost": lost, "same": same, "left": left, "deaths": len(deaths)}


everywhere, position = [], 0
while not everywhere or everywhere[-1]["killed"]:
    everywhere.append(disturbed(f"at-{position}", [{"position": position}]))
    position += 1
last = position - 2
several = [[{"position": rng.randrange(last // n)} for _ in range(n)] for n in (2, 2, 2, 3, 3, 3)]
several += [[{"position": 9}] * 2, [{"position": 13}, {"position": 0}, {"position": 1}]]
timed = [[{"delay": duration * (i + rng.random()) / 8}] for i in range(6)]
print(json.dumps({
    "everywhere": everywhere[:-1],
    "several": [disturbed(f"several-{i}", deaths) for i, deaths in enumerate(several)],
    "timed": [disturbed(f"timed-{i}", deaths) for i, deaths in enumerate(timed)],
    "segments": len(reference) - 1,
}))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return json.loads(run_driver(DRIVER, tmp_path_factory.mktemp("kill")))


@pytest.mark.parametrize("how", ["everywhere", "several", "timed"])
@pytest.mark.thorough
def test_killed_and_resumed(results: Any, how: str) -> None:
    """No epoch that was reported is lost, no name, byte or outcome differs, nothing half-written stays."""
    for found in results[how]:
        assert (found["lost"], found["same"], found["left"]) == (0, True, []), found


@pytest.mark.thorough
def test_the_killing_is_thorough(results: Any) -> None:
    """Run, 6 segments and outcome are committed in 4 calls each; of repeated deaths, all must have happened."""
    assert results["segments"] == 6
    assert len(results["everywhere"]) >= 8 * 4 and len(results["timed"]) >= 5
    assert all(found["killed"] == 1 for found in results["everywhere"])
    assert all(found["killed"] == found["deaths"] for found in results["several"])
    # Some of the timed ones may have been over before their time; how fast a run is depends on its neighbours.
    assert sum(found["killed"] for found in results["timed"]) >= 2


# ---- controls: what the comparison of bytes can see

ADAM = {"optimizer": "adam", "learning_rate": 0.002}


@pytest.fixture(autouse=True)
def short_segments(small_data: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SEGMENT_SNAPSHOTS", 4)


def stopped(path: Path, **settings: Any) -> None:
    """A run that was stopped in the middle of its second epoch, one segment of which is sealed."""
    interrupt(small_config(**settings), path, 512 + 301)
    assert len(segment_names(path)) == 3


def zeroed(name: str) -> Callable[[Segment], Segment]:
    return lambda s: replace(s, resume={k: v * (k != name) for k, v in s.resume.items()})


def shifted(name: str, by: int) -> Callable[[Segment], Segment]:
    return lambda s: replace(s, **{name: getattr(s, name) + by})


LOSSES_OF_STATE: dict[str, tuple[dict[str, Any], Callable[[Segment], Segment]]] = {
    "first moments": (ADAM, zeroed("exp_avg")),
    "second moments": (ADAM, zeroed("exp_avg_sq")),
    "steps of Adam": (ADAM, zeroed("step")),
    "momentum": ({"momentum": 0.9}, zeroed("momentum_buffer")),
    "step": ({}, shifted("step", 1)),
    "position": ({}, shifted("samples_seen", 16)),
    "weights": ({}, lambda s: replace(s, theta=s.theta * np.float32(1 + 1e-6))),
}


@pytest.mark.parametrize("what", LOSSES_OF_STATE)
def test_state_that_is_lost_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    settings, damage = LOSSES_OF_STATE[what]
    whole = tmp_path / "whole"
    train(small_config(**settings), whole)
    intact = RunWriter.last_segment.fget  # type: ignore[attr-defined]
    for name, change in (("honest", lambda s: s), ("lossy", damage)):
        stopped(tmp_path / name, **settings)
        with monkeypatch.context() as patch:
            patch.setattr(RunWriter, "last_segment", property(lambda writer, c=change: c(intact(writer))))  # type: ignore[misc]
            train(small_config(**settings), tmp_path / name)
    assert segment_names(tmp_path / "honest") == segment_names(whole)
    assert segment_names(tmp_path / "lossy")[:3] == segment_names(whole)[:3]
    assert not set(segment_names(tmp_path / "lossy")[3:]) & set(segment_names(whole))


@pytest.mark.parametrize("settings", [ADAM, {"momentum": 0.9}], ids=["adam", "momentum"])
def test_state_that_is_missing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    stopped(tmp_path, **settings)
    intact = RunWriter.last_segment.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(RunWriter, "last_segment", property(lambda writer: replace(intact(writer), resume={})))
    with pytest.raises(CorruptSnapshotError, match="optimizer state"):
        train(small_config(**settings), tmp_path)


def test_going_back_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(tmp_path)
    intact = RunWriter.last_segment.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(
        RunWriter, "last_segment", property(lambda writer: shifted("samples_seen", -512)(intact(writer)))
    )
    with pytest.raises(ConfigurationError, match="Resume from last_segment"):
        train(small_config(), tmp_path)


def test_damage_stops_the_training(tmp_path: Path) -> None:
    """A run whose last segment was changed is not continued, and not changed further."""
    stopped(tmp_path)
    last = tmp_path / "segments" / segment_names(tmp_path)[-1]
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    with pytest.raises(CorruptSnapshotError, match=last.name):
        train(small_config(), tmp_path)
    assert len(segment_names(tmp_path)) == 3 and last.read_bytes() == content


# ---- errors of the disk


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
@pytest.mark.parametrize(("segment", "position"), [(0, None), (3, 768)])
def test_a_disk_that_fails(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
    segment: int,
    position: int | None,
) -> None:
    """The error says up to where all is stored, nothing half-written stays, and training goes on from there."""
    settings = small_config(**ADAM)

    def seal(writer: RunWriter, *arguments: Any, real: Any = RunWriter.append) -> Any:
        def fail(*arguments: Any, **options: Any) -> Any:
            raise OSError(number, os.strerror(number))

        if len(segment_names(tmp_path / "full")) < segment:
            return real(writer, *arguments)
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            return real(writer, *arguments)

    with monkeypatch.context() as patch, pytest.raises(SnapshotError, match=os.strerror(number)) as caught:
        patch.setattr(RunWriter, "append", seal)
        train(settings, tmp_path / "full")
    said = "Nothing was stored yet" if position is None else f"samples_seen={position} (segment {segment - 1})"
    assert said in str(caught.value) and "goes on from there" in str(caught.value)
    assert len(segment_names(tmp_path / "full")) == segment
    assert not list((tmp_path / "full").rglob(".tmp-*"))
    if segment:
        assert open_run(tmp_path / "full").samples_seen[-1] == position
    train(settings, tmp_path / "full")
    train(settings, tmp_path / "whole")
    assert stored_files(tmp_path / "full") == stored_files(tmp_path / "whole")
