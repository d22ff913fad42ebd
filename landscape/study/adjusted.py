"""Associations of a study given what else differs between runs of one cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from landscape.statistics.partial import PartialAssociation, partial_associate_all
from landscape.study.columns import Rows, numbers
from landscape.study.selection import cells_of, matrix_of

if TYPE_CHECKING:
    from landscape.study.associations import Columns, CorrelateConfig

# Ranks of log φ*, log ‖θ‖ and log (c − φ*) are those of φ*, of ‖θ‖, and of φ* turned round: a logarithm changes
# nothing, and what is given the training loss is given the divisor of widths, too.
COVARIATES = ("train_loss", "margin_median", "theta_norm")
# A margin that was made equal varies by its rounding in float32.
ROUNDING = 1e-5
MIN_KNOWN = 0.5  # a covariate that fewer runs than this share have would decide which runs are compared


@dataclass(frozen=True)
class Adjusted:
    """Within-cell associations given each covariate alone and all together; covariates ``left_out``, and why.

    The training loss is an outcome of training, as the width is: ``total`` is the association without it,
    ``direct`` what is left at equal loss, and neither corrects the other.
    """

    found: tuple[PartialAssociation, ...]
    left_out: Mapping[str, str]

    def given_all(self, x: str, y: str) -> PartialAssociation | None:
        """The association of two columns given most covariates; None if there is none."""
        found = [a for a in self.found if (a.x, a.y) == (x, y)]
        return max(found, key=lambda a: len(a.given), default=None)


def adjust(rows: Rows, columns: Columns, config: CorrelateConfig) -> Adjusted:
    """The three links of the claim and d_θ with worst-case accuracy, given ``COVARIATES``; widths given φ*."""
    left_out = {name: reason for name in COVARIATES if (reason := _why_not(rows, name))}
    given = [name for name in COVARIATES if name not in left_out]
    sets = [(name,) for name in given] + ([tuple(given)] if len(given) > 1 else [])
    questions = [(x, y, *names) for x, y in (*columns.links, (columns.d_theta, columns.worst)) for names in sets]
    if "train_loss" in given:
        questions.append((columns.w_theta, columns.w_x, "train_loss"))
    names = list(dict.fromkeys(name for question in questions for name in question))
    if not names:
        return Adjusted((), left_out)
    indices = [tuple(map(names.index, question)) for question in questions]
    found = partial_associate_all(matrix_of(rows, names), cells_of(rows), indices, names, **config.draws)
    return Adjusted(tuple(a for a in found if a.n), left_out)


def _why_not(rows: Rows, name: str) -> str:
    values = np.array(numbers(rows, name))
    known = values[~np.isnan(values)]
    if len(known) < max(MIN_KNOWN * len(values), 3):
        return f"known for {len(known)} of {len(values)} runs"
    return "constant" if np.ptp(known) <= ROUNDING * np.abs(known).max() else ""
