"""The kernels as PyTorch operators, with their gradients (first ones only) and with shapes for torch.compile.

x (N, n_in, H, W) and weight (n_out, D, k, k) are a convolution of stride 1 that keeps the image's size, x (N, n_in)
and weight (n_out, D) a linear layer. Only x and weight are saved for the gradients.
"""

from typing import Any

import torch
from torch import Tensor

from xnets.layers.direct import run
from xnets.layers.direct.adjacency import adjacency_of


@torch.library.custom_op("xnets::direct", mutates_args=())
def direct(x: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    """The layer's output, without bias."""
    return _product(x, weight, index, x.shape[1], weight.shape[0], transposed=False)


@torch.library.custom_op("xnets::direct_input_gradient", mutates_args=())
def direct_input_gradient(dy: Tensor, weight: Tensor, index: Tensor, n_in: int) -> Tensor:
    """Gradient of x: the same product with the transposed graph, and with mirrored filters."""
    return _product(dy, weight, index, n_in, weight.shape[0], transposed=True)


@torch.library.custom_op("xnets::direct_weight_gradient", mutates_args=())
def direct_weight_gradient(dy: Tensor, x: Tensor, index: Tensor, window: list[int]) -> Tensor:
    """Gradient of the weight, at the edges alone."""
    adjacency = adjacency_of(index, x.shape[1], dy.shape[1])
    dy, x = dy.contiguous(), x.contiguous()
    if window == [3, 3]:
        return run.window_weight_gradient(dy, x, adjacency)
    return run.pointwise_weight_gradient(_columns(dy), _columns(x), adjacency).view(*adjacency.index.shape, *window)


def _product(x: Tensor, weight: Tensor, index: Tensor, n_in: int, n_out: int, transposed: bool) -> Tensor:
    adjacency = adjacency_of(index, n_in, n_out)
    x, weight = x.contiguous(), weight.contiguous()
    if weight.shape[2:] == (3, 3):
        return run.window_product(x, weight, adjacency, transposed)
    y = run.pointwise_product(_columns(x), weight, adjacency, transposed)
    return y[0].t().contiguous() if x.dim() == 2 else y.view(x.shape[0], -1, *x.shape[2:])


def _columns(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H W); (N, C) -> (1, C, N)."""
    return x.t().contiguous().unsqueeze(0) if x.dim() == 2 else x.flatten(2)


@direct.register_fake
def _(x: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], *x.shape[2:])


@direct_input_gradient.register_fake
def _(dy: Tensor, weight: Tensor, index: Tensor, n_in: int) -> Tensor:
    return dy.new_empty(dy.shape[0], n_in, *dy.shape[2:])


@direct_weight_gradient.register_fake
def _(dy: Tensor, x: Tensor, index: Tensor, window: list[int]) -> Tensor:
    return x.new_empty(dy.shape[1], index.shape[1], *window)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    x, weight, index = ctx.saved_tensors
    dx = direct_input_gradient(dy, weight, index, x.shape[1]) if ctx.needs_input_grad[0] else None
    dw = direct_weight_gradient(dy, x, index, list(weight.shape[2:])) if ctx.needs_input_grad[1] else None
    return dx, dw, None


direct.register_autograd(_backward, setup_context=_save)
