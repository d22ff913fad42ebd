"""Buffers, such as running means, are stored beside the weights, to the last bit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from test_snapshots_values import describe, segment_of
from torch import Tensor

from landscape.errors import ConfigurationError, CorruptSnapshotError
from landscape.snapshots import RunDescription, RunWriter, Segment, load_snapshot, pack_run, thin_run, verify_run
from landscape.snapshots.buffers import (
    BUFFER_TYPES,
    BufferSlot,
    buffer_layout_of,
    num_bytes,
    pack_buffers,
    unpack_buffers,
)


def tensors(seed: int = 0) -> dict[str, Tensor]:
    """One buffer of each type, one without shape, one that is empty."""
    generator = torch.Generator().manual_seed(seed)
    named = {name: torch.randn(2, 3, generator=generator).to(dtype) for name, dtype in BUFFER_TYPES.items()}
    return named | {"count": torch.tensor(seed), "none": torch.empty(0), "bad": torch.tensor([torch.nan, -0.0])}


def equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return list(found) == list(expected) and all(
        (a.dtype, a.shape) == (b.dtype, b.shape) and pack(a) == pack(b)
        for a, b in zip(found.values(), expected.values(), strict=True)
    )


def pack(tensor: Tensor) -> bytes:
    return pack_buffers(buffer_layout_of([("x", tensor)]), {"x": tensor}).tobytes()


@pytest.fixture
def described() -> RunDescription:
    return dataclasses.replace(describe(4), buffers=buffer_layout_of(tensors().items()))


@pytest.fixture
def run(described: RunDescription, tmp_path: Path) -> Path:
    rows = np.stack([pack_buffers(described.buffers, tensors(seed)) for seed in range(3)])
    with RunWriter(tmp_path / "run", described, {}) as writer:
        writer.append(segment_of(np.ones((3, 4), np.float32), buffers=rows))
        writer.finish("completed")
        assert writer.last_segment is not None and np.array_equal(writer.last_segment.buffers, rows)  # type: ignore[arg-type]
    return tmp_path / "run"


def test_every_bit_survives_in_every_kind_of_file(run: Path, tmp_path: Path) -> None:
    pack_run(run, tmp_path / "packed.h5")
    thin_run(run, tmp_path / "thin", ["index=1", "last"])
    for path, seeds in ((run, (0, 1, 2)), (tmp_path / "packed.h5", (0, 1, 2)), (tmp_path / "thin", (1, 2))):
        assert verify_run(path).ok
        for index, seed in enumerate(seeds):
            assert equal(load_snapshot(path, f"index={index}").buffers, tensors(seed))


def test_equal_weights_with_other_buffers_are_other_snapshots(run: Path) -> None:
    assert len({load_snapshot(run, f"index={i}").theta_sha256 for i in range(3)}) == 3


def test_a_changed_buffer_is_seen(run: Path, tmp_path: Path) -> None:
    file = pack_run(run, tmp_path / "packed.h5")
    with h5py.File(file, "r+") as opened:
        row = opened["buffers"][1]
        row[5] ^= 1
        opened["buffers"][1] = row
    load_snapshot(file, "index=0")
    with pytest.raises(CorruptSnapshotError, match="sha256"):
        load_snapshot(file, "index=1")
    assert not verify_run(file).ok


def test_only_runs_with_buffers_need_a_newer_reader(run: Path, tmp_path: Path, described: RunDescription) -> None:
    with RunWriter(tmp_path / "plain", describe(4), {}) as writer:
        plain = writer.append(segment_of(np.ones((1, 4), np.float32)))
    with h5py.File(plain) as without, h5py.File(next((run / "segments").iterdir())) as using:
        assert (without.attrs["schema"], using.attrs["schema"]) == (1, 2)
        assert "buffers" not in without
    assert "buffers" not in describe(4).to_dict()
    assert RunDescription.from_json(described.to_json()) == described


@pytest.mark.parametrize(
    "buffers", [None, np.zeros((2, 3), np.uint8), np.zeros((1, 3), np.float32)], ids=["none", "rows", "type"]
)
def test_segments_that_do_not_fit(buffers: np.ndarray | None, tmp_path: Path) -> None:
    layout = (BufferSlot("b", "uint8", (3,), 0, 3),)
    with (
        RunWriter(tmp_path / "run", dataclasses.replace(describe(4), buffers=layout), {}) as writer,
        pytest.raises(ConfigurationError, match="buffers"),
    ):
        writer.append(segment_of(np.ones((1, 4), np.float32), buffers=buffers))


def test_segments_of_runs_without_buffers_have_none(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", describe(4), {}) as writer:
        segment: Segment = segment_of(np.ones((1, 4), np.float32), buffers=np.zeros((1, 3), np.uint8))
        with pytest.raises(ConfigurationError, match="buffers"):
            writer.append(segment)


@pytest.mark.parametrize(
    "other",
    [{}, {"b": torch.zeros(2)}, {"b": torch.zeros(3).double()}, {"b": torch.zeros(3), "c": torch.zeros(1)}],
    ids=["missing", "shape", "type", "surplus"],
)
def test_buffers_that_do_not_fit(other: dict[str, Tensor]) -> None:
    with pytest.raises(ConfigurationError, match="buffer"):
        pack_buffers(buffer_layout_of([("b", torch.zeros(3))]), other)


@pytest.mark.parametrize(
    "slot",
    [
        BufferSlot("b", "complex64", (1,), 0, 8),
        BufferSlot("b", "float32", (1,), 4, 4),
        BufferSlot("b", "float32", (2,), 0, 4),
        BufferSlot("", "float32", (1,), 0, 4),
    ],
)
def test_layouts_without_sense(slot: BufferSlot) -> None:
    with pytest.raises(ConfigurationError):
        dataclasses.replace(describe(4), buffers=(slot,))
    entry = {**dataclasses.asdict(slot), "shape": list(slot.shape)}
    text = json.dumps(describe(4).to_dict() | {"buffers": [entry]})
    with pytest.raises(CorruptSnapshotError):
        RunDescription.from_json(text)


def test_rows_of_another_length() -> None:
    layout = buffer_layout_of([("b", torch.zeros(3))])
    assert num_bytes(layout) == 12
    with pytest.raises(ConfigurationError, match="12 bytes"):
        unpack_buffers(layout, np.zeros(11, np.uint8))
