"""One snapshot as a file of another program, each weight with the same bits."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from landscape.errors import ConfigurationError
from landscape.interchange.digests import KEY, content_digest
from landscape.interchange.hdf5_files import as_read
from landscape.interchange.matrices import COLUMNS, MATRIX
from landscape.interchange.safetensors_files import library
from landscape.snapshots import Snapshot
from landscape.snapshots.commit import beside, check_free, write_synced
from landscape.snapshots.image import LIBVER


def export_snapshot(snapshot: Snapshot, path: str | Path) -> Path:
    """Write parameters and buffers to a file whose suffix tells the format; npy holds the flat parameters alone.

    Raises:
        ConfigurationError: For another suffix, buffers that the format cannot hold, or without its package.
        RunConflictError: If the file exists.
        SnapshotError: If it cannot be written.
    """
    target = Path(path)
    _check_kinds(snapshot, target)
    if target.suffix not in _WRITERS:
        raise ConfigurationError(f"{target} must end in one of {', '.join(_WRITERS)}, which tells the format.")
    check_free(target)
    payload = _WRITERS[target.suffix](snapshot)
    with beside(target) as temporary:
        write_synced(temporary, payload)
    return target


def _check_kinds(snapshot: Snapshot, target: Path) -> None:
    """Refuse a format that cannot hold all buffers; ConfigurationError."""
    unknown = (torch.bfloat16, torch.bool) if target.suffix in (".h5", ".npz") else ()
    lost = [
        name for name, buffer in snapshot.buffers.items() if target.suffix == ".npy" or buffer.dtype in unknown
    ]
    if lost:
        raise ConfigurationError(
            f"{target}: the format cannot hold the buffers {', '.join(lost[:8])}; export to .safetensors or .pt."
        )


def _tensors(snapshot: Snapshot) -> dict[str, Tensor]:
    return {**snapshot.parameters, **snapshot.buffers}


def _torch(snapshot: Snapshot) -> bytes:
    """A bare state dict: ``model.load_state_dict(torch.load(FILE))``."""
    buffer = io.BytesIO()
    torch.save(_tensors(snapshot), buffer)
    return buffer.getvalue()


def _safetensors(snapshot: Snapshot) -> bytes:
    package = library()
    position = snapshot.position
    facts = {
        "format": "pt",
        "model": snapshot.model,
        "run_id": snapshot.run_id,
        "theta_sha256": snapshot.theta_sha256,
        "index": str(position.index),
        "step": str(position.step),
        "epoch": str(position.epoch),
    }
    tensors = _tensors(snapshot)
    return bytes(package.torch.save(tensors, facts | {KEY: content_digest(tensors, facts)}))


def _npy(snapshot: Snapshot) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.concatenate([tensor.numpy().reshape(-1) for tensor in snapshot.parameters.values()]))
    return buffer.getvalue()


def _npz(snapshot: Snapshot) -> bytes:
    """An array a tensor; ConfigurationError where these would be read as rows of weights."""
    tensors = _tensors(snapshot)
    if len(tensors) == 1 or {MATRIX, *COLUMNS} & tensors.keys():
        raise ConfigurationError(
            f"an archive of the tensors {', '.join(tensors)} would be read as one of flat vectors; export to .pt."
        )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # not by keywords, as numpy.savez takes them: names are any text
        for name, tensor in tensors.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, tensor.numpy(), allow_pickle=False)
    return buffer.getvalue()


def _hdf5(snapshot: Snapshot) -> bytes:
    """A dataset a tensor; beside the checksums of HDF5, which zeros pass and scalars lack, a digest of all."""
    tensors, buffer = _tensors(snapshot), io.BytesIO()
    position = {"step": snapshot.position.step, "epoch": snapshot.position.epoch}
    digest = content_digest(as_read(tensors), {name: str(number) for name, number in position.items()})
    with h5py.File(buffer, "w", libver=LIBVER) as file:
        file.attrs.create(KEY, np.bytes_(digest.encode()))
        for name, number in position.items():
            file.attrs.create(name, number, dtype="<i8")
        for name, tensor in tensors.items():
            values = tensor.numpy()
            checked = {"chunks": values.shape, "fletcher32": True} if values.size and values.ndim else {}
            file.create_dataset(name, data=values, **checked)
    return buffer.getvalue()


_WRITERS: dict[str, Callable[[Snapshot], bytes]] = {
    ".safetensors": _safetensors,
    ".pt": _torch,
    ".npy": _npy,
    ".h5": _hdf5,
    ".npz": _npz,
}
EXPORT_SUFFIXES = tuple(_WRITERS)
