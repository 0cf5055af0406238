"""The maximum over squares of 2 x 2 pixels, forward and backward, as torch.nn.functional.max_pool2d computes it.

Which of its four pixels a maximum is, is kept as one byte, 0 to 3 by rows, in rows of whole vectors; torch keeps eight
for each. Not an operator of its own: whoever looks at operators gets torch's.
"""

from typing import Any

import torch
from torch import Tensor

from xnets.layers.direct.ir import Function
from xnets.layers.direct.jit import compiled, vector_width
from xnets.layers.direct.threads import addresses, in_parallel, parts, threads_for
from xnets.layers.kernels import is_watched


def _rows(code: Function, p: str, i: str, j: str) -> tuple[str, str, str, str]:
    """Of row i of plane p, from its j-th maximum on: the pixels above and below, the maximum, and which it is."""
    first = code.add(code.mul(code.add(code.mul(p, "%height"), code.mul(i, 2)), "%width"), code.mul(j, 2))
    place = code.add(code.mul(code.add(code.mul(p, "%high"), i), "%across"), j)
    byte = code.add(code.mul(code.add(code.mul(p, "%high"), i), "%step"), j)
    below = code.add(first, "%width")
    return *(code.at("%x", f) for f in (first, below)), code.at("%y", place), code.at("%which", byte, "i8")


def forward(width: int) -> Function:
    """y (planes, high, across) and which (planes, high, step) of x (planes, height, width), for planes [p0, p1)."""
    sizes = ["p0", "p1", "height", "width", "high", "across", "step"]
    code = Function("pool", ["x", "y", "which"], sizes, width)
    v, bits, bytes_ = code.vector, f"<{width} x i1>", f"<{width} x i8>"
    even, odd = list(range(0, 2 * width, 2)), list(range(1, 2 * width, 2))
    with code.loop("%p0", "%p1") as p, code.loop(0, "%high") as i, code.loop(0, "%across", width) as j:
        above, below, target, which = _rows(code, p, i, j)
        count = code.least(width, code.sub("%across", j))
        pixels = code.mul(count, 2)
        masks = code.mask(pixels), code.mask(code.sub(pixels, width))
        candidates = []
        for row in (above, below):
            a, b = (code.load_first(code.at(row, k * width), mask) for k, mask in enumerate(masks))
            candidates += [code.shuffle(a, b, even), code.shuffle(a, b, odd)]
        best, found = candidates[0], "zeroinitializer"
        for k, other in enumerate(candidates[1:], 1):
            # the first of equal ones, the last that is no number
            greater, no_number = code.op(f"fcmp ogt {v} {other}, {best}"), code.op(f"fcmp uno {v} {other}, {other}")
            takes = code.op(f"or {bits} {greater}, {no_number}")
            best = code.op(f"select {bits} {takes}, {v} {other}, {v} {best}")
            number = f"<{', '.join([f'i8 {k}'] * width)}>"
            found = code.op(f"select {bits} {takes}, {bytes_} {number}, {bytes_} {found}")
        code.store_first(best, target, code.mask(count))
        code.emit(f"store {bytes_} {found}, ptr {which}, align 1")
    return code


def backward(width: int) -> Function:
    """x (planes, height, width), the gradient of what was pooled, from y, that of the maxima, and which they were.

    A last row or column that no square holds is left as it is.
    """
    sizes = ["p0", "p1", "height", "width", "high", "across", "step"]
    code = Function("spread", ["x", "y", "which"], sizes, width)
    v, bits, bytes_ = code.vector, f"<{width} x i1>", f"<{width} x i8>"
    mixed = [lane for k in range(width) for lane in (k, width + k)]
    with code.loop("%p0", "%p1") as p, code.loop(0, "%high") as i, code.loop(0, "%across", width) as j:
        above, below, source, which = _rows(code, p, i, j)
        count = code.least(width, code.sub("%across", j))
        pixels = code.mul(count, 2)
        masks = code.mask(pixels), code.mask(code.sub(pixels, width))
        upstream = code.load_first(source, code.mask(count))
        found = code.op(f"load {bytes_}, ptr {which}, align 1")
        shares = []
        for k in range(4):
            number = f"<{', '.join([f'i8 {k}'] * width)}>"
            mine = code.op(f"icmp eq {bytes_} {found}, {number}")
            shares.append(code.op(f"select {bits} {mine}, {v} {upstream}, {v} zeroinitializer"))
        for row, (left, right) in zip((above, below), (shares[:2], shares[2:]), strict=True):
            for k, mask in enumerate(masks):
                some = code.shuffle(left, right, mixed[k * width : (k + 1) * width])
                code.store_first(some, code.at(row, k * width), mask)
    return code


class MaxPool2x2(torch.autograd.Function):
    """x (N, C, H, W), float32, contiguous, on a CPU -> (N, C, H // 2, W // 2)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        *planes, height, width = x.shape
        step = -(-(width // 2) // vector_width()) * vector_width()
        y = x.new_empty(*planes, height // 2, width // 2)
        which = torch.empty(*planes, height // 2, step, dtype=torch.uint8, device="cpu")
        _run(forward, x, y, which)
        ctx.save_for_backward(which)
        ctx.size = x.shape
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (which,) = ctx.saved_tensors
        *_, height, width = ctx.size
        if torch.is_grad_enabled() or is_watched(dy):  # for a gradient of this gradient: by torch
            return _spread(dy, which, height, width)
        whole = height % 2 == 0 and width % 2 == 0
        dx = dy.new_empty(ctx.size) if whole else dy.new_zeros(ctx.size)
        _run(backward, dx, dy.contiguous(), which)
        return dx


def _run(generate: Any, x: Tensor, y: Tensor, which: Tensor) -> None:
    kernel = compiled(generate, vector_width())
    planes, sizes = x.shape[0] * x.shape[1], (*x.shape[2:], *y.shape[2:], which.shape[-1])
    in_parallel(kernel, [(*addresses(x, y, which), *part, *sizes) for part in parts(planes, threads_for(x.numel()))])


def _spread(dy: Tensor, which: Tensor, height: int, width: int) -> Tensor:
    """The gradient by torch's operators, which have gradients themselves."""
    high, across = dy.shape[2:]
    places = which[..., :across].long().unsqueeze(-1)
    squares = dy.new_zeros(*dy.shape, 4).scatter(-1, places, dy.unsqueeze(-1))
    rows = squares.reshape(*dy.shape, 2, 2).transpose(3, 4).reshape(*dy.shape[:2], 2 * high, 2 * across)
    return torch.nn.functional.pad(rows, (0, width - 2 * across, 0, height - 2 * high))
