"""The paper's tables as Markdown, LaTeX and CSV, with its own numbers beside ours where they are legible."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from landscape.study.paper import (
    QUANTITIES,
    Printed,
    Reference,
    Statistic,
    Table,
    TableCell,
    emphasis,
)

_TITLES = {
    "published": "FGSM as published (float32 cross-entropy)",
    "exact": "FGSM with exact gradients (log-odds)",
}
_NAMES = {"adam": "Adam", "sgd": "SGD"}
_MARKDOWN = {"bold": "**{}**", "underlined": "<u>{}</u>", "": "{}"}
_LATEX = {"bold": r"\textbf{{{}}}", "underlined": r"\underline{{{}}}", "": "{}"}
_MISSING = "–"
_EXPLANATION = (
    "For each batch size B and learning rate, mean ± standard deviation over seeds: the epoch with the best "
    "accuracy under FGSM (ε = {epsilon:g}) among those with a clean accuracy within {tolerance:g} points of the "
    "run's best, the clean accuracy (acc) there, and the accuracy under FGSM (adv_acc) there, in percent. Epochs "
    "are counted from 1, in the paper from 0. Set as in the paper, whose rule was inferred from its numbers: "
    "**bold** for acc ≥ 98 and adv_acc ≥ 85, <u>underlined</u> for adv_acc ≥ 80, and for acc < 98 where adv_acc "
    "is set in either way. Rows *paper*: what its text gives legibly; † marks rows that bear another label there."
)


def title(table: Table) -> str:
    """What stands above a table."""
    return f"Table {table.number}: {_NAMES[table.optimizer]}, {_TITLES[table.reading]}"


def to_markdown(tables: Sequence[Table], reference: Reference, epsilon: float, protocol: str) -> str:
    """All tables as one document.

    Args:
        tables: In the order in which they shall stand.
        reference: What the paper prints; shown below our numbers as published.
        epsilon: Radius of FGSM.
        protocol: What is trained, in words.
    """
    parts = [
        "# The paper's tables, from runs that were trained",
        protocol + " " + _EXPLANATION.format(epsilon=epsilon, tolerance=100 * tables[0].tolerance),
        *(_markdown_table(table, reference) for table in tables),
        _footnotes(tables),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown_table(table: Table, reference: Reference) -> str:
    rates = table.learning_rates
    lines = [f"## {title(table)}", "", _line(["B", "", *(f"{rate:g}" for rate in rates)])]
    lines.append(_line(["---:", "---", *["---:"] * len(rates)]))
    for batch in table.batch_sizes:
        for number, quantity in enumerate(QUANTITIES):
            cells = [_markdown_cell(table.find(batch, rate), quantity) for rate in rates]
            lines.append(_line([str(batch) if not number else "", quantity, *cells]))
        for quantity in QUANTITIES if table.reading == "published" else ():
            printed = [reference.get((table.optimizer, batch, rate, quantity)) for rate in rates]
            if any(printed):
                cells = [_markdown_printed(value, quantity) for value in printed]
                lines.append(_line(["", f"*paper: {quantity}*", *cells]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: TableCell | None, quantity: str) -> str:
    if cell is None:
        return ""
    mean, std = _texts(getattr(cell, quantity), quantity)
    marked = _MARKDOWN[_emphasis(cell, quantity)].format(mean)
    lost = (
        f" ({cell.num_diverged} of {cell.num_runs} diverged)" if quantity == "epoch" and cell.num_diverged else ""
    )
    return f"{marked} ± {std}{lost}" if mean != _MISSING else f"{mean}{lost}"


def _markdown_printed(printed: Printed | None, quantity: str) -> str:
    if printed is None:
        return _MISSING
    mean, std = _texts(Statistic(printed.mean, printed.std), quantity)
    return f"{_MARKDOWN[printed.emphasis].format(mean)} ± {std}{' †' if printed.relabelled else ''}"


def _emphasis(cell: TableCell, quantity: str) -> str:
    return emphasis(cell.acc.mean, cell.adv_acc.mean, quantity)


def _texts(value: Statistic, quantity: str) -> tuple[str, str]:
    """Mean and standard deviation: whole epochs, percents with two digits, a dash for what is not a number."""
    scale, form = (1, "{:.0f}") if quantity == "epoch" else (100, "{:.2f}")
    mean, std = (_MISSING if math.isnan(v) else form.format(scale * v) for v in (value.mean, value.std))
    return mean, std


def _footnotes(tables: Sequence[Table]) -> str:
    # Both readings of a table are over the same runs.
    numbers = {table.number: sum(cell.num_unmeasured for cell in table.cells) for table in tables}
    lost = sum(numbers.values())
    if not lost:
        return ""
    runs, have = ("run", "has") if lost == 1 else ("runs", "have")
    return (
        f"{lost} {runs} diverged before the end of the first epoch, {have} no accuracy, and no part in the means."
    )


def to_latex(table: Table) -> str:
    """One table, as the paper sets it: AVG and STD in columns of their own; needs the package multirow."""
    rates = table.learning_rates
    ends = " \\\\"
    head = " & ".join(rf"\multicolumn{{2}}{{c}}{{{rate:g}}}" for rate in rates)
    lines = [
        f"% {title(table)}",
        rf"\begin{{tabular}}{{rl{'rr' * len(rates)}}}",
        r"\hline",
        rf"$B$ & & {head}{ends}",
        " & & " + " & ".join(["AVG & STD"] * len(rates)) + ends,
        r"\hline",
    ]
    for batch in table.batch_sizes:
        for number, quantity in enumerate(QUANTITIES):
            first = rf"\multirow{{3}}{{*}}{{{batch}}}" if not number else ""
            cells = [_latex_cell(table.find(batch, rate), quantity) for rate in rates]
            lines.append(" & ".join([first, quantity.replace("_", r"\_"), *cells]) + ends)
        lines.append(r"\hline")
    return "\n".join([*lines, r"\end{tabular}", ""])


def _latex_cell(cell: TableCell | None, quantity: str) -> str:
    if cell is None:
        return " & "
    mean, std = _texts(getattr(cell, quantity), quantity)
    return f"{_LATEX[_emphasis(cell, quantity)].format(mean)} & {std}".replace(_MISSING, "--")


COLUMNS = (
    "table",
    "optimizer",
    "reading",
    "batch_size",
    "learning_rate",
    "num_runs",
    "num_diverged",
    "num_unmeasured",
    *(f"{quantity}_{name}" for quantity in QUANTITIES for name in ("avg", "std")),
    *(f"paper_{quantity}_{name}" for quantity in QUANTITIES for name in ("avg", "std")),
)


def rows_of(tables: Sequence[Table], reference: Reference) -> list[dict[str, str | int | float | None]]:
    """One row for each cell of each table, by ``COLUMNS``; accuracies are shares, None is what there is not."""
    rows = []
    for table in tables:
        for cell in table.cells:
            row: dict[str, str | int | float | None] = {"table": table.number, "optimizer": table.optimizer}
            row |= {"reading": table.reading, "batch_size": cell.batch_size, "learning_rate": cell.learning_rate}
            row |= {name: getattr(cell, name) for name in ("num_runs", "num_diverged", "num_unmeasured")}
            for quantity in QUANTITIES:
                value: Statistic = getattr(cell, quantity)
                printed = reference.get((table.optimizer, cell.batch_size, cell.learning_rate, quantity))
                printed = printed if table.reading == "published" else None
                row |= {f"{quantity}_avg": _number(value.mean), f"{quantity}_std": _number(value.std)}
                row |= {f"paper_{quantity}_{name}": given for name, given in _given(printed).items()}
            rows.append({name: row[name] for name in COLUMNS})
    return rows


def _given(printed: Printed | None) -> dict[str, float | None]:
    return {"avg": printed.mean, "std": printed.std} if printed else {"avg": None, "std": None}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def to_csv(tables: Sequence[Table], reference: Reference) -> str:
    """``rows_of`` as CSV, None as an empty field."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows_of(tables, reference))
    return text.getvalue()
