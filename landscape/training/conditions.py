"""The conditions under which a run ends in the same bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from landscape.provenance import provenance


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Run with a number of torch threads, and put the caller's number back."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_provenance() -> dict[str, Any]:
    """Provenance with what the bits of a run depend on."""
    return provenance() | {"threads": torch.get_num_threads(), "cpu": torch.backends.cpu.get_cpu_capability()}


def changed_conditions(stored: dict[str, Any] | None) -> list[str]:
    """How the conditions differ from those under which a run was begun; the same bytes need an empty list."""
    now, then = _facts(run_provenance()), _facts(stored or run_provenance())
    return [f"{name} was {then[name]}, is {now[name]}" for name in now if then[name] != now[name]]


def _facts(provenance: dict[str, Any]) -> dict[str, object]:
    facts = {name: provenance.get(name) for name in ("threads", "cpu")}
    versions = provenance.get("versions")
    return facts | {"torch": versions.get("torch") if isinstance(versions, dict) else None}
