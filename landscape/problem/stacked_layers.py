"""Layers of several networks of one architecture at once, forward and backward, with the batch as last dimension.

Values are ``(M, F, B)``: M members, F features in the order of ``Flatten``, B samples of each member's own. Long
runs of samples and pixels in memory keep vector units busy where a member has few channels, and one operation for
all members costs one call. No graph is built: each layer keeps what its own backward pass needs, in memory that it
uses again in the next step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]

# Modules that can be layers here, or parts of one; subclasses may do anything. What is hooked in may, too.
_KNOWN = (nn.Conv2d, nn.Flatten, nn.Linear, nn.MaxPool2d, nn.ReLU)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# Numbers of 4 bytes in a line of the cache, which is as wide as the widest vector units.
_ALIGNMENT = 16
# Shapes of a name whose views are kept: where samples drop out one by one, most sizes come again.
_VIEWS = 512


class Layer(Protocol):
    """A layer with parameters; ``forward`` and ``backward`` come in turn."""

    def forward(self, theta: Tensor, x: Tensor, differentiable: bool = True) -> Tensor:
        """Outputs for the rows of ``theta`` ``(M, S)``, ``(M, F, B) -> (M, G, B)``.

        Only if they are to be differentiable may `backward` come next.
        """

    def backward(self, gradient: Tensor, into: Tensor | None, to_input: bool) -> Tensor:
        """Gradients, from that by the outputs of the last call.

        Args:
            gradient: By the outputs, ``(M, G, B)``.
            into: Takes that by the parameters in their places, ``(M, S)``, unless it is None.
            to_input: Whether the gradient by the input ``(M, F, B)`` is wanted; else what returns means nothing.
        """


def aligned(size: int) -> int:
    """The next multiple of 16: members that lie in memory alike end in the same bits."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT


