"""The kernels as PyTorch operators, with their gradients of any order and with shapes for torch.compile.

`apply` is what layers call: the operator, or, where nobody looks, its functions without it.

x (N, n_in, H, W) and weight (n_out, D, k, k) are a convolution of padding (k - 1) / 2, k = 1 or 3, stride 1 or 2;
x (N, n_in) and weight (n_out, D) a linear layer. Only x and weight are saved for the gradients. All are float32, or
all bfloat16: then each product and sum is float32 still, and the result is rounded once.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from xnets.layers.direct import run_lines, run_window, run_winograd
from xnets.layers.direct.adjacency import Adjacency, adjacency_of
from xnets.layers.direct.planned import Run
from xnets.layers.direct.run_pointwise import Positions, pointwise_product, pointwise_weight_gradient, positions_of
from xnets.layers.kernels import is_watched


def output(x: Tensor, weight: Tensor, index: Tensor, stride: int = 1) -> Tensor:
    """The layer's output, without bias, in x's layout."""
    dtype, x, weight = x.dtype, _single(x), _single(weight).contiguous()
    adjacency = adjacency_of(index, x.shape[1], weight.shape[0])
    layout, size = _layout(x), _size(x, stride)
    if weight.dim() == 4 and weight.shape[2] == 3:
        return _converted(_window_product(x, weight, adjacency, False, size, stride), dtype, layout)
    x = _laid_out(_seen(x, stride), layout)
    return _converted(_pointwise_product(x, weight, adjacency, False, size, layout), dtype, layout)


def input_gradient(
    dy: Tensor, weight: Tensor, index: Tensor, size: list[int], stride: int = 1, last: bool = False
) -> Tensor:
    """Gradient of x, whose sizes but the first are `size`: times the transposed graph. last: channels_last."""
    dtype, dy, weight = dy.dtype, _single(dy), _single(weight).contiguous()
    adjacency = adjacency_of(index, size[0], weight.shape[0])
    layout = torch.channels_last if last else torch.contiguous_format
    if weight.dim() == 4 and weight.shape[2] == 3:
        return _converted(_window_product(dy, weight, adjacency, True, tuple(size[1:]), stride), dtype, layout)
    dy = _laid_out(dy, layout)
    dx = _converted(_pointwise_product(dy, weight, adjacency, True, tuple(dy.shape[2:]), layout), dtype, layout)
    if stride == 1:
        return dx
    whole = torch.empty(dy.shape[0], *size, memory_format=layout, dtype=dtype, device="cpu").zero_()
    whole[:, :, ::stride, ::stride] = dx
    return whole


def weight_gradient(dy: Tensor, x: Tensor, index: Tensor, window: list[int], stride: int = 1) -> Tensor:
    """Gradient of the weight, at the edges alone."""
    dtype, dy, x = x.dtype, _single(dy), _single(x)
    adjacency = adjacency_of(index, x.shape[1], dy.shape[1])
    gradient = x.new_empty(adjacency.n_out, adjacency.degree, *window)
    if window == [3, 3]:
        size = tuple(dy.shape[2:])
        _gradient_by(adjacency, x.shape, size, stride)(adjacency, x.shape, size, stride)(
            x.contiguous(), dy.contiguous(), adjacency.index, gradient
        )
    else:
        layout = _layout(x)
        x, dy = _laid_out(_seen(x, stride), layout), _laid_out(dy, layout)
        run = pointwise_weight_gradient(adjacency, _positions(x, layout))
        run(x, dy, adjacency.index, gradient)
    return gradient.to(dtype)


def _window_product(
    x: Tensor, weight: Tensor, adjacency: Adjacency, transposed: bool, size: tuple[int, ...], stride: int
) -> Tensor:
    """Of a 3x3 convolution."""
    product = _product_by(adjacency, x.shape, transposed, size, stride)
    y = x.new_empty(x.shape[0], adjacency.n_in if transposed else adjacency.n_out, *size)
    product(adjacency, x.shape, transposed, size, stride)(x.contiguous(), weight, adjacency.index, y)
    return y


def _product_by(
    adjacency: Adjacency, shape: torch.Size, transposed: bool, size: tuple[int, ...], stride: int
) -> Callable[..., Run]:
    """By tiles, of x as it lies, or packed."""
    if run_winograd.suit_product(adjacency, shape[0], size, stride):
        return run_winograd.winograd_product
    suits = run_lines.suit_product(shape[0], min(shape[3], size[1]), adjacency.degree, stride, transposed)
    return run_lines.lines_product if suits else run_window.window_product


def _gradient_by(adjacency: Adjacency, shape: torch.Size, size: tuple[int, ...], stride: int) -> Callable[..., Run]:
    """The same for the weight's gradient."""
    if run_winograd.suit_gradient(adjacency, shape[0], size, stride):
        return run_winograd.winograd_weight_gradient
    suits = run_lines.suit_gradient(shape[0], size[1], adjacency.degree, stride)
    return run_lines.lines_weight_gradient if suits else run_window.window_weight_gradient


def _pointwise_product(
    x: Tensor,
    weight: Tensor,
    adjacency: Adjacency,
    transposed: bool,
    size: tuple[int, ...],
    layout: torch.memory_format,
) -> Tensor:
    """Of x in that layout."""
    y = _empty(x, (x.shape[0], adjacency.n_in if transposed else adjacency.n_out, *size), layout)
    pointwise_product(adjacency, _positions(x, layout), transposed)(x, weight, adjacency.index, y)
    return y


def _positions(x: Tensor, layout: torch.memory_format) -> Positions:
    """Of x in that layout; those of a batch (N, C) are its rows."""
    return positions_of(x, x.dim() == 2 or layout == torch.channels_last)


