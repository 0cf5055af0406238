"""IR of batch normalisation in training for maps that are channels_last: what norms.py is for contiguous ones.

A map is (rows, channels) floats; a row is a pixel of an image. What is written is written row by row, as it lies in
memory. What is summed is read BLOCK rows at a time, and of a block a few vectors of channels at a time, whose sums stay
in registers: floats within a block, doubles over the blocks of a slice and over the slices. These are as long whatever
the number of threads, so that it changes no bit. `moments` is (slices, 2, padded(channels)) doubles.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from xnets.layers.direct.ir import Function
from xnets.layers.direct.norms import CHANNEL, median, statistics, through

BLOCK = 64  # rows
SLICE = 512  # rows
Piece = tuple[str | int, str | None]  # where a vector of channels is, and its mask if it is not full


def padded(channels: int, width: int) -> int:
    """Whole vectors of channels, counted in channels."""
    return -(-channels // width) * width


def room(rows: int, channels: int, width: int) -> int:
    """Floats of the moments."""
    return -(-rows // SLICE) * 2 * padded(channels, width) * 2


def forward_moments(channels: int, width: int) -> Function:
    """Sums of deviations from each channel's origin, and of their squares, for slices [s0, s1)."""
    code = Function("norm_moments", ["x", "moments"], ["s0", "s1", "rows"], width)

    def origin(piece: Piece) -> str:
        some = (_load(code, row, *piece) for row in _some_rows(code, channels))
        return median(code, *some, code.vector, f"<{width} x i1>")

    def both(r: str, piece: Piece, origin: str) -> tuple[str, str]:
        deviation = code.minus(_load(code, code.at("%x", code.mul(r, channels)), *piece), origin)
        return deviation, deviation

    _sum_slices(code, channels, origin, both)
    return code


def forward_statistics(channels: int, width: int) -> Function:
    """What norms.forward writes of each channel, from the moments of all slices; eps is one double."""
    pointers = ["x", "moments", "weight", "bias", "eps", *CHANNEL, "var"]
    code = Function("norm_statistics", pointers, ["slices", "rows"], width)
    eps = code.op("load double, ptr %eps")
    count = code.op("sitofp i64 %rows to double")
    with code.loop(0, channels) as c:
        some = [code.op(f"load float, ptr {code.at(row, c)}") for row in _some_rows(code, channels)]
        origin = code.op(f"fpext float {median(code, *some, 'float', 'i1')} to double")
        statistics(code, c, origin, *_totals(code, channels, c), count, eps)
    return code


def forward(channels: int, relu: bool, width: int) -> Function:
    """y from x and the statistics, for rows [r0, r1)."""
    code = Function("norm_last", ["x", "mean", "scale", "shift", "y"], ["r0", "r1"], width)
    with code.loop("%r0", "%r1") as r:
        source, target = (code.at(name, code.mul(r, channels)) for name in ("%x", "%y"))
        for pieces in _pieces(code, channels):
            for piece in pieces:
                mean, scale, shift = _constants(code, piece, "mean", "scale", "shift")
                y = code.fma(code.minus(_load(code, source, *piece), mean), scale, shift)
                code.store(code.positive(y, y) if relu else y, code.at(target, piece[0]), piece[1])
    return code


def _some_rows(code: Function, channels: int) -> list[str]:
    """The first, the middle and the last."""
    middle, last = code.op("sdiv i64 %rows, 2"), code.sub("%rows", 1)
    return ["%x", *(code.at("%x", code.mul(row, channels)) for row in (middle, last))]


def backward_moments(channels: int, relu: bool, width: int) -> Function:
    """Sums of dy, and of dy times x's deviation from its mean, for slices [s0, s1); relu as in norms.backward."""
    pointers = ["x", "dy", "mean", "scale", "shift", "moments"]
    code = Function("norm_backward_moments", pointers, ["s0", "s1", "rows"], width)

    def constants(piece: Piece) -> list[str]:
        return _constants(code, piece, "mean", "scale", "shift")

    def both(r: str, piece: Piece, constants: list[str]) -> tuple[str, str]:
        return _let_through(code, channels, r, piece, constants, relu)

    _sum_slices(code, channels, constants, both)
    return code


def backward_gradients(channels: int, width: int) -> Function:
    """d_weight and d_bias, and how the mean and the deviation pass the gradient on, from the moments of all slices."""
    pointers = ["moments", "inverse_sd", "scale", "d_weight", "d_bias", "through_mean", "through_sd"]
    code = Function("norm_gradients", pointers, ["slices", "rows"], width)
    count = code.op("sitofp i64 %rows to double")
    with code.loop(0, channels) as c:
        through_mean, through_sd = through(code, c, *_totals(code, channels, c), count)
        code.emit(f"store float {through_mean}, ptr {code.at('%through_mean', c)}")
        code.emit(f"store float {through_sd}, ptr {code.at('%through_sd', c)}")
    return code


