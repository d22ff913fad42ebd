"""What a search is likely to take, judged by one gradient pass before it begins."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass

from landscape.problem.memory import MEMORY, activation_bytes
from landscape.problem.parameter_objective import ParameterObjective

# Products until k pairs have converged, as a rule, and gradient passes that a product takes on deep networks.
_FIRST_PRODUCTS, _PRODUCTS_A_PAIR, _PASSES_A_PRODUCT = 12, 4, 2.5
# Gradient passes of the search for distances: to begin with, and for each level; in X of each image.
_FIRST_PASSES, _PASSES_A_LEVEL, _X_PASSES_A_LEVEL = 60, 60, 100
# Vectors of the length of θ that the search for distances keeps beside those of the curvature.
_SEARCH_VECTORS = 26


@dataclass(frozen=True)
class Cost:
    """Seconds of one gradient pass and of the whole, and bytes of memory at the most; all of them about."""

    num_parameters: int
    gradient_seconds: float
    seconds: float
    num_bytes: float

    @property
    def text(self) -> str:
        """One line for who waits."""
        return (
            f"{self.num_parameters:,} parameters, {self.gradient_seconds:.2g} s a gradient pass: about "
            f"{_shown(self.seconds)} and up to {self.num_bytes / 1e9:.1f} GB of memory"
        )


def hessian_cost(phi: ParameterObjective, k: int, memory: int = MEMORY) -> Cost:
    """What k eigenpairs over θ are likely to take."""
    products = _FIRST_PRODUCTS + _PRODUCTS_A_PAIR * k
    return _cost(phi, products * _PASSES_A_PRODUCT, 2 * products, memory)


def width_cost(phi: ParameterObjective, num_levels: int, x_samples: int, memory: int = MEMORY) -> Cost:
    """What distances to so many levels are likely to take, in θ and in X for so many images."""
    products = _FIRST_PRODUCTS + 3 * _PRODUCTS_A_PAIR
    passes = products * _PASSES_A_PRODUCT + _FIRST_PASSES + _PASSES_A_LEVEL * num_levels
    passes += _X_PASSES_A_LEVEL * num_levels * x_samples / len(phi.y)
    return _cost(phi, passes, 2 * products + _SEARCH_VECTORS, memory)


def _cost(phi: ParameterObjective, passes: float, num_vectors: int, memory: int) -> Cost:
    phi.value_and_grad(phi.origin)  # the first pass also loads and chooses kernels
    begin = time.perf_counter()
    phi.value_and_grad(phi.origin)[0].item()
    seconds = time.perf_counter() - begin
    kept = min(memory, activation_bytes(phi.model, phi.x) * len(phi.x))
    size = phi.origin.numel()
    return Cost(
        size, seconds, passes * seconds, _peak_bytes() + kept + num_vectors * size * phi.origin.element_size()
    )


def _peak_bytes() -> float:
    """Most memory that the process has had; macOS counts bytes, Linux kibibytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def _shown(seconds: float) -> str:
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
