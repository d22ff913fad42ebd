"""Every point at which a commit can be cut off, by a kill or a loss of power: nothing promised is lost."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from power_loss import Call, Recorder, Tree, build, states, tree_of

from landscape.errors import LandscapeError, SnapshotError
from landscape.snapshots import ParameterSlot, RunDescription, RunWriter, Segment, open_run, verify_run
from landscape.snapshots.commit import commit_bytes

SEGMENTS, P, DRAWS = 4, 1200, 160
DESCRIPTION = RunDescription("net", {}, (ParameterSlot("w", (P,), 0, P),), {"seed": 0}, "ab" * 32)
FINISHED = "finished"
Say = Callable[[object], None]


def momentum(number: int, before: np.ndarray | None) -> np.ndarray:
    """What the next segment's weights depend on: all that went before."""
    drawn = np.random.default_rng(number).normal(size=P).astype(np.float32)
    return drawn if before is None else 0.5 * before + drawn


def segment(number: int, before: np.ndarray | None) -> Segment:
    state = momentum(number, before)
    rows = np.arange(2 * number, 2 * number + 2)
    theta = np.stack([state, state + 1])
    return Segment(theta, rows * 10, rows, rows // 2, rows * 0, np.zeros(2, np.float32),
                   {"epoch": np.array([float(number)])}, {"momentum": state})  # fmt: skip


