"""Other tools' ways to leading Hessian eigenpairs, each behind one call, with its knobs and its products counted.

All get a model in eval mode, the same batches in memory as a list and `torch.nn.CrossEntropyLoss`. In a trial run
a ``product`` of ours takes the place of the tool's own, so that settings can be compared by how many products they
take, without waiting for them; what is reported is always measured with the tool's own product.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product as combinations
from typing import Any
from unittest import mock

import numpy as np
import scipy.sparse.linalg
import torch
from torch import Tensor, nn

# torch.jit.script, which a dependency of curvlinops calls, warns.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import curvlinops
    import hessian_eigenthings
    import pyhessian

Product = Callable[[Tensor], Tensor]
CRITERION = nn.CrossEntropyLoss()
NUM_PAIRS = 5


@dataclass(frozen=True)
class Workload:
    """A network at a point, and the data that its mean loss is over."""

    name: str
    model: nn.Module
    batches: Sequence[tuple[Tensor, Tensor]]

    @property
    def num_samples(self) -> int:
        return sum(len(y) for _, y in self.batches)

    @property
    def size(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def fresh(self) -> Workload:
        """With a copy of the model, which tools leave gradients on."""
        return Workload(self.name, copy.deepcopy(self.model).eval(), self.batches)

    def channels_last(self) -> Workload:
        """In the memory layout in which convolutions run fastest on CPUs; other networks as they are."""
        if not any(isinstance(m, nn.Conv2d) for m in self.model.modules()):
            return self
        model = copy.deepcopy(self.model).to(memory_format=torch.channels_last)
        return Workload(self.name, model, [(x.to(memory_format=torch.channels_last), y) for x, y in self.batches])


@dataclass(frozen=True)
class Solution:
    """What a tool says the eigenpairs are."""

    vectors: Tensor  # (k, n)
    num_products: int


@dataclass
class Counted:
    """A product that counts its vectors."""

    product: Product
    count: int = field(default=0)

    def __call__(self, vector: Tensor) -> Tensor:
        self.count += 1
        return self.product(vector)


@dataclass(frozen=True)
class Rival:
    """A tool and the settings among which it gets the cheapest that is good enough."""

    name: str
    settings: Sequence[Any]
    quick: Any  # a setting that takes few products
    solve: Callable[[Workload, Any, int, Product | None], Solution]
    ascending: bool = False  # whether later settings take more products and are better


def double_backward(workload: Workload) -> Product:
    """Hv as the gradient of gᵀv, from scratch at each call: the twenty lines that people copy."""
    parameters = list(workload.model.parameters())

    def product(vector: Tensor) -> Tensor:
        parts = [v.view_as(p) for v, p in zip(split(vector, parameters), parameters, strict=True)]
        result = torch.zeros_like(vector)
        for x, y in workload.batches:
            loss = CRITERION(workload.model(x), y)
            gradients = torch.autograd.grad(loss, parameters, create_graph=True)
            images = torch.autograd.grad(gradients, parameters, grad_outputs=parts)
            result += flat(images) * (len(y) / workload.num_samples)
        return result

    return product


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.detach().reshape(-1) for t in tensors])


def split(vector: Tensor, parameters: Sequence[Tensor]) -> Sequence[Tensor]:
    return vector.split([p.numel() for p in parameters])


def eigsh(counted: Counted, workload: Workload, setting: tuple[int, float], seed: int) -> Solution:
    """ARPACK's five of largest magnitude; the setting is the number of basis vectors and the tolerance."""
    basis, tolerance = setting
    start = np.random.default_rng(seed).standard_normal(workload.size).astype(np.float32)

    def matvec(vector: np.ndarray) -> np.ndarray:
        return counted(torch.from_numpy(vector.reshape(-1).astype(np.float32))).numpy()

    operator = scipy.sparse.linalg.LinearOperator((workload.size,) * 2, matvec=matvec, dtype=np.float32)
    _, vectors = scipy.sparse.linalg.eigsh(operator, NUM_PAIRS, which="LM", tol=tolerance, v0=start, ncv=basis)
    return Solution(torch.from_numpy(vectors.T.copy()), counted.count)


