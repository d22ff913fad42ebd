"""Networks at trained points, and data: the same tensors for every tool."""

from __future__ import annotations

import torch
from rivals_hessian import Workload
from torch import Generator, Tensor, nn
from torchvision.models.resnet import BasicBlock

from landscape.problem.datasets import load_dataset
from landscape.problem.models import build_model, initialise
from landscape.problem.network import ravel
from landscape.snapshots import load_snapshot
from landscape.study.problems import load_problem

STORED_RUN = "embedded:runs/sgd_lr0.05_b16_seed0"
# Samples: where a product of the others takes seconds, fewer.
NUM_SAMPLES = {"cnn": 2000, "mlp": 2000, "resnet20": 64}
MLP_HIDDEN = 126  # 100,180 parameters


def workload(name: str, num_batches: int = 1) -> Workload:
    """One of cnn, mlp and resnet20, trained, in eval mode."""
    count = NUM_SAMPLES[name]
    data = load_dataset("mnist", "train").subset(max(count, 2000), seed=0)
    images = as_cifar(data.images) if name == "resnet20" else data.images
    model = trained(name, images, data.labels)
    x, y = images[:count], data.labels[:count]
    return Workload(name, model.eval(), list(zip(x.chunk(num_batches), y.chunk(num_batches), strict=True)))


def trained(name: str, x: Tensor, y: Tensor) -> nn.Module:
    if name == "cnn":
        return load_problem(load_snapshot(STORED_RUN), "cpu").model
    if name == "mlp":
        model = build_model("mlp", {"hidden": [MLP_HIDDEN]})
        initialise(model, Generator().manual_seed(0))
        return fit(model, x, y, epochs=5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = resnet20()
    return fit(model.train(), x, y, epochs=2)


def trajectory(optimizer: str, count: int, steps: int = 16) -> tuple[Workload, list[Tensor]]:
    """The cnn at ``count`` points of its second epoch, ``steps`` mini-batches of 64 apart."""
    data = load_dataset("mnist", "train")
    model = build_model("cnn")
    initialise(model, Generator().manual_seed(0))
    makers = {"adam": lambda p: torch.optim.Adam(p, lr=1e-3), "sgd": lambda p: torch.optim.SGD(p, lr=0.1)}
    update = makers[optimizer](model.parameters())
    points: list[Tensor] = []
    for epoch in range(2):
        order = torch.randperm(len(data), generator=Generator().manual_seed(epoch)).split(64)
        for number, chosen in enumerate(order[: (count - 1) * steps + 1] if epoch else order):
            if epoch and number % steps == 0:
                points.append(ravel(model).clone())
            update.zero_grad()
            nn.functional.cross_entropy(model(data.images[chosen]), data.labels[chosen]).backward()
            update.step()
    update.zero_grad(set_to_none=True)
    subset = data.subset(NUM_SAMPLES["cnn"], seed=0)
    return Workload(f"cnn, {optimizer}", model.eval(), [(subset.images, subset.labels)]), points


def fit(model: nn.Module, x: Tensor, y: Tensor, epochs: int) -> nn.Module:
    """Adam on mini-batches of 64."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(epochs):
        for chosen in torch.randperm(len(y), generator=Generator().manual_seed(epoch)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return model


def as_cifar(images: Tensor) -> Tensor:
    """28×28 grey digits as 32×32 images with three unequal channels."""
    padded = nn.functional.pad(images, (2, 2, 2, 2))
    return torch.cat([padded, 1 - padded, padded.roll((1, 1), (2, 3))], 1)


def resnet20(num_classes: int = 10) -> nn.Module:
    """The ResNet-20 of He et al. 2016, §4.2, with projections where the number of channels changes."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    before = 16
    for channels in (16, 32, 64):
        for block in range(3):
            stride = 2 if channels > 16 and block == 0 else 1
            shortcut = None
            if before != channels:
                shortcut = nn.Sequential(
                    nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
                )
            layers.append(BasicBlock(before, channels, stride, shortcut))
            before = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))
