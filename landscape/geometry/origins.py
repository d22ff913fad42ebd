"""Where searches begin: φ and its gradient at the origins, leading directions, and the bill."""

from __future__ import annotations

import torch
from torch import Generator

from landscape.errors import ObjectiveError
from landscape.geometry.eigenpairs import Eigenpairs, top_eigenpairs
from landscape.geometry.gauge import Gauge
from landscape.geometry.rays import Counter
from landscape.objectives import Objective, search_form


class Origins:
    """B origins of an objective as a search sees them: φ there, its search form ψ, the gauge and the bill.

    Raises:
        ObjectiveError: If φ or its gradient is not finite at an origin.
    """

    def __init__(self, phi: Objective, gauge: Gauge, seed: int) -> None:
        self.phi, self.gauge = phi, gauge
        self.generator = Generator().manual_seed(seed)
        self.rows, self.size = phi.origin.shape
        self.psi, self.to_search = search_form(phi)
        self.counter = Counter(values=self.rows, gradients=self.rows)
        self.value = phi.value(phi.origin)
        self.height, self.gradient = self.psi.value_and_grad(phi.origin)
        if not (torch.isfinite(self.value).all() and torch.isfinite(self.gradient).all()):
            raise ObjectiveError("φ or its gradient is not finite at the origin, which has then no landscape.")

    def leading_pairs(self, max_steps: int) -> Eigenpairs:
        """The two leading eigenpairs, roughly: a direction to start from needs no digits."""
        pairs = top_eigenpairs(self.phi, min(2, self.size), tol=0.03, max_steps=max_steps)
        # A Hessian-vector product costs about two gradients.
        self.counter.gradients += 2 * pairs.num_hvp * self.rows
        return pairs
