"""What is measured of each snapshot, and on how many samples."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass

from landscape.errors import ConfigurationError
from landscape.study.columns import LEVELS, METRICS, NORMS


@dataclass(frozen=True)
class MeasureConfig:
    """What is measured, on how many samples; every field is part of a row's key in the ledger.

    A ``repeat`` k measures on the k-th part of the data, disjoint from the others, by searches with other seeds.
    ``equal_margin`` multiplies the logits of every network so that the median margin has this value (nats).
    """

    levels: tuple[float, ...] = tuple(LEVELS.values())
    eps: tuple[float, ...] = (0.1, 0.3)
    theta_samples: int = 300  # training samples in φ(θ)
    x_samples: int = 40  # test samples whose d_X is searched
    attack_samples: int = 2000  # test samples under FGSM
    ladder_samples: int = 300  # the first of those, under all attacks
    seed: int = 0  # of the subsets and of the searches
    eigen_tol: float = 3e-2
    tol: float = 6e-2
    metrics: tuple[str, ...] = ()  # of θ, beside the Euclidean one
    x_norms: tuple[str, ...] = ()  # of X, beside the 2-norm
    equal_margin: float | None = None
    repeat: int = 0
    balanced: bool = False  # as many samples of each class

    def __post_init__(self) -> None:
        _check_positive("levels", self.levels)
        _check_positive("ε =", self.eps)
        for name in ("theta_samples", "x_samples", "attack_samples", "ladder_samples"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} = {getattr(self, name)} cannot be; pass a whole number ≥ 1.")
        _check_known("metric", self.metrics, METRICS)
        _check_known("norm of X", self.x_norms, NORMS)
        if self.equal_margin is not None and not (math.isfinite(self.equal_margin) and self.equal_margin > 0):
            raise ConfigurationError(
                f"a median margin of {self.equal_margin} cannot be; pass a number above zero."
            )
        if self.repeat < 0:
            raise ConfigurationError(f"repeat = {self.repeat} cannot be; parts of the data count from 0.")

    @property
    def search_seed(self) -> int:
        """Seed of the searches; another one for each repeat."""
        return self.seed + self.repeat

    def as_settings(self) -> dict[str, object]:
        """All fields as plain values; ``balanced`` only if it is set, so that rows of before keep their keys."""
        settings = asdict(self)
        return settings if self.balanced else {k: v for k, v in settings.items() if k != "balanced"}


def _check_positive(what: str, values: tuple[float, ...]) -> None:
    if not values or not all(math.isfinite(value) and value > 0 for value in values):
        raise ConfigurationError(f"{what} {values} cannot be; pass finite numbers above zero.")


def _check_known(what: str, names: tuple[str, ...], known: Collection[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigurationError(f"unknown {what} {', '.join(unknown)}; choose among {', '.join(known)}.")
