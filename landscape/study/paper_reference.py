"""The numbers that the paper prints, as far as its text is legible."""

from __future__ import annotations

import functools
import tomllib
from typing import Any

from landscape.snapshots import resolve
from landscape.study.paper import Printed, Reference


@functools.cache
def paper_reference() -> Reference:
    """What is legible of the paper's Tables 1 and 2."""
    document = tomllib.loads(resolve("embedded:paper.toml").read_text(encoding="utf-8"))
    return {
        (optimizer, row["batch_size"], float(rate), row["quantity"]): printed
        for optimizer, table in document.items()
        for row in table["row"]
        for rate, printed in zip(table["learning_rate"], _row(row), strict=True)
    }


def _row(row: dict[str, Any]) -> list[Printed]:
    unit = 1.0 if row["quantity"] == "epoch" else 100.0
    emphases = row.get("set", [""] * len(row["mean"]))
    return [
        Printed(mean / unit, std / unit, emphasis, "labelled" in row)
        for mean, std, emphasis in zip(row["mean"], row["std"], emphases, strict=True)
    ]
