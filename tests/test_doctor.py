"""What the doctor finds, in a sound installation and in broken ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from landscape.errors import DatasetError
from landscape.study import doctor
from landscape.study.doctor import EXTRAS, Check, examine


def invoke(*arguments: str) -> Any:
    (script,) = entry_points(group="console_scripts", name="landscape")
    return CliRunner().invoke(script.load(), ["doctor", *arguments])


def found(device: str = "cpu") -> dict[str, Check]:
    return {check.name: check for check in examine(device)}


def test_a_sound_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANDSCAPE_CACHE", str(tmp_path / "not" / "there"))
    done = invoke("--device", "cpu", "--json")
    assert done.exit_code == 0, done.output
    checks = {check["name"]: check for check in json.loads(done.stdout)["results"]}
    assert all(check["ok"] for check in checks.values())
    assert checks["mnist"]["found"].startswith("60,000 and 10,000 images")
    assert checks["gradient pass"]["found"].split()[1] == "ms"
    assert checks["cache"]["found"] == f"{tmp_path / 'not' / 'there'} can be written"
    assert not (tmp_path / "not").exists()  # it looks, and changes nothing


def _no_data(name: str, split: str) -> None:
    raise DatasetError("the file is damaged")


@pytest.mark.parametrize(
    ("broken", "name", "advice"),
    [
        (lambda patch: patch.setattr(doctor, "load_dataset", _no_data), "mnist", "install landscape-torch again"),
        (lambda patch: patch.setattr("os.access", lambda *_: False), "cache", "LANDSCAPE_CACHE"),
        (
            lambda patch: patch.setattr(doctor, "package_version", lambda _: "not installed"),
            "torch",
            "pip install",
        ),
        (lambda patch: patch.setitem(sys.modules, "h5py", None), "hdf5", "h5py"),
    ],
)
def test_what_is_broken_is_said_and_the_rest_is_still_looked_at(
    broken: Callable[[Any], None], name: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    checks = found()
    assert not checks[name].ok and advice in checks[name].advice
    assert checks["float64"].ok and "gradient pass" in checks


def test_an_unknown_device_is_an_error_of_the_command() -> None:
    done = invoke("--device", "quantum")
    assert done.exit_code == 1 and "unknown device" in done.stdout and "--device" in done.stderr


def test_missing_extras_are_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, *_ in EXTRAS.values():
        monkeypatch.setitem(sys.modules, module, None)
    for name in EXTRAS:
        check = doctor._extra(name)
        assert check.ok and check.found == "not installed" and "landscape-torch[" in check.advice
