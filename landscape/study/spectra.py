"""Curvature of stored snapshots: leading eigenvalues along a run, and the spectrum of one snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from landscape.geometry.eigenpairs import top_eigenpairs
from landscape.geometry.operators import SymmetricOperator, check_symmetry, curvature_operator
from landscape.geometry.spectrum import block_traces, frobenius_norm, spectral_density, trace
from landscape.problem.network import parameter_indices
from landscape.problem.parameter_objective import ParameterObjective
from landscape.snapshots import Run, load_snapshot
from landscape.study.curvature import NamedEstimate, Spectrum, SpectrumConfig, TrajectoryConfig, TrajectoryPoint
from landscape.study.given import NOTHING, Given
from landscape.study.problems import Problem, load_problem, theta_objective


def trace_trajectory(
    run: Run, indices: Sequence[int], config: TrajectoryConfig, device: str = "auto", given: Given = NOTHING
) -> Iterator[TrajectoryPoint]:
    """Leading eigenpairs of snapshots in turn, each search starting from the one before.

    The leading eigenspace moves slowly along a run, so that a neighbour's vectors save products. The network is
    traced once for all points.

    Raises:
        LandscapeError: If a snapshot, its model or its data cannot be used.
    """
    problem: Problem | None = None
    start: Tensor | None = None
    for index in indices:
        snapshot = load_snapshot(run.path, f"index={index}")
        if problem is None or snapshot.buffers:  # which differ from snapshot to snapshot
            problem = load_problem(snapshot, device, given)
            problem = problem.double() if config.double else problem
            phi = theta_objective(problem, config.samples, config.seed, config.memory)
        row = torch.cat([p.reshape(-1) for p in snapshot.parameters.values()])[None].to(phi.origin)
        phi = replace(phi, origin=row)
        operator = theta_operator(phi, config.kind, config.parameters)
        pairs = top_eigenpairs(
            operator, config.k, config.which, config.tol, config.seed, start=start, max_steps=config.max_steps
        )
        start = pairs.eigenvectors.transpose(0, 1)
        yield TrajectoryPoint(
            index,
            snapshot.position.epoch,
            snapshot.position.samples_seen,
            float(phi.value(row)),
            tuple(pairs.eigenvalues[0].tolist()),
            tuple(pairs.residuals[0].tolist()),
            tuple(pairs.converged[0].tolist()),
            pairs.num_hvp,
        )


def theta_operator(phi: ParameterObjective, kind: str, parameters: Sequence[str]) -> SymmetricOperator:
    """A curvature matrix over θ, or its diagonal block of the parameters whose names match.

    Raises:
        ConfigurationError: If a pattern matches no name.
    """
    chosen = parameter_indices(phi.model, parameters)
    operator = curvature_operator(phi, kind)
    return operator.restricted(torch.cat(list(chosen.values()))) if parameters else operator


def spectrum(problem: Problem, run: str, epoch: int, config: SpectrumConfig) -> Spectrum:
    """Trace, Frobenius norm, traces of the blocks of all parameters, and density, with their errors."""
    phi = theta_objective(problem, config.samples, config.seed, config.memory)
    operator = theta_operator(phi, config.kind, config.parameters)
    check_symmetry(operator.asymmetry(config.seed), phi.origin.dtype)
    whole = trace(operator, config.num_products, config.seed)
    norm = frobenius_norm(operator, config.num_products, config.seed)
    sizes = {name: len(index) for name, index in parameter_indices(problem.model, config.parameters).items()}
    blocks = block_traces(operator, list(sizes.values()), config.num_products, config.seed)
    density = spectral_density(operator, config.steps, config.num_probes, config.width, config.seed)
    named = [("trace", operator.shape[1], whole), ("frobenius_norm", operator.shape[1], norm)]
    estimates = [NamedEstimate(n, size, float(x.value), float(x.standard_error)) for n, size, x in named]
    parts = zip(sizes.items(), blocks.value[0].tolist(), blocks.standard_error[0].tolist(), strict=True)
    estimates += [NamedEstimate(f"trace of {name}", size, v, error) for (name, size), v, error in parts]
    return Spectrum(
        run=run,
        epoch=epoch,
        kind=config.kind,
        loss=float(phi.value(phi.origin)),
        estimates=tuple(estimates),
        smallest=float(density.nodes.min()),
        largest=float(density.nodes.max()),
        grid=tuple(density.grid[0].tolist()),
        density=tuple(density.density[0].tolist()),
        standard_error=tuple(density.standard_error[0].tolist()),
        width=float(density.width),
        num_products=2 + sum(x.num_products for x in (whole, norm, blocks, density)),  # two told the symmetry
    )
