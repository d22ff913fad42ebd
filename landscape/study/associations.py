"""What a study of associations asks, and what it found."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from landscape.errors import ConfigurationError
from landscape.statistics.association import Association
from landscape.statistics.granulated import Granulated
from landscape.study.adjusted import Adjusted
from landscape.study.columns import (
    attack_column,
    distance_column,
    fgsm_column,
    level_label,
    parse_level,
    width_column,
)
from landscape.study.levels import Levels
from landscape.study.reliability import Reliability

Pair = tuple[str, str]


class Draws(TypedDict):
    """How often is drawn, and from which seed."""

    permutations: int
    bootstrap: int
    seed: int


@dataclass(frozen=True)
class CorrelateConfig:
    """What is tested: the level c of both distances, the FGSM size ε, and how many draws are made."""

    level: str = "ln2"
    eps: float = 0.3
    permutations: int = 9999
    bootstrap: int = 2000
    seed: int = 0
    alpha: float = 0.05

    def __post_init__(self) -> None:
        object.__setattr__(self, "level", level_label(parse_level(self.level)))
        if self.permutations < 1 or self.bootstrap < 1:
            raise ConfigurationError("permutations and bootstrap must be at least 1")
        if not (0 < self.alpha < 1 and self.eps > 0):
            raise ConfigurationError(f"alpha {self.alpha} must be in (0, 1) and eps {self.eps} positive")

    @property
    def draws(self) -> Draws:
        """Arguments of everything that is drawn."""
        return {"permutations": self.permutations, "bootstrap": self.bootstrap, "seed": self.seed}


@dataclass(frozen=True)
class Columns:
    """The eight columns that one configuration relates."""

    w_theta: str
    w_x: str
    d_theta: str
    d_x: str
    lambda_1: str
    published: str
    exact: str
    worst: str

    @property
    def robustness(self) -> dict[str, str]:
        """Columns of accuracy under attack, by the words for their reading."""
        return {
            "under FGSM as published": self.published,
            "under FGSM with exact gradients": self.exact,
            "in the worst case": self.worst,
        }

    @property
    def links(self) -> tuple[Pair, Pair, Pair]:
        """The three links of the claim: d_θ - d_X, d_X - FGSM and d_θ - FGSM with exact gradients."""
        return (self.d_theta, self.d_x), (self.d_x, self.exact), (self.d_theta, self.exact)


@dataclass(frozen=True)
class FgsmGap:
    """Accuracy under FGSM as published less that with exact gradients, over ``n`` rows; shares."""

    n: int
    mean: float
    max: float
    mean_published: float
    mean_exact: float
    mean_worst: float  # over the rows that have a worst case

    @property
    def vanishing_share(self) -> float:
        """Share of the published accuracy that exact gradients take away."""
        return self.mean / self.mean_published if self.mean_published > 0 else math.nan


@dataclass(frozen=True)
class Correlations:
    """All associations of one table, over the rows ``used``, and what they say.

    ``matrix[i][j]`` belongs to ``names[i], names[j]``: within-cell ρ above the diagonal, total ρ below.
    ``panels`` holds the associations among the runs of one optimizer, by ``(x, y, optimizer)``.
    ``p_holm`` adjusts ``p_within`` over the three links of the claim. The primary association is the one
    hypothesis fixed in advance. ``reliability`` is None where nothing was measured more than once.
    """

    config: CorrelateConfig
    columns: Columns
    num_rows: int
    num_failed: int
    num_excluded: Mapping[str, int]
    used: tuple[int, ...]
    primary: Association
    leave_one_out: tuple[float, float]
    pairs: tuple[Association, ...]
    p_holm: Mapping[Pair, float]
    names: tuple[str, ...]
    matrix: tuple[tuple[float, ...], ...]
    panels: Mapping[tuple[str, str, str], Association]
    simpson: bool
    fgsm_gap: FgsmGap
    masking: Mapping[str, int]  # rows by the verdict of the masking audit at ε
    audit_samples: int | None  # the fewest images on which an audit rests; None if no row tells
    adjusted: Adjusted
    levels: Levels
    granulated: tuple[Granulated, ...]
    reliability: Reliability | None
    verdict: str

    def pair(self, x: str, y: str) -> Association:
        """The association of two of ``names``, in either order."""
        return find_association(self.pairs, x, y)


def columns_of(config: CorrelateConfig) -> Columns:
    """Names of the columns at the level and the FGSM size of ``config``."""
    return Columns(
        w_theta=width_column("theta", config.level),
        w_x=width_column("x", config.level),
        d_theta=distance_column("theta", config.level),
        d_x=distance_column("x", config.level),
        lambda_1="lambda_1",
        published=fgsm_column("published", config.eps),
        exact=fgsm_column("exact", config.eps),
        worst=attack_column("worst_case", config.eps),
    )


def figure_pairs(columns: Columns) -> tuple[Pair, ...]:
    """The pairs (x, y) that the figures show."""
    return (
        (columns.w_theta, columns.w_x),
        (columns.d_theta, columns.d_x),
        *itertools.product(
            (columns.w_theta, columns.w_x, columns.lambda_1), (columns.published, columns.exact, columns.worst)
        ),
    )


def find_association(pairs: Sequence[Association], x: str, y: str) -> Association:
    """The association of two columns, in either order; ConfigurationError if there is none."""
    for association in pairs:
        if {association.x, association.y} == {x, y}:
            return association
    raise ConfigurationError(f"there is no association of {x!r} and {y!r}: choose two of the study's columns")


def to_json(correlations: Correlations) -> dict[str, object]:
    """Plain values for ``json.dumps(..., allow_nan=False)``: NaN as null, tuple keys as ``x|y[|optimizer]``."""
    plain = _plain(dataclasses.asdict(correlations))
    if not isinstance(plain, dict):
        raise TypeError("a dataclass becomes a dict")
    return plain


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {"|".join(k) if isinstance(k, tuple) else str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
