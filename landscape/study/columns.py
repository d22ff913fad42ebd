"""Names, units and axis labels of the columns of the study's table: one row per stored snapshot."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from landscape.errors import ConfigurationError

Cell: TypeAlias = float | int | str | None
Row: TypeAlias = dict[str, Cell]
Rows: TypeAlias = Sequence[Mapping[str, Cell]]
Space: TypeAlias = Literal["theta", "x"]
Reading: TypeAlias = Literal["published", "exact"]

LEVELS: Mapping[str, float] = MappingProxyType(
    {"0.5": 0.5, "ln2": math.log(2.0), "1": 1.0, "ln10": math.log(10.0)}
)
"""Levels c of the cross-entropy (nats) at which widths are measured, by label."""

METRICS = ("elementwise", "filter", "layer")
"""Metrics of θ beside the Euclidean one, by the names of `landscape.problem.metrics`."""

NORMS: Mapping[str, float] = MappingProxyType({"l1": 1.0, "linf": math.inf})
"""Norms of X beside the 2-norm."""

LOG = r"\ln "
OK, FAILED = "ok", "failed"
PLAIN = "plain"  # the method of a run that names none
NOT_REACHED, BELOW_MINIMUM = "not_reached", "below_minimum"


@dataclass(frozen=True)
class Column:
    """A quantity of the table; one with an ``argument`` has one column ``name[argument]`` per value."""

    name: str
    kind: Literal["text", "integer", "number"]
    unit: str
    label: str
    argument: Literal["", "level", "eps"] = ""


_OF_METRIC: tuple[tuple[str, Literal["text", "number"], str, str], ...] = (
    ("", "number", "1", "distance "),
    ("_angle", "number", "rad", "angle at "),
    ("_flag", "text", "", "flag of "),
)
COLUMNS: tuple[Column, ...] = (
    Column("run", "text", "", "run"),
    Column("run_id", "text", "", "run identifier"),
    Column("theta_sha256", "text", "", r"SHA-256 of $\theta$"),
    Column("path", "text", "", "path"),
    Column("at", "text", "", "position"),
    Column("model", "text", "", "model"),
    Column("model_args", "text", "", "arguments of the model"),
    Column("optimizer", "text", "", "optimizer"),
    Column("method", "text", "", "method"),
    Column("method_args", "text", "", "arguments of the method"),
    Column("learning_rate", "number", "1", "learning rate"),
    Column("batch_size", "integer", "samples", "batch size"),
    Column("other_settings", "text", "", "other settings"),
    Column("seed", "integer", "", "seed"),
    Column("epoch", "number", "epochs", "epoch"),
    Column("step", "integer", "steps", "step"),
    Column("samples_seen", "integer", "samples", "samples seen"),
    Column("status", "text", "", "status"),
    Column("error", "text", "", "error"),
    Column("repeat", "integer", "", "part of the data"),
    Column("logit_factor", "number", "1", "factor of the logits"),
    Column("train_loss", "number", "nat", r"training loss $\varphi^*$"),
    Column("gradient_norm", "number", "nat", r"$\|\nabla\varphi(\theta)\|$"),
    Column("theta_norm", "number", "1", r"$\|\theta\|$"),
    Column("lambda_1", "number", "nat", r"largest eigenvalue $\lambda_1$"),
    *(Column(f"lambda_{i}", "number", "nat", rf"eigenvalue $\lambda_{i}$") for i in range(2, 6)),
    Column("lambda_1_residual", "number", "1", r"residual of $\lambda_1$"),
    Column("lambda_residual", "number", "1", "largest residual of the eigenvalues"),
    Column("lambda_min", "number", "nat", r"smallest eigenvalue $\lambda_{\min}$"),
    Column("d_theta", "number", "1", r"distance $d_\theta$", "level"),
    Column("w_theta", "number", "1/nat", r"width $w_\theta$", "level"),
    Column("d_theta_quadratic", "number", "1", r"quadratic $d_\theta$", "level"),
    Column("d_theta_level_error", "number", "nat", r"level error of $d_\theta$", "level"),
    Column("d_theta_angle", "number", "rad", r"angle at $d_\theta$", "level"),
    Column("d_theta_spread", "number", "1", r"spread of $d_\theta$", "level"),
    Column("d_theta_flag", "text", "", r"flag of $d_\theta$", "level"),
    *(
        Column(f"d_theta_{metric}{suffix}", kind, unit, rf"{words}$d_\theta$, {metric} metric", "level")
        for metric in METRICS
        for suffix, kind, unit, words in _OF_METRIC
    ),
    Column("d_x_q10", "number", "1", r"10 % quantile of $d_X$", "level"),
    Column("d_x_median", "number", "1", r"median distance $d_X$", "level"),
    Column("d_x_q90", "number", "1", r"90 % quantile of $d_X$", "level"),
    Column("w_x_median", "number", "1/nat", r"median width $w_X$", "level"),
    Column("d_x_reached", "number", "share", r"share with $d_X$ reached", "level"),
    Column("d_x_below", "number", "share", "share above the level", "level"),
    *(
        column
        for norm, symbol in (("l1", r"\ell_1"), ("linf", r"\ell_\infty"))
        for column in (
            Column(f"d_x_{norm}_median", "number", "1", rf"median ${symbol}$ distance $d_X$", "level"),
            Column(f"d_x_{norm}_reached", "number", "share", rf"share with ${symbol}$ distance reached", "level"),
        )
    ),
    Column("clean_accuracy", "number", "share", "clean accuracy"),
    Column("fgsm_published", "number", "share", "FGSM accuracy, as published", "eps"),
    Column("fgsm_exact", "number", "share", "FGSM accuracy, exact", "eps"),
    Column("worst_case", "number", "share", "worst-case accuracy", "eps"),
    Column("random_noise", "number", "share", "accuracy under random noise", "eps"),
    Column("pgd_log_odds", "number", "share", "PGD accuracy", "eps"),
    Column("nearest_boundary", "number", "share", "share beyond $\\varepsilon$ of the boundary", "eps"),
    Column("square", "number", "share", "accuracy under the Square attack", "eps"),
    Column("boundary_median", "number", "1", r"median $\ell_\infty$ distance to the boundary"),
    Column("masking", "text", "", "masking audit", "eps"),
    Column("masking_reasons", "text", "", "reasons of the audit", "eps"),
    Column("audit_samples", "integer", "samples", "images under all attacks"),
    Column("rounded_share", "number", "share", "share of rounded gradients"),
    Column("vanished_share", "number", "share", "share of vanished gradients"),
    Column("zero_loss_share", "number", "share", "share with loss exactly 0"),
    Column("balance_median", "number", "1", "median balance of logit gradients"),
    Column("cosine_median", "number", "1", "median cosine of published and exact gradient"),
    Column("margin_q10", "number", "nat", "10 % quantile of the margin"),
    Column("margin_median", "number", "nat", "median margin"),
    Column("margin_q90", "number", "nat", "90 % quantile of the margin"),
)
_POSITIONS = {column.name: position for position, column in enumerate(COLUMNS)}
_NAME = re.compile(r"(?P<base>[^\[\]]+)(?:\[(?P<argument>[^\[\]]+)\])?")


def parse_level(text: str) -> float:
    """Level c in nats from a label of ``LEVELS`` or from any positive number, e.g. ``"ln2"`` or ``"0.7"``."""
    try:
        value = LEVELS[text] if text in LEVELS else float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ConfigurationError(
            f"level {text!r} is not a positive number: use one of {', '.join(LEVELS)} or a number in nats"
        )
    return value


def level_label(value: float) -> str:
    """Label of a level c: the name in ``LEVELS`` if there is one, else digits that parse back to ``value``."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigurationError(f"level {value!r} is not a positive number: give the loss level in nats")
    for label, known in LEVELS.items():
        if math.isclose(value, known, rel_tol=1e-12):
            return label
    return repr(float(value)).removesuffix(".0")


