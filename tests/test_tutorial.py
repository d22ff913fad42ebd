"""docs/your-own-network.md, executed as it stands; in the quick test with fewer images and a smaller network."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from click.testing import CliRunner

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "your-own-network.md").read_text(encoding="utf-8")
SMALL = {
    "from torchvision.models import resnet18": "from small_net import make as resnet18",
    '("train", 2000), ("test", 500)': '("train", 200), ("test", 60)',
    "--model resnet18": "--model small_net:make",
    "--dataset images.npz": "--dataset images.npz --model small_net:make",
    "--samples 256 --x-samples 16 --level 2 --level 3": "--samples 40 --x-samples 2 --level 3",
    "--samples 256": "--samples 40",
    "--eps 0.03 --samples 10": "--eps 0.03 --samples 8",
    "--level 2 --test-level 2 --theta-samples 128 --x-samples 8": "--level 3 --test-level 3 --theta-samples 30 "
    "--x-samples 2",
    "--attack-samples 200 --ladder-samples 50": "--attack-samples 30 --ladder-samples 4",
}
NETWORK = """
from torch import nn

def make(num_classes):
    return nn.Sequential(nn.Conv2d(3, 4, 5, stride=3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(3),
                         nn.Flatten(), nn.Linear(36, num_classes))
"""


def follow(page: str, folder: Path, typed: Callable[[list[str], Path], str]) -> list[str]:
    """Type what the page says, in its order; what each command printed."""
    blocks = re.findall(r"```(python|console)\n(.*?)```", page, re.DOTALL)
    sources = [text for kind, text in blocks if kind == "python"]
    (folder / "train.py").write_text(sources[0], encoding="utf-8")
    said = []
    for _, text in (block for block in blocks if block[0] == "console"):
        for line in text.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                said.append(typed(shlex.split(line.removeprefix("$ ")), folder))
    (folder / "measured.py").write_text(sources[1], encoding="utf-8")
    return said


def in_processes(words: list[str], folder: Path) -> str:
    scripts = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "2"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr}"
    return done.stdout


def in_this_process(words: list[str], folder: Path) -> str:
    """Without the seconds in which each process loads torch."""
    if words[0] == "python":
        runpy.run_path(str(folder / words[1]))
        return ""
    (script,) = entry_points(group="console_scripts", name="landscape")
    done = CliRunner().invoke(script.load(), words[1:])
    assert done.exit_code == 0, f"{shlex.join(words)}\n{done.output}"
    return done.stdout


@pytest.mark.thorough
def test_the_tutorial_with_a_small_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    page = PAGE
    for old, new in SMALL.items():
        assert old in page, old
        page = page.replace(old, new)
    (tmp_path / "small_net.py").write_text(NETWORK, encoding="utf-8")
    said = follow(page, tmp_path, in_this_process)
    assert "format: torch checkpoint" in said[1] and said[2] == "runs/resnet\n"
    assert said[4].count("yes") == 2 and "inputs X, 2-norm, over 2 images" in said[5]
    assert "worst case" in said[6] and (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_the_tutorial_as_it_stands(tmp_path: Path) -> None:
    said = follow(PAGE, tmp_path, in_processes)
    assert said[4].count("yes") == 2 and "inputs X, 2-norm, over 16 images" in said[5]
    in_processes([sys.executable, "measured.py"], tmp_path)
