"""What produced a result: versions, source revision, machine."""

from __future__ import annotations

import functools
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = ("landscape-torch", "torch", "torchvision", "numpy", "scipy", "h5py", "matplotlib", "click")


def package_version(name: str) -> str:
    """Installed version of a distribution, or ``"not installed"``."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


@functools.cache
def source_revision() -> str | None:
    """Git commit of the source tree, with ``-dirty`` if it differs; None when not in a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()


def provenance() -> dict[str, object]:
    """Versions, revision, platform and command line as plain values for JSON."""
    return {
        "versions": {name: package_version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "revision": source_revision(),
        "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
