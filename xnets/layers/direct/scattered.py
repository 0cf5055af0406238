"""A condensed weight as a dense one, and the numbers of a dense one at the edges: copies, faster than torch's.

Not operators of their own: whoever looks at operators gets torch's.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from xnets.layers.direct.adjacency import adjacency_of
from xnets.layers.direct.ir import Function
from xnets.layers.direct.jit import compiled, vector_width
from xnets.layers.direct.threads import addresses, in_parallel, parts, threads_for
from xnets.layers.kernels import is_watched


def scatter(window: int, width: int) -> Function:
    """dense (n_out, n_in, window) of weights (n_out, degree, window), zero where there is no edge."""

    def clear(code: Function, row: str, numbers: str) -> None:
        whole = code.sub(numbers, width - 1)
        with code.loop(0, whole, width) as i:
            code.store("zeroinitializer", code.at(row, i))
        with code.loop(code.mul(code.op(f"sdiv i64 {numbers}, {width}"), width), numbers) as i:
            code.emit(f"store float 0.0, ptr {code.at(row, i)}, align 4")

    return _each_edge("scatter", window, width, clear, lambda code, weight, there: _copy(code, weight, there, window))


def gather(window: int, width: int) -> Function:
    """weights (n_out, degree, window): what stands at the edges in dense (n_out, n_in, window)."""
    return _each_edge(
        "gather", window, width, lambda *_: None, lambda code, weight, there: _copy(code, there, weight, window)
    )


def _each_edge(
    name: str,
    window: int,
    width: int,
    begin: Callable[[Function, str, str], None],
    move: Callable[[Function, str, str], None],
) -> Function:
    """begin(code, row of dense, its numbers) for each output in [o0, o1), and move(code, weight, its place) for each of
    its edges; index (n_out / block, degree) int32."""
    code = Function(name, ["weights", "index", "dense"], ["o0", "o1", "n_in", "degree", "block"], width)
    numbers, filters = code.mul("%n_in", window), code.mul("%degree", window)
    with code.loop("%o0", "%o1") as o:
        row = code.at("%dense", code.mul(o, numbers))
        begin(code, row, numbers)
        weights = code.at("%weights", code.mul(o, filters))
        inputs = code.at("%index", code.mul(code.op(f"sdiv i64 {o}, %block"), "%degree"), "i32")
        with code.loop(0, "%degree") as e:
            channel = code.load_int(inputs, e)
            with code.when(code.op(f"icmp ult i64 {channel}, %n_in")):  # whatever was written past torch's counters
                move(code, code.at(weights, code.mul(e, window)), code.at(row, code.mul(channel, window)))
    return code


def _copy(code: Function, source: str, target: str, count: int) -> None:
    """So many floats, in the largest pieces that a vector holds."""
    first = 0
    while first < count:
        piece = min(code.width, 1 << ((count - first).bit_length() - 1))
        kind = f"<{piece} x float>"
        some = code.op(f"load {kind}, ptr {code.at(source, first)}, align 4")
        code.emit(f"store {kind} {some}, ptr {code.at(target, first)}, align 4")
        first += piece


def scattered(weight: Tensor, index: Tensor, n_in: int) -> Tensor:
    """weight (n_out, D, *k) and index (n_out / block, D), int32, of inputs below n_in -> (n_out, n_in, *k); no edge may
    stand twice. An input that is not there is an IndexError."""
    adjacency_of(index, n_in, weight.shape[0])  # has looked whether all inputs are there
    dense = weight.new_empty(weight.shape[0], n_in, *weight.shape[2:])
    _run(scatter, weight, index, dense)
    return dense


class Scatter(torch.autograd.Function):
    """`scattered` with its gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, index: Tensor, n_in: int) -> Tensor:
        ctx.save_for_backward(index.clone())  # DDP and load_state_dict write to buffers before a backward pass
        return scattered(weight, index, n_in)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        if torch.is_grad_enabled() or is_watched(gradient):  # for a gradient of this gradient: by torch
            return at_edges(gradient, index), None, None
        weight = gradient.new_zeros(gradient.shape[0], index.shape[1], *gradient.shape[2:])
        _run(gather, weight, index, gradient)
        return weight, None, None


def at_edges(dense: Tensor, index: Tensor) -> Tensor:
    """(n_out, n_in, *k) -> (n_out, D, *k), by torch's operators, which have gradients themselves."""
    inputs = index.long().repeat_interleave(dense.shape[0] // index.shape[0], 0)
    return dense[torch.arange(dense.shape[0], device=dense.device).unsqueeze(1), inputs]


def _run(generate: Callable[[int, int], Function], weight: Tensor, index: Tensor, dense: Tensor) -> None:
    weight, index, dense = weight.contiguous(), index.contiguous(), dense.contiguous()
    n_out, degree, *window = weight.shape
    kernel = compiled(generate, math.prod(window), vector_width())
    sizes = dense.shape[1], degree, n_out // index.shape[0]
    shares = parts(n_out, threads_for(dense.numel()))
    in_parallel(kernel, [(*addresses(weight, index, dense), *share, *sizes) for share in shares])
