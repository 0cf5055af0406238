"""Batch normalisation of a batch, with or without ReLU after it, as PyTorch operators; see norms.py."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xnets.layers.direct import norms
from xnets.layers.direct.jit import compiled, vector_width
from xnets.layers.direct.run import CACHE
from xnets.layers.direct.scratch import scratch
from xnets.layers.direct.threads import addresses, in_parallel, parts, threads_for

Six = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("xnets::norm", mutates_args=())
def norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool) -> Six:
    """y = (x - mean) * scale + shift, or 0 if relu and that is below; and of each channel mean, 1 / sd, scale, shift
    and biased variance. x (N, C, H, W) contiguous, weight and bias (C,), all float32 on a CPU."""
    y = torch.empty_like(x)
    of_channels = [torch.empty_like(weight) for _ in range(5)]
    number = torch.tensor([eps], dtype=torch.float64, device="cpu")
    _run(norms.forward, x, relu, 1, [x, weight.contiguous(), bias.contiguous(), number, y, *of_channels])
    return y, *of_channels


@torch.library.custom_op("xnets::norm_gradient", mutates_args=())
def norm_gradient(
    dy: Tensor, x: Tensor, mean: Tensor, inverse_sd: Tensor, scale: Tensor, shift: Tensor, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias from that of y and from what `norm` returned."""
    dx, d_weight, d_bias = torch.empty_like(x), torch.empty_like(mean), torch.empty_like(mean)
    arrays = [x, dy.contiguous(), mean, inverse_sd, scale, shift, dx, d_weight, d_bias]
    _run(norms.backward, x, relu, 2, arrays)
    return dx, d_weight, d_bias


def _run(generate: Any, x: Tensor, relu: bool, maps: int, arrays: list[Tensor]) -> None:
    """The compiled kernel on all channels; each is one thread's, so that results do not depend on their number."""
    images, channels, pixels = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
    width = vector_width()
    together = norms.channels_together(pixels, width)
    units = -(-channels // together)
    block = max(1, min(units, CACHE // (maps * images * together * pixels)))
    kernel = compiled(generate, pixels, channels % together > 0, relu, width)

    pieces = parts(units, threads_for(4 * x.numel()))
    with scratch(norms.room(min(block, max(u1 - u0 for u0, u1 in pieces)), width), len(pieces)) as rooms:
        given = addresses(*arrays)
        in_parallel(
            kernel, [(*given, room, *piece, block, images, channels) for room, piece in zip(rooms, pieces, strict=True)]
        )


@norm.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool) -> Six:
    return torch.empty_like(x), *(torch.empty_like(weight) for _ in range(5))


@norm_gradient.register_fake
def _(
    dy: Tensor, x: Tensor, mean: Tensor, inverse_sd: Tensor, scale: Tensor, shift: Tensor, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(mean), torch.empty_like(mean)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float, bool], output: Six) -> None:
    x, weight, bias, ctx.eps, ctx.relu = inputs
    _, *of_channels = output
    ctx.mark_non_differentiable(*of_channels)
    ctx.save_for_backward(x, weight, bias, *of_channels[:4])


def _backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None, None]:
    x, weight, bias, *of_channels = ctx.saved_tensors
    if torch.is_grad_enabled():  # for a gradient of this gradient: torch's own
        y = F.batch_norm(x, None, None, weight, bias, training=True, eps=ctx.eps)
        y = F.relu(y) if ctx.relu else y
        return *torch.autograd.grad(y, (x, weight, bias), dy, create_graph=True), None, None
    return *norm_gradient(dy, x, *of_channels, ctx.relu), None, None


norm.register_autograd(_backward, setup_context=_save)
