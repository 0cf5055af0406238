"""The kernels as PyTorch operators, with their gradients (first ones only) and with shapes for torch.compile.

x (N, n_in, H, W) and weight (n_out, D, k, k) are a convolution of padding (k - 1) / 2, k = 1 or 3, stride 1 or 2;
x (N, n_in) and weight (n_out, D) a linear layer. Only x and weight are saved for the gradients.
"""

from typing import Any

import torch
from torch import Tensor

from xnets.layers.direct import run
from xnets.layers.direct.adjacency import adjacency_of


@torch.library.custom_op("xnets::direct", mutates_args=())
def direct(x: Tensor, weight: Tensor, index: Tensor, stride: int = 1) -> Tensor:
    """The layer's output, without bias."""
    adjacency = adjacency_of(index, x.shape[1], weight.shape[0])
    x, weight = x.contiguous(), weight.contiguous()
    size = _size(x, stride)
    if weight.shape[2:] == (3, 3):
        return run.window_product(x, weight, adjacency, False, size, stride)
    y = run.pointwise_product(_columns(_seen(x, stride)), weight, adjacency, False)
    return _from_columns(y, x.shape[0], size)


@torch.library.custom_op("xnets::direct_input_gradient", mutates_args=())
def direct_input_gradient(dy: Tensor, weight: Tensor, index: Tensor, size: list[int], stride: int = 1) -> Tensor:
    """Gradient of x, whose sizes but the first are `size`: the same product with the transposed graph."""
    adjacency = adjacency_of(index, size[0], weight.shape[0])
    dy, weight = dy.contiguous(), weight.contiguous()
    if weight.shape[2:] == (3, 3):
        return run.window_product(dy, weight, adjacency, True, tuple(size[1:]), stride)
    dx = _from_columns(run.pointwise_product(_columns(dy), weight, adjacency, True), dy.shape[0], dy.shape[2:])
    if stride == 1:
        return dx
    whole = dy.new_zeros(dy.shape[0], *size)
    whole[:, :, ::stride, ::stride] = dx
    return whole


@torch.library.custom_op("xnets::direct_weight_gradient", mutates_args=())
def direct_weight_gradient(dy: Tensor, x: Tensor, index: Tensor, window: list[int], stride: int = 1) -> Tensor:
    """Gradient of the weight, at the edges alone."""
    adjacency = adjacency_of(index, x.shape[1], dy.shape[1])
    dy, x = dy.contiguous(), x.contiguous()
    if window == [3, 3]:
        return run.window_weight_gradient(dy, x, adjacency, stride)
    gradient = run.pointwise_weight_gradient(_columns(dy), _columns(_seen(x, stride)), adjacency)
    return gradient.view(*adjacency.index.shape, *window)


def _size(x: Tensor, stride: int) -> tuple[int, ...]:
    """Height and width of the output, of 3x3 and 1x1 alike."""
    return tuple((n - 1) // stride + 1 for n in x.shape[2:])


def _seen(x: Tensor, stride: int) -> Tensor:
    """The pixels that a 1x1 convolution sees."""
    return x if stride == 1 else x[:, :, ::stride, ::stride].contiguous()


def _columns(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H W); (N, C) -> (1, C, N)."""
    return x.t().contiguous().unsqueeze(0) if x.dim() == 2 else x.flatten(2)


def _from_columns(y: Tensor, images: int, size: tuple[int, ...]) -> Tensor:
    return y.view(images, -1, *size) if size else y[0].t().contiguous()


@direct.register_fake
def _(x: Tensor, weight: Tensor, index: Tensor, stride: int = 1) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], *_size(x, stride))


@direct_input_gradient.register_fake
def _(dy: Tensor, weight: Tensor, index: Tensor, size: list[int], stride: int = 1) -> Tensor:
    return dy.new_empty(dy.shape[0], *size)


@direct_weight_gradient.register_fake
def _(dy: Tensor, x: Tensor, index: Tensor, window: list[int], stride: int = 1) -> Tensor:
    return x.new_empty(dy.shape[1], index.shape[1], *window)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.stride = inputs[3]


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
    x, weight, index = ctx.saved_tensors
    need_x, need_weight = ctx.needs_input_grad[:2]
    dx = direct_input_gradient(dy, weight, index, list(x.shape[1:]), ctx.stride) if need_x else None
    dw = direct_weight_gradient(dy, x, index, list(weight.shape[2:]), ctx.stride) if need_weight else None
    return dx, dw, None, None


direct.register_autograd(_backward, setup_context=_save)