def train(path: Path, say: Say = lambda what: None) -> None:
    """Train from where the run stands to its end."""
    with RunWriter(path, DESCRIPTION, {}) as writer:
        last = writer.last_segment
        state = None if last is None else last.resume["momentum"]
        for number in range(0 if last is None else int(last.step[-1]) // 2 + 1, SEGMENTS):
            made = segment(number, state)
            writer.append(made)
            say(number)
            state = made.resume["momentum"]
        writer.finish("completed")
        say(FINISHED)


def train_with_a_second_file(path: Path, say: Say = lambda what: None) -> None:
    """The same, but what is needed to resume lies beside the segments: a mistake, on purpose."""
    beside = path / "resume.bin"
    with RunWriter(path, DESCRIPTION, {}) as writer:
        last = writer.last_segment
        state = None if last is None else np.frombuffer(beside.read_bytes(), np.float32)
        for number in range(0 if last is None else int(last.step[-1]) // 2 + 1, SEGMENTS):
            made = segment(number, state)
            state = made.resume["momentum"]
            commit_bytes(beside, state.tobytes())
            writer.append(replace(made, resume={}))
            say(number)
        writer.finish("completed")
        say(FINISHED)


def recorded(root: Path, training: Callable[[Path, Say], None], start: Tree | None = None) -> list[Call]:
    """The calls of a training, from some state on."""
    root.mkdir()
    build(start or {}, root)
    recorder = Recorder(root)
    with recorder.recording():
        training(root / "run", recorder.say)
    return recorder.calls


def stored(path: Path) -> dict[str, bytes]:
    files = [*sorted((path / "segments").iterdir()), path / "outcome.json"]
    return {file.name: file.read_bytes() for file in files}


def complaint(
    root: Path, said: set[Any], training: Callable[[Path], None], reference: dict[str, bytes]
) -> str | None:
    """What is wrong with a state: something promised is not there, or training does not end as it should."""
    path, numbers = root / "run", sorted(said - {FINISHED})
    try:
        if numbers:
            run = open_run(path)
            if len(run) < 2 * len(numbers):
                return f"of segments {numbers} only {len(run)} snapshots are there"
            for row in range(len(run)):
                run.read(row)
            if FINISHED in said and run.outcome is None:
                return "the outcome is lost"
        training(path)
    except LandscapeError as error:
        return str(error)
    except OSError as error:
        return f"no file: {error}"
    return None if stored(path) == reference else "another end"


def complaints(
    root: Path,
    calls: Sequence[Call],
    reference: dict[str, bytes],
    *,
    training: Callable[[Path], None] = train,
    draws: int = DRAWS,
    start: Tree | None = None,
    promised: frozenset[Any] = frozenset(),
) -> tuple[int, int, list[str]]:
    """States looked at, how many of them are distinct, and what is wrong with any."""
    seen: dict[tuple[Any, ...], None] = {}
    count, found = 0, []
    for position, tree in states(calls, draws, seed=1, start=start):
        count += 1
        said = {call.said for call in calls[:position] if call.kind == "said"} | promised
        key = (frozenset(said), *tree.items())
        if key in seen:
            continue
        seen[key] = None
        root.mkdir()
        build(tree, root)
        if wrong := complaint(root, said, training, reference):
            found.append(f"after {position} calls: {wrong}")
        shutil.rmtree(root)
    return count, len(seen), found


@pytest.fixture(scope="module")
def reference(fast_disk: Path) -> dict[str, bytes]:
    train(fast_disk / "reference")
    return stored(fast_disk / "reference")


@pytest.fixture(scope="module")
def calls(fast_disk: Path) -> list[Call]:
    return recorded(fast_disk / "recorded", train)


def test_nothing_is_lost_at_any_point(fast_disk: Path, calls: list[Call], reference: dict[str, bytes]) -> None:
    count, distinct, found = complaints(fast_disk / "state", calls, reference)
    assert found == []
    assert count >= 5000 and distinct >= 100, (count, distinct)


@pytest.mark.thorough
def test_a_crash_during_recovery_loses_nothing(
    fast_disk: Path, calls: list[Call], reference: dict[str, bytes]
) -> None:
    """States of every tenth crash are recovered from, and each point of the recovery is a crash again."""
    count = 0
    wrong: list[str] = []
    for position, tree in list(states(calls, 1, seed=2))[::10]:
        said = frozenset(call.said for call in calls[:position] if call.kind == "said")
        again = recorded(fast_disk / "again", train, start=tree)
        shutil.rmtree(fast_disk / "again")
        looked, _, found = complaints(fast_disk / "state", again, reference, draws=3, start=tree, promised=said)
        count, wrong = count + looked, wrong + found
    assert wrong == [] and count >= 700


def test_the_model_ends_where_the_real_disk_does(fast_disk: Path, calls: list[Call]) -> None:
    """Replaying all recorded calls gives the files that are really there."""
    *_, (_, tree) = states(calls, 0, seed=0)
    assert tree == tree_of(fast_disk / "recorded")
    # After the last promise nothing of segments or outcome may depend on luck.
    for _, tree in list(states(calls, 20, seed=3))[-20:]:
        assert all(
            tree[name] == data for name, data in tree_of(fast_disk / "recorded").items() if "LOCK" not in name
        )


def without(kind: str) -> Callable[[list[Call]], list[Call]]:
    return lambda calls: [call for call in calls if call.kind != kind]


def promised_early(calls: list[Call]) -> list[Call]:
    """Each promise comes before the last fsync of a directory."""
    changed = list(calls)
    for place in range(len(changed) - 1):
        if (changed[place].kind, changed[place + 1].kind) == ("syncdir", "said"):
            changed[place], changed[place + 1] = changed[place + 1], changed[place]
    return changed


def in_place(calls: list[Call]) -> list[Call]:
    """Files are written under their last names."""
    last = {call.path: call.target for call in calls if call.kind == "rename"}
    return [replace(call, path=last.get(call.path, call.path)) for call in calls if call.kind != "rename"]


def sync_after_rename(calls: list[Call]) -> list[Call]:
    """The name comes before the data are safe."""
    names = {call.path: call.target for call in calls if call.kind == "rename"}
    changed = list(calls)
    for place in range(len(changed) - 1):
        first, second = changed[place], changed[place + 1]
        if (first.kind, second.kind) == ("fsync", "rename"):
            changed[place], changed[place + 1] = second, replace(first, path=names[first.path])
    return changed


MISTAKES: dict[str, Callable[[list[Call]], list[Call]]] = {
    "no fsync of files": without("fsync"),
    "no fsync of directories": without("syncdir"),
    "rename before the fsync": sync_after_rename,
    "promised before the directory is safe": promised_early,
    "written in place": in_place,
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_caught(
    fast_disk: Path, calls: list[Call], reference: dict[str, bytes], mistake: str
) -> None:
    """A store that made this mistake would be found out by the same look at the same kind of states."""
    wrong = MISTAKES[mistake](calls)
    assert wrong != calls and len(wrong) >= len(calls) - 20
    count, distinct, found = complaints(fast_disk / "state", wrong, reference, draws=20)
    assert found, (count, distinct)


def test_resume_state_in_a_second_file_is_caught(fast_disk: Path) -> None:
    train_with_a_second_file(fast_disk / "split")
    calls = recorded(fast_disk / "split-recorded", train_with_a_second_file)
    reference = stored(fast_disk / "split")
    _, _, found = complaints(fast_disk / "state", calls, reference, training=train_with_a_second_file, draws=2)
    assert any("another end" in wrong for wrong in found)


# ---- a disk that refuses

CALLS = ("mkdir", "open", "write", "fsync", "rename", "close")


def failing_from(patch: pytest.MonkeyPatch, position: int, number: int, always: bool) -> list[str]:
    """Let the call at a position fail, and all later ones if ``always``; names of the calls so far."""
    done: list[str] = []

    def failing(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            done.append(name)
            if len(done) - 1 == position or (always and len(done) > position):
                if name == "close":  # a close that fails has closed
                    real(*arguments)
                raise OSError(number, os.strerror(number))
            return real(*arguments, **options)

        return call

    for name in CALLS:
        patch.setattr(os, name, failing(name, getattr(os, name)))
    return done


@pytest.mark.parametrize("always", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_call_that_fails_loses_nothing(
    fast_disk: Path, reference: dict[str, bytes], number: int, always: bool
) -> None:
    """At each call in turn: our error, what was promised is there and intact, and training goes on to its end."""
    position, refused = 0, 0
    while True:
        path, said = fast_disk / f"failing-{position}", list[object]()
        with pytest.MonkeyPatch.context() as patch:
            done = failing_from(patch, position, number, always)
            error = outcome_of(path, said.append)
        if len(done) <= position:
            break
        assert error is None or isinstance(error, SnapshotError), (position, done[-1], error)
        refused += error is not None
        segments = [what for what in said if what != FINISHED]
        assert error is None or not segments or f"(segment {segments[-1]})" in str(error)
        if segments:
            assert verify_run(path).ok and len(open_run(path)) >= 2 * len(segments)
        train(path)
        assert stored(path) == reference and not list(path.rglob(".tmp-*"))
        shutil.rmtree(path)
        position += 1
    assert refused >= 30


def outcome_of(path: Path, say: Say) -> Exception | None:
    try:
        train(path, say)
    except (LandscapeError, OSError) as error:
        return error
    return None
