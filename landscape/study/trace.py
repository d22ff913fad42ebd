"""Tracing the curves c ↦ d(c), w(c) and ρ ↦ S(ρ) of one snapshot, in θ and in X."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from landscape.errors import ConfigurationError
from landscape.geometry.eigenpairs import top_eigenpairs
from landscape.geometry.envelope import envelope_deviation, inverse_disagreement
from landscape.geometry.level_sets import level_set_distance
from landscape.geometry.sharpness import worst_case_sharpness
from landscape.objectives import Objective
from landscape.problem.directions import targeted_starts
from landscape.snapshots import RunDescription, Snapshot, open_run
from landscape.study.curve import VERSION, Band, Curve, CurveConfig, SpaceCurve, level_grid
from landscape.study.given import NOTHING, Given
from landscape.study.ledger import content_key
from landscape.study.problems import data_subject, load_problem, theta_objective, x_objective
from landscape.study.searches import (
    EIGENVECTOR_STARTS,
    TARGETED_STARTS,
    SearchEffort,
    leading_starts,
    quadratic_distance,
)

# Levels of a curve lie close together and share what they find, so that each takes less than a level alone.
_THETA_EFFORT = SearchEffort(num_random=3, budget=30, restarts=0)
_X_EFFORT = SearchEffort(num_random=0, budget=50, restarts=1)
# Searches that begin at a known point need nothing else.
_FROM_POINTS = SearchEffort(num_random=0, budget=40, restarts=0)


def curve_key(theta_sha256: str, description: RunDescription, config: CurveConfig, given: Given = NOTHING) -> str:
    """Digest of everything that a curve depends on; that of a run's own data is known by its digest alone."""
    subject = {"measurement": "curve", "version": VERSION, "config": asdict(config), "theta_sha256": theta_sha256}
    subject |= {name: value for name, value in data_subject(description, given).items() if name != "dataset"}
    if "normalisation" in description.config:
        subject["normalisation"] = description.config["normalisation"]
    return content_key(subject)


def trace_curve(
    snapshot: Snapshot,
    config: CurveConfig | None = None,
    device: str = "auto",
    name: str | None = None,
    given: Given = NOTHING,
    key: str | None = None,
) -> Curve:
    """Trace d(c), w(c) and S(ρ) of one snapshot: in θ, and per image in X on the same levels.

    ``key`` is that of the curve, by which it is known again; that of `curve_key` unless given.

    Raises:
        LandscapeError: If the snapshot does not fit its model or data, or its loss is above all levels.
    """
    begin, config = time.perf_counter(), config or CurveConfig()
    if key is None:
        key = curve_key(snapshot.theta_sha256, open_run(snapshot.path).description, config, given)
    problem = load_problem(snapshot, device, given)
    theta = theta_objective(problem, config.theta_samples, config.seed)
    loss = theta.value(theta.origin).item()
    levels = level_grid(loss, config)
    pairs = top_eigenpairs(theta, EIGENVECTOR_STARTS, "LA", config.eigen_tol, config.seed)
    eigenvalue = pairs.eigenvalues[0, 0].item()
    x = x_objective(problem, config.x_samples, config.seed)
    images = x.origin.reshape(-1, *x.shape)
    return Curve(
        run=name or snapshot.path,
        key=key,
        path=snapshot.path,
        theta_sha256=snapshot.theta_sha256,
        epoch=snapshot.position.epoch,
        loss=loss,
        largest_eigenvalue=eigenvalue,
        levels=levels,
        quadratic=tuple(quadratic_distance(c, loss, eigenvalue) for c in levels),
        theta=trace(theta, levels, leading_starts(theta, pairs, levels), config, _THETA_EFFORT),
        x=trace(x, levels, targeted_starts(problem.model, images, x.y, TARGETED_STARTS), config, _X_EFFORT),
        settings=asdict(config),
        seconds=time.perf_counter() - begin,
    )


def trace(
    phi: Objective, levels: Sequence[float], starts: Tensor, config: CurveConfig, effort: SearchEffort
) -> SpaceCurve:
    """Both curves of any φ, searched apart, compared, and each then improved by the points of the other.

    Args:
        phi: Any Objective with origin ``(B, n)``.
        levels: Ascending levels c.
        starts: Displacements from which both searches start, ``(S, B, n)``.
        config: Tolerance, seed and number of radii.
        effort: How hard both searches try.

    Raises:
        ConfigurationError: If no level was reached.
    """
    found = _search_distance(phi, levels, starts, config, effort)
    radii = _radius_grid(found.distance, config.num_radii)
    sharp = _search_sharpness(phi, radii, starts, config, effort)
    gap = _disagreement(found, sharp)
    shorter = _shorten(phi, found, sharp, gap, config)
    higher = _raise(phi, found, sharp, gap, config)
    reached = torch.isfinite(shorter.distance)
    below = found.value[:, None] >= found.levels
    width = shorter.distance / (found.levels - found.value[:, None])
    envelope = envelope_deviation(shorter.levels, shorter.value, shorter.distance, shorter.gradient_norm)
    return SpaceCurve(
        num_rows=len(reached),
        distance=_band(shorter.distance),
        width=_band(width),
        reached=tuple(reached.double().mean(0).tolist()),
        below_minimum=tuple(below.double().mean(0).tolist()),
        envelope=_band(envelope.abs()).median,
        radii=tuple(radii.tolist()),
        sharpness=_band(higher.sharpness),
        disagreement=_band(gap),
        remaining=_band(_disagreement(shorter, higher)),
        num_shortened=int((shorter.distance < found.distance * (1 - config.tol**2)).sum()),
        num_raised=int((higher.sharpness > sharp.sharpness * (1 + config.tol**2)).sum()),
        num_gradients=shorter.num_gradients + higher.num_gradients,
        num_values=shorter.num_values + higher.num_values,
    )


