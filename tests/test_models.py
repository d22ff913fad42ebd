"""Models by name: what they are made of, and what does not fit."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Generator, nn

from landscape.errors import ModelError
from landscape.problem.model_sources import model_with
from landscape.problem.models import build_model, initialise, scale_logits


def test_cnn_is_the_documented_network() -> None:
    model = build_model("cnn")
    assert sum(p.numel() for p in model.parameters()) == 18_224
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if name.endswith("weight")}
    assert list(shapes.values()) == [(4, 1, 5, 5), (10, 4, 5, 5), (100, 160), (10, 100)]
    block = [nn.Conv2d, nn.ReLU, nn.MaxPool2d]
    assert [type(m) for m in model] == [*block, *block, nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]
    assert not model.training


@pytest.mark.parametrize(
    ("name", "arguments", "shape", "count"),
    [
        ("cnn", {"in_channels": 3, "image_size": 32}, (3, 32, 32), 304 + 1010 + 25_100 + 1010),
        (
            "cnn",
            {"channels": [2, 3], "hidden": 7, "num_classes": 4, "image_size": 16},
            (1, 16, 16),
            52 + 153 + 28 + 32,
        ),
        ("mlp", {"image_size": 5, "hidden": (8, 6), "num_classes": 3}, (1, 5, 5), 208 + 54 + 21),
        ("logistic", {"image_size": 4, "num_classes": 2}, (1, 4, 4), 34),
    ],
)
def test_arguments_shape_the_model(
    name: str, arguments: dict[str, Any], shape: tuple[int, ...], count: int
) -> None:
    model = build_model(name, arguments)
    initialise(model, Generator().manual_seed(0))
    assert sum(p.numel() for p in model.parameters()) == count
    assert model(torch.zeros(2, *shape)).shape == (2, arguments.get("num_classes", 10))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet", {}, "choose one of cnn, mlp, logistic"),
        ("cnn", {"depth": 3, "width": 2}, "takes no argument depth, width; it takes in_channels"),
        ("cnn", {"channels": [4]}, "cannot be built"),
        ("cnn", {"hidden": "many"}, "cannot be built"),
        ("cnn", {"image_size": 10}, "too small"),
        ("cnn", {"image_size": 15}, "too small"),
        ("mlp", {"num_classes": -1}, "cannot be built"),
        ("mlp", {"hidden": 12}, "cannot be built"),
    ],
)
def test_what_cannot_be_built_is_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_model(name, arguments)


def test_empty_layers_are_refused() -> None:
    with pytest.raises(ModelError, match=r"empty parameters 1\.weight"):
        build_model("mlp", {"hidden": (0,)})


def test_initialise_follows_its_law_and_its_seed_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (build_model("cnn") for _ in range(3))
    for model, seed in ((first, 7), (again, 7), (other, 8)):
        initialise(model, Generator().manual_seed(seed))
    assert torch.equal(before, torch.random.get_rng_state())
    for name, value in first.named_parameters():
        parameter = value.detach()
        assert torch.equal(parameter, again.get_parameter(name))
        assert not torch.equal(parameter, other.get_parameter(name))
        bound = {"0": 25, "3": 100, "7": 160, "9": 100}[name[0]] ** -0.5
        assert parameter.abs().max() <= bound
        if parameter.numel() >= 100:
            assert parameter.abs().max() > 0.9 * bound
            assert float(parameter.std()) == pytest.approx(bound / 3**0.5, rel=0.15)
            assert abs(float(parameter.mean())) < 4 * bound / (3 * parameter.numel()) ** 0.5


def test_model_with_parameters_computes_with_them() -> None:
    weight, bias = torch.arange(8.0).reshape(2, 4), torch.tensor([0.5, -1.0])
    model = model_with("logistic", {"image_size": 2, "num_classes": 2}, {"1.weight": weight, "1.bias": bias})
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert model(image).tolist() == [[0 + 2 + 6 + 12 + 0.5, 4 + 10 + 18 + 28 - 1.0]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"1.bias": None}, "missing 1.bias (2,)"),
        ({"2.weight": torch.zeros(3)}, "unexpected 2.weight (3,)"),
        ({"1.weight": torch.zeros(4, 2)}, "1.weight has shape (4, 2), the model needs (2, 4)"),
    ],
)
def test_parameters_that_do_not_fit_are_named(changes: dict[str, torch.Tensor | None], message: str) -> None:
    good = {"1.weight": torch.zeros(2, 4), "1.bias": torch.zeros(2)}
    parameters = {k: v for k, v in {**good, **changes}.items() if v is not None}
    with pytest.raises(ModelError, match=re.escape(message)):
        model_with("logistic", {"image_size": 2, "num_classes": 2}, parameters)


def test_scaled_logits() -> None:
    """Through the last dense layer of a copy; refused where another layer follows that does not scale."""
    model = build_model("cnn")
    initialise(model, Generator().manual_seed(1))
    images = torch.rand(5, 1, 28, 28, generator=Generator().manual_seed(2))
    before = [p.clone() for p in model.parameters()]
    scaled = scale_logits(model, 7.0, images)
    assert torch.allclose(scaled(images), 7.0 * model(images), rtol=1e-5)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    for unfit in (nn.Sequential(*model, nn.Tanh()), nn.Sequential(nn.Conv2d(1, 10, 28), nn.Flatten())):
        with pytest.raises(ModelError, match="last dense layer"):
            scale_logits(unfit, 7.0, images)
