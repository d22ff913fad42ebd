"""Do two quantities order runs alike that differ in one setting alone?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from landscape.errors import ConfigurationError
from landscape.statistics.association import as_columns
from landscape.statistics.cells import Array, Cells, Codes, canonical_order
from landscape.statistics.resampling import BLOCK, Estimate, estimate, generators, resampled_weights

MAX_LINKS = 1_000_000  # pairs of cells along one axis; the bootstrap takes each once a draw


@dataclass(frozen=True)
class AxisAgreement:
    """Runs that differ in the setting ``axis`` alone: ``pairs`` of them in ``groups`` of equal other settings.

    ``tau``: mean over groups of (concordant − discordant) / pairs. ``sign_error``: share of all pairs that the
    two quantities order differently, ties as halves.
    """

    axis: str
    groups: int
    pairs: int
    tau: Estimate
    sign_error: Estimate


@dataclass(frozen=True)
class Granulated:
    """Agreement of ``x`` and ``y`` for each axis; ``tau``, its mean over axes; the axis of the largest sign error.

    An axis in which no two runs differ alone has NaN and is not counted. ``note`` says why there is nothing.
    """

    x: str
    y: str
    n: int
    num_cells: int
    dropped: int
    axes: tuple[AxisAgreement, ...]
    tau: Estimate
    worst_axis: str
    sign_error: Estimate  # of the worst axis; its interval is that of the largest, whichever axis it is
    note: str = ""


def granulate(
    x: ArrayLike,
    y: ArrayLike,
    axes: Mapping[str, Sequence[Hashable]],
    others: Sequence[Hashable] | None = None,
    *,
    bootstrap: int = 2000,
    seed: int = 0,
    names: tuple[str, str] = ("x", "y"),
) -> Granulated:
    """Granulated Kendall τ and sign errors of ``x`` and ``y``, ``(n,)``, over the settings ``axes``.

    Runs are compared that differ in one axis and are equal in all others and in ``others``, whatever their seeds.
    ψ_i is the mean over such groups of Kendall's τ, Ψ the mean of ψ_i over axes (Jiang et al. 2020,
    arXiv:1912.02178).
    A sign error is (1 − mean sign(Δx) sign(Δy)) / 2 over pairs; the worst axis counts (Dziugaite et al. 2020,
    arXiv:2010.11924). Intervals resample whole cells of equal settings. There is no p: cells are not exchangeable,
    and permuting them rejects true nulls (docs/statistics.md).

    Raises:
        ConfigurationError: If a setting is not given for each row.
    """
    columns = as_columns(x, y)
    rest = list(others) if others is not None else [None] * len(columns)
    if any(len(values) != len(columns) for values in (*axes.values(), rest)):
        raise ConfigurationError(f"settings do not fit {len(columns)} rows: pass one value per row of each")
    keep = np.flatnonzero(~np.isnan(columns).any(axis=1))
    labels = list(zip(*axes.values(), rest, strict=True))
    order, cells = canonical_order(columns[keep], [labels[i] for i in keep])
    rows = keep[order]
    first_of_cell = [labels[i] for i in rows[cells.starts]]
    links = {axis: _links(first_of_cell, position) for position, axis in enumerate(axes)}
    signs = {axis: _signs(columns[rows], cells, found) for axis, found in links.items()}
    once = np.ones((1, cells.num_cells))
    drawn = list(resampled_weights(cells, bootstrap if cells.num_cells > 1 else 0, generators(seed)[1]))
    found = {axis: _agreement(links[axis], signs[axis], cells, [once]) for axis in axes}
    spread = {axis: _agreement(links[axis], signs[axis], cells, drawn) for axis in axes}
    agreements = tuple(
        AxisAgreement(
            axis,
            links[axis].num_groups,
            links[axis].num_pairs(cells),
            *(estimate(found[axis][k, 0], spread[axis][k]) for k in (0, 1)),
        )
        for axis in axes
    )
    sizes = len(rows), cells.num_cells, len(columns) - len(rows)
    note = ", ".join(f"too many settings along {axis}" for axis in axes if links[axis].too_many)
    compared = [a.axis for a in agreements if a.pairs]
    if not compared:
        nothing = note or "no two runs differ in one of these settings alone"
        return Granulated(*names, *sizes, agreements, Estimate(math.nan), "", Estimate(math.nan), nothing)
    values, draws = (np.stack([each[axis] for axis in compared]) for each in (found, spread))
    worst = int(values[:, 1, 0].argmax())
    return Granulated(
        *names,
        *sizes,
        agreements,
        estimate(values[:, 0, 0].mean(), draws[:, 0].mean(axis=0)),
        compared[worst],
        estimate(values[worst, 1, 0], draws[:, 1].max(axis=0)),
        note,
    )


@dataclass(frozen=True)
class _Links:
    """Pairs of cells that differ in one axis alone, ``(m,)``, ordered by their group of equal other settings."""

    first: Codes
    second: Codes
    group: Codes
    num_groups: int
    too_many: bool

    def num_pairs(self, cells: Cells) -> int:
        """Number of pairs of runs."""
        return int((cells.sizes[self.first] * cells.sizes[self.second]).sum()) if len(self.first) else 0


def _links(settings: Sequence[tuple[Hashable, ...]], axis: int) -> _Links:
    """Links of cells with ``settings`` along the one at ``axis``."""
    groups: dict[Hashable, list[int]] = {}
    for cell, values in enumerate(settings):
        groups.setdefault((*values[:axis], *values[axis + 1 :]), []).append(cell)
    several = [members for members in groups.values() if len(members) > 1]
    too_many = sum(math.comb(len(members), 2) for members in several) > MAX_LINKS
    several = [] if too_many else several
    pairs = [(a, b, k) for k, members in enumerate(several) for a, b in itertools.combinations(members, 2)]
    first, second, group = np.array(pairs, np.intp).reshape(-1, 3).T
    return _Links(first, second, group, len(several), too_many)


def _signs(columns: Array, cells: Cells, links: _Links) -> Array:
    """Sum of sign(Δx) sign(Δy) over the pairs of runs of each pair of cells, ``(m,)``."""
    size = int(cells.sizes.max(initial=0))
    padded = np.full((cells.num_cells, size, 2), math.nan)
    padded[cells.codes, np.arange(cells.num_rows) - cells.starts[cells.codes]] = columns
    signs, block = np.zeros(len(links.first)), max(1, BLOCK // max(size * size, 1))
    for begin in range(0, len(signs), block):
        part = slice(begin, begin + block)
        difference = padded[links.first[part], :, None] - padded[links.second[part], None]
        signs[part] = np.nansum(np.sign(difference).prod(axis=-1), axis=(1, 2))
    return signs


def _agreement(links: _Links, signs: Array, cells: Cells, weights: Iterable[Array | Codes]) -> Array:
    """Mean τ over groups, and sign error over all pairs, of cells that occur ``weights`` times: ``(2, B)``.

    A cell is not compared with its own copies; a group without pairs does not count.
    """
    pairs = cells.sizes[links.first] * cells.sizes[links.second]
    begins = np.flatnonzero(np.diff(links.group, prepend=-1))
    results = [np.empty((2, 0))]
    for counts in weights:
        if not len(begins):
            results.append(np.full((2, len(counts)), math.nan))
            continue
        times = counts[:, links.first] * counts[:, links.second]
        above = np.add.reduceat(times * signs, begins, axis=1)
        below = np.add.reduceat(times * pairs, begins, axis=1).astype(float)
        tau = _divide(_divide(above, below, 0.0).sum(axis=1), (below > 0).sum(axis=1).astype(float))
        results.append(np.stack([tau, (1 - _divide(above.sum(axis=1), below.sum(axis=1))) / 2]))
    return np.concatenate(results, axis=1)


def _divide(above: Array, below: Array, otherwise: float = math.nan) -> Array:
    return np.asarray(np.divide(above, below, out=np.full(below.shape, otherwise), where=below > 0))
