"""Sound files of every kind that is read, to be damaged, and all that reading them gives."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from landscape.interchange.formats import read_file
from landscape.interchange.state import State
from landscape.snapshots import (
    ParameterSlot,
    Role,
    RunDescription,
    RunWriter,
    Segment,
    Snapshot,
    load_snapshot,
    open_run,
)
from landscape.study.columns import OK, Row
from landscape.study.ledger import Ledger, content_key

# ---- foreign files

TRUE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.linspace(-1, 1, 7), "c.d.bias": torch.ones(5)}


def image_of(kind: str) -> bytes:
    """A sound file of each format."""
    buffer = io.BytesIO()
    if kind == "pt":
        torch.save({"state_dict": TRUE, "epoch": 3}, buffer)
    elif kind == "pth":
        torch.save(TRUE, buffer, _use_new_zipfile_serialization=False)
    elif kind == "npz":
        np.savez_compressed(buffer, **{name: value.numpy() for name, value in TRUE.items()})  # type: ignore[arg-type]
    elif kind == "npy":
        np.save(buffer, np.arange(12, dtype=np.float32).reshape(3, 4))
    elif kind == "safetensors":
        return safetensors.torch.save(TRUE, {"step": "4"})
    else:
        _write_hdf5(buffer, fletcher32=kind == "h5")
    return buffer.getvalue()


def _write_hdf5(buffer: io.BytesIO, fletcher32: bool) -> None:
    with h5py.File(buffer, "w", libver=("v110", "v110")) as file:
        for name, value in TRUE.items():
            path = name.replace(".", "/")
            file.create_dataset(path, data=value.numpy(), chunks=tuple(value.shape), fletcher32=fletcher32)
        file.attrs["epoch"] = 3


def read(path: Path) -> list[State]:
    return list(read_file(path))


def equal(states: list[State]) -> bool:
    if len(states) != 1 or set(states[0].tensors) != set(TRUE):
        return False
    return all(torch.equal(states[0].tensors[name], value) for name, value in TRUE.items())


def bits(tensors: dict[str, Tensor]) -> list[tuple[Any, ...]]:
    """All of named tensors, as what can be compared."""
    return [
        (name, str(tensor.dtype), tuple(tensor.shape), tensor.contiguous().reshape(-1).view(torch.uint8).tolist())
        for name, tensor in sorted(tensors.items())
    ]


# ---- runs

P = 40
DESCRIPTION = RunDescription("net", {}, (ParameterSlot("w", (P,), 0, P),), {"seed": 0}, "ab" * 32)


def segment_at(start: int) -> Segment:
    count = np.arange(start, start + 2)
    return Segment(
        theta=np.random.default_rng(start).normal(size=(2, P)).astype(np.float32),
        samples_seen=count * 100,
        step=count,
        epoch=count // 2,
        role=np.array([Role.BEFORE, Role.AFTER]),
        batch_loss=np.ones(2, np.float32),
        metrics={"epoch": np.array([start // 2 + 1.0]), "loss": np.array([0.5])},
        resume={"momentum": np.arange(P, dtype=np.float32), "count": np.array(3)},
    )


def write_run(path: Path) -> None:
    """A run of three segments that has ended."""
    with RunWriter(path, DESCRIPTION, {}) as writer:
        for start in (0, 2, 4):
            writer.append(segment_at(start))
        writer.finish("completed")


def segments(path: Path) -> list[Path]:
    return sorted((path / "segments").iterdir())


def contents(path: Path) -> list[bytes]:
    """Everything that a run shows, as bytes."""
    run = open_run(path)
    columns = (run.samples_seen, run.step, run.epoch, run.role, run.batch_loss, run.theta_sha256)
    metrics = [name.encode() + values.tobytes() for name, values in sorted(run.metrics.items())]
    rows = [run.read(row).tobytes() for row in range(len(run))]
    return [run.description.to_json().encode(), *(column.tobytes() for column in columns), *metrics, *rows]


def snapshot_to_export(folder: Path) -> Snapshot:
    """A snapshot with buffers, one of them a scalar, as no checksum of HDF5 covers, and one of zeros."""
    write_run(folder / "run")
    snapshot = load_snapshot(folder / "run")
    shutil.rmtree(folder / "run")
    buffers = {
        "norm.num_batches_tracked": torch.tensor(7),
        "norm.running_mean": torch.linspace(-2, 2, 6),
        "norm.running_var": torch.zeros(6),
    }
    return Snapshot(**(vars(snapshot) | {"buffers": buffers}))


# ---- ledgers

COUNT = 60
SUBJECTS: list[dict[str, Any]] = [{"measurement": "row", "number": number} for number in range(COUNT)]
KEYS = [content_key(subject) for subject in SUBJECTS]
# Long enough that rows fill many pages.
ROWS: list[Row] = [
    {"status": OK, "nothing": "x" * 50, **{f"column{i}": number + i / 7 for i in range(60)}}
    for number in range(COUNT)
]
ARRAYS = [{"d_x": np.arange(100.0) + number} for number in range(COUNT)]


def write_rows(ledger: Ledger) -> None:
    for key, subject, row, arrays in zip(KEYS, SUBJECTS, ROWS, ARRAYS, strict=True):
        ledger.write(key, subject, row, 0.5, arrays)


def fill(path: Path) -> None:
    with Ledger(path) as ledger:
        write_rows(ledger)


def write_logged(path: Path) -> None:
    """A ledger whose writer was killed: its rows lie in the log beside it."""
    place = path.parent / "open" / path.name
    with Ledger(place) as ledger:
        write_rows(ledger)
        ledger.commit()
        for file in place.parent.iterdir():
            shutil.copy(file, path.parent / file.name)
    shutil.rmtree(place.parent)
