"""Write docs/reference.md: every public name with its signature, its docstring and an example.

    python docs/reference.py

Docstrings are taken apart by griffe; examples are the files of docs/examples, which the tests run.
"""

from __future__ import annotations

import ast
import inspect
import logging
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import griffe

import landscape

FOLDER = Path(__file__).resolve().parent
PAGE, EXAMPLES = FOLDER / "reference.md", FOLDER / "examples"
WIDTH = 100

GROUPS = {
    "Snapshots": ("load_snapshot", "Snapshot", "import_run", "ImportOptions", "export_snapshot"),
    "Networks and data": ("load_problem", "Problem", "open_dataset", "Given", "TrainingConfig", "train"),
    "Objectives": ("parameter_objective", "input_objective", "objective", "Objective"),
    "Distances and widths": (
        *("level_set_distance", "LevelSetDistance", "width", "worst_case_sharpness", "WorstCaseSharpness"),
    ),
    "Curvature": (
        *("top_eigenpairs", "Eigenpairs", "curvature_operator", "SymmetricOperator", "trace", "block_traces"),
        *("diagonal", "frobenius_norm", "spectral_density", "SpectralDensity"),
    ),
    "Robustness": ("fgsm", "robust_accuracy", "run_ladder", "Ladder", "masking_audit", "MaskingAudit"),
    "Studies": (
        *("measure", "MeasureConfig", "read_rows_csv", "correlate", "CorrelateConfig", "Correlations"),
        *("html_report", "report_tables"),
    ),
    "Errors": ("LandscapeError",),
}
# Results whose example is that of the function that returns them.
SHOWN_BY = {"Ladder": "run_ladder", "MaskingAudit": "masking_audit"}

HEAD = """# Reference

Made from the docstrings by `make reference`. The examples are files of [examples](examples), and the tests run
them; what follows `# ->` is printed. Shapes: B rows (points), n numbers each, C levels, N samples.
`embedded:` runs are stored in the package; those that read `figures/` are run from the checkout's root.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page."""
    contents = [f"- {title}: {', '.join(map(link, names))}" for title, names in GROUPS.items()]
    parts = [HEAD, "\n".join(contents) + "\n"]
    for title, names in GROUPS.items():
        parts += [f"## {title}\n", *map(section, names)]
    return "\n".join(parts)


def link(name: str) -> str:
    """A link to the section of a name; headings that differ in case only are numbered by their readers."""
    names = [n for group in GROUPS.values() for n in group]
    before = sum(n.lower() == name.lower() for n in names[: names.index(name)])
    return f"[`{name}`](#{name.lower()}{f'-{before}' if before else ''})"


def section(name: str) -> str:
    """A public name: how it is called or what it holds, what its docstring says, and its example."""
    value = getattr(landscape, name)
    shown = fields(value) if inspect.isclass(value) else call(name, value)
    home = f"<sub>`{value.__module__}`</sub>\n"
    return "\n".join([f"### {name}\n", code(shown), *described(value), *members(value), example(name), home])


def call(name: str, value: Any) -> str:
    """The call with all parameters, one a line where it is long."""
    signature = inspect.signature(value)
    parameters = [plain(str(p)) for p in signature.parameters.values()]
    keyword = next((i for i, p in enumerate(signature.parameters.values()) if p.kind is p.KEYWORD_ONLY), None)
    variadic = any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values())
    if keyword is not None and not variadic:
        parameters.insert(keyword, "*")
    end = f") -> {plain(signature.return_annotation)}"
    line = f"{name}({', '.join(parameters)}{end}"
    return line if len(line) <= WIDTH else "\n".join([f"{name}(", *(f"    {p}," for p in parameters), end])


def plain(text: str) -> str:
    """Annotations without quotation marks, and defaults without what differs from process to process."""
    before, sign, default = text.partition(" = ")
    default = "..." if default.startswith("<") else default
    return before.replace("'", "") + sign + default


def fields(value: type) -> str:
    """The fields of a dataclass as they stand in its source, with their comments."""
    lines = textwrap.dedent(inspect.getsource(value)).splitlines()
    (definition,) = ast.parse("\n".join(lines)).body
    found = [node for node in ast.walk(definition) if isinstance(node, ast.AnnAssign)]
    shown = [lines[i] for node in found for i in range(node.lineno - 1, node.end_lineno or node.lineno)]
    bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
    return "\n".join([f"class {value.__name__}{f'({bases})' if bases else ''}:", *shown])


def described(value: Any) -> Iterator[str]:
    """The docstring: its text, its arguments and its errors."""
    logging.disable(logging.WARNING)  # griffe misses annotations, which are in the signature
    for part in griffe.Docstring(inspect.getdoc(value) or "").parse("google"):
        if part.kind is griffe.DocstringSectionKind.text:
            yield f"{markdown(part.value)}\n"
        else:
            yield f"{str(part.kind.value).capitalize()}:\n"
            yield bullets((label(item), item.description) for item in part.value)


def label(item: Any) -> str:
    """The name of an argument, or of an error."""
    return str(getattr(item, "name", None) or item.annotation)


def markdown(text: str) -> str:
    """Double backquotes, as docstrings have them, made single."""
    return text.replace("``", "`")


def members(value: Any) -> Iterator[str]:
    """Public properties and methods of a class, with the first line of each docstring."""
    if inspect.isclass(value):
        public = [n for n, m in vars(value).items() if n[0] != "_" and (callable(m) or isinstance(m, property))]
        documented = [(f".{n}", inspect.getdoc(getattr(value, n))) for n in public]
        if lines := [(n, text.splitlines()[0]) for n, text in documented if text]:
            yield bullets(lines)


def bullets(items: Iterable[tuple[str, str]]) -> str:
    """Names with what is said of each."""
    return "".join(f"- `{name}`: {' '.join(markdown(text).split())}\n" for name, text in items)


def example(name: str) -> str:
    """The example of a name, or where it is."""
    if name in SHOWN_BY:
        return f"Example: see {link(SHOWN_BY[name])}.\n"
    return f"Example:\n\n{code((EXAMPLES / f'{name}.py').read_text(encoding='utf-8').strip())}"


def code(text: str) -> str:
    """A block of Python."""
    return f"```python\n{text}\n```\n"


if __name__ == "__main__":
    main()
