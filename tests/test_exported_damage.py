"""Files that were exported and damaged since: refused, or read as they were written."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
from sound_files import TRUE, bits, equal, image_of, read, snapshot_to_export

from landscape.errors import CorruptSnapshotError, SnapshotError
from landscape.interchange import export_snapshot
from landscape.interchange.digests import KEY, content_digest
from landscape.interchange.inspecting import describe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot in each format that holds buffers."""
    place = tmp_path_factory.mktemp("exported")
    snapshot = snapshot_to_export(place)
    for suffix in ("pt", "safetensors", "h5", "npz"):
        export_snapshot(snapshot, place / f"x.{suffix}")
    return place


def damaged(image: bytes) -> Iterator[bytes]:
    """Each with one bit turned, of a sample; then each with 16 bytes of zeros, all over the file."""
    places = np.random.default_rng(3).permutation(8 * len(image))[:600]
    for place in map(int, places):
        changed = bytearray(image)
        changed[place // 8] ^= 1 << place % 8
        yield bytes(changed)
    for place in range(0, len(image), max(16, len(image) // 300)):
        yield image[:place] + bytes(len(image[place : place + 16])) + image[place + 16 :]


@pytest.mark.parametrize("suffix", ["pt", "safetensors", "h5", "npz"])
def test_no_damage_is_silent(folder: Path, tmp_path: Path, suffix: str) -> None:
    image, file = (folder / f"x.{suffix}").read_bytes(), tmp_path / f"x.{suffix}"
    (true,) = read(folder / file.name)
    refused = 0
    for changed in damaged(image):
        file.write_bytes(changed)
        try:
            (found,) = read(file)
        except SnapshotError as error:
            assert str(file) in str(error)
            refused += 1
            continue
        assert bits(found.tensors) == bits(true.tensors) and found.position == true.position
    assert refused > 100


def test_every_bit_of_a_weight_counts(folder: Path, tmp_path: Path) -> None:
    """safetensors has no checksum: its own reader takes each for another number."""
    image, file = (folder / "x.safetensors").read_bytes(), tmp_path / "x.safetensors"
    for place in range(len(image) - 40, len(image)):
        changed = bytearray(image)
        changed[place] ^= 16
        file.write_bytes(changed)
        safetensors.torch.load_file(file)
        for look in (read, describe):
            with pytest.raises(CorruptSnapshotError, match=r"damaged or changed.*Restore it.*without landscape_"):
                look(file)


def test_a_changed_position_is_seen(folder: Path, tmp_path: Path) -> None:
    image = (folder / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(image.replace(b'"epoch":"2"', b'"epoch":"3"'))
    (tmp_path / "x.h5").write_bytes((folder / "x.h5").read_bytes())
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file.attrs.modify("epoch", 3)
    for name in ("x.safetensors", "x.h5"):
        with pytest.raises(CorruptSnapshotError, match="damaged or changed"):
            read(tmp_path / name)


@pytest.mark.parametrize("name", ["norm.num_batches_tracked", "norm.running_mean"])
def test_hdf5_alone_would_not_tell(folder: Path, tmp_path: Path, name: str) -> None:
    """A scalar has no checksum there, and the checksum of zeros is zero."""
    file = tmp_path / "x.h5"
    file.write_bytes((folder / "x.h5").read_bytes())
    with h5py.File(file) as opened:
        dataset = opened[name]
        chunk = dataset.id.get_chunk_info(0) if dataset.chunks else None
        place, size = (chunk.byte_offset, chunk.size) if chunk else (dataset.id.get_offset(), dataset.nbytes)
    image = bytearray(file.read_bytes())
    image[place : place + size] = bytes(size)
    file.write_bytes(image)
    with h5py.File(file) as opened:
        assert not np.any(opened[name][()])
    with pytest.raises(CorruptSnapshotError, match="damaged or changed"):
        read(file)


def test_foreign_files_need_no_digest(tmp_path: Path) -> None:
    for kind in ("safetensors", "h5", "bare"):
        (tmp_path / f"x.{kind}").write_bytes(image_of(kind))
        assert equal(read(tmp_path / f"x.{kind}"))


@pytest.mark.parametrize("value", ["", "ab" * 32, 5, np.zeros(3)])
def test_a_digest_that_is_none(tmp_path: Path, value: object) -> None:
    (tmp_path / "x.h5").write_bytes(image_of("h5"))
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file.attrs[KEY] = np.bytes_(value) if isinstance(value, str) else value
    with pytest.raises(CorruptSnapshotError, match=r"x\.h5"):
        read(tmp_path / "x.h5")
    safetensors.torch.save_file(TRUE, tmp_path / "x.safetensors", {KEY: str(value)})
    with pytest.raises(CorruptSnapshotError, match=r"x\.safetensors"):
        read(tmp_path / "x.safetensors")


def test_the_digest_is_of_names_types_shapes_bytes_and_facts() -> None:
    """The order of names, which formats do not keep, is not in it; nor are strides."""
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(1, dtype=torch.bfloat16)}
    same = {"b": tensors["b"], "a": tensors["a"].T.contiguous().T}
    assert content_digest(tensors, {"x": "1", "y": "2"}) == content_digest(same, {"y": "2", "x": "1"})
    others = [
        {"a": tensors["a"]},
        {**tensors, "a": tensors["a"].reshape(3, 2)},
        {**tensors, "a": tensors["a"].view(torch.int32)},
        {**tensors, "a": -tensors["a"]},
        {"b": tensors["a"], "a": tensors["b"]},
    ]
    digests = [content_digest(named, {}) for named in (tensors, *others)] + [content_digest(tensors, {"x": "1"})]
    assert len(set(digests)) == len(digests)


def test_the_digest_stays_what_it_is(folder: Path) -> None:
    """Files that were exported by earlier versions must be read for ever."""
    tensors = {"a": torch.arange(3.0), "b": torch.tensor(True), "c": torch.empty(0, dtype=torch.int64)}
    assert (
        content_digest(tensors, {"epoch": "2"})
        == "fb3d24378b87176079cf4c6e38d1dca74afeddf1374017f4057dc48e6ad2f68d"
    )
    image = (folder / "x.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", image[:8])
    assert len(json.loads(image[8 : 8 + length])["__metadata__"][KEY]) == 64
