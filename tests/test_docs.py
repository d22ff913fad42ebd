"""What README and docs say can be typed as it stands."""

from __future__ import annotations

import pkgutil
import re
import shlex
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest

import landscape

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def commands(page: Path) -> list[str]:
    """The ``landscape`` commands in a page's console blocks, continuation lines joined."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ landscape")]


ALL = [(page.name, command) for page in PAGES for command in commands(page)]


@pytest.mark.parametrize(("page", "text"), ALL, ids=str)
def test_commands_parse(page: str, text: str) -> None:
    (script,) = entry_points(group="console_scripts", name="landscape")
    group, arguments = script.load(), shlex.split(text, comments=True)[1:]
    context = click.Context(group)
    while isinstance(group, click.Group):
        name, group, arguments = group.resolve_command(context, arguments)
        assert group is not None, name
    group.make_context(group.name, arguments, parent=context)


def test_readme_shows_every_command() -> None:
    (script,) = entry_points(group="console_scripts", name="landscape")
    names = script.load().list_commands(click.Context(script.load()))
    shown = {shlex.split(text)[1] for text in commands(ROOT / "README.md")}
    assert set(names) <= shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    for target in targets:
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_public_names_are_importable_and_documented() -> None:
    for name in landscape.__all__:
        assert hasattr(landscape, name)
        if not name.startswith("__"):
            assert getattr(landscape, name).__doc__, name


def test_public_names_are_not_hidden_by_modules() -> None:
    """A module of the same name would take a public name's place as soon as anything imports it."""
    modules = {module.name.rpartition(".")[2] for module in pkgutil.iter_modules(landscape.__path__)}
    assert not modules & set(landscape.__all__)


def test_unknown_public_name() -> None:
    with pytest.raises(AttributeError, match="no attribute"):
        _ = landscape.no_such_thing
