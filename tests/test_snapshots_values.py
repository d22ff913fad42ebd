"""What goes into a run comes out of it: layouts, descriptions, segments."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from landscape.errors import ConfigurationError, CorruptSnapshotError, UnsupportedSchemaError
from landscape.snapshots import (
    ParameterSlot,
    RunDescription,
    RunWriter,
    Segment,
    flatten,
    layout_of,
    open_run,
    unflatten,
    verify_run,
)
from landscape.snapshots.image import segment_image

finite = hnp.from_dtype(np.dtype(np.float32), allow_nan=False, allow_infinity=False, allow_subnormal=True)


def describe(length: int, **config: Any) -> RunDescription:
    layout = (ParameterSlot("weight", (length,), 0, length),)
    return RunDescription("net", {"hidden": 3}, layout, {"seed": 0, **config}, "ab" * 32)


def segment_of(theta: np.ndarray[Any, Any], **changes: Any) -> Segment:
    count = np.arange(len(theta))
    segment = Segment(
        theta=theta,
        samples_seen=count * 1024,
        step=count * 16,
        epoch=count // 4,
        role=np.full(len(theta), 3),
        batch_loss=np.full(len(theta), np.nan, np.float32),
        metrics={"epoch": np.array([1.0]), "clean_accuracy": np.array([0.5])},
        resume={"momentum": np.ones((2, 3), np.float32), "count": np.array(7)},
    )
    return dataclasses.replace(segment, **changes)


def test_layout_and_back() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    layout = layout_of(model.named_parameters())
    assert [(slot.name, slot.shape, slot.offset) for slot in layout] == [
        ("0.weight", (2, 3), 0), ("0.bias", (2,), 6), ("1.weight", (1, 2), 8), ("1.bias", (1,), 10)]  # fmt: skip
    vector = flatten(layout, dict(model.named_parameters()))
    assert vector.dtype == np.float32 and vector.shape == (11,)
    tensors = unflatten(layout, vector)
    assert all(torch.equal(tensors[name], value) for name, value in model.named_parameters())
    tensors["0.weight"].zero_()
    assert vector[:6].any()


def test_flatten_reads_transposed_tensors_in_logical_order() -> None:
    tensor = torch.arange(6.0).reshape(2, 3).T
    layout = layout_of([("w", tensor)])
    assert flatten(layout, {"w": tensor}).tolist() == tensor.reshape(-1).tolist()
    assert torch.equal(unflatten(layout, flatten(layout, {"w": tensor}))["w"], tensor)


@pytest.mark.parametrize(
    "tensors",
    [{}, {"w": torch.zeros(3), "x": torch.zeros(1)}, {"w": torch.zeros(4)}, {"w": torch.zeros(3).double()}],
)
def test_flatten_refuses_what_does_not_fit(tensors: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ConfigurationError):
        flatten(layout_of([("w", torch.zeros(3))]), tensors)


@pytest.mark.parametrize("vector", [np.zeros(2, np.float32), np.zeros((3, 1), np.float32), np.zeros(3, np.int64)])
def test_unflatten_refuses_other_vectors(vector: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ConfigurationError):
        unflatten(layout_of([("w", torch.zeros(3))]), vector)


def test_layouts_without_sense_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="unique"):
        layout_of([("w", torch.zeros(1)), ("w", torch.zeros(1))])
    with pytest.raises(ConfigurationError, match="at least one"):
        layout_of([])


def test_description_round_trip_and_identity() -> None:
    description = describe(5, betas=(0.9, 0.999), rate=1e-3)
    again = RunDescription.from_json(description.to_json())
    assert again == description and again.run_id == description.run_id
    assert description.run_id == hashlib.sha256(description.to_json().encode()).hexdigest()
    assert describe(5, rate=2e-3, betas=(0.9, 0.999)).run_id != description.run_id
    assert describe(5, rate=1e-3, betas=(0.9, 0.999)).run_id == description.run_id


def test_description_refuses_what_json_cannot_hold() -> None:
    with pytest.raises(ConfigurationError):
        describe(5, rate=float("nan"))
    with pytest.raises(ConfigurationError):
        describe(5, rate=torch.zeros(1))
    with pytest.raises(ConfigurationError, match="hex"):
        dataclasses.replace(describe(5), data_sha256="xyz")


def test_description_from_foreign_json() -> None:
    value = describe(5).to_dict()
    with pytest.raises(UnsupportedSchemaError, match="schema 3"):
        RunDescription.from_json(json.dumps({**value, "schema": 3, "flavour": 1}))
    wrong: list[dict[str, Any]] = [
        {"model": 1}, {"layout": [{}]}, {"layout": [3]}, {"config": []}, {"data_sha256": "0"}, {"more": 1},
        {"layout": [{"name": "w", "shape": [5], "offset": 1, "numel": 5}]},
        {"layout": [{"name": "w", "shape": [-5, -1], "offset": 0, "numel": 5}]},
        {"layout": [{"name": "w", "shape": 5, "offset": 0, "numel": 5}]},
    ]  # fmt: skip
    for changes in wrong:
        with pytest.raises(CorruptSnapshotError):
            RunDescription.from_json(json.dumps({**value, **changes}))
    for text in ("", "[]", "{", "NaN", '{"a": NaN}', "[" * 100_000):
        with pytest.raises(CorruptSnapshotError):
            RunDescription.from_json(text)


@settings(max_examples=25, deadline=None)
@given(
    theta=hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=finite),
    metric=hnp.arrays(np.float64, st.integers(0, 3)),
    resume=hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.uint8]), hnp.array_shapes(min_dims=0, min_side=0)
    ),
)
def test_every_bit_survives(
    theta: np.ndarray[Any, Any], metric: np.ndarray[Any, Any], resume: np.ndarray[Any, Any]
) -> None:
    metrics = {"epoch": np.arange(len(metric), dtype=float), "x": metric}
    segment = segment_of(theta, metrics=metrics, resume={"state": resume})
    with tempfile.TemporaryDirectory() as folder:
        with RunWriter(f"{folder}/run", describe(theta.shape[1]), {}) as writer:
            writer.append(segment)
        run = open_run(f"{folder}/run")
        assert np.stack([run.read(row) for row in range(len(run))]).tobytes() == theta.tobytes()
        assert run.metrics["x"].tobytes() == metric.tobytes()
        with RunWriter(f"{folder}/run", describe(theta.shape[1])) as writer:
            stored = writer.last_segment
        assert verify_run(f"{folder}/run").ok
    assert stored is not None
    assert stored.theta.tobytes() == theta.tobytes()
    assert stored.resume["state"].tobytes() == resume.tobytes()
    assert stored.resume["state"].shape == resume.shape and stored.resume["state"].dtype == resume.dtype
    assert stored.step.dtype == np.int64 and stored.role.dtype == np.uint8


def test_equal_contents_give_equal_bytes() -> None:
    theta = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)
    first = segment_image(describe(50), 0, "", segment_of(theta))
    time.sleep(1.1)  # time stamps in HDF5 count seconds
    assert segment_image(describe(50), 0, "", segment_of(theta)) == first
    assert segment_image(describe(50), 1, "", segment_of(theta)) != first


def test_long_descriptions_fit(tmp_path: Path) -> None:
    description = describe(2, note="x" * 200_000)
    with RunWriter(tmp_path / "run", description, {}) as writer:
        file = writer.append(segment_of(np.zeros((1, 2), np.float32)))
    assert open_run(file).description == description


def test_metrics_are_joined_over_segments(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", describe(1), {}) as writer:
        assert writer.metrics == {} and writer.last_segment is None
        writer.append(segment_of(np.zeros((1, 1), np.float32), metrics={}))
        writer.append(segment_of(np.zeros((1, 1), np.float32)))
        writer.append(segment_of(np.zeros((1, 1), np.float32), metrics={"epoch": np.array([2.0])}))
        live = writer.metrics
    stored = open_run(tmp_path / "run").metrics
    for metrics in (live, stored):
        assert metrics["epoch"].tolist() == [1, 2]
        np.testing.assert_array_equal(metrics["clean_accuracy"], [0.5, np.nan])
