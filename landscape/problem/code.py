"""Functions that the caller names as ``package.module:function``; never called for a name that a file holds."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import Any


def call(name: str, *arguments: Any, **settings: Any) -> Any:
    """What the named function returns; its module may lie in the current folder, as for ``python -m``.

    Raises whatever the module or the function raises; ModuleNotFoundError says where it was looked for, and
    RuntimeError that the code would have ended the program, as a training script does.
    """
    module, _, attribute = name.partition(":")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        found: Any = _module(module, here)
        for part in attribute.split("."):
            found = getattr(found, part)
        return found(*arguments, **settings)
    except SystemExit as error:
        raise RuntimeError(
            f"{module} ends the program (exit code {error.code}); put what is needed into a module that only "
            "defines it, or its script under if __name__ == '__main__'"
        ) from error
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(here)


def _module(name: str, here: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise  # one that the module itself needs
        hint = f"; a file {name} is named without its ending" if name.endswith(".py") else ""
        raise ModuleNotFoundError(
            f"no module {name!r} in {here} or among what is installed{hint}", name=name
        ) from error
