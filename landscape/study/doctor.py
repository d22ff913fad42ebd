"""What this installation can do here: versions, device, data, folders, and what a gradient costs."""

from __future__ import annotations

import importlib
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from landscape.engine import default_workers
from landscape.problem.datasets import cache_directory, load_dataset
from landscape.problem.device import resolve_device
from landscape.problem.models import build_model, initialise
from landscape.problem.parameter_objective import parameter_objective
from landscape.provenance import PACKAGES, package_version
from landscape.snapshots import find_runs

# Distributions that an extra brings, the module that must load, and what they are for.
EXTRAS = {
    "torchattacks": ("torchattacks", "attacks", "rungs of the attack ladder"),
    "safetensors": ("safetensors", "import", "safetensors files"),
    "pyarrow": ("pyarrow", "parquet", "tables as Parquet"),
    "distributed": ("distributed", "dask", "measuring on a Dask cluster"),
}
_SAMPLES, _PASSES = 1000, 5


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what was found, whether it will do, and what to do if not."""

    name: str
    found: str
    ok: bool = True
    advice: str = ""


def examine(device: str = "auto") -> Iterator[Check]:
    """Look at everything, one check after the other; a check that fails does not keep others from being made."""
    yield Check("python", f"{platform.python_version()} on {platform.platform()}")
    for name in PACKAGES:
        yield _package(name)
    for name in EXTRAS:
        yield _extra(name)
    for name, look, advice in (
        ("hdf5", _hdf5, "install h5py again"),
        ("device", lambda: _device(device), "name another one with --device"),
        ("threads", lambda: f"{default_workers()} of {os.cpu_count()} processors may be used", ""),
        ("float64", lambda: _float64(device), "measure on the CPU: --device cpu"),
        ("mnist", _mnist, "install landscape-torch again"),
        ("stored runs", lambda: f"{len(find_runs(['embedded:runs']))} runs ship", "install landscape-torch again"),
        ("cache", _cache, "name a folder that can be written by the environment variable LANDSCAPE_CACHE"),
        ("this folder", lambda: _writable(Path.cwd()), "runs and ledgers of this folder go to the cache"),
        ("gradient pass", lambda: _gradient(device), "see the errors above"),
    ):
        yield _guarded(name, look, advice)


def _guarded(name: str, look: Callable[[], str], advice: str) -> Check:
    try:
        return Check(name, look())
    except Exception as error:  # whatever a broken installation raises
        return Check(name, " ".join(f"{type(error).__name__}: {error}".split()), ok=False, advice=advice)


def _package(name: str) -> Check:
    version = package_version(name)
    missing = version == "not installed"
    return Check(name, version, not missing, f"pip install {name}" if missing else "")


def _extra(name: str) -> Check:
    module, extra, what = EXTRAS[name]
    try:
        importlib.import_module(module)
    except ImportError:
        return Check(name, "not installed", advice=f"for {what}: pip install 'landscape-torch[{extra}]'")
    return Check(name, package_version(name))


def _hdf5() -> str:
    import h5py  # noqa: PLC0415  (that it loads is what is checked)

    return str(h5py.version.hdf5_version)


def _device(name: str) -> str:
    device = resolve_device(name)
    return f"{device}, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)


def _float64(name: str) -> str:
    one = torch.ones(3, dtype=torch.float64, device=resolve_device(name))
    if float((one + 2.0**-50 - one).sum()) != 3 * 2.0**-50:
        raise ArithmeticError("sums are rounded more than float64 would be")
    return "works"


def _mnist() -> str:
    train, test = load_dataset("mnist", "train"), load_dataset("mnist", "test")
    return f"{len(train):,} and {len(test):,} images, sha256 {train.sha256[:12]}"


def _cache() -> str:
    folder = cache_directory()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return _writable(existing).replace(str(existing), str(folder))


def _writable(folder: Path) -> str:
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} cannot be written")
    return f"{folder} can be written"


def _gradient(name: str) -> str:
    device = resolve_device(name)
    model = build_model("cnn")
    initialise(model, torch.Generator().manual_seed(0))
    data = load_dataset("mnist", "train").subset(_SAMPLES, 0).to(device)
    phi = parameter_objective(model.to(device), data.images, data.labels)
    seconds = []
    for _ in range(1 + _PASSES):
        begin = time.perf_counter()
        phi.value_and_grad(phi.origin)[0].item()
        seconds.append(time.perf_counter() - begin)
    passed = statistics.median(seconds[1:])
    return f"{1000 * passed:.3g} ms for the cnn on {_SAMPLES:,} images, {torch.get_num_threads()} threads"
