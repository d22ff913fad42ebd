"""Damaged and hostile files: always our errors, never a silent difference, never a foreign file opened."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from mutations import mutant
from sound_files import DESCRIPTION, P, contents, segment_at, segments, write_run
from watching import watching

from landscape.errors import (
    CorruptSnapshotError,
    MissingSnapshotError,
    NotFiniteError,
    SnapshotError,
    UnsafeFileError,
    UnsupportedSchemaError,
)
from landscape.snapshots import (
    RunDescription,
    RunWriter,
    Segment,
    open_run,
    pack_run,
    verify_run,
)
from landscape.snapshots.image import segment_image


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("damage") / "run"
    write_run(path)
    return path


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "run"))


def mutants(image: bytes, count: int) -> list[bytes]:
    """Those of the first ones that differ from the file."""
    return [changed for number in range(count) if (changed := mutant(image, number)) != image]


@pytest.mark.parametrize("packed", [False, True])
def test_no_mutant_reads_as_something_else(original: Path, tmp_path: Path, packed: bool) -> None:
    file = pack_run(original, tmp_path / "run.h5") if packed else segments(original)[0]
    true, image, target = contents(file), file.read_bytes(), tmp_path / "mutant.h5"
    refused = 0
    for changed in mutants(image, 200 if packed else 500):
        target.write_bytes(changed)
        try:
            assert contents(target) == true
        except SnapshotError as error:
            assert str(target) in str(error)
            refused += 1
    assert refused > (
        140 if packed else 350
    )  # the others changed resume state, which this does not read, or unused space


def test_verify_finds_every_changed_bit(run: Path) -> None:
    file = segments(run)[1]
    image = file.read_bytes()
    for changed in mutants(image, 60):
        file.write_bytes(changed)
        found = verify_run(run)
        assert not found.ok and any(file.name in problem for problem in found.problems)
    file.write_bytes(image)
    assert verify_run(run).ok


def test_verify_counts_what_is_sound(original: Path) -> None:
    found = verify_run(original)
    assert (found.ok, found.problems, found.num_segments, found.num_snapshots) == (True, (), 3, 6)


def rename_one(run: Path) -> None:
    file = segments(run)[1]
    file.rename(file.with_name(file.name.replace("seg-00000001", "seg-00000007")))


def swap_two(run: Path) -> None:
    first, second = segments(run)[1:]
    digests = [file.name.rsplit("-", 1)[1] for file in (first, second)]
    first.rename(first.with_name("x"))
    second.rename(second.with_name(f"seg-00000001-{digests[1]}"))
    first.with_name("x").rename(first.with_name(f"seg-00000002-{digests[0]}"))


def graft_another_run(run: Path) -> None:
    other = RunDescription("net", {}, DESCRIPTION.layout, {"seed": 1}, "ab" * 32)
    with RunWriter(run.with_name("other"), other, {}) as writer:
        foreign = writer.append(segment_at(0))
    segments(run)[0].unlink()
    shutil.copy(foreign, run / "segments")


def break_chain(run: Path) -> None:
    with RunWriter(run.with_name("other"), DESCRIPTION, {}) as writer:
        start = segment_at(0)
        writer.append(Segment(**{**vars(start), "theta": start.theta + 1}))
    segments(run)[0].unlink()
    shutil.copy(segments(run.with_name("other"))[0], run / "segments")


def lose_last(run: Path) -> None:
    segments(run)[2].unlink()


CHAIN_DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda run: segments(run)[1].unlink(), "missing"),
    "first missing": (lambda run: segments(run)[0].unlink(), "missing"),
    "renamed": (rename_one, "missing"),
    "foreign name": (lambda run: segments(run)[1].rename(run / "segments/copy.h5"), "not named like a segment"),
    "swapped": (swap_two, "sequence 2 inside"),
    "grafted": (graft_another_run, "belongs to the run"),
    "other start": (break_chain, "comes after"),
    "twice": (lambda run: (run / "segments/seg-00000001-0123456789abcdef.h5").write_bytes(b""), "twice"),
    "truncated": (lambda run: os.truncate(segments(run)[1], 3000), "cannot be read"),
    "empty": (lambda run: os.truncate(segments(run)[1], 0), "cannot be read"),
}


@pytest.mark.parametrize("name", CHAIN_DAMAGE)
def test_damage_to_the_chain(run: Path, name: str) -> None:
    damage, text = CHAIN_DAMAGE[name]
    damage(run)
    found = verify_run(run)
    assert not found.ok and any(text in problem for problem in found.problems)
    with pytest.raises(CorruptSnapshotError):
        open_run(run)


def test_a_lost_end_is_found_by_the_outcome(run: Path) -> None:
    lose_last(run)
    assert any("missing at the end" in problem for problem in verify_run(run).problems)


def test_all_problems_are_reported(run: Path) -> None:
    for file in segments(run)[:2]:
        image = bytearray(file.read_bytes())
        place = image.index(segment_at(0).theta[1, :4].tobytes()) if file == segments(run)[0] else 100
        image[place] ^= 4
        file.write_bytes(image)
    (run / "outcome.json").write_text("{")
    found = verify_run(run)
    assert all(any(name in problem for problem in found.problems) for name in
               (segments(run)[0].name, segments(run)[1].name, "outcome.json"))  # fmt: skip
    assert found.num_snapshots >= 3


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"format":"landscape-run","schema":"1"}', "\udcff\x00"])
def test_a_damaged_run_file(run: Path, text: str) -> None:
    (run / "run.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CorruptSnapshotError, match=r"run\.json"):
        open_run(run)
    assert not verify_run(run).ok


def test_an_edited_description(run: Path) -> None:
    value = json.loads((run / "run.json").read_text())
    value["description"]["config"]["seed"] = 5
    (run / "run.json").write_text(json.dumps(value))
    with pytest.raises(CorruptSnapshotError, match="edited"):
        open_run(run)


def test_newer_schemas_are_refused_by_name(run: Path) -> None:
    with h5py.File(segments(run)[0], "r+") as file:
        file.attrs.modify("schema", 3)
    with pytest.raises(UnsupportedSchemaError, match=r"schema 3; .*up to 2"):
        open_run(run)
    value = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**value, "schema": 9}))
    with pytest.raises(UnsupportedSchemaError, match="schema 9"):
        open_run(run)
    with pytest.raises(UnsupportedSchemaError, match="schema 9"):
        RunWriter(run, DESCRIPTION)


def test_unknown_attributes_are_ignored(original: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(segments(original)[0], tmp_path / "x.h5"))
    with h5py.File(file, "r+") as opened:
        opened.attrs["colour"] = "red"
        opened["more"] = np.zeros(3)
    assert contents(file) == contents(segments(original)[0])


def test_a_stored_nan_is_named(run: Path) -> None:
    broken = segment_at(0)
    broken.theta[1, 3] = np.nan
    file = run / "nan.h5"
    file.write_bytes(segment_image(DESCRIPTION, 0, "", Segment(**{**vars(broken), "role": np.zeros(2, np.uint8)})))
    with pytest.raises(NotFiniteError, match="row 1"):
        open_run(file).read(1)
    assert not verify_run(file).ok and open_run(file).read(0).shape == (P,)


def replace(file: h5py.File, name: str, make: Callable[[h5py.File, str], Any]) -> None:
    del file[name]
    make(file, name)


def soft(file: h5py.File, name: str) -> None:
    file[name] = h5py.SoftLink("/description")


def external(target: Path) -> Callable[[h5py.File, str], None]:
    def make(file: h5py.File, name: str) -> None:
        file[name] = h5py.ExternalLink(str(target), name)

    return make


def virtual(target: Path) -> Callable[[h5py.File, str], None]:
    def make(file: h5py.File, name: str) -> None:
        with h5py.File(target, "r", locking=False) as source:
            shape, dtype = source[name].shape, source[name].dtype
        layout = h5py.VirtualLayout(shape, dtype)
        layout[...] = h5py.VirtualSource(str(target), name, shape)
        file.create_virtual_dataset(name, layout)

    return make


def stored_outside(target: Path) -> Callable[[h5py.File, str], None]:
    def make(file: h5py.File, name: str) -> None:
        file.create_dataset(name, (2, P), "<f4", external=[(str(target), 0, 8 * P)])

    return make


HOSTILE = {"soft": lambda target: soft, "external": external, "virtual": virtual, "storage": stored_outside}


DATASETS = ("theta", "samples_seen", "description", "metrics/loss")
GROUPS = ("metrics", "resume")  # only a link can put these elsewhere


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in HOSTILE for name in DATASETS]
    + [(k, n) for k in ("soft", "external") for n in GROUPS],
)
def test_files_that_reach_outside(original: Path, tmp_path: Path, kind: str, name: str) -> None:
    target = Path(shutil.copy(segments(original)[1], tmp_path / "secret.h5"))
    file = Path(shutil.copy(segments(original)[0], tmp_path / "x.h5"))
    with h5py.File(file, "r+") as opened:
        replace(opened, name, HOSTILE[kind](target))
    with watching(target) as watch:
        if name != "resume":
            with pytest.raises(UnsafeFileError, match=name):
                open_run(file).read(0)
        assert any("link" in p or "virtual" in p or "external" in p for p in verify_run(file).problems)
        assert not watch.opened()
        target.read_bytes()
        assert watch.opened()


def wrong_type(file: h5py.File, name: str) -> None:
    file[name] = np.array([b"abc", b"de"])


def objects(file: h5py.File, name: str) -> None:
    file.create_dataset(name, (2,), h5py.string_dtype())


def too_large(file: h5py.File, name: str) -> None:
    file.create_dataset(name, (2**40,), "<f4")


def bomb(file: h5py.File, name: str) -> None:
    file.create_dataset(name, (2**24, 2**10), "<f4", chunks=(2**8, 2**10), compression="gzip")


def large_chunk(file: h5py.File, name: str) -> None:
    file.create_dataset(name, (2,), "<i8", chunks=(2**24,), maxshape=(None,), compression="gzip")


def scale_offset(file: h5py.File, name: str) -> None:
    file.create_dataset(name, (2,), "<i8", chunks=(2,), scaleoffset=4)


def other_shape(file: h5py.File, name: str) -> None:
    file[name] = np.zeros(3, np.int64)


def other_order(file: h5py.File, name: str) -> None:
    file[name] = np.zeros(2, ">i8")


def group(file: h5py.File, name: str) -> None:
    file.create_group(name)


def empty(file: h5py.File, name: str) -> None:
    file[name] = h5py.Empty("<i8")


def committed(file: h5py.File, name: str) -> None:
    file[name] = np.dtype("<i8")


def nothing(file: h5py.File, name: str) -> None:
    pass


@pytest.mark.parametrize(
    "make",
    [wrong_type, objects, too_large, bomb, large_chunk, scale_offset, other_shape, other_order, group, empty,
     committed, nothing],
)  # fmt: skip
@pytest.mark.parametrize("name", ["theta", "step", "metrics/epoch", "theta_sha256"])
def test_objects_that_are_not_ours(original: Path, tmp_path: Path, name: str, make: Any) -> None:
    file = Path(shutil.copy(segments(original)[0], tmp_path / "x.h5"))
    with h5py.File(file, "r+") as opened:
        replace(opened, name, make)
    with pytest.raises((CorruptSnapshotError, UnsafeFileError), match=str(file)):
        open_run(file).read(0)
    assert not verify_run(file).ok


@pytest.mark.parametrize("value", ["x" * 3, np.zeros(3), 1.5, b"landscape-other", h5py.Empty("i8"), -1])
@pytest.mark.parametrize("name", ["format", "schema", "num_snapshots", "run_id", "index_sha256"])
def test_attributes_that_are_not_ours(original: Path, tmp_path: Path, name: str, value: Any) -> None:
    file = Path(shutil.copy(segments(original)[0], tmp_path / "x.h5"))
    with h5py.File(file, "r+") as opened:
        opened.attrs[name] = value
    with pytest.raises(CorruptSnapshotError, match=str(file)):
        open_run(file)
    assert not verify_run(file).ok


def test_many_metrics_are_refused(original: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(segments(original)[0], tmp_path / "x.h5"))
    with h5py.File(file, "r+") as opened:
        opened["resume"].create_dataset("one", (3000,), "<f4")
        for number in range(1001):
            opened[f"metrics/copy{number}"] = opened["metrics/loss"]
    with pytest.raises(CorruptSnapshotError, match="entries"):
        open_run(file)


def test_the_sum_of_a_group_counts(original: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(segments(original)[0], tmp_path / "x.h5"))
    with h5py.File(file, "r+") as opened:
        opened["metrics/wide"] = np.zeros(2000)
        for number in range(900):
            opened[f"metrics/copy{number}"] = opened["metrics/wide"]
    with pytest.raises(CorruptSnapshotError, match="more than the file can hold"):
        open_run(file)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_plain_file(run: Path, kind: str) -> None:
    file = segments(run)[2]
    file.rename(run / "aside.h5")
    make: dict[str, Callable[[], Any]] = {
        "link": lambda: file.symlink_to(run / "aside.h5"),
        "pipe": lambda: os.mkfifo(file),
        "folder": lambda: os.mkdir(file),
    }
    make[kind]()
    with pytest.raises(UnsafeFileError, match="not a plain file"):
        open_run(run)
    found = verify_run(run)
    assert not found.ok and found.num_snapshots == 4
    with pytest.raises(UnsafeFileError):
        RunWriter(run, DESCRIPTION)


def test_a_pipe_in_place_of_run_json(run: Path) -> None:
    (run / "run.json").unlink()
    os.mkfifo(run / "run.json")
    with pytest.raises(UnsafeFileError, match="pipe"):
        open_run(run)
    assert not verify_run(run).ok


def test_a_replaced_file_is_noticed(run: Path) -> None:
    opened = open_run(run)
    file = segments(run)[0]
    shutil.copy(segments(run)[1], file)
    with pytest.raises(CorruptSnapshotError, match="sha256"):
        opened.read(0)
    file.unlink()
    with pytest.raises(MissingSnapshotError):
        opened.read(0)


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(MissingSnapshotError):
        verify_run(tmp_path / "nothing")