def backward(channels: int, relu: bool, width: int) -> Function:
    """dx, for rows [r0, r1)."""
    pointers = ["x", "dy", "mean", "scale", "shift", "through_mean", "through_sd", "dx"]
    code = Function("norm_backward_last", pointers, ["r0", "r1"], width)
    with code.loop("%r0", "%r1") as r:
        target = code.at("%dx", code.mul(r, channels))
        for pieces in _pieces(code, channels):
            for piece in pieces:
                constants = _constants(code, piece, "mean", "scale", "shift")
                through_mean, through_sd = _constants(code, piece, "through_mean", "through_sd")
                deviation, dy = _let_through(code, channels, r, piece, constants, relu)
                dx = code.fma(dy, constants[1], code.fma(deviation, through_sd, through_mean))
                code.store(dx, code.at(target, piece[0]), piece[1])
    return code


@contextmanager
def _blocks(code: Function, start: str, stop: str) -> Iterator[tuple[str, str]]:
    with code.loop(start, stop, BLOCK) as first:
        yield first, code.least(code.add(first, BLOCK), stop)


def _pieces(code: Function, channels: int) -> Iterator[list[Piece]]:
    """Vectors of channels, as many at a time as have room for their constants in registers."""
    width = code.width
    few = (4 if width == 16 else 2) * width
    looped = channels // few * few
    if looped:
        with code.loop(0, looped, few) as c:
            yield [(code.add(c, v), None) for v in range(0, few, width)]
    if looped < channels:
        left = range(looped, channels, width)
        yield [(c, code.mask(channels - c) if channels - c < width else None) for c in left]


def _sum_slices(
    code: Function, channels: int, constants: Callable[[Piece], Any],
    both: Callable[[str, Piece, Any], tuple[str, str]],
) -> None:  # fmt: skip
    """moments of slices [s0, s1): sums of q, and of p times q, where (p, q) = both(row, piece, constants(piece))."""
    kind, stride = f"<{code.width} x double>", padded(channels, code.width)
    with code.loop("%s0", "%s1") as s:
        moments = code.at("%moments", code.mul(s, 2 * stride), "double")
        with code.loop(0, 2 * stride, code.width) as i:
            code.emit(f"store {kind} zeroinitializer, ptr {code.at(moments, i, 'double')}, align 8")
        start = code.mul(s, SLICE)
        with _blocks(code, start, code.least(code.add(start, SLICE), "%rows")) as (first, stop):
            for pieces in _pieces(code, channels):
                known = [constants(piece) for piece in pieces]
                sums, products = [[code.zero() for _ in pieces] for _ in range(2)]
                with code.loop(first, stop) as r:
                    for piece, mine, total, product in zip(pieces, known, sums, products, strict=True):
                        p, q = both(r, piece, mine)
                        total.set(code.plus(total.get(), q))
                        product.set(code.fma(p, q, product.get()))
                for moment, totals in enumerate((sums, products)):
                    for (c, _), total in zip(pieces, totals, strict=True):
                        there = code.at(moments, code.add(c, moment * stride), "double")
                        code.add_to_doubles(total.get(), there)


def _totals(code: Function, channels: int, c: str) -> list[str]:
    """Both moments of a channel over all slices, doubles."""
    stride = padded(channels, code.width)
    totals = [code.variable("0.0", "double") for _ in range(2)]
    with code.loop(0, "%slices") as s:
        for moment, total in enumerate(totals):
            place = code.add(code.mul(s, 2 * stride), code.add(c, moment * stride))
            value = code.op(f"load double, ptr {code.at('%moments', place, 'double')}")
            total.set(code.op(f"fadd double {total.get()}, {value}"))
    return [total.get() for total in totals]


def _let_through(code: Function, channels: int, r: str, piece: Piece, constants: list[str],
                 relu: bool) -> tuple[str, str]:  # fmt: skip
    """Deviations of x from its mean, and dy where ReLU let it through."""
    mean, scale, shift = constants
    x, dy = (_load(code, code.at(name, code.mul(r, channels)), *piece) for name in ("%x", "%dy"))
    deviation = code.minus(x, mean)
    return deviation, code.positive(code.fma(deviation, scale, shift), dy) if relu else dy


def _constants(code: Function, piece: Piece, *names: str) -> list[str]:
    return [_load(code, f"%{name}", *piece) for name in names]


def _load(code: Function, array: str, c: str | int, mask: str | None) -> str:
    return code.load(code.at(array, c), mask)
