# ruff: noqa: ANN001, ANN201 - what Triton compiles takes its types from the call
"""Triton kernels for graphs whose outputs share their list of neighbours in groups of `block`: tensor cores.

All images are contiguous: x (N, n_in, H, W), y and dy (N, n_out, H', W'). weight is (taps, n_out, D), the windows'
positions outermost, so that each is read in one piece. index is (n_out / block, D). Sums are fp32.

One program makes one tile of its result alone and adds in an order given by shapes, so results repeat bit for bit.
UPCAST is for Triton's interpreter, which cannot multiply bfloat16.
"""

import triton
import triton.language as tl


@triton.jit
def product(
    x, weight, index, y, lanes, n_in, n_out, degree, block, height, width, out_height, out_width, taps, window_width,
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PADDED: tl.constexpr, PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    """y: an implicit matrix product. A program has BM outputs of one group and BN of the N H' W' output pixels."""
    tiles_of_group = tl.cdiv(block, BM)
    tiles = (n_out // block) * tiles_of_group
    tile = tl.program_id(0) % tiles  # programs that run together share pixels, which then are in the cache
    group = tile // tiles_of_group
    member = (tile % tiles_of_group) * BM + tl.arange(0, BM)
    outputs = group * block + member
    lane = (tl.program_id(0) // tiles) * BN + tl.arange(0, BN)
    out_plane, plane = out_height * out_width, height * width
    # divided once by the width: Triton then sees that neighbouring lanes are neighbours in memory, and loads wide
    row, col = lane // out_width, lane % out_width
    image, row = row // out_height, row % out_height
    top, left = row * stride_h - pad_h, col * stride_w - pad_w
    corner = image * (n_in * plane) + top * width + left
    steps = tl.cdiv(degree, BK)
    total = tl.zeros((BM, BN), tl.float32)
    for step in range(0, taps * steps):
        tap = step // steps
        down, right = (tap // window_width) * dilation_h, (tap % window_width) * dilation_w
        reached = lane < lanes
        if PADDED:
            reached &= (top + down >= 0) & (top + down < height) & (left + right >= 0) & (left + right < width)
        edge = (step % steps) * BK + tl.arange(0, BK)
        real = edge < degree
        source = tl.load(index + group * degree + edge, mask=real, other=0)
        w = tl.load(
            weight + (tap * n_out + outputs)[:, None] * degree + edge[None, :],
            mask=(member < block)[:, None] & real[None, :],
            other=0.0,
        )
        v = tl.load(
            x + (corner + down * width + right)[None, :] + source[:, None] * plane,
            mask=real[:, None] & reached[None, :],
            other=0.0,
        )
        if UPCAST:
            w, v = w.to(tl.float32), v.to(tl.float32)
        total = tl.dot(w, v, total, input_precision=PRECISION)
    target = y + (image * (n_out * out_plane) + row * out_width + col)[None, :] + outputs[:, None] * out_plane
    tl.store(target, total.to(y.dtype.element_ty), mask=(member < block)[:, None] & (lane < lanes)[None, :])


@triton.jit
def input_gradient(
    dy, weight, out, first, lanes, columns, n_out, degree, block, height, width, out_height, out_width, window_width,
    row0, column0, rows_of_class, columns_of_class, tap0_h, tap0_w, taps_h, taps_w, tap_step_h, tap_step_w,
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPREAD: tl.constexpr, PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    """What each group adds to the gradients of its D inputs, at the lanes first .. first + columns - 1.

    Under a stride, input pixels fall into classes (row0, column0) modulo the stride, each reached by window positions
    of its own: tap0, tap0 + tap_step, ...; lanes count the pixels of one class, image by image.
    SPREAD: there is one group and its inputs are all inputs in order, so out is dx; otherwise out is fp32,
    (edges of all groups, columns), to be summed by `gather_sum`.
    """
    tiles_of_group = tl.cdiv(degree, BM)
    tiles = (n_out // block) * tiles_of_group
    tile = tl.program_id(0) % tiles
    group = tile // tiles_of_group
    edge = (tile % tiles_of_group) * BM + tl.arange(0, BM)
    column = (tl.program_id(0) // tiles) * BN + tl.arange(0, BN)
    lane = first + column
    alive = (lane < lanes) & (column < columns)
    out_plane = out_height * out_width
    row, col = lane // columns_of_class, lane % columns_of_class
    image, row = row // rows_of_class, row0 + row % rows_of_class * stride_h
    col = column0 + col * stride_w
    steps = tl.cdiv(block, BK)
    total = tl.zeros((BM, BN), tl.float32)
    for step in range(0, taps_h * taps_w * steps):
        tap = step // steps
        tap_h, tap_w = tap0_h + (tap // taps_w) * tap_step_h, tap0_w + (tap % taps_w) * tap_step_w
        up, across = row + pad_h - tap_h * dilation_h, col + pad_w - tap_w * dilation_w  # divisible by the stride
        reached = alive & (up >= 0) & (across >= 0)
        up, across = up // stride_h, across // stride_w
        reached &= (up < out_height) & (across < out_width)
        member = (step % steps) * BK + tl.arange(0, BK)
        outputs = group * block + member
        w = tl.load(
            weight + ((tap_h * window_width + tap_w) * n_out + outputs)[None, :] * degree + edge[:, None],
            mask=(edge < degree)[:, None] & (member < block)[None, :],
            other=0.0,
        )
        v = tl.load(
            dy + (image * (n_out * out_plane) + up * out_width + across)[None, :] + outputs[:, None] * out_plane,
            mask=(member < block)[:, None] & reached[None, :],
            other=0.0,
        )
        if UPCAST:
            w, v = w.to(tl.float32), v.to(tl.float32)
        total = tl.dot(w, v, total, input_precision=PRECISION)
    kept = (edge < degree)[:, None] & alive[None, :]
    if SPREAD:
        plane = height * width
        target = out + (image * (degree * plane) + row * width + col)[None, :] + edge[:, None] * plane
        tl.store(target, total.to(out.dtype.element_ty), mask=kept)
    else:
        tl.store(out + (group * degree + edge)[:, None] * columns + column[None, :], total, mask=kept)


@triton.jit
def gather_sum(
    parts, pointer, order, dx, first, lanes, columns, n_in, height, width, row0, column0, rows_of_class,
    columns_of_class, stride_h, stride_w,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """dx at the lanes of `input_gradient`: every input adds its rows of parts, in the order of the groups."""
    tiles = tl.cdiv(n_in, BM)
    inputs = (tl.program_id(0) % tiles) * BM + tl.arange(0, BM)
    column = (tl.program_id(0) // tiles) * BN + tl.arange(0, BN)
    lane = first + column
    alive = (lane < lanes) & (column < columns)
    begin = tl.load(pointer + inputs, mask=inputs < n_in, other=0)
    end = tl.load(pointer + inputs + 1, mask=inputs < n_in, other=0)
    total = tl.zeros((BM, BN), tl.float32)
    for k in range(0, tl.max(end - begin, axis=0)):
        real = begin + k < end
        part = tl.load(order + begin + k, mask=real, other=0)
        total += tl.load(
            parts + part[:, None] * columns + column[None, :], mask=real[:, None] & alive[None, :], other=0.0
        )
    row, col = lane // columns_of_class, lane % columns_of_class
    image, row = row // rows_of_class, row0 + row % rows_of_class * stride_h
    col = column0 + col * stride_w
    plane = height * width
    target = dx + (image * (n_in * plane) + row * width + col)[None, :] + inputs[:, None] * plane
    tl.store(target, total.to(dx.dtype.element_ty), mask=(inputs < n_in)[:, None] & alive[None, :])


@triton.jit
def weight_gradient(
    dy, x, index, parts, lanes, span, n_in, n_out, degree, block, height, width, out_height, out_width, taps,
    window_width, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PADDED: tl.constexpr, PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    """parts (splits, taps, n_out, D): each split sums over `span` of the N H' W' output pixels, BK at a time."""
    tiles_of_group, edge_tiles = tl.cdiv(block, BM), tl.cdiv(degree, BN)
    tiles = (n_out // block) * tiles_of_group
    work = tl.program_id(0)
    edge = (work % edge_tiles) * BN + tl.arange(0, BN)
    tile = work // edge_tiles % tiles
    tap = work // (edge_tiles * tiles) % taps
    split = work // (edge_tiles * tiles * taps)  # outermost: programs that run together read the same pixels
    group = tile // tiles_of_group
    member = (tile % tiles_of_group) * BM + tl.arange(0, BM)
    outputs = group * block + member
    source = tl.load(index + group * degree + edge, mask=edge < degree, other=0)
    out_plane, plane = out_height * out_width, height * width
    down, right = (tap // window_width) * dilation_h - pad_h, (tap % window_width) * dilation_w - pad_w
    total = tl.zeros((BM, BN), tl.float32)
    for start in range(split * span, tl.minimum(split * span + span, lanes), BK):
        lane = start + tl.arange(0, BK)
        real = lane < lanes
        row, col = lane // out_width, lane % out_width
        image, row = row // out_height, row % out_height
        pixel = image * (n_out * out_plane) + row * out_width + col
        row, col = row * stride_h + down, col * stride_w + right
        reached = real
        if PADDED:
            reached = real & (row >= 0) & (row < height) & (col >= 0) & (col < width)
        g = tl.load(
            dy + pixel[None, :] + outputs[:, None] * out_plane,
            mask=(member < block)[:, None] & real[None, :],
            other=0.0,
        )
        v = tl.load(
            x + (image * (n_in * plane) + row * width + col)[None, :] + source[:, None] * plane,
            mask=(edge < degree)[:, None] & reached[None, :],
            other=0.0,
        )
        if UPCAST:
            g, v = g.to(tl.float32), v.to(tl.float32)
        total = tl.dot(g, tl.trans(v), total, input_precision=PRECISION)
    target = parts + ((split * taps + tap) * n_out + outputs)[:, None] * degree + edge[None, :]
    tl.store(target, total, mask=(member < block)[:, None] & (edge < degree)[None, :])
