"""The reference is that of the present code, and its examples print what they say."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
from pathlib import Path
from types import ModuleType

import pytest

import landscape

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_shown(reference: ModuleType) -> None:
    shown = [name for names in reference.GROUPS.values() for name in names]
    assert len(shown) == len(set(shown))
    assert set(shown) == set(landscape.__all__) - {"__version__"}
    assert {path.stem for path in EXAMPLES} == set(shown) - set(reference.SHOWN_BY)


def test_the_page_is_up_to_date(reference: ModuleType) -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run `make reference`"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_print_what_they_say(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in a namespace of its own, from the checkout's root."""
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 15
    monkeypatch.chdir(ROOT)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(source, str(path), "exec"), {"__name__": "__main__"})
    assert printed.getvalue().splitlines() == re.findall(r"^# -> (.*)$", source, re.MULTILINE)
