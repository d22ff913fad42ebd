"""The table of docs/findings.md: means over the seeds of each cell, from the rows of a study.

python benchmarks/findings.py figures/findings/rows.csv
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

from landscape.study.columns import PLAIN, Row
from landscape.study.selection import CELL, cells_of
from landscape.study.table import read_rows_csv

# Heading, column, factor and format.
SHOWN = (
    ("φ*", "train_loss", 1, ".3f"),
    ("d_θ", "d_theta[ln2]", 1, ".2f"),
    ("d_X", "d_x_median[ln2]", 1, ".2f"),
    ("clean", "clean_accuracy", 100, ".1f"),
    ("FGSM published", "fgsm_published[0.3]", 100, ".1f"),
    ("FGSM exact", "fgsm_exact[0.3]", 100, ".1f"),
    ("worst, ε = 0.1", "worst_case[0.1]", 100, ".1f"),
    ("worst, ε = 0.3", "worst_case[0.3]", 100, ".1f"),
)
ADVERSARIAL = ("fgsm-training", "pgd-training")


def main() -> None:
    """Print the table, and the largest worst case of runs that were not trained on adversarial images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="?", default="figures/findings/rows.csv")
    rows = read_rows_csv(parser.parse_args().rows)
    cells: dict[tuple[str, ...], list[Row]] = {}
    for cell, row in zip(cells_of(rows), rows, strict=True):
        cells.setdefault(cell, []).append(row)
    head = ("optimizer", "method", "rate", "B", *(name for name, *_ in SHOWN), "masked")
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for _, members in sorted(cells.items(), key=lambda item: _order(item[1][0])):
        print(f"| {' | '.join(_line(members))} |")
    others = [row for row in rows if row["method"] not in ADVERSARIAL and number(row, "clean_accuracy") > 0.95]
    worst = max(number(row, "worst_case[0.3]") for row in others)
    print(f"\n{len(others)} other runs are right on over 95 % of the images; worst case at ε = 0.3: ≤ {worst:.1%}")


def _order(row: Row) -> tuple[object, ...]:
    return (
        str(row["optimizer"]),
        row["method"] != PLAIN,
        str(row["method"]),
        str(row["method_args"]),
        number(row, "learning_rate"),
        -number(row, "batch_size"),
    )


def _line(members: Sequence[Row]) -> list[str]:
    setting = dict(zip(CELL, cells_of(members)[0], strict=True))
    method = " ".join(part for part in (setting["method"], str(members[0]["method_args"] or "")) if part)
    masked = sum(row["masking[0.3]"] != "sound" for row in members)
    means = [_mean(members, name, factor, spec) for _, name, factor, spec in SHOWN]
    return [setting["optimizer"], method, setting["learning_rate"], setting["batch_size"], *means, str(masked)]


def _mean(members: Sequence[Row], name: str, factor: float, spec: str) -> str:
    known = [factor * number(row, name) for row in members if isinstance(row[name], int | float)]
    return format(statistics.mean(known), spec) if known else "–"


def number(row: Row, name: str) -> float:
    """A value that has to be a number."""
    value = row[name]
    if not isinstance(value, int | float):
        raise TypeError(f"{name} of {row['run']} is {value!r}")
    return float(value)


if __name__ == "__main__":
    main()
