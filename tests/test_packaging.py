"""What users install: the wheel, its contents, and the command from another folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("landscape", "cli", "data", "pyproject.toml", "README.md", "LICENSE")


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("build")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "ledger.sqlite*"))
        else:
            shutil.copy(source, folder / name)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "-q", "-w", folder / "dist", folder)
    run(sys.executable, "-m", "pip", "wheel", *options, cwd=folder)
    return next((folder / "dist").iterdir())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The wheel unpacked where only its own files come from it, and the environment to run it in."""
    target = tmp_path_factory.mktemp("site")
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-index",
        "-q",
        "--target",
        target,
        wheel,
        cwd=target,
    )
    return target, os.environ | {"PYTHONPATH": str(target), "XDG_CACHE_HOME": str(target / "cache")}


def test_wheel_holds_three_packages_and_the_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"landscape", "landscape_cli", "landscape_data"}
    assert {"landscape/py.typed", "landscape_cli/py.typed", "landscape_data/mnist.h5"} <= set(names)
    assert sum(name.endswith("/run.json") for name in names) == 60 + 2  # of the study, and of the masking story
    assert not any("ledger" in name and "landscape_data" in name for name in names)


def test_every_package_is_listed(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, package in (("landscape", "landscape"), ("cli", "landscape_cli")):
        for path in (ROOT / folder).rglob("*.py"):
            assert f"{package}/{path.relative_to(ROOT / folder).as_posix()}" in names


@pytest.mark.thorough
def test_commands_work_from_another_folder(installed: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    target, env = installed
    where = run(sys.executable, "-c", "import landscape; print(landscape.__file__)", cwd=tmp_path, env=env)
    assert where.stdout.startswith(str(target))
    command = target / "bin" / "landscape"
    assert "correlate" in run(command, "--help", cwd=tmp_path, env=env).stdout
    run(command, "train", "--epochs", "1", "--batch-size", "512", "--output", "own", cwd=tmp_path, env=env)
    few = ("--theta-samples", "100", "--x-samples", "4", "--attack-samples", "100", "--level", "ln2")
    runs = ("own", "embedded:runs/sgd_lr0.05_b16_seed0")
    done = run(command, "correlate", *runs, *few, "--output", "out", "--json", cwd=tmp_path, env=env)
    assert json.loads(done.stdout)["results"]["correlations"]["num_rows"] == 2
    assert (tmp_path / "out" / "w_theta-w_x.pdf").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_install_into_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "empty", cwd=tmp_path)
    run(tmp_path / "empty" / "bin" / "pip", "install", "-q", wheel, cwd=tmp_path)
    done = run(tmp_path / "empty" / "bin" / "landscape", "snapshots", "list", "embedded:runs", cwd=tmp_path)
    assert len(done.stdout.splitlines()) == 61