def level_column(quantity: str, level: str) -> str:
    """Column ``quantity[level]``; ``"0.69…"`` and ``"ln2"`` give the same name."""
    return f"{quantity}[{level_label(parse_level(level))}]"


def distance_column(space: Space, level: str) -> str:
    """Column of the distance d to the level set in ``"theta"``, or of its median over samples in ``"x"``."""
    return level_column("d_theta" if space == "theta" else "d_x_median", level)


def width_column(space: Space, level: str) -> str:
    """Column of the width w = d / (c - φ*) in ``"theta"``, or of its median over samples in ``"x"``."""
    return level_column("w_theta" if space == "theta" else "w_x_median", level)


def flag_column(level: str) -> str:
    """Column that says whether d_θ at ``level`` is a distance: ok, not_reached or below_minimum."""
    return level_column("d_theta_flag", level)


def fgsm_column(reading: Reading, eps: float) -> str:
    """Column of the accuracy (share) under FGSM of L∞ size ``eps``, by published or by exact gradients."""
    return attack_column(f"fgsm_{reading}", eps)


def attack_column(quantity: str, eps: float) -> str:
    """Column ``quantity[ε]``, such as ``worst_case[0.3]`` or ``masking[0.3]``."""
    return f"{quantity}[{eps:g}]"


