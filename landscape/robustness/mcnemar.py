"""McNemar's test: do two decisions on the same samples differ by more than chance?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.special import bdtr
from torch import Tensor

from landscape.errors import ConfigurationError


@dataclass(frozen=True)
class McNemar:
    """Two decisions on the same samples compared: only samples on which they differ tell anything."""

    only_first: int  # samples right in the first alone
    only_second: int
    p_value: float  # of both being right equally often, two-sided, exact


def mcnemar(first: Tensor, second: Tensor) -> McNemar:
    """McNemar's test with the exact binomial law (McNemar 1947), ``(N,), (N,)`` bool.

    Raises:
        ConfigurationError: If the vectors are not of the same samples.
    """
    if first.shape != second.shape or first.ndim != 1 or {first.dtype, second.dtype} != {torch.bool}:
        raise ConfigurationError(
            f"decisions of shapes {tuple(first.shape)} and {tuple(second.shape)} cannot be compared; pass two "
            "boolean vectors of the same samples."
        )
    only = int((first & ~second).sum()), int((second & ~first).sum())
    return McNemar(*only, min(1.0, 2 * float(bdtr(min(only), sum(only), 0.5))))