@dataclass(frozen=True)
class _Distances:
    """What a curve needs of level-set distances, and their bill."""

    levels: Tensor  # (C,)
    value: Tensor  # (B,)
    distance: Tensor  # (B, C)
    gradient_norm: Tensor  # (B, C)
    displacement: Tensor  # (B, C, n)
    num_gradients: float
    num_values: float


@dataclass(frozen=True)
class _Sharpness:
    """What a curve needs of worst-case sharpness, and its bill."""

    radii: Tensor  # (R,)
    sharpness: Tensor  # (B, R)
    displacement: Tensor  # (B, R, n)
    num_gradients: float
    num_values: float


def _search_distance(
    phi: Objective, levels: Sequence[float] | Tensor, starts: Tensor, config: CurveConfig, effort: SearchEffort
) -> _Distances:
    found = level_set_distance(phi, levels, starts=starts, seed=config.seed, tol=config.tol, **asdict(effort))
    return _Distances(
        found.levels,
        found.value,
        found.distance,
        found.gradient_norm,
        found.points - phi.origin[:, None],
        found.num_gradients,
        found.num_values,
    )


def _search_sharpness(
    phi: Objective, radii: Tensor, starts: Tensor, config: CurveConfig, effort: SearchEffort
) -> _Sharpness:
    found = worst_case_sharpness(
        phi, radii, starts=starts, seed=config.seed, num_random=effort.num_random, tol=config.tol
    )
    displacement = found.points - phi.origin[:, None]
    return _Sharpness(radii, found.sharpness, displacement, found.num_gradients, found.num_values)


def _disagreement(found: _Distances, sharp: _Sharpness) -> Tensor:
    return inverse_disagreement(
        found.levels, found.value, found.distance, found.gradient_norm, sharp.radii, sharp.sharpness
    )


def _shorten(phi: Objective, found: _Distances, sharp: _Sharpness, gap: Tensor, config: CurveConfig) -> _Distances:
    """Search those levels again that a point of S exceeds at a clearly smaller distance: from that point.

    Level by level: a branch of nearest points that begins at a high level cannot be followed from a low one. From
    a level that became nearer the search goes on to the next.
    """
    improved = torch.zeros_like(found.value, dtype=torch.bool)
    for column, level in enumerate(found.levels):
        enough = sharp.sharpness >= (level - found.value)[:, None]
        first = enough.to(torch.int8).argmax(1)  # the smallest radius whose point exceeds the level
        everything = torch.arange(len(first), device=first.device)
        suspect = (level > found.value) & enough.any(1) & (gap[everything, first] > config.tol)
        rows = torch.nonzero(suspect | improved)[:, 0]
        if not len(rows):
            continue
        before = found.distance[:, column]
        start = torch.where(
            suspect[rows, None], sharp.displacement[rows, first[rows]], found.displacement[rows, column - 1]
        )
        again = _search_distance(phi.take(rows), level[None], start[None], config, _FROM_POINTS)
        found = _with_nearer(found, rows, column, again)
        improved = found.distance[:, column] < before * (1 - config.tol**2)
    return found


def _with_nearer(found: _Distances, rows: Tensor, column: int, again: _Distances) -> _Distances:
    """Distances with those of one level replaced where another search, of some rows, found nearer points."""
    better = again.distance[:, 0] < torch.nan_to_num(found.distance[rows, column], torch.inf)
    rows, again_rows = rows[better], torch.nonzero(better)[:, 0]
    columns = {name: getattr(found, name).clone() for name in ("distance", "gradient_norm", "displacement")}
    for name, column_values in columns.items():
        column_values[rows, column] = getattr(again, name)[again_rows, 0]
    share = len(better) / len(found.value)
    return replace(
        found,
        **columns,
        num_gradients=found.num_gradients + share * again.num_gradients,
        num_values=found.num_values + share * again.num_values,
    )


def _raise(phi: Objective, found: _Distances, sharp: _Sharpness, gap: Tensor, config: CurveConfig) -> _Sharpness:
    """Search S again, where a found distance says that it is too small: from the points of all levels."""
    lowest = torch.nan_to_num(gap, torch.inf).amin(1)
    rows = torch.nonzero(lowest < -config.tol)[:, 0]
    if not len(rows):
        return sharp
    starts = found.displacement[rows].transpose(0, 1)
    again = _search_sharpness(phi.take(rows), sharp.radii, starts, config, _FROM_POINTS)
    raised = sharp.sharpness.clone()
    raised[rows] = torch.maximum(raised[rows], again.sharpness)
    share = len(rows) / len(found.value)
    gradients, values = share * again.num_gradients, share * again.num_values
    return replace(
        sharp,
        sharpness=raised,
        num_gradients=sharp.num_gradients + gradients,
        num_values=sharp.num_values + values,
    )


def _radius_grid(distance: Tensor, count: int) -> Tensor:
    """Radii between the median distances of the lowest and of the highest level that was reached, ``(R,)``."""
    medians = torch.nanmedian(distance, 0).values
    medians = medians[torch.isfinite(medians)]
    if not len(medians):
        raise ConfigurationError("no level was reached; the curve has no points. Choose other levels.")
    first, last = medians.amin().log().item(), medians.amax().log().item()
    return torch.linspace(first, last, count, dtype=torch.float64, device=distance.device).exp()


def _band(values: Tensor) -> Band:
    """10 %, 50 % and 90 % quantiles over rows that have a number, ``(B, C)``."""
    levels = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64, device=values.device)
    return Band(*(tuple(row) for row in torch.nanquantile(values.double(), levels, dim=0).tolist()))
