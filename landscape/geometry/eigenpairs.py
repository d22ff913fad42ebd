"""Leading eigenpairs of the Hessian of any Objective: thick-restart Lanczos that knows its true residuals."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from landscape.errors import ConfigurationError
from landscape.geometry.operators import SymmetricOperator, as_operator, check_symmetry
from landscape.geometry.subspace import RitzPairs, Subspace, random_like
from landscape.geometry.vectors import is_large
from landscape.objectives import Objective

WHICH = ("LA", "SA", "LM", "BE")

# Vectors that are held before a restart, beyond 4 k; of large ones as few as 2 k and these. Images double them.
_HELD, _HELD_LARGE = 80, 10
# The search stops a little below the tolerance, so that rounding in another product does not lift it above.
_MARGIN = 0.95
# Products after a random direction has been added before pairs count: what the subspace has missed so far, these
# steps bring out.
_CONFIRMING = 5
# Share of a random direction in a given one.
_FRESH = 0.1


@dataclass(frozen=True)
class Eigenpairs:
    """Eigenpairs of B Hessians, with the evidence that they are eigenpairs."""

    eigenvalues: Tensor  # (B, k) float64
    eigenvectors: Tensor  # (B, k, n)
    residuals: Tensor  # (B, k) true ‖Hv − λv‖ / |λ|
    converged: Tensor  # (B, k) bool
    num_hvp: int  # Hessian-vector products per row
    asymmetry: Tensor  # (B,) largest |uᵀHv − vᵀHu| / max |H| within the subspace: rounding


def top_eigenpairs(
    phi: Objective | SymmetricOperator,
    k: int | tuple[int, int] = 5,
    which: str = "LA",
    tol: float = 1e-3,
    seed: int = 0,
    start: Tensor | None = None,
    max_steps: int | None = None,
    block: int = 1,
) -> Eigenpairs:
    """Eigenpairs of ∇²φ at the origin, or of an operator (Lanczos 1950; thick restart, Wu & Simon 2000).

    All rows go in lock-step. The subspace grows by the largest residual of a wanted pair that has not converged,
    which is Lanczos' method with full reorthogonalisation, and shows true residuals at every step. Directions that
    are given, such as the eigenvectors of a neighbouring point, are mixed with a random one, which brings out what
    they do not know.

    A pair has converged when its true residual obeys ‖Hv − λv‖ ≤ tol |λ|, or when it is zero to the working
    precision, ‖Hv − λv‖ ≤ 10 ε ‖H‖. What has not converged is returned, and marked. Of an eigenvalue that is
    exactly multiple, one start vector sees one copy, a ``block`` of b sees b copies.

    Args:
        phi: Any Objective, or an operator; its rows are B independent problems.
        k: Number of pairs; at most n. For ``BE`` also a pair, how many from the upper end and from the lower one.
        which: ``LA`` largest first, ``SA`` smallest first, ``LM`` largest magnitude first, ``BE`` k − k//2 from
            the upper end, then k//2 from the lower one (or as ``k`` says), outermost first.
        tol: Relative residual at which to stop.
        seed: Of the random directions, drawn on the CPU so that every device starts alike.
        start: Directions to begin with, ``(B, n)`` or ``(s, B, n)``, for example ``eigenvectors.transpose(0, 1)``
            of a neighbouring point; by default random ones.
        max_steps: Products at most; by default min(n, max(20 k, 200)).
        block: Directions that are added at a time, in one product of a block of vectors.

    Raises:
        ConfigurationError: If ``k``, ``which``, ``tol``, ``max_steps``, ``block`` or ``start`` make no sense.
        ObjectiveError: If a product is not finite, or products are not those of a symmetric matrix.
    """
    wanted = _wanted(k, which)
    operator = as_operator(phi)
    _check_arguments(operator.like, wanted, tol, start, max_steps, block)
    size, generator = operator.like.shape[1], Generator().manual_seed(seed)
    first = _first_directions(operator.like, start, block, generator)
    steps = max_steps or min(size, max(20 * wanted.k, 200))
    held = 2 * wanted.k + _HELD_LARGE if is_large(operator.like) else 4 * wanted.k + _HELD
    capacity = min(size, min(steps, held) + block)
    space = Subspace(operator.product, operator.like, capacity, generator)
    return _as_eigenpairs(space, *_grow(space, first, wanted, tol, steps, block))


def _first_directions(origin: Tensor, start: Tensor | None, block: int, generator: Generator) -> Tensor:
    """What to begin with, ``(block, B, n)``: random directions, or the sum of those given and a little noise.

    One vector with parts of all is worth more than all of them: a Krylov space refines its pairs together.
    """
    first = torch.stack([_unit(random_like(origin, generator)) for _ in range(block)])
    if start is not None:
        known = _unit(_unit(start.to(origin).reshape(-1, *origin.shape)).sum(0))
        first[0] = known + _FRESH * first[0]
    return first


def _unit(vectors: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / torch.where(length > 0, length, 1.0)


def _grow(
    space: Subspace, first: Tensor, wanted: Wanted, tol: float, steps: int, block: int
) -> tuple[RitzPairs, Tensor]:
    """Expand the subspace until the wanted pairs have converged in all rows, or the products are spent."""
    n = space.basis.shape[2]
    space.expand(first)
    since, settled_at = None, space.num_products + _CONFIRMING
    plain = block == 1  # until some direction is replaced all residuals point to one, and cost nothing to know
    while True:
        settled = space.num_products >= settled_at and space.size >= wanted.k
        room = min(n - space.size, steps - space.num_products)
        if plain and room and not settled:
            plain = not space.expand(space.images[space.size - 1][None]).any()
            settled_at += 0 if plain else _CONFIRMING
            continue
        pairs = space.ritz(wanted.select)
        done = _converged(space, pairs, _MARGIN * tol)
        if (settled and done.all()) or not room:
            return pairs, _converged(space, pairs, tol)
        directions = _directions(space, pairs, done, min(block, room))
        if space.size + len(directions) > len(space.basis):
            space.restart(wanted.more(len(space.basis) - block).select)
        plain = False
        if space.expand(directions).any() and (since is None or _changed(space, since, pairs.values, tol)):
            # Within an exhausted Krylov space all is exact, but what lies outside counts too.
            since, settled_at = pairs.values, space.num_products + _CONFIRMING


def _converged(space: Subspace, pairs: RitzPairs, tol: float) -> Tensor:
    """Which pairs have small enough residuals, ``(B, k)`` bool."""
    floor = 10 * torch.finfo(space.basis.dtype).eps * space.scale[:, None]
    return pairs.errors <= torch.maximum(tol * pairs.values.abs(), floor)


def _changed(space: Subspace, before: Tensor, now: Tensor, tol: float) -> bool:
    """Whether the wanted values are others than they were, ``(B, k)``."""
    if before.shape != now.shape:
        return True
    floor = 10 * torch.finfo(space.basis.dtype).eps * space.scale[:, None]
    return bool(((before - now).abs() > torch.maximum(tol * now.abs(), floor)).any())


def _directions(space: Subspace, pairs: RitzPairs, done: Tensor, count: int) -> Tensor:
    """Where to expand, ``(s, B, n)``: the largest residuals, or else images of what was added last."""
    errors = torch.where(done, -1.0, pairs.errors)
    largest, order = errors.sort(1, descending=True)
    result = []
    for number in range(count):
        direction = space.images[max(0, space.size - 1 - number)]
        if number < order.shape[1]:
            residual = torch.take_along_dim(pairs.residuals, order[:, number, None, None], 1)[:, 0]
            direction = torch.where(largest[:, number, None] > 0, residual, direction)
        result.append(direction)
    return torch.stack(result)


def _as_eigenpairs(space: Subspace, pairs: RitzPairs, converged: Tensor) -> Eigenpairs:
    residuals = torch.where(pairs.errors > 0, pairs.errors / pairs.values.abs(), 0.0)
    asymmetry = space.asymmetry()
    check_symmetry(asymmetry, space.basis.dtype)
    return Eigenpairs(pairs.values, pairs.vectors, residuals, converged, space.num_products, asymmetry)


@dataclass(frozen=True)
class Wanted:
    """Which eigenvalues are wanted: ``upper`` and ``lower`` of each end, or ``largest`` in magnitude."""

    upper: int = 0
    lower: int = 0
    largest: int = 0

    @property
    def k(self) -> int:
        """Number of all."""
        return self.upper + self.lower + self.largest

    def more(self, room: int) -> Wanted:
        """Those, and the next ones that are worth keeping in a restart, of the ends that are wanted."""
        extra = (room - self.k) // 3
        ends = (self.upper > 0) + (self.lower > 0)
        upper = self.upper and self.upper + extra - (extra // 2 if ends == 2 else 0)
        lower = self.lower and self.lower + (extra // 2 if ends == 2 else extra)
        return Wanted(upper, lower, self.largest and self.largest + extra)

    def select(self, values: Tensor) -> Tensor:
        """Indices of the wanted ones among ascending eigenvalues, ``(B, m) -> (B, k)``."""
        size = values.shape[1]
        if self.largest:
            return values.abs().argsort(dim=1, descending=True)[:, : self.largest]
        upper = min(self.upper, size)
        order = [*range(size - 1, size - 1 - upper, -1), *range(min(self.lower, size - upper))]
        return torch.tensor(order, device=values.device).expand(len(values), -1)


def _wanted(k: int | tuple[int, int], which: str) -> Wanted:
    if which not in WHICH:
        raise ConfigurationError(f"which = {which!r} is unknown; choose one of {', '.join(WHICH)}.")
    if not isinstance(k, int):
        if which != "BE" or min(k) < 0:
            raise ConfigurationError(f"k = {k} pairs of {which} cannot be; two numbers, not negative, go with BE.")
        return Wanted(*k)
    ends = {"LA": Wanted(k), "SA": Wanted(0, k), "LM": Wanted(0, 0, k), "BE": Wanted(k - k // 2, k // 2)}
    return ends[which]


def _check_arguments(
    origin: Tensor, wanted: Wanted, tol: float, start: Tensor | None, max_steps: int | None, block: int
) -> None:
    size, k = origin.shape[1], wanted.k
    if not 1 <= k <= size:
        raise ConfigurationError(
            f"k = {k} eigenpairs of a {size} × {size} Hessian cannot be; pass 1 ≤ k ≤ {size}."
        )
    if not tol > 0:
        raise ConfigurationError(f"tol = {tol} cannot be; pass a positive number such as 1e-3.")
    if max_steps is not None and max_steps < k:
        raise ConfigurationError(f"max_steps = {max_steps} products cannot give {k} pairs; pass {k} or more.")
    most = min(size, max_steps or size)
    if not 1 <= block <= most:
        raise ConfigurationError(f"block = {block} directions at a time cannot be; pass 1 ≤ block ≤ {most}.")
    if start is not None and start.shape[-2:] != origin.shape:
        raise ConfigurationError(
            f"start vectors of shape {tuple(start.shape)} do not fit origins of shape {tuple(origin.shape)}."
        )