class Workspace:
    """Memory by name that is used again: fresh pages cost more than what is computed in them."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._views: dict[str, dict[Shape, Tensor]] = {}

    def __call__(self, name: str, shape: Shape, like: Tensor) -> Tensor:
        """A tensor of this shape with whatever is in it, ``(M, …)``; all members begin at aligned places."""
        views = self._views.get(name)
        view = views.get(shape) if views is not None else None
        return self._made(name, shape, like) if view is None else view

    def _made(self, name: str, shape: Shape, like: Tensor) -> Tensor:
        size = math.prod(shape[1:])
        stride = aligned(size)
        buffer, views = self._buffers.get(name), self._views.get(name)
        if buffer is None or views is None or buffer.numel() < shape[0] * stride:
            buffer = self._buffers[name] = like.new_empty(shape[0] * stride)
            views = self._views[name] = {}  # those of before would keep their memory
        strides = (math.prod(shape[place:]) for place in range(2, len(shape) + 1))
        view = buffer.as_strided(shape, (stride, *strides))
        if len(views) < _VIEWS:
            views[tuple(shape)] = view
        return view


class LinearLayer:
    """W x + b, and ReLU if wanted; within, samples are rows: few rows fill vector units, few columns do not."""

    def __init__(self, linear: nn.Linear, offset: int, rectified: bool) -> None:
        self.shape = (linear.out_features, linear.in_features)
        self.weight = slice(offset, offset + linear.weight.numel())
        self.bias = slice(self.weight.stop, self.weight.stop + linear.out_features)
        self.rectified, self._space = rectified, Workspace()
        self.x = self.w = self.y = torch.empty(0)

    def forward(self, theta: Tensor, x: Tensor, differentiable: bool = True) -> Tensor:
        """Outputs, see `Layer`."""
        self.x, self.w = self._rows("inputs", x), theta[:, self.weight].unflatten(1, self.shape)
        self.y = self._space("outputs", (len(theta), x.shape[2], self.shape[0]), theta)
        torch.baddbmm(theta[:, None, self.bias], self.x, self.w.mT, out=self.y)
        return self.y.relu_().mT if self.rectified else self.y.mT

    def backward(self, gradient: Tensor, into: Tensor | None, to_input: bool) -> Tensor:
        """Gradients, see `Layer`."""
        rows = self._rows("gradients", gradient)
        if self.rectified:
            rows = rectified_gradient(rows, self.y, self._space)
        if into is not None:
            weights = self._space("weights", (len(rows), *self.shape), rows)
            multiply = torch.mul if rows.shape[1] == 1 else torch.bmm
            into[:, self.weight] = multiply(rows.mT, self.x, out=weights).flatten(1)
            into[:, self.bias] = rows.sum(1)
        if not to_input:
            return gradient
        shape = (len(rows), rows.shape[1], self.shape[1])
        return torch.bmm(rows, self.w, out=self._space("to input", shape, rows)).mT

    def _rows(self, name: str, x: Tensor) -> Tensor:
        """Samples as rows, ``(M, F, B) -> (M, B, F)``: themselves if they lie so already, each member aligned."""
        rows = x.mT
        if rows.stride()[1:] == (rows.shape[2], 1) and rows.stride(0) % _ALIGNMENT == 0:
            return rows
        return self._space(name, tuple(rows.shape), rows).copy_(rows)


class PooledConvolution:
    """Convolution, ReLU and max-pooling over 2×2 pixels, of images in blocks of 2×2 pixels.

    A block's pixels count as channels: a kernel of k×k pixels becomes one of (k + 1)/2 × (k + 1)/2 blocks with
    four times as many channels on either side, and what is pooled together are four channels. ReLU comes after
    pooling, which is the same.

    Args:
        convolution: Stride 1, no padding, an odd number of pixels k in a row of its kernel.
        image: ``(C, H, W)`` of its input; H and W are even.
        offset: Where its parameters begin in θ.
        zero: Where θ holds a zero.
        blocked: Whether the input comes in blocks, as `in_blocks` makes them.
    """

    def __init__(self, convolution: nn.Conv2d, image: Shape, offset: int, zero: int, blocked: bool) -> None:
        channels, height, width = image
        self.num_outputs, self.side = convolution.out_channels, (convolution.kernel_size[0] + 1) // 2
        self.image, self.blocked = image, blocked
        self.blocks = (4 * channels, height // 2, width // 2)
        self.pooled = (height // 2 - self.side + 1, width // 2 - self.side + 1)
        self.weight = slice(offset, offset + convolution.weight.numel())
        self.bias = slice(self.weight.stop, self.weight.stop + self.num_outputs)
        kernel = torch.arange(self.weight.start, self.weight.stop).view(convolution.weight.shape)
        self.spread = spread_kernel(kernel, zero)
        self.entries = self.spread.flatten()
        self.places = _places(self.entries, self.weight)
        self._space = Workspace()
        self.wide = self.patches = self.y = torch.empty(0)
        self.wins: tuple[Tensor, ...] = ()

    def forward(self, theta: Tensor, x: Tensor, differentiable: bool = True) -> Tensor:
        """Outputs, see `Layer`."""
        members, batch = len(theta), x.shape[2]
        self.wide = self._space("wide", (members, *self.spread.shape), theta)
        self.wide.copy_(theta.index_select(1, self.entries).view(self.wide.shape))
        self.patches = self._patches(self._blocks(x))
        shape = (members, 4 * self.num_outputs, self.patches.shape[2])
        z = torch.bmm(self.wide, self.patches, out=self._space("outputs", shape, theta))
        self.y = self._pool(z.view(members, 4, self.num_outputs, -1), differentiable)
        self.y += theta[:, self.bias, None]
        return self.y.relu_().view(members, -1, batch)

    def backward(self, gradient: Tensor, into: Tensor | None, to_input: bool) -> Tensor:
        """Gradients, see `Layer`."""
        members, batch = len(gradient), gradient.shape[2]
        pooled = rectified_gradient(gradient.reshape(self.y.shape), self.y, self._space)
        spread = self._unpool(pooled).view(members, 4 * self.num_outputs, -1)
        if into is not None:
            wide = torch.bmm(spread, self.patches.mT, out=self._space("w", tuple(self.wide.shape), spread))
            into[:, self.weight] = (
                wide.flatten(1).index_select(1, self.places.flatten()).view(members, -1, 4).sum(2)
            )
            into[:, self.bias] = pooled.sum(2)
        if not to_input:
            return gradient
        patches = torch.bmm(self.wide.mT, spread, out=self.patches)  # what they held is needed no more
        blocks = self._unpatch(patches, batch)
        return blocks.flatten(1, 3) if self.blocked else self._unblock(blocks)

    def _blocks(self, x: Tensor) -> Tensor:
        """Input in blocks, ``(M, 4 C, H/2, W/2, B)``."""
        members, batch = len(x), x.shape[2]
        if self.blocked:
            return x.view(members, *self.blocks, batch)
        channels, height, width = self.image
        parts = x.view(members, channels, height // 2, 2, width // 2, 2, batch).permute(0, 1, 3, 5, 2, 4, 6)
        return self._space("blocks", parts.shape, x).copy_(parts).view(members, *self.blocks, batch)

    def _unblock(self, blocks: Tensor) -> Tensor:
        """The inverse of `_blocks`, ``(M, C H W, B)``."""
        members, batch = len(blocks), blocks.shape[-1]
        channels, height, width = self.image
        parts = blocks.view(members, channels, 2, 2, height // 2, width // 2, batch).permute(0, 1, 4, 2, 5, 3, 6)
        return self._space("blocks", parts.shape, blocks).copy_(parts).view(members, -1, batch)

    def _patches(self, x: Tensor) -> Tensor:
        """Windows of the input side by side, ``(M, C (k + 1)², H' W' B)``, pixels in the order of the image."""
        (channels, _, _), (rows, columns), side, batch = self.blocks, self.pooled, self.side, x.shape[-1]
        member, channel, row, column, _ = x.stride()
        shape = (len(x), channels // 4, side, 2, side, 2, rows, columns * batch)
        strides = (member, 4 * channel, row, 2 * channel, column, channel, row, 1)
        result = self._space("patches", shape, x).copy_(x.as_strided(shape, strides))
        return result.view(len(x), channels * side**2, rows * columns * batch)

    def _unpatch(self, patches: Tensor, batch: int) -> Tensor:
        """The adjoint of `_patches`, ``(M, 4 C, H/2, W/2, B)``."""
        (channels, height, width), (rows, columns), side = self.blocks, self.pooled, self.side
        parts = patches.view(-1, channels // 4, side, 2, side, 2, rows, columns * batch)
        shape = (len(parts), channels // 4, 2, 2, height, width * batch)
        total = self._space("sum", shape, patches).zero_()
        for i in range(side):
            for j in range(side):
                window = total[..., i : i + rows, j * batch : (j + columns) * batch]
                window.add_(parts[:, :, i, :, j])
        return total.view(-1, channels, height, width, batch)

    def _pool(self, z: Tensor, differentiable: bool) -> Tensor:
        """The largest of four, ``(M, 4, O, R) -> (M, O, R)``; who won may be kept, the first among equals."""
        shape = (len(z), self.num_outputs, z.shape[3])
        upper, self.wins = self._space("upper", shape, z), ()
        if not differentiable:
            return torch.amax(z, 1, out=upper)
        lower = self._space("lower", shape, z)
        torch.maximum(z[:, 0], z[:, 1], out=upper)
        torch.maximum(z[:, 2], z[:, 3], out=lower)
        pairs = (z[:, 0], z[:, 1]), (z[:, 2], z[:, 3]), (upper, lower)
        self.wins = tuple(torch.ge(a, b, out=self._space(f"win {i}", shape, z)) for i, (a, b) in enumerate(pairs))
        return torch.maximum(upper, lower, out=upper)

    def _unpool(self, gradient: Tensor) -> Tensor:
        """Gradients of the four, ``(M, O, R) -> (M, 4, O, R)``."""
        left, right, above = self.wins
        upper = torch.mul(gradient, above, out=self._space("from above", gradient.shape, gradient))
        lower = torch.sub(gradient, upper, out=self._space("from below", gradient.shape, gradient))
        four = self._space("outputs", (len(gradient), 4, *gradient.shape[1:]), gradient)
        for number, (half, win) in enumerate(((upper, left), (lower, right))):
            first, second = four[:, 2 * number], four[:, 2 * number + 1]
            torch.mul(half, win, out=first)
            torch.sub(half, first, out=second)
        return four


def rectified_gradient(gradient: Tensor, y: Tensor, space: Workspace) -> Tensor:
    """Gradient by what a ReLU got, from its outputs."""
    result: Tensor = torch.ops.aten.threshold_backward.grad_input(
        gradient, y, 0, grad_input=space("rectified", tuple(y.shape), y)
    )
    return result


def in_blocks(images: Tensor) -> Tensor:
    """Images in blocks of 2×2 pixels, flattened, ``(N, C, H, W) -> (N, 4 C H/2 W/2)``."""
    count, channels, height, width = images.shape
    parts = images.reshape(count, channels, height // 2, 2, width // 2, 2)
    return parts.permute(0, 1, 3, 5, 2, 4).reshape(count, -1)


def spread_kernel(kernel: Tensor, zero: int) -> Tensor:
    """Indices of the entries of the kernel over blocks, ``(O, C, k, k) -> (4 O, 4 C k' k')``, k' = (k + 1)/2.

    Args:
        kernel: Indices of its entries.
        zero: Index of a zero, for entries that are in no kernel.
    """
    outputs, channels, size, _ = kernel.shape
    side = (size + 1) // 2
    wide = kernel.new_full((2, 2, outputs, channels, size + 1, size + 1), zero)
    for i in range(2):
        for j in range(2):
            wide[i, j, :, :, i : i + size, j : j + size] = kernel
    return wide.reshape(4 * outputs, 4 * channels * side**2)


def _places(spread: Tensor, weight: slice) -> Tensor:
    """The four places of each entry of a kernel, ``(k, 4)``."""
    order = spread.argsort(stable=True)
    kept = order[(spread[order] >= weight.start) & (spread[order] < weight.stop)]
    return kept.view(-1, 4)


def features_of(images: Tensor, blocked: bool) -> Tensor:
    """Images as rows of features, ``(N, C, H, W) -> (N, F)``, in the order in which the first layer takes them."""
    return in_blocks(images) if blocked else images.flatten(1)


def layers_of(model: nn.Module, image: Sequence[int]) -> list[Layer] | None:
    """The layers of a network, for images of shape ``(C, H, W)``; None if they are not all known here."""
    modules, layers = _plain_modules(model), list[Layer]()
    if modules is None:
        return None
    offset, zero = 0, sum(p.numel() for p in model.parameters())
    shape: Shape = tuple(image)
    while modules:
        match modules:
            case [nn.Flatten(start_dim=1, end_dim=-1), *rest]:
                shape = (torch.Size(shape).numel(),)
            case [nn.Conv2d() as convolution, nn.ReLU(), nn.MaxPool2d() as pool, *rest] if _fits(
                convolution, pool, shape
            ):
                layer = PooledConvolution(convolution, shape, offset, zero, blocked=not layers)
                shape = (layer.num_outputs, *layer.pooled)
                layers.append(layer)
            case [nn.Linear(bias=Tensor()) as linear, *rest] if shape == (linear.in_features,):
                rectified = bool(rest) and isinstance(rest[0], nn.ReLU)
                layers.append(LinearLayer(linear, offset, rectified))
                shape, rest = (linear.out_features,), rest[rectified:]
            case _:
                return None
        used, modules = modules[: len(modules) - len(rest)], list(rest)
        offset += sum(p.numel() for module in used for p in module.parameters())
    return layers if layers and len(shape) == 1 else None


def _plain_modules(model: nn.Module) -> list[nn.Module] | None:
    """Torch's own modules, if the model runs them in turn, each with parameters of its own, and nothing else."""
    if type(model) is not nn.Sequential:
        return None
    modules = list(model)
    hooked = any(getattr(module, hooks) for module in (model, *modules) for hooks in _HOOKS)
    owned = sum(p.numel() for module in modules for p in module.parameters())
    if hooked or owned != sum(p.numel() for p in model.parameters()):
        return None
    return modules if all(type(module) in _KNOWN for module in modules) else None


def _fits(convolution: nn.Conv2d, pool: nn.MaxPool2d, image: Shape) -> bool:
    """Whether `PooledConvolution` can take the place of both."""
    size = convolution.kernel_size[0]
    plain = (convolution.stride, convolution.padding, convolution.dilation) == ((1, 1), (0, 0), (1, 1))
    pooled = (pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode) in (
        (2, 2, 0, 1, False),
        ((2, 2), (2, 2), 0, 1, False),
    )
    even = len(image) == 3 and image[1] % 2 == image[2] % 2 == 0 and min(image[1:]) > size
    square = convolution.kernel_size == (size, size) and size % 2 == 1
    return plain and pooled and even and square and convolution.groups == 1 and convolution.bias is not None
