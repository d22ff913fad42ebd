"""Do two quantities order runs alike that differ in one setting alone?"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
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
    settings = [labels[i] for i in rows[cells.starts]]
    draws = resampled_weights(cells, bootstrap if cells.num_cells > 1 else 0, generators(seed)[1])
    drawn = np.concatenate([np.empty((0, cells.num_cells)), *draws])
    found = {axis: _compare(columns[rows], cells, _groups(settings, k), drawn) for k, axis in enumerate(axes)}
    return _summarise(names, (len(rows), cells.num_cells, len(columns) - len(rows)), found)


@dataclass(frozen=True)
class _Compared:
    """τ and sign error along one axis, as observed ``(2,)`` and in resampled tables ``(2, B)``."""

    groups: int
    pairs: int
    observed: Array
    drawn: Array
    too_many: bool


def _compare(columns: Array, cells: Cells, groups: Sequence[Codes], weights: Array) -> _Compared:
    too_many = sum(math.comb(len(group), 2) for group in groups) > MAX_LINKS
    groups = [] if too_many else groups
    signs = [_signs(columns, cells, group) for group in groups]
    once = np.ones((1, cells.num_cells))
    pairs = int(sum(_num_pairs(once, cells, group).sum() for group in groups))
    observed, drawn = (_agreement(groups, signs, cells, w) for w in (once, weights))
    return _Compared(len(groups), pairs, observed[:, 0], drawn, too_many)


def _summarise(names: tuple[str, str], sizes: tuple[int, int, int], found: Mapping[str, _Compared]) -> Granulated:
    """All axes, and the mean and the worst of those along which runs are compared."""
    agreements = tuple(
        AxisAgreement(axis, a.groups, a.pairs, *(estimate(a.observed[k], a.drawn[k]) for k in (0, 1)))
        for axis, a in found.items()
    )
    note = ", ".join(f"too many settings along {axis}" for axis, a in found.items() if a.too_many)
    compared = {axis: a for axis, a in found.items() if a.pairs}
    if not compared:
        nothing = note or "no two runs differ in one of these settings alone"
        return Granulated(*names, *sizes, agreements, Estimate(math.nan), "", Estimate(math.nan), nothing)
    taus, errors = (np.stack([a.drawn[k] for a in compared.values()]) for k in (0, 1))
    worst = max(compared, key=lambda axis: float(compared[axis].observed[1]))
    return Granulated(
        *names,
        *sizes,
        agreements,
        estimate(float(np.mean([a.observed[0] for a in compared.values()])), taus.mean(axis=0)),
        worst,
        estimate(compared[worst].observed[1], errors.max(axis=0)),
        note,
    )


def _groups(settings: Sequence[tuple[Hashable, ...]], axis: int) -> list[Codes]:
    """Cells of equal ``settings`` but for the one at ``axis``, of which there are several."""
    groups: dict[Hashable, list[int]] = {}
    for cell, values in enumerate(settings):
        groups.setdefault((*values[:axis], *values[axis + 1 :]), []).append(cell)
    return [np.array(members) for members in groups.values() if len(members) > 1]


def _signs(columns: Array, cells: Cells, group: Codes) -> Array:
    """Sum of sign(Δx) sign(Δy) over the pairs of runs of each two cells of a group, ``(g, g)``."""
    size = int(cells.sizes[group].max())
    padded = np.full((len(group), size, 2), math.nan)
    for position, cell in enumerate(group):
        start, length = cells.starts[cell], cells.sizes[cell]
        padded[position, :length] = columns[start : start + length]
    signs = np.empty((len(group), len(group)))
    block = max(1, BLOCK // (len(group) * size * size))
    for begin in range(0, len(group), block):
        difference = padded[begin : begin + block, None, :, None] - padded[None, :, None]
        signs[begin : begin + block] = np.nansum(np.sign(difference).prod(axis=-1), axis=(2, 3))
    np.fill_diagonal(signs, 0.0)
    return signs


def _num_pairs(weights: Array, cells: Cells, group: Codes) -> Array:
    """Number of pairs of runs of different cells of a group, ``(B,)``, where cells occur ``weights`` times."""
    runs = weights[:, group] * cells.sizes[group]
    # (Σ a)² − Σ a² counts each pair twice. A cell and its copies have the same settings, and are not compared.
    return np.asarray((runs.sum(axis=1) ** 2 - (runs**2).sum(axis=1)) / 2)


def _agreement(groups: Sequence[Codes], signs: Sequence[Array], cells: Cells, weights: Array) -> Array:
    """Mean τ over groups, and sign error over all pairs, of cells that occur ``weights`` times: ``(2, B)``.

    A group without pairs does not count.
    """
    taus, counted, above, below = np.zeros((4, len(weights)))
    for group, sign in zip(groups, signs, strict=True):
        times = weights[:, group]
        agreeing, pairs = np.sum((times @ sign) * times, axis=1) / 2, _num_pairs(weights, cells, group)
        taus += np.divide(agreeing, pairs, out=np.zeros_like(pairs), where=pairs > 0)
        counted += pairs > 0
        above += agreeing
        below += pairs
    return np.stack([_divide(taus, counted), (1 - _divide(above, below)) / 2])


def _divide(above: Array, below: Array) -> Array:
    return np.asarray(np.divide(above, below, out=np.full(below.shape, math.nan), where=below > 0))
