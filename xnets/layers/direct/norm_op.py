"""Batch normalisation of a batch, with or without ReLU after it, as PyTorch operators; see norms.py, norms_last.py.

`apply` is what layers call: the operator, or, where nobody looks, its functions without it.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xnets.layers.direct import norms, norms_last
from xnets.layers.direct.jit import compiled, vector_width
from xnets.layers.direct.scratch import rooms_for, scratch
from xnets.layers.direct.threads import CACHE, addresses, in_parallel, parts, threads_for
from xnets.layers.kernels import is_watched

Normed = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]  # y, and of each channel what `norm` says


def output(x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool) -> Normed:
    """y = (x - mean) * scale + shift, or 0 if relu and that is below; and of each channel mean, 1 / sd, scale, shift
    and biased variance. x (N, C, H, W), contiguous or channels_last (else y is contiguous), weight and bias (C,), all
    float32 on a CPU."""
    x = _in_order(x)
    y = torch.empty_like(x)
    of_channels = [torch.empty_like(weight) for _ in range(5)]
    number = torch.tensor([eps], dtype=torch.float64, device="cpu")
    weight, bias = weight.contiguous(), bias.contiguous()
    if x.is_contiguous():
        _run(norms.forward, x, relu, 1, [x, weight, bias, number, y, *of_channels])
        return y, *of_channels
    mean, _, scale, shift, _ = of_channels
    with _moments(x) as moments:
        _by_slices(compiled(norms_last.forward_moments, x.shape[1], vector_width()), x, addresses(x), moments)
        _of_all_slices(
            norms_last.forward_statistics, x, (*addresses(x), moments, *addresses(weight, bias, number, *of_channels))
        )
    _by_rows(norms_last.forward, x, relu, [x, mean, scale, shift, y])
    return y, *of_channels


def gradient(
    dy: Tensor, x: Tensor, mean: Tensor, inverse_sd: Tensor, scale: Tensor, shift: Tensor, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias from that of y and from what `norm` returned."""
    x = _in_order(x)
    dx, d_weight, d_bias = torch.empty_like(x), torch.empty_like(mean), torch.empty_like(mean)
    if x.is_contiguous():
        arrays = [x, dy.contiguous(), mean, inverse_sd, scale, shift, dx, d_weight, d_bias]
        _run(norms.backward, x, relu, 2, arrays)
        return dx, d_weight, d_bias
    dy = dy.contiguous(memory_format=torch.channels_last)
    passed = torch.empty_like(mean), torch.empty_like(mean)
    with _moments(x) as moments:
        summed = compiled(norms_last.backward_moments, x.shape[1], relu, vector_width())
        _by_slices(summed, x, addresses(x, dy, mean, scale, shift), moments)
        gradients = addresses(inverse_sd, scale, d_weight, d_bias, *passed)
        _of_all_slices(norms_last.backward_gradients, x, (moments, *gradients))
    _by_rows(norms_last.backward, x, relu, [x, dy, mean, scale, shift, *passed, dx])
    return dx, d_weight, d_bias


def _in_order(x: Tensor) -> Tensor:
    """Contiguous unless it is that, or channels_last, already."""
    return x if x.is_contiguous(memory_format=torch.channels_last) else x.contiguous()


def _run(generate: Any, x: Tensor, relu: bool, maps: int, arrays: list[Tensor]) -> None:
    """The compiled kernel on all channels; each is one thread's, so that results do not depend on their number."""
    images, channels, pixels = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
    width = vector_width()
    together = norms.channels_together(pixels, width)
    units = -(-channels // together)
    block = max(1, min(units, CACHE // (maps * images * together * pixels)))
    kernel = compiled(generate, pixels, channels % together > 0, relu, width)

    pieces = parts(units, threads_for(4 * x.numel()))
    rooms = rooms_for(len(pieces), norms.room(min(block, max(u1 - u0 for u0, u1 in pieces)), width))
    rooms.in_parallel(kernel, addresses(*arrays), [(*piece, block, images, channels) for piece in pieces])


# --- channels_last ---


@contextlib.contextmanager
def _moments(x: Tensor) -> Iterator[int]:
    """Room for them: its address."""
    with scratch(norms_last.room(_rows(x), x.shape[1], vector_width())) as moments:
        yield moments


def _by_slices(kernel: Callable[..., None], x: Tensor, given: tuple[int, ...], moments: int) -> None:
    rows = _rows(x)
    pieces = parts(-(-rows // norms_last.SLICE), threads_for(2 * x.numel()))
    in_parallel(kernel, [(*given, moments, *piece, rows) for piece in pieces])


def _of_all_slices(generate: Any, x: Tensor, given: tuple[int, ...]) -> None:
    rows = _rows(x)
    compiled(generate, x.shape[1], vector_width())(*given, -(-rows // norms_last.SLICE), rows)


def _by_rows(generate: Any, x: Tensor, relu: bool, arrays: list[Tensor]) -> None:
    kernel = compiled(generate, x.shape[1], relu, vector_width())
    in_parallel(kernel, [(*addresses(*arrays), *piece) for piece in parts(_rows(x), threads_for(2 * x.numel()))])


def _rows(x: Tensor) -> int:
    """Pixels of all images."""
    return x.numel() // x.shape[1]


norm = torch.library.custom_op("xnets::norm", output, mutates_args=())
norm_gradient = torch.library.custom_op("xnets::norm_gradient", gradient, mutates_args=())


@norm.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool) -> Normed:
    return torch.empty_like(_in_order(x)), *(torch.empty_like(weight) for _ in range(5))


@norm_gradient.register_fake
def _(
    dy: Tensor, x: Tensor, mean: Tensor, inverse_sd: Tensor, scale: Tensor, shift: Tensor, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(_in_order(x)), torch.empty_like(mean), torch.empty_like(mean)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float, bool], output: Normed) -> None:
    x, weight, bias, ctx.eps, ctx.relu = inputs
    _, *of_channels = output
    ctx.mark_non_differentiable(*of_channels)
    ctx.save_for_backward(x, weight, bias, *of_channels[:4])


def _backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None, None]:
    x, weight, bias, *of_channels = ctx.saved_tensors
    if torch.is_grad_enabled():  # for a gradient of this gradient: torch's own
        y = F.batch_norm(x, None, None, weight, bias, training=True, eps=ctx.eps)
        y = F.relu(y) if ctx.relu else y
        needed = ctx.needs_input_grad[:3]
        wanted = [tensor for tensor, need in zip((x, weight, bias), needed, strict=True) if need]
        found = iter(torch.autograd.grad(y, wanted, dy, create_graph=True))
        return *(next(found) if need else None for need in needed), None, None
    computed = norm_gradient if is_watched(dy, x) else gradient
    return *computed(dy, x, *of_channels, ctx.relu), None, None


norm.register_autograd(_backward, setup_context=_save)


class _Norm(torch.autograd.Function):
    """`norm` past the dispatcher."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool) -> Normed:
        ctx.set_materialize_grads(False)  # none but y has a gradient
        found = output(x, weight, bias, eps, relu)
        _save(ctx, (x, weight, bias, eps, relu), found)
        return found

    backward = staticmethod(_backward)


def apply(x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool) -> Normed:
    """`norm`, the shortest way."""
    if is_watched(x, weight, bias):
        return norm(x, weight, bias, eps, relu)
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, weight, bias)):
        return _Norm.apply(x, weight, bias, eps, relu)
    return output(x, weight, bias, eps, relu)
