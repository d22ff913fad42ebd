"""A row of the study: all its columns, and that each is what its name says."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh
from small_runs import SMALL, small_config, small_mnist

from landscape.errors import ConfigurationError, DatasetError, ModelError
from landscape.geometry.level_sets import level_set_distance
from landscape.problem.datasets import DATASETS, load_dataset
from landscape.problem.metrics import parameter_metric
from landscape.robustness.accuracy import accuracy, margins, robust_accuracy
from landscape.snapshots import Snapshot, load_snapshot
from landscape.study.columns import (
    BELOW_MINIMUM,
    COLUMNS,
    LEVELS,
    NOT_REACHED,
    OK,
    Row,
    attack_column,
    fgsm_column,
    level_label,
)
from landscape.study.given import Given
from landscape.study.measure import Measured, measure, measure_samples
from landscape.study.measure_config import MeasureConfig
from landscape.study.problems import load_problem, theta_objective, x_objective
from landscape.study.searches import flag, quadratic_distance, x_distance
from landscape.traces import Traces
from landscape.training.loop import train

CONFIG = MeasureConfig(
    levels=(0.01, math.log(2), 1.7),
    eps=(0.05, 0.3),
    theta_samples=60,
    x_samples=8,
    attack_samples=100,
    ladder_samples=20,
    metrics=("elementwise", "layer"),
    x_norms=("linf",),
)
BELOW, LN2, HIGH = (level_label(level) for level in CONFIG.levels)
ARGUMENTS = {"channels": [2, 3], "hidden": 10}
# What the survey, not the measurement, knows about a row.
IDENTITY = {c.name for c in itertools.takewhile(lambda c: c.name != "repeat", COLUMNS)} - {"status"}


@pytest.fixture(scope="module", autouse=True)
def small_data() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, SMALL, small_mnist)
        yield


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    folder = tmp_path_factory.mktemp("measure") / "run"
    settings = small_config(
        model="cnn", model_args=ARGUMENTS, optimizer="adam", learning_rate=0.01, epochs=12, snapshot_every=10**6
    )
    train(settings, folder)
    return load_snapshot(folder)


@pytest.fixture(scope="module")
def measured(snapshot: Snapshot) -> Measured:
    return measure_samples(snapshot, CONFIG, "cpu")


@pytest.fixture(scope="module")
def row(measured: Measured) -> Row:
    return measured.row


def number(row: Row, name: str) -> float:
    value = row[name]
    assert isinstance(value, float), name
    return value


def expected_columns(config: MeasureConfig) -> set[str]:
    names = {column.name for column in COLUMNS if not column.argument} - IDENTITY
    absent = {"filter"} | {"l1"}  # not asked for
    for column in COLUMNS:
        if absent & set(column.name.split("_")):
            continue
        if column.argument == "level":
            names |= {f"{column.name}[{level_label(level)}]" for level in config.levels}
        if column.argument == "eps":
            names |= {f"{column.name}[{eps:g}]" for eps in config.eps}
    return names


def test_a_row_has_all_columns(row: Row) -> None:
    assert set(row) == expected_columns(CONFIG) and row["status"] == OK
    assert {type(value) for value in row.values()} == {str, float, int}


def test_default_levels_have_names() -> None:
    assert [level_label(level) for level in MeasureConfig().levels] == list(LEVELS)


def test_a_level_below_the_minimum_has_no_width(row: Row) -> None:
    assert number(row, "train_loss") > CONFIG.levels[0]
    assert row[f"d_theta_flag[{BELOW}]"] == BELOW_MINIMUM
    theta = [name for name in row if name.endswith(f"_theta[{BELOW}]") or name.startswith("d_theta_")]
    nan = [name for name in theta if name.endswith(f"[{BELOW}]") and "flag" not in name]
    assert len(nan) == 10 and all(math.isnan(number(row, name)) for name in nan)
    finite = [name for name, value in row.items() if isinstance(value, float) and f"[{BELOW}]" not in name]
    assert all(math.isfinite(number(row, name)) for name in finite)


@pytest.mark.parametrize("level", CONFIG.levels[1:])
def test_theta_distances_carry_their_evidence(row: Row, level: float) -> None:
    """The point lies on the level set, the displacement along the gradient there; w = d / (c − φ*)."""
    label = level_label(level)
    distance = number(row, f"d_theta[{label}]")
    assert row[f"d_theta_flag[{label}]"] == OK
    assert number(row, f"d_theta_level_error[{label}]") < 1e-3 * level
    assert number(row, f"d_theta_angle[{label}]") < 0.2
    assert number(row, f"d_theta_spread[{label}]") >= 0
    assert number(row, f"w_theta[{label}]") == pytest.approx(distance / (level - number(row, "train_loss")))
    assert number(row, f"d_theta_quadratic[{label}]") == pytest.approx(
        math.sqrt(2 * (level - number(row, "train_loss")) / number(row, "lambda_1"))
    )


def test_distances_grow_with_the_level(row: Row) -> None:
    for name in ("d_theta", "d_x_median", "d_theta_quadratic"):
        assert 0 < number(row, f"{name}[{LN2}]") < number(row, f"{name}[{HIGH}]")


def test_theta_distance_is_that_of_a_point_on_the_level(row: Row, snapshot: Snapshot) -> None:
    """Another, plainer search finds a point about as near, and no random direction a nearer one."""
    phi = theta_objective(load_problem(snapshot, "cpu"), CONFIG.theta_samples, CONFIG.seed)
    other = level_set_distance(phi, [math.log(2)], seed=5)
    assert number(row, f"d_theta[{LN2}]") == pytest.approx(other.distance[0, 0].item(), rel=0.05)
    generator = torch.Generator().manual_seed(7)
    directions = torch.randn((50, phi.origin.shape[1]), generator=generator)
    nearer = 0.9 * number(row, f"d_theta[{LN2}]") * directions / directions.norm(dim=1, keepdim=True)
    assert (phi.value(phi.origin + nearer) < math.log(2)).all()


def test_input_columns_are_quantiles_over_samples(row: Row, snapshot: Snapshot) -> None:
    problem = load_problem(snapshot, "cpu")
    phi = x_objective(problem, CONFIG.x_samples, CONFIG.seed)
    found = x_distance(problem, phi, CONFIG)
    for i, level in enumerate(CONFIG.levels):
        label = level_label(level)
        reached = found.reached[:, i].numpy()
        distances = found.distance[:, i].numpy()[reached]
        assert number(row, f"d_x_reached[{label}]") == reached.mean()
        assert number(row, f"d_x_below[{label}]") == (found.value >= level).double().mean().item()
        for name, q in [("d_x_q10", 0.1), ("d_x_median", 0.5), ("d_x_q90", 0.9)]:
            assert number(row, f"{name}[{label}]") == pytest.approx(np.quantile(distances, q))
        widths = distances / (level - found.value.numpy()[reached])
        assert number(row, f"w_x_median[{label}]") == pytest.approx(np.median(widths))


def test_attack_columns_are_accuracies(row: Row, snapshot: Snapshot) -> None:
    problem = load_problem(snapshot, "cpu")
    data = problem.test.subset(CONFIG.attack_samples, CONFIG.seed)
    assert row["clean_accuracy"] == accuracy(problem.model, data.images, data.labels)
    assert row["margin_median"] == margins(problem.model, data.images, data.labels).median().item()
    for eps in CONFIG.eps:
        exact = robust_accuracy(problem.model, data.images, data.labels, eps).accuracy
        assert row[fgsm_column("exact", eps)] == exact
    assert number(row, "clean_accuracy") > 0.7
    assert number(row, "clean_accuracy") >= number(row, "fgsm_exact[0.05]") >= number(row, "fgsm_exact[0.3]")


def test_the_ladder_of_a_row_is_one_of_its_samples(row: Row, snapshot: Snapshot) -> None:
    for eps in CONFIG.eps:
        shares = [number(row, attack_column(name, eps)) for name in ("random_noise", "pgd_log_odds", "square")]
        assert 0 <= number(row, attack_column("worst_case", eps)) <= min(shares)
        assert number(row, attack_column("worst_case", eps)) <= number(row, attack_column("nearest_boundary", eps))
        assert row[attack_column("masking", eps)] == "sound" and row[attack_column("masking_reasons", eps)]
    assert 0 < number(row, "boundary_median") < 0.3
    assert number(row, "margin_q10") < number(row, "margin_median") < number(row, "margin_q90")
    assert number(row, "rounded_share") == number(row, "vanished_share") == 0
    assert number(row, "cosine_median") > 0.999


def test_arrays_hold_what_the_row_sums_up(row: Row, measured: Measured) -> None:
    arrays, eps = measured.arrays, CONFIG.eps
    assert [f"fgsm_exact[{e:g}]" for e in eps] == [fgsm_column("exact", e) for e in eps]
    for i, e in enumerate(eps):
        assert arrays["fgsm_exact"][i].mean() == pytest.approx(number(row, fgsm_column("exact", e)))
        worst = arrays["ladder_correct"][:, : i + 1].all((0, 1)).mean()
        assert worst == pytest.approx(number(row, attack_column("worst_case", e)))
    assert arrays["d_x"].shape == arrays["w_x"].shape == (len(CONFIG.levels), CONFIG.x_samples)
    assert arrays["ladder_distance"].shape == (len(arrays["ladder_rungs"]), CONFIG.ladder_samples)
    nearest = np.median(arrays["ladder_distance"].min(0))
    assert number(row, "boundary_median") == pytest.approx(nearest, rel=0.2)
    assert len(arrays["health_margin"]) == CONFIG.ladder_samples


@pytest.mark.thorough
def test_neighbours_are_traced_once_and_measured_alike(row: Row, snapshot: Snapshot) -> None:
    traces = Traces()
    neighbour = load_snapshot(snapshot.path, "index=1")
    assert neighbour.theta_sha256 != snapshot.theta_sha256
    measure_samples(neighbour, CONFIG, "cpu", traces=traces)
    (split,) = traces.splits.values()
    shared = measure_samples(snapshot, CONFIG, "cpu", traces=traces).row
    assert split is not None and list(traces.splits.values()) == [split]
    assert {k: repr(v) for k, v in shared.items()} == {k: repr(v) for k, v in row.items()}


def test_networks_of_more_than_parameters_share_no_traces(snapshot: Snapshot) -> None:
    traces, normalised = Traces(), {"normalisation": {"mean": [0.1], "std": [0.3]}}
    assert load_problem(snapshot, "cpu", traces=traces).traces is traces
    other = replace(snapshot, config=snapshot.config | normalised)
    assert load_problem(other, "cpu", traces=traces).traces is not traces


def test_loss_and_curvature(row: Row, snapshot: Snapshot) -> None:
    """Over the subset that the configuration names, by plain PyTorch in float64."""
    problem = load_problem(snapshot, "cpu")
    data = problem.train.subset(CONFIG.theta_samples, CONFIG.seed)
    model = problem.model.double()
    loss = torch.nn.functional.cross_entropy(model(data.images.double()), data.labels)
    parameters = list(model.parameters())
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters, create_graph=True)])
    assert row["train_loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert row["gradient_norm"] == pytest.approx(gradient.norm().item(), rel=1e-3)
    assert row["theta_norm"] == pytest.approx(math.sqrt(sum(p.square().sum().item() for p in parameters)))

    def product(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        parts = torch.autograd.grad(gradient @ torch.from_numpy(vector).reshape(-1), parameters, retain_graph=True)
        return torch.cat([part.reshape(-1) for part in parts]).numpy()

    assert number(row, "lambda_residual") <= CONFIG.eigen_tol
    hessian = LinearOperator((len(gradient),) * 2, matvec=product, dtype=np.float64)
    start = np.random.default_rng(0).normal(size=len(gradient))
    largest = eigsh(hessian, 5, which="LA", v0=start, tol=1e-4, return_eigenvectors=False)
    (lowest,) = eigsh(hessian, 1, which="SA", v0=start, tol=1e-4, return_eigenvectors=False)
    found = [number(row, f"lambda_{i}") for i in range(1, 6)]
    assert found == pytest.approx(sorted(largest, reverse=True), rel=0.01)
    assert row["lambda_min"] == pytest.approx(lowest, rel=0.05)
    assert number(row, "lambda_1_residual") <= CONFIG.eigen_tol


@pytest.mark.thorough
def test_measured_twice(row: Row, snapshot: Snapshot) -> None:
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again = measure(snapshot, CONFIG, "cpu")
    assert {k: repr(v) for k, v in again.items()} == {k: repr(v) for k, v in row.items()}
    assert torch.equal(torch.get_rng_state(), state)


def test_the_seed_chooses_the_samples(snapshot: Snapshot) -> None:
    problem = load_problem(snapshot, "cpu")
    losses = [theta_objective(problem, 60, seed) for seed in (0, 0, 1)]
    values = [phi.value(phi.origin).item() for phi in losses]
    assert values[0] == values[1] != values[2]


def test_other_metrics_and_norms(row: Row, snapshot: Snapshot) -> None:
    """Each is the distance that a search in that metric or norm finds; ‖·‖_∞ ≤ ‖·‖₂ bounds one in X."""
    problem = load_problem(snapshot, "cpu")
    phi = theta_objective(problem, CONFIG.theta_samples, CONFIG.seed)
    for metric in CONFIG.metrics:
        other = level_set_distance(phi, [math.log(2)], metric=parameter_metric(problem.model, metric), seed=5)
        assert number(row, f"d_theta_{metric}[{LN2}]") == pytest.approx(other.distance[0, 0].item(), rel=0.1)
        assert row[f"d_theta_{metric}_flag[{LN2}]"] == OK
    assert number(row, f"d_x_linf_median[{LN2}]") < 0.5 * number(row, f"d_x_median[{LN2}]")
    assert number(row, f"d_x_linf_median[{LN2}]") > number(row, f"d_x_median[{LN2}]") / 28
    assert row[f"d_x_linf_reached[{LN2}]"] == row[f"d_x_reached[{LN2}]"]


@pytest.mark.thorough
def test_repeats_are_measured_on_other_samples(row: Row, snapshot: Snapshot) -> None:
    again = measure(snapshot, replace(CONFIG, repeat=1), "cpu")
    assert (row["repeat"], again["repeat"]) == (0, 1)
    assert again["theta_norm"] == row["theta_norm"]
    for name in ("train_loss", "lambda_1", f"d_theta[{LN2}]", f"d_x_median[{LN2}]", "fgsm_exact[0.05]"):
        assert again[name] != row[name]
        assert 0.25 < number(again, name) / number(row, name) < 4
    with pytest.raises(ConfigurationError, match="disjoint parts"):
        measure(snapshot, replace(CONFIG, repeat=10**4), "cpu")


@pytest.mark.thorough
def test_an_equal_margin_changes_confidence_and_no_decision(row: Row, snapshot: Snapshot) -> None:
    equal = measure(snapshot, replace(CONFIG, equal_margin=3.0), "cpu")
    assert number(equal, "margin_median") == pytest.approx(3.0, rel=1e-4)
    assert number(equal, "logit_factor") == pytest.approx(3.0 / number(row, "margin_median"))
    assert row["logit_factor"] == 1.0
    for name in ("clean_accuracy", "random_noise[0.3]"):
        assert equal[name] == row[name]
    assert number(equal, "boundary_median") == pytest.approx(number(row, "boundary_median"), rel=0.05)
    assert number(equal, "theta_norm") != number(row, "theta_norm")


def test_a_network_that_is_mostly_wrong_has_no_equal_margin(snapshot: Snapshot) -> None:
    wrong = {name: -p if name.startswith("9") else p for name, p in snapshot.parameters.items()}
    with pytest.raises(ModelError, match="median margin is -"):
        measure(replace(snapshot, parameters=wrong), replace(CONFIG, equal_margin=3.0), "cpu")


@pytest.mark.parametrize(
    ("level", "value", "eigenvalue", "expected"),
    [
        (1.0, 0.5, 4.0, 0.5),
        (2.5, 0.5, 1.0, 2.0),
        (0.5, 0.5, 1.0, math.nan),
        (0.4, 0.5, 1.0, math.nan),
        (1.0, 0.5, 0.0, math.nan),
        (1.0, 0.5, -1.0, math.nan),
    ],
)
def test_quadratic_estimate(level: float, value: float, eigenvalue: float, expected: float) -> None:
    assert quadratic_distance(level, value, eigenvalue) == pytest.approx(expected, nan_ok=True)


def test_flags(snapshot: Snapshot) -> None:
    """A function that never rises above one does not reach two."""
    from landscape.objectives import objective

    phi = objective(lambda z: 1 - torch.exp(-z.square().sum(1)), torch.full((1, 2), 0.5, dtype=torch.float64))
    found = level_set_distance(phi, [0.1, 0.9, 2.0])
    assert [flag(found, 0, level) for level in range(3)] == [BELOW_MINIMUM, OK, NOT_REACHED]


# ---- snapshots that do not fit


def test_model_arguments_are_honoured(snapshot: Snapshot) -> None:
    problem = load_problem(snapshot, "cpu")
    assert snapshot.model_args == ARGUMENTS
    assert [tuple(p.shape) for p in problem.model.parameters()][0::2] == [
        (2, 1, 5, 5), (3, 2, 5, 5), (10, 48), (10, 10)
    ]  # fmt: skip
    for name, parameter in problem.model.named_parameters():
        assert torch.equal(parameter, snapshot.parameters[name])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model_args": {}}, ModelError, "has shape"),
        ({"model": "mlp", "model_args": {}}, ModelError, "missing"),
        ({"model": "vgg"}, ModelError, "unknown model"),
        ({"model_args": {"depth": 3}}, ModelError, "takes no argument depth"),
        ({"data_sha256": "ab" * 32}, DatasetError, "other data"),
        ({"config": {"dataset": "mnist"}}, DatasetError, "other data"),
        ({"config": {"dataset": "nist"}}, DatasetError, "unknown dataset"),
    ],
)
def test_snapshots_that_do_not_fit(
    snapshot: Snapshot, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        measure(replace(snapshot, **changes), CONFIG, "cpu")


def test_a_dataset_that_is_named_is_used(snapshot: Snapshot) -> None:
    foreign = replace(snapshot, data_sha256="ab" * 32)
    assert load_problem(foreign, "cpu", Given(dataset=SMALL)).train.sha256 == load_dataset(SMALL).sha256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": ()}, "levels"),
        ({"levels": (0.5, 0.0)}, "levels"),
        ({"levels": (math.nan,)}, "levels"),
        ({"eps": ()}, "ε"),
        ({"eps": (-0.1,)}, "ε"),
        ({"eps": (math.inf,)}, "ε"),
        ({"theta_samples": 0}, "theta_samples"),
        ({"x_samples": -1}, "x_samples"),
        ({"attack_samples": 0}, "attack_samples"),
    ],
)
def test_impossible_configurations(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        MeasureConfig(**changes)


def test_unknown_device(snapshot: Snapshot) -> None:
    with pytest.raises(ConfigurationError, match="unknown device"):
        measure(snapshot, CONFIG, "tpu")