def _empty(like: Tensor, shape: tuple[int, ...], layout: torch.memory_format) -> Tensor:
    """Of float32."""
    if layout == torch.contiguous_format:
        return like.new_empty(shape)
    return torch.empty(shape, dtype=like.dtype, device="cpu", memory_format=layout)


def _single(x: Tensor) -> Tensor:
    """In single precision."""
    return x if x.dtype == torch.float32 else x.float()


def _converted(x: Tensor, dtype: torch.dtype, layout: torch.memory_format) -> Tensor:
    """To that dtype and layout."""
    return _laid_out(x if dtype == torch.float32 else x.to(dtype), layout)


def _size(x: Tensor, stride: int) -> tuple[int, ...]:
    """Height and width of the output, of 3x3 and 1x1 alike."""
    return tuple((n - 1) // stride + 1 for n in x.shape[2:])


def _layout(x: Tensor) -> torch.memory_format:
    """Of an image; channels_last only where it is that and nothing else."""
    if x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def _laid_out(x: Tensor, layout: torch.memory_format) -> Tensor:
    return x.contiguous(memory_format=layout)


def _seen(x: Tensor, stride: int) -> Tensor:
    """The pixels that a 1x1 convolution sees."""
    return x if stride == 1 else x[:, :, ::stride, ::stride]


direct = torch.library.custom_op("xnets::direct", output, mutates_args=())
direct_input_gradient = torch.library.custom_op("xnets::direct_input_gradient", input_gradient, mutates_args=())
direct_weight_gradient = torch.library.custom_op("xnets::direct_weight_gradient", weight_gradient, mutates_args=())


@direct.register_fake
def _(x: Tensor, weight: Tensor, index: Tensor, stride: int = 1) -> Tensor:
    return _laid_out(x.new_empty(x.shape[0], weight.shape[0], *_size(x, stride)), _layout(x))


@direct_input_gradient.register_fake
def _(dy: Tensor, weight: Tensor, index: Tensor, size: list[int], stride: int = 1, last: bool = False) -> Tensor:
    return _laid_out(dy.new_empty(dy.shape[0], *size), torch.channels_last if last else torch.contiguous_format)


@direct_weight_gradient.register_fake
def _(dy: Tensor, x: Tensor, index: Tensor, window: list[int], stride: int = 1) -> Tensor:
    return x.new_empty(dy.shape[1], index.shape[1], *window)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.stride = inputs[3]


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
    x, weight, index = ctx.saved_tensors
    need_x, need_weight = ctx.needs_input_grad[:2]
    last = _layout(x) == torch.channels_last
    # operators where they are watched, or are to have gradients themselves
    by_operators = torch.is_grad_enabled() or is_watched(dy, x, weight)
    of_x, of_weight = (
        (direct_input_gradient, direct_weight_gradient) if by_operators else (input_gradient, weight_gradient)
    )
    dx = of_x(dy, weight, index, list(x.shape[1:]), ctx.stride, last) if need_x else None
    dw = of_weight(dy, x, index, list(weight.shape[2:]), ctx.stride) if need_weight else None
    return dx, dw, None, None


class _Direct(torch.autograd.Function):
    """`direct` past the dispatcher."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, index: Tensor, stride: int) -> Tensor:
        _save(ctx, (x, weight, index, stride), x)
        return output(x, weight, index, stride)

    backward = staticmethod(_backward)


def apply(x: Tensor, weight: Tensor, index: Tensor, stride: int = 1) -> Tensor:
    """`direct`, the shortest way."""
    if is_watched(x, weight, index):
        return direct(x, weight, index, stride)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return _Direct.apply(x, weight, index, stride)
    return output(x, weight, index, stride)


# The three are linear in both of their tensors, so that each one's derivatives are the other two.


def _save_input_gradient(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.stride = inputs[4]


def _backward_of_input_gradient(ctx: Any, ddx: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
    dy, weight, index = ctx.saved_tensors
    need_dy, need_weight = ctx.needs_input_grad[:2]
    gradient = direct(ddx, weight, index, ctx.stride) if need_dy else None
    dw = direct_weight_gradient(dy, ddx, index, list(weight.shape[2:]), ctx.stride) if need_weight else None
    return gradient, dw, None, None, None, None


def _save_weight_gradient(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.stride = inputs[4]


def _backward_of_weight_gradient(ctx: Any, ddw: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
    dy, x, index = ctx.saved_tensors
    need_dy, need_x = ctx.needs_input_grad[:2]
    last = _layout(x) == torch.channels_last
    gradient = direct(x, ddw, index, ctx.stride) if need_dy else None
    dx = direct_input_gradient(dy, ddw, index, list(x.shape[1:]), ctx.stride, last) if need_x else None
    return gradient, dx, None, None, None


direct.register_autograd(_backward, setup_context=_save)
direct_input_gradient.register_autograd(_backward_of_input_gradient, setup_context=_save_input_gradient)
direct_weight_gradient.register_autograd(_backward_of_weight_gradient, setup_context=_save_weight_gradient)


@register_flop_formula(torch.ops.xnets.direct)
def _(x: tuple, weight: tuple, index: tuple, *rest: Any, out_shape: tuple, **named: Any) -> int:
    return 2 * math.prod(weight) * math.prod(out_shape) // out_shape[1]


@register_flop_formula(torch.ops.xnets.direct_input_gradient)
def _(dy: tuple, weight: tuple, index: tuple, *rest: Any, **named: Any) -> int:
    return 2 * math.prod(weight) * math.prod(dy) // dy[1]


@register_flop_formula(torch.ops.xnets.direct_weight_gradient)
def _(dy: tuple, x: tuple, index: tuple, *rest: Any, out_shape: tuple, **named: Any) -> int:
    return 2 * math.prod(out_shape) * math.prod(dy) // dy[1]
