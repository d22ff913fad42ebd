"""How many samples go together, and which linearisations are kept, for memory that is bounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from landscape.errors import ConfigurationError
from landscape.objectives import HessianVectorProduct
from landscape.problem.network import parameter_views, ravel
from landscape.traces import LinearMap

# Bytes of what is computed and kept between layers, by default.
MEMORY = 2**31
# A linearisation and a product with it take up to so many times what a forward pass leaves for a gradient.
_WORKING = 3
# Samples that are measured, beside one.
_MEASURED = 2


def check_memory(memory: int) -> None:
    """Refuse what is no number of bytes.

    Raises:
        ConfigurationError: If it is not positive.
    """
    if not memory > 0:
        raise ConfigurationError(f"memory = {memory} bytes cannot be; pass a positive number such as {MEMORY}.")


def activation_bytes(model: nn.Module, x: Tensor) -> float:
    """Bytes that a forward pass leaves for a gradient, a sample."""
    few, more = (_saved_bytes(model, x[:count].clone()) for count in (1, 1 + _MEASURED))
    return max(0.0, more - few) / max(1, min(len(x) - 1, _MEASURED)) or float(few)


def _saved_bytes(model: nn.Module, x: Tensor) -> int:
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        # The graph keeps this hook and what it returns. Neither may lead back to the graph, by the hook's names or
        # by a tensor's history: Python does not see such a circle, and would never free it.
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        # Its result keeps all storages alive until they are counted, so that no address occurs twice.
        _result = functional_call(model, parameter_views(model, ravel(model).requires_grad_()), (x,))
    return sum(saved.values())


def samples_within(memory: int, model: nn.Module, x: Tensor, most: int) -> int:
    """Samples whose products fit in half of the memory, at least one and at most ``most``."""
    return int(max(1, min(most, memory / 2 / (_WORKING * activation_bytes(model, x)))))


def kept_within(memory: int, linearise: Sequence[Callable[[], LinearMap]]) -> list[HessianVectorProduct]:
    """Products that are linearised once while half of the memory lasts; the rest is linearised for each vector."""
    room, products = memory / 2, []
    for make in linearise:
        product = make() if room > 0 else None
        room -= product.num_bytes if product else 0
        products.append(product if product and room >= 0 else _anew(make))
    return products


def _anew(make: Callable[[], LinearMap]) -> HessianVectorProduct:
    def product(vectors: Tensor) -> Tensor:
        return make()(vectors)

    return product
