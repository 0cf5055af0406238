"""The Triton kernels as PyTorch operators, with their gradients (first ones only) and with shapes for torch.compile.

x (N, n_in, H, W) and weight (n_out, D, kh, kw) are a convolution, x (N, n_in) and weight (n_out, D) a linear layer;
both of one dtype. index is (n_out / block, D). `double` says that some edge stands twice. Only x and weight are saved.
"""

from typing import Any

import torch
from torch import Tensor

from xnets.layers.kernels import owned
from xnets.layers.triton import fp32_precision, run
from xnets.layers.triton.geometry import layer_of


@torch.library.custom_op("xnets::triton", mutates_args=())
def product(
    x: Tensor, weight: Tensor, index: Tensor, stride: list[int], padding: list[int], dilation: list[int], double: bool
) -> Tensor:
    """The layer's output, without bias."""
    layer = layer_of(x.shape, weight.shape, index.shape[0], stride, padding, dilation)
    y = run.product(_planes(x), weight.contiguous(), index.contiguous(), layer, _precision(x))
    return _images(y, _out_size(x.shape, weight, stride, padding, dilation))


@torch.library.custom_op("xnets::triton_input_gradient", mutates_args=())
def input_gradient(
    dy: Tensor, weight: Tensor, index: Tensor, size: list[int], stride: list[int], padding: list[int],
    dilation: list[int], double: bool,
) -> Tensor:  # fmt: skip
    """Gradient of x, whose size is `size`."""
    layer = layer_of(size, weight.shape, index.shape[0], stride, padding, dilation)
    dx = run.input_gradient(_planes(dy), weight.contiguous(), index.contiguous(), layer, _precision(dy), double)
    return _images(dx, size)


@torch.library.custom_op("xnets::triton_weight_gradient", mutates_args=())
def weight_gradient(
    dy: Tensor, x: Tensor, index: Tensor, window: list[int], stride: list[int], padding: list[int],
    dilation: list[int],
) -> Tensor:  # fmt: skip
    """Gradient of the weight, at the edges alone."""
    size = (dy.shape[1], index.shape[1], *window)
    layer = layer_of(x.shape, size, index.shape[0], stride, padding, dilation)
    gradient = run.weight_gradient(_planes(dy), _planes(x), index.contiguous(), layer, _precision(x))
    return owned(gradient.view(size))


def _planes(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H W); (N, C) -> (1, C, N)."""
    return x.t().contiguous().unsqueeze(0) if x.dim() == 2 else x.contiguous().flatten(2)


def _images(planes: Tensor, size: list[int]) -> Tensor:
    return planes[0].t().contiguous() if len(size) == 2 else owned(planes.view(size))


def _precision(x: Tensor) -> str:
    return "ieee" if x.element_size() == 2 else fp32_precision(x.dim() == 2)


def _out_size(size: list[int], weight: Tensor, stride: list[int], padding: list[int], dilation: list[int]) -> list[int]:
    sides = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    ]
    return [size[0], weight.shape[0], *sides]


@product.register_fake
def _(
    x: Tensor, weight: Tensor, index: Tensor, stride: list[int], padding: list[int], dilation: list[int], double: bool
) -> Tensor:
    return x.new_empty(_out_size(x.shape, weight, stride, padding, dilation))


@input_gradient.register_fake
def _(
    dy: Tensor, weight: Tensor, index: Tensor, size: list[int], stride: list[int], padding: list[int],
    dilation: list[int], double: bool,
) -> Tensor:  # fmt: skip
    return dy.new_empty(size)


@weight_gradient.register_fake
def _(
    dy: Tensor, x: Tensor, index: Tensor, window: list[int], stride: list[int], padding: list[int],
    dilation: list[int],
) -> Tensor:  # fmt: skip
    return x.new_empty(dy.shape[1], index.shape[1], *window)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, index, ctx.stride, ctx.padding, ctx.dilation, ctx.double = inputs
    ctx.save_for_backward(x, weight, index)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, index = ctx.saved_tensors
    how = (ctx.stride, ctx.padding, ctx.dilation)
    dx = dw = None
    if ctx.needs_input_grad[0]:
        dx = input_gradient(dy, weight, index, list(x.shape), *how, ctx.double)
    if ctx.needs_input_grad[1]:
        dw = weight_gradient(dy, x, index, list(weight.shape[2:]), *how)
    return dx, dw, None, None, None, None, None


product.register_autograd(_backward, setup_context=_save)
