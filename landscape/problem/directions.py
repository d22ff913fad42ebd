"""Directions in input space in which a search for a level set may begin."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from landscape.problem.network import channels_last, detached


def targeted_gradients(model: nn.Module, x: Tensor, y: Tensor, count: int) -> Tensor:
    """Gradients of z_k − z_y for the ``count`` strongest wrong classes k of each image, ``(count, B, n)``.

    The nearest point of a level set lies towards one of few classes, not always towards the strongest one.
    """
    with torch.enable_grad():
        images = x.detach().clone().requires_grad_()
        logits = functional_call(model, detached(model), (channels_last(images),))
        wrong = logits.detach().scatter(1, y[:, None], float("-inf"))
        targets = wrong.topk(min(count, wrong.shape[1] - 1), dim=1).indices
        gaps = logits.gather(1, targets) - logits.gather(1, y[:, None])
        gradients = [torch.autograd.grad(gap.sum(), images, retain_graph=True)[0] for gap in gaps.T]
    return torch.stack(gradients).reshape(len(gradients), len(x), -1)
