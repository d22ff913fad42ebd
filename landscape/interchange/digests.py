"""The digest in exported files whose format has no checksum of all that they hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor

from landscape.errors import CorruptSnapshotError

# The name of the digest among the texts beside the tensors.
KEY = "landscape_sha256"
# Types of all widths whose bytes numpy can put in order; it has none for bfloat16.
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def content_digest(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> str:
    """Hex sha256 over names, types, shapes and little-endian bytes of tensors in any order, and their facts."""
    digest = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode() + b"\n")
        words = tensor.contiguous().reshape(-1).view(_WORDS[tensor.itemsize]).numpy()
        digest.update(words.astype(words.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def check_digest(path: object, claimed: str, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Raise CorruptSnapshotError unless a file holds what its digest was made of."""
    found = content_digest(tensors, facts)
    if claimed != found:
        raise CorruptSnapshotError(
            f"{path} holds contents of the sha256 {found[:16]}, not {claimed[:16]!r} as its {KEY} says: it was "
            f"damaged or changed after landscape wrote it. Restore it from a copy, or export the snapshot again; "
            f"whoever changed it on purpose saves it without {KEY}."
        )