def split_name(name: str) -> tuple[str, str]:
    """``"d_theta[ln2]"`` -> ``("d_theta", "ln2")``; ``"lambda_1"`` -> ``("lambda_1", "")``."""
    match = _NAME.fullmatch(name)
    return (match["base"], match["argument"] or "") if match else (name, "")


def find_column(name: str) -> Column | None:
    """Description of a column by its full name; None for a column this package does not write."""
    position = _POSITIONS.get(split_name(name)[0])
    return None if position is None else COLUMNS[position]


def axis_label(name: str) -> str:
    r"""Axis label in mathtext, e.g. ``distance $d_\theta$ at $c=\ln 2$``."""
    column, argument = find_column(name), split_name(name)[1]
    if column is None:
        return name
    if column.argument == "level":
        return f"{column.label} at $c={argument.replace('ln', LOG)}$"
    return rf"{column.label}, $\varepsilon={argument}$" if column.argument == "eps" else column.label


def ordered_columns(rows: Rows) -> list[str]:
    """All columns without argument and those with one that occur in ``rows``; unknown ones come last."""
    present = {name for row in rows for name in row}
    always = {column.name for column in COLUMNS if not column.argument}
    return sorted(present | always, key=_sort_key)


def numbers(rows: Rows, name: str) -> list[float]:
    """Values of a column as floats; a missing or textual value is NaN."""
    return [_number(row.get(name)) for row in rows]


def text_values(rows: Rows, name: str) -> list[str]:
    """Distinct values of a column as text, sorted; a missing value is ``"unknown"``."""
    return sorted({text(row.get(name)) for row in rows})


def text(value: Cell) -> str:
    """A value as text; None and empty text are ``"unknown"``."""
    return "unknown" if value is None or value == "" else str(value)


def method_of(row: Mapping[str, Cell]) -> str:
    """The method a run was trained by; ``"plain"`` where it names none."""
    return text(row.get("method") or PLAIN)


def methods_of(rows: Rows) -> list[str]:
    """Distinct methods other than plain training, sorted."""
    return sorted({method_of(row) for row in rows} - {PLAIN})


def distinct(values: Iterable[float]) -> list[float]:
    """Distinct finite values, ascending."""
    return sorted({value for value in values if math.isfinite(value)})


def _number(value: Cell) -> float:
    return math.nan if value is None or isinstance(value, str) else float(value)


def _sort_key(name: str) -> tuple[int, float, str]:
    base, argument = split_name(name)
    try:
        value = LEVELS[argument] if argument in LEVELS else float(argument or 0.0)
    except ValueError:
        value = math.inf
    return _POSITIONS.get(base, len(COLUMNS)), value, name
