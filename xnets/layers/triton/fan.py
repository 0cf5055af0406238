# ruff: noqa: ANN001, ANN201, ANN202 - what Triton compiles takes its types from the call
"""Triton kernels for exact graphs, where every row has a list of its own: no tensor cores, one load for each product
(1x1, linear) or for each two (3x3).

A matrix is given by rows: entries pointer[r] .. pointer[r + 1] - 1 have a column and a filter each. Rows are the
outputs, or for the gradient of x the inputs, with the lists transposed and the filters mirrored. Images are
contiguous, sums are fp32, and their order is given by shapes and lists alone.
"""

import triton
import triton.language as tl


@triton.jit
def pointwise(
    x, filters, columns, pointer, order, y, lanes, n_columns, n_rows, plane,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """x (N, columns, plane) -> y (N, rows, plane). A program has BM rows, `order` puts like long ones together."""
    tiles = tl.cdiv(n_rows, BM)
    place = (tl.program_id(0) % tiles) * BM + tl.arange(0, BM)  # programs that run together share pixels
    lane = (tl.program_id(0) // tiles) * BN + tl.arange(0, BN)
    row = tl.load(order + place, mask=place < n_rows, other=0)
    begin = tl.load(pointer + row)
    length = tl.where(place < n_rows, tl.load(pointer + row + 1) - begin, 0)
    image, pixel = lane // plane, lane % plane
    base = image * (n_columns * plane) + pixel
    alive = lane < lanes
    total = tl.zeros((BM, BN), tl.float32)
    for k in tl.range(0, tl.max(length, axis=0), loop_unroll_factor=4):
        real = k < length
        column = tl.load(columns + begin + k, mask=real, other=0)
        w = tl.load(filters + begin + k, mask=real, other=0.0).to(tl.float32)
        v = tl.load(x + base[None, :] + column[:, None] * plane, mask=real[:, None] & alive[None, :], other=0.0)
        total += w[:, None] * v.to(tl.float32)
    target = y + (image * (n_rows * plane) + pixel)[None, :] + row[:, None] * plane
    tl.store(target, total.to(y.dtype.element_ty), mask=(place < n_rows)[:, None] & alive[None, :])


@triton.jit
def _image_row(x, base, row, col, height, width, kept):
    """One image row, at the given columns, of each channel of the tile; zero outside of the image."""
    reached = (row >= 0) & (row < height) & (col >= 0) & (col < width)
    mask = kept & reached[None, :]
    return tl.load(x + base + (row * width + col)[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def window(
    x, filters, columns, pointer, order, y, lanes, n_columns, n_rows, height, width,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """3x3, stride 1, padding 1: x (N, columns, H, W) -> y (N, rows, H, W); filters (M, 9).

    A lane is four image rows, one above the other, of one image column: six loads serve twelve products.
    """
    tiles = tl.cdiv(n_rows, BM)
    place = (tl.program_id(0) % tiles) * BM + tl.arange(0, BM)
    lane = (tl.program_id(0) // tiles) * BN + tl.arange(0, BN)
    row = tl.load(order + place, mask=place < n_rows, other=0)
    begin = tl.load(pointer + row)
    length = tl.where(place < n_rows, tl.load(pointer + row + 1) - begin, 0)
    plane = height * width
    bands = (height + 3) // 4
    top, col = lane // width, lane % width
    image, top = top // bands, top % bands * 4
    alive = lane < lanes
    total0 = tl.zeros((BM, BN), tl.float32)
    total1 = tl.zeros((BM, BN), tl.float32)
    total2 = tl.zeros((BM, BN), tl.float32)
    total3 = tl.zeros((BM, BN), tl.float32)
    for k in range(0, tl.max(length, axis=0)):
        real = k < length
        column = tl.load(columns + begin + k, mask=real, other=0)
        kept = real[:, None] & alive[None, :]
        base = (image * (n_columns * plane))[None, :] + column[:, None] * plane
        for side in tl.static_range(3):
            v0 = _image_row(x, base, top - 1, col + side - 1, height, width, kept)
            v1 = _image_row(x, base, top, col + side - 1, height, width, kept)
            v2 = _image_row(x, base, top + 1, col + side - 1, height, width, kept)
            v3 = _image_row(x, base, top + 2, col + side - 1, height, width, kept)
            v4 = _image_row(x, base, top + 3, col + side - 1, height, width, kept)
            v5 = _image_row(x, base, top + 4, col + side - 1, height, width, kept)
            at = filters + (begin + k) * 9 + side
            above = tl.load(at, mask=real, other=0.0).to(tl.float32)[:, None]
            middle = tl.load(at + 3, mask=real, other=0.0).to(tl.float32)[:, None]
            below = tl.load(at + 6, mask=real, other=0.0).to(tl.float32)[:, None]
            total0 += above * v0 + middle * v1 + below * v2
            total1 += above * v1 + middle * v2 + below * v3
            total2 += above * v2 + middle * v3 + below * v4
            total3 += above * v3 + middle * v4 + below * v5
    kept = (place < n_rows)[:, None] & alive[None, :]
    target = y + (image * (n_rows * plane) + top * width + col)[None, :] + row[:, None] * plane
    kind = y.dtype.element_ty
    tl.store(target, total0.to(kind), mask=kept)
    tl.store(target + width, total1.to(kind), mask=kept & (top + 1 < height)[None, :])
    tl.store(target + 2 * width, total2.to(kind), mask=kept & (top + 2 < height)[None, :])
    tl.store(target + 3 * width, total3.to(kind), mask=kept & (top + 3 < height)[None, :])


@triton.jit
def pointwise_weight_gradient(
    dy, x, index, parts, lanes, span, n_in, n_out, degree, plane,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """parts (splits, n_out, D): products of dy (N, n_out, plane) and x (N, n_in, plane) at the edges alone.

    A program has BM edges of one output, and sums over `span` of the N x plane pixels.
    """
    tiles = tl.cdiv(degree, BM)
    output = tl.program_id(0) // tiles % n_out
    split = tl.program_id(0) // (tiles * n_out)  # outermost: programs that run together read the same pixels
    edge = (tl.program_id(0) % tiles) * BM + tl.arange(0, BM)
    source = tl.load(index + output * degree + edge, mask=edge < degree, other=0)
    total = tl.zeros((BM, BN), tl.float32)
    for start in range(split * span, tl.minimum(split * span + span, lanes), BN):
        lane = start + tl.arange(0, BN)
        real = lane < lanes
        image, pixel = lane // plane, lane % plane
        g = tl.load(dy + (image * n_out + output) * plane + pixel, mask=real, other=0.0).to(tl.float32)
        mask = (edge < degree)[:, None] & real[None, :]
        v = tl.load(x + (image * (n_in * plane) + pixel)[None, :] + source[:, None] * plane, mask=mask, other=0.0)
        total += g[None, :] * v.to(tl.float32)
    tl.store(parts + (split * n_out + output) * degree + edge, tl.sum(total, axis=1), mask=edge < degree)


@triton.jit
def window_weight_gradient(
    dy, x, index, parts, lanes, span, n_in, n_out, degree, height, width,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """The same for 3x3, stride 1, padding 1: parts (splits, n_out, D, 9)."""
    tiles = tl.cdiv(degree, BM)
    output = tl.program_id(0) // tiles % n_out
    split = tl.program_id(0) // (tiles * n_out)
    edge = (tl.program_id(0) % tiles) * BM + tl.arange(0, BM)
    source = tl.load(index + output * degree + edge, mask=edge < degree, other=0)
    plane = height * width
    total0 = tl.zeros((BM, BN), tl.float32)
    total1 = tl.zeros((BM, BN), tl.float32)
    total2 = tl.zeros((BM, BN), tl.float32)
    total3 = tl.zeros((BM, BN), tl.float32)
    total4 = tl.zeros((BM, BN), tl.float32)
    total5 = tl.zeros((BM, BN), tl.float32)
    total6 = tl.zeros((BM, BN), tl.float32)
    total7 = tl.zeros((BM, BN), tl.float32)
    total8 = tl.zeros((BM, BN), tl.float32)
    for start in range(split * span, tl.minimum(split * span + span, lanes), BN):
        lane = start + tl.arange(0, BN)
        real = lane < lanes
        row, col = lane // width, lane % width
        image, row = row // height, row % height
        g = dy + (image * n_out + output) * plane + row * width + col
        g = tl.load(g, mask=real, other=0.0).to(tl.float32)[None, :]
        base = (image * (n_in * plane))[None, :] + source[:, None] * plane
        kept = (edge < degree)[:, None] & real[None, :]
        total0 += g * _image_row(x, base, row - 1, col - 1, height, width, kept)
        total1 += g * _image_row(x, base, row - 1, col, height, width, kept)
        total2 += g * _image_row(x, base, row - 1, col + 1, height, width, kept)
        total3 += g * _image_row(x, base, row, col - 1, height, width, kept)
        total4 += g * _image_row(x, base, row, col, height, width, kept)
        total5 += g * _image_row(x, base, row, col + 1, height, width, kept)
        total6 += g * _image_row(x, base, row + 1, col - 1, height, width, kept)
        total7 += g * _image_row(x, base, row + 1, col, height, width, kept)
        total8 += g * _image_row(x, base, row + 1, col + 1, height, width, kept)
    target = parts + ((split * n_out + output) * degree + edge) * 9
    real = edge < degree
    tl.store(target, tl.sum(total0, axis=1), mask=real)
    tl.store(target + 1, tl.sum(total1, axis=1), mask=real)
    tl.store(target + 2, tl.sum(total2, axis=1), mask=real)
    tl.store(target + 3, tl.sum(total3, axis=1), mask=real)
    tl.store(target + 4, tl.sum(total4, axis=1), mask=real)
    tl.store(target + 5, tl.sum(total5, axis=1), mask=real)
    tl.store(target + 6, tl.sum(total6, axis=1), mask=real)
    tl.store(target + 7, tl.sum(total7, axis=1), mask=real)
    tl.store(target + 8, tl.sum(total8, axis=1), mask=real)
