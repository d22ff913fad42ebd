"""What the report knows of each run that it draws: by what it is filtered, and what a point tells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

from landscape.report.contents import run_name
from landscape.report.evidence import GRADES, grade_of
from landscape.report.symbols import column_label, to_plain
from landscape.report.tables import show
from landscape.study.associations import Correlations
from landscape.study.columns import (
    PLAIN,
    Cell,
    Rows,
    attack_column,
    find_column,
    level_column,
    method_of,
    numbers,
    text,
)

GRADE = "grade"
# A sweep over random learning rates has as many as runs: no list of boxes to tick would help.
MAX_RATES = 60
_SETTINGS = ("optimizer", "method", "learning_rate", "batch_size", "other_settings", "seed", "epoch", "at")
_COUNTS = ("batch_size", "seed", "epoch")


@dataclass(frozen=True)
class Filter:
    """A property of runs by which the reader can choose: its values, and the number of its value for each run."""

    name: str
    label: str
    values: tuple[str, ...]
    of: tuple[int, ...]


@dataclass(frozen=True)
class Points:
    """The runs that are drawn, in the order of ``correlations.used``.

    ``facts[i][j]`` is what ``fields[j]`` is for run i, as text; empty where there is nothing to tell.
    """

    names: tuple[str, ...]
    filters: tuple[Filter, ...]
    fields: tuple[tuple[str, str, str], ...]  # column, label, section: settings, quantities, evidence
    facts: tuple[tuple[str, ...], ...]

    def keys(self, run: int) -> tuple[int, ...]:
        """Numbers of the run's values in all filters."""
        return tuple(chosen.of[run] for chosen in self.filters)

    def say(self, run: int, plotted: Sequence[str]) -> str:
        """What a mark tells without the script: settings, the columns that are ``plotted``, and evidence."""
        told = (
            f"{label}: {fact}"
            for (name, label, section), fact in zip(self.fields, self.facts[run], strict=True)
            if fact and (section == "settings" or name in plotted or name.startswith((GRADE, "d_theta_")))
        )
        return "\n".join([self.names[run], *told])

    def as_json(self) -> dict[str, object]:
        """For the script of the page."""
        keys = [self.keys(run) for run in range(len(self.names))]
        return {"fields": self.fields, "names": self.names, "keys": keys, "facts": self.facts}


def points_of(rows: Rows, correlations: Correlations) -> Points:
    """What is told of the rows that ``correlations`` used."""
    used = [rows[i] for i in correlations.used]
    level = correlations.config.level
    grades = [grade_of(row, level).replace("_", " ") for row in used]
    told = [
        (name, section)
        for section, names in _told(correlations).items()
        for name in names
        if name == GRADE or any(row.get(name) not in (None, "") for row in used)
    ]
    labels = {GRADE: to_plain(column_label(level_column("d_theta", level))).replace("distance", "evidence of")}
    return Points(
        tuple(run_name(row) for row in used),
        _filters(used, grades),
        tuple((name, labels.get(name) or to_plain(column_label(name)), section) for name, section in told),
        tuple(
            tuple(grade if name == GRADE else _fact(row, name) for name, _ in told)
            for row, grade in zip(used, grades, strict=True)
        ),
    )


def _told(correlations: Correlations) -> dict[str, tuple[str, ...]]:
    """What a point tells, in this order."""
    level, eps = correlations.config.level, correlations.config.eps
    of_distance = (level_column(f"d_theta_{name}", level) for name in ("angle", "spread", "level_error"))
    audit = (attack_column(name, eps) for name in ("masking", "masking_reasons"))
    return {
        "settings": _SETTINGS,
        "quantities": (*astuple(correlations.columns), "clean_accuracy", "train_loss"),
        "evidence": (
            GRADE,
            *of_distance,
            level_column("d_x_reached", level),
            "gradient_norm",
            "lambda_1_residual",
            *audit,
            "rounded_share",
        ),
    }


def _fact(row: Mapping[str, Cell], name: str) -> str:
    value = row.get(name)
    if value is None or value == "" or (name == "method" and value == PLAIN):
        return ""
    if isinstance(value, str):
        return value
    if name in _COUNTS:
        return f"{value:g}"
    column = find_column(name)
    is_share = column is not None and column.unit == "share"
    return f"{show(float(value), 'share')} %" if is_share else show(float(value), "number")


def _filters(rows: Rows, grades: Sequence[str]) -> tuple[Filter, ...]:
    filters = [
        _filter("optimizer", "Optimizer", [text(row.get("optimizer")) for row in rows]),
        _filter("batch_size", "Batch size", _numbers_as_text(rows, "batch_size")),
        _filter("learning_rate", "Learning rate", _numbers_as_text(rows, "learning_rate")),
        _filter("grade", "Evidence of d_θ", grades),
        _filter("method", "Method", [method_of(row) for row in rows]),
    ]
    kept = {"learning_rate": range(MAX_RATES + 1), "method": range(2, len(rows) + 1)}
    return tuple(f for f in filters if f.name not in kept or len(f.values) in kept[f.name])


def _numbers_as_text(rows: Rows, name: str) -> list[str]:
    return ["unknown" if math.isnan(value) else f"{value:.6g}" for value in numbers(rows, name)]


def _filter(name: str, label: str, values: Sequence[str]) -> Filter:
    distinct = sorted(set(values), key=_order)
    numbers_of = {value: i for i, value in enumerate(distinct)}
    return Filter(name, label, tuple(distinct), tuple(numbers_of[value] for value in values))


def _order(value: str) -> tuple[int, float, str]:
    """Grades from strong to unknown, then numbers, then words."""
    grade = value.replace(" ", "_")
    if grade in GRADES:
        return 0, GRADES.index(grade), ""
    try:
        return 1, float(value), ""
    except ValueError:
        return 2, 0.0, value
