"""``landscape snapshots inspect``: what an unknown file holds, told by the process with limits."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from watching import watching

from landscape.errors import CorruptSnapshotError, SnapshotError, UnsafeFileError
from landscape.interchange.inspecting import describe
from landscape.snapshots import pack_run, resolve
from landscape.study.ledger import Ledger, content_key

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(5, dtype=torch.bfloat16)}
ENTRIES = [("a.weight", (2, 3), "float32", 24), ("b", (5,), "bfloat16", 10)]


def command() -> click.Command:
    (script,) = entry_points(group="console_scripts", name="landscape")
    loaded: click.Command = script.load()
    return loaded


def write_torch(path: Path) -> None:
    torch.save({"state_dict": WEIGHTS, "epoch": 3, "note": "a\x1b[2J", "b\x1b": 1, "optimizer": {"lr": 0.1}}, path)


def write_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x/y"] = np.zeros((2, 3), "<f8")


def write_ledger(path: Path) -> None:
    with Ledger(path) as ledger:
        subject = {"number": 1}
        ledger.write(content_key(subject), subject, {"status": "ok", "x": 1.0}, 0.5)


def found(path: Path) -> tuple[str, list[tuple[Any, ...]], dict[str, Any]]:
    """What the process with limits finds, without starting it."""
    inspection = describe(path)
    return inspection.format, [tuple(vars(entry).values()) for entry in inspection.entries], inspection.facts


def test_each_format(tmp_path: Path) -> None:
    write_torch(tmp_path / "x.ckpt")
    nested = [(f"state_dict.{name}", *others) for name, *others in ENTRIES]
    assert found(tmp_path / "x.ckpt") == (
        "torch checkpoint",
        nested,
        {"epoch": 3, "b\x1b": 1, "optimizer.lr": 0.1},
    )
    safetensors.torch.save_file(WEIGHTS, tmp_path / "x.safetensors", {"step": "7"})
    assert found(tmp_path / "x.safetensors") == ("safetensors", ENTRIES, {"step": "7"})
    write_hdf5(tmp_path / "x.h5")
    assert found(tmp_path / "x.h5") == ("HDF5", [("x/y", (2, 3), "float64", 48)], {})
    np.savez(tmp_path / "x.npz", theta=np.zeros((4, 3), np.float32), step=np.arange(4))
    arrays = [("theta", (4, 3), "float32", 48), ("step", (4,), "int64", 32)]
    assert found(tmp_path / "x.npz") == ("npz", arrays, {})
    np.save(tmp_path / "x.npy", np.zeros((4, 3), np.float32))
    assert found(tmp_path / "x.npy") == ("npy", [("x", (4, 3), "float32", 48)], {})


def test_runs_and_ledgers(tmp_path: Path) -> None:
    run = resolve("embedded:runs/sgd_lr0.2_b16_seed0")
    (segment, *_) = sorted((run / "segments").iterdir())
    for path, kind in (
        (run, "run"),
        (segment, "segment of a run"),
        (pack_run(run, tmp_path / "r.h5"), "packed run"),
    ):
        name, entries, facts = found(path)
        assert name == kind and entries[0] == ("0.weight", (4, 1, 5, 5), "float32", 400)
        assert facts["model"] == "cnn" and facts["snapshots"] >= 1
    write_ledger(tmp_path / "ledger.sqlite")
    name, entries, _ = found(tmp_path / "ledger.sqlite")
    assert name == "ledger of measurements" and ("measurements", (1,), "rows", 0) in entries
    with closing(sqlite3.connect(tmp_path / "other.db")) as database:
        database.execute('CREATE TABLE "odd""\x1b name" (x)')
    assert found(tmp_path / "other.db") == ("SQLite database", [('odd"\x1b name', (0,), "rows", 0)], {"schema": 0})


class Payload:
    """Would make a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def hostile_pickle(path: Path, target: Path) -> None:
    torch.save({"x": Payload(path.with_name("proof"))}, path)


def hostile_stride(path: Path, target: Path) -> None:
    torch.save({"deep": [{"a": torch.zeros(1).expand(2**40)}]}, path)


def hostile_link(path: Path, target: Path) -> None:
    write_hdf5(path)
    with h5py.File(path, "r+") as file:
        file["out"] = h5py.ExternalLink(str(target), "x")


def hostile_storage(path: Path, target: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("s", (7,), "<f4", external=[(str(target), 0, 28)])


def hostile_symlink(path: Path, target: Path) -> None:
    path.symlink_to(target)


def hostile_pipe(path: Path, target: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    "make", [hostile_pickle, hostile_stride, hostile_link, hostile_storage, hostile_symlink, hostile_pipe]
)
def test_hostile_files(tmp_path: Path, make: Callable[[Path, Path], None]) -> None:
    target, path = tmp_path / "secret", tmp_path / "x.pt"
    write_hdf5(target)
    make(path, target)
    with watching(target) as watch:
        with pytest.raises(UnsafeFileError, match=r"x\.pt"):
            describe(path)
        assert not watch.opened()
    assert not (tmp_path / "proof").exists()


def test_damaged_ledgers_and_unknown_files(tmp_path: Path) -> None:
    write_ledger(tmp_path / "x.sqlite")
    image = (tmp_path / "x.sqlite").read_bytes()
    (tmp_path / "x.sqlite").write_bytes(image[:5000])
    with pytest.raises(CorruptSnapshotError, match=r"x\.sqlite"):
        describe(tmp_path / "x.sqlite")
    (tmp_path / "x.pdf").write_bytes(b"%PDF-1.4")
    with pytest.raises(SnapshotError, match="no format that is read here"):
        describe(tmp_path / "x.pdf")
    shutil.copytree(resolve("embedded:runs/sgd_lr0.2_b16_seed0"), tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(CorruptSnapshotError, match=r"run\.json"):
        describe(tmp_path / "run")


def test_the_command(tmp_path: Path) -> None:
    write_torch(tmp_path / "x.pt")
    shown = CliRunner().invoke(command(), ["snapshots", "inspect", str(tmp_path / "x.pt")])
    assert shown.exit_code == 0, shown.output
    assert "format: torch checkpoint\nepoch: 3\n" in shown.output and "\x1b" not in shown.output
    assert "state_dict.a.weight  2x3    float32      24" in shown.output
    document = json.loads(
        CliRunner().invoke(command(), ["snapshots", "inspect", str(tmp_path / "x.pt"), "--json"]).output
    )
    assert document["results"]["entries"][1]["dtype"] == "bfloat16"


def test_names_cannot_speak_to_the_terminal(tmp_path: Path) -> None:
    """They are spelled out, in tables, notes and errors."""
    odd = "odd\x1b]0;title\x07\u202ename"
    torch.save({"state_dict": {odd: torch.zeros(2, 2)}}, tmp_path / "y.pt")
    shutil.copytree(resolve("embedded:runs/sgd_lr0.2_b16_seed0"), tmp_path / odd)
    for arguments, code in ((("inspect", str(tmp_path / "y.pt")), 1), (("list", str(tmp_path / odd)), 0)):
        result = CliRunner().invoke(command(), ["snapshots", *arguments], color=True)
        said = result.stdout + result.stderr
        assert "odd\\x1b]0;title\\x07\\u202ename" in said and result.exit_code == code
        assert not any(character in said for character in "\x1b\x07\u202e")
