"""Forecasts are of the size of what happens."""

from __future__ import annotations

import time

import torch

from landscape.geometry.eigenpairs import top_eigenpairs
from landscape.problem.datasets import load_dataset
from landscape.problem.models import build_model, initialise
from landscape.problem.parameter_objective import ParameterObjective, parameter_objective
from landscape.study.cost import hessian_cost, width_cost


def objective(samples: int) -> ParameterObjective:
    model = build_model("mlp", {"hidden": [300]})
    initialise(model, torch.Generator().manual_seed(0))
    data = load_dataset("mnist", "train").subset(samples, 0)
    return parameter_objective(model, data.images, data.labels)


def test_a_forecast_is_within_a_factor_of_what_it_takes() -> None:
    phi = objective(2000)
    cost = hessian_cost(phi, 3)
    begin = time.perf_counter()
    pairs = top_eigenpairs(phi, 3)
    seconds = time.perf_counter() - begin
    assert pairs.converged.all()
    assert cost.seconds / 20 < seconds < 20 * cost.seconds  # a machine may be busy: only the size is tested
    assert f"{phi.origin.numel():,} parameters" in cost.text


def test_more_work_and_more_vectors_cost_more() -> None:
    phi = objective(200)
    assert hessian_cost(phi, 9).num_bytes > hessian_cost(phi, 2).num_bytes > 4 * phi.origin.numel()
    few, many = width_cost(phi, 1, 10), width_cost(phi, 4, 200)
    assert many.seconds / many.gradient_seconds > 2 * few.seconds / few.gradient_seconds
    assert width_cost(phi, 1, 10, memory=10**9).num_bytes >= width_cost(phi, 1, 10, memory=1).num_bytes