def by_double_backward(workload: Workload, setting: Any, seed: int, product: Product | None) -> Solution:
    return eigsh(Counted(product or double_backward(workload)), workload, setting, seed)


def by_curvlinops(workload: Workload, setting: Any, seed: int, product: Product | None) -> Solution:
    if product is None:
        parameters = list(workload.model.parameters())
        operator = curvlinops.HessianLinearOperator(
            workload.model,
            CRITERION,
            parameters,
            workload.batches,
            check_deterministic=False,  # two gradients and two products more
            num_data=workload.num_samples,
        )
        product = lambda vector: operator @ vector  # noqa: E731
    return eigsh(Counted(product), workload, setting, seed)


def by_hessian_eigenthings(workload: Workload, setting: Any, seed: int, product: Product | None) -> Solution:
    operator: Any = hessian_eigenthings.HessianOperator(
        workload.model, list(workload.batches), hessian_eigenthings.supervised_loss(CRITERION)
    )
    counted = Counted(product or operator.matvec)
    operator.matvec = counted
    # Without full reorthogonalisation it returns copies.
    found = hessian_eigenthings.lanczos(
        operator, k=NUM_PAIRS, max_iter=setting, reorthogonalize=True, which="LM", seed=seed
    )
    return Solution(found.eigenvectors.detach(), counted.count)


def by_pyhessian(workload: Workload, setting: Any, seed: int, product: Product | None) -> Solution:
    """With one batch it keeps the graph of the gradient, which is its fast mode."""
    whole = {"data": workload.batches[0]} if len(workload.batches) == 1 else {"dataloader": workload.batches}
    torch.manual_seed(seed)
    workload.model.zero_grad(set_to_none=True)  # it would add to the gradient that it finds
    with warnings.catch_warnings(), counting_pyhessian(workload, product) as counted:
        warnings.simplefilter("ignore")  # torch warns of the leak of backward(create_graph=True)
        tool = pyhessian.hessian(workload.model, CRITERION, cuda=False, **whole)
        _, vectors = tool.eigenvalues(maxIter=5000, tol=setting, top_n=NUM_PAIRS)
    workload.model.zero_grad(set_to_none=True)
    return Solution(torch.stack([flat(v) for v in vectors]), counted[0])


@contextlib.contextmanager
def counting_pyhessian(workload: Workload, product: Product | None) -> Iterator[list[int]]:
    """Count the products of PyHessian, or replace them."""
    counted, module = [0], pyhessian.hessian.__init__.__globals__
    single, whole = module["hessian_vector_product"], pyhessian.hessian.dataloader_hv_product
    shapes = list(workload.model.parameters())

    def ours(vectors: Sequence[Tensor]) -> list[Tensor]:
        image = product(flat(vectors)) if product else torch.empty(0)
        return [part.view_as(p) for part, p in zip(split(image, shapes), shapes, strict=True)]

    def of_batch(gradients: Any, parameters: Any, vectors: Any) -> Any:
        counted[0] += 1
        return ours(vectors) if product else single(gradients, parameters, vectors)

    def of_loader(self: Any, vectors: Any) -> Any:
        counted[0] += 1
        if not product:
            return whole(self, vectors)
        images = ours(vectors)
        return sum(float((a * b).sum()) for a, b in zip(images, vectors, strict=True)), images

    with (
        mock.patch.dict(module, {"hessian_vector_product": of_batch}),
        mock.patch.object(pyhessian.hessian, "dataloader_hv_product", of_loader),
    ):
        yield counted


ARPACK = list(combinations((11, 15, 20), (1.0, 0.1, 0.01, 1e-3)))
RIVALS = (
    Rival("double backward + eigsh", ARPACK, (11, 1.0), by_double_backward),
    Rival("curvlinops + eigsh", ARPACK, (11, 1.0), by_curvlinops),
    Rival("hessian-eigenthings", range(12, 121), 12, by_hessian_eigenthings, ascending=True),
    Rival("PyHessian", [10.0**-i for i in range(4, 11)], 0.1, by_pyhessian, ascending=True),
)
