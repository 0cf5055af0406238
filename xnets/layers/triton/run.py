"""Launches the Triton kernels: tiles, scratch memory, lists on the device. Tensors are contiguous, one dtype.

Tiles and splits depend on shapes alone, and so does the order of every sum: results repeat bit for bit.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from xnets.layers.dense import to_dense_weight
from xnets.layers.direct.adjacency import Adjacency, adjacency_of
from xnets.layers.kernels import Edges
from xnets.layers.triton import INTERPRETED, estimate, fan, group
from xnets.layers.triton.geometry import Layer

SCRATCH = 32 * 1024 * 1024  # bytes of partial sums at a time: they stay in an H100's second-level cache
PROGRAMS = 528  # enough for every multiprocessor of an H100 to have four


class Lists:
    """Rows of a matrix as the fan kernels and gather_sum take them, int32, on the device."""

    def __init__(self, pointer: Tensor, columns: Tensor | None, edges: Tensor | None) -> None:
        self.pointer, self.columns, self.edges = pointer, columns, edges
        # rows of like length beside one another: a program runs as long as its longest
        self.order = torch.diff(pointer).argsort(descending=True, stable=True).to(torch.int32)


def lists_of(index: Tensor, n_in: int, rows: int, transposed: bool) -> Lists:
    """Built once as long as the index lives and is not written to."""
    adjacency = adjacency_of(index, n_in, rows)
    known, key = adjacency.kept, ("lists", transposed)
    if key not in known:
        if transposed:
            there = adjacency.index.cpu()
            found = Adjacency(there, n_in, rows).of(there).transposed
            known[key] = Lists(*(part.to(index.device) for part in found))
        else:
            stop = adjacency.index.numel() + 1
            known[key] = Lists(
                torch.arange(0, stop, adjacency.degree, dtype=torch.int32, device=index.device), None, None
            )
    if transposed:
        return known[key]
    lists = copy.copy(known[key])
    lists.columns = adjacency.index.flatten()  # the layer's own, which must not be kept: it would never be freed
    return lists


def product(x: Tensor, weight: Tensor, index: Tensor, layer: Layer, precision: str) -> Tensor:
    """(images, n_in, pixels) -> (images, n_out, output pixels)."""
    y = x.new_empty(layer.images, layer.n_out, layer.rows.out * layer.columns.out)
    if not layer.grouped:
        lists = lists_of(index, layer.n_in, layer.n_out, transposed=False)
        _fan_product(x, weight, lists, y, layer, layer.n_in, layer.n_out)
        return y
    bm, bn, bk = _tiles(layer.block, layer.lanes, layer.degree, x, layer.n_out // layer.block)
    tiles = layer.n_out // layer.block * -(-layer.block // bm) * -(-layer.lanes // bn)
    _launch(
        group.product, tiles, x, _by_tap(weight), index, y, layer.lanes, layer.n_in, layer.n_out, layer.degree,
        layer.block, layer.rows.size, layer.columns.size, layer.rows.out, layer.columns.out, layer.taps,
        *_window(layer), BM=bm, BN=bn, BK=bk, PADDED=layer.padded, **_dot(x, precision, bm * bn),
    )  # fmt: skip
    return y


def input_gradient(dy: Tensor, weight: Tensor, index: Tensor, layer: Layer, precision: str, double: bool) -> Tensor:
    """(images, n_out, output pixels) -> (images, n_in, pixels): along the edges, or by a dense product where the
    estimate says that it is faster.
    """
    dx = dy.new_empty(layer.images, layer.n_in, layer.rows.size * layer.columns.size)
    along = double or estimate.input_gradient_along_edges(layer, dy.element_size(), precision)
    if along and not layer.grouped:
        lists = lists_of(index, layer.n_in, layer.n_out, transposed=True)
        mirrored = weight.view(layer.edges, layer.taps).index_select(0, lists.edges).flip(1)
        _fan_product(dy, mirrored, lists, dx, layer, layer.n_out, layer.n_in)
    elif along:
        _group_input_gradient(dy, weight, index, dx, layer, precision)
    else:
        dense = _dense(weight, index, layer)
        spread = Layer(layer.images, layer.n_in, layer.n_out, layer.n_in, layer.n_out, layer.rows, layer.columns)
        _group_input_gradient(dy, dense, None, dx, spread, precision)
    return dx


def weight_gradient(dy: Tensor, x: Tensor, index: Tensor, layer: Layer, precision: str) -> Tensor:
    """(images, n_out, output pixels), (images, n_in, pixels) -> (n_out, D, taps), dtype of x."""
    if not estimate.weight_gradient_along_edges(layer, x.element_size(), precision):
        every = torch.arange(layer.n_in, dtype=torch.int32, device=x.device)
        spread = Layer(layer.images, layer.n_in, layer.n_out, layer.n_in, layer.n_out, layer.rows, layer.columns)
        dense = _group_weight_gradient(dy, x, every, spread, precision)
        inputs = index.long().repeat_interleave(layer.block, 0)
        return dense.gather(1, inputs.unsqueeze(2).expand(-1, -1, layer.taps)).to(x.dtype)
    if layer.grouped:
        return _group_weight_gradient(dy, x, index, layer, precision).to(x.dtype)
    whole = lists_of(index, layer.n_in, layer.n_out, transposed=False).columns
    bm, bn = min(16 if layer.taps == 1 else 8, _power(layer.degree)), _side(layer.lanes)
    work = layer.n_out * -(-layer.degree // bm)
    most = SCRATCH // 2 // (layer.n_in * x.element_size())  # pixels whose inputs stay in the second-level cache
    splits, span = _splits(work, layer.lanes, layer.edges * layer.taps, bn, most)
    parts = x.new_empty(splits, layer.n_out, layer.degree, layer.taps, dtype=torch.float32)
    common = (dy, x, whole, parts, layer.lanes, span, layer.n_in, layer.n_out, layer.degree)
    if layer.taps == 1:
        _launch(fan.pointwise_weight_gradient, work * splits, *common, layer.columns.size, BM=bm, BN=bn)
    else:
        sides = (layer.rows.size, layer.columns.size)
        _launch(fan.window_weight_gradient, work * splits, *common, *sides, BM=bm, BN=bn)
    return parts.sum(0).to(x.dtype)


def _fan_product(
    x: Tensor, filters: Tensor, lists: Lists, y: Tensor, layer: Layer, n_columns: int, n_rows: int
) -> None:
    arguments = (x, filters, lists.columns, lists.pointer, lists.order, y)
    bm = min(8 if layer.taps == 1 else 4, _power(n_rows))
    if layer.taps == 1:
        plane = layer.columns.size
        lanes = layer.images * plane
        bn = _side(lanes)
        work = -(-n_rows // bm) * -(-lanes // bn)
        _launch(fan.pointwise, work, *arguments, lanes, n_columns, n_rows, plane, BM=bm, BN=bn)
    else:
        height, width = layer.rows.size, layer.columns.size
        lanes = layer.images * -(-height // 4) * width
        bn = _side(lanes)
        work = -(-n_rows // bm) * -(-lanes // bn)
        _launch(fan.window, work, *arguments, lanes, n_columns, n_rows, height, width, BM=bm, BN=bn)


def _group_input_gradient(
    dy: Tensor, weight: Tensor, index: Tensor | None, dx: Tensor, layer: Layer, precision: str
) -> None:
    """Without an index, weight is dense, and there is nothing to sum."""
    rows, columns, groups = layer.rows, layer.columns, layer.n_out // layer.block
    by_tap = _by_tap(weight)
    lists = None if index is None else lists_of(index, layer.n_in, groups, transposed=True)
    for row0 in range(rows.stride):
        for column0 in range(columns.stride):
            of_class = [max(0, -(-(a.size - r) // a.stride)) for a, r in ((rows, row0), (columns, column0))]
            lanes = layer.images * of_class[0] * of_class[1]
            if not lanes:
                continue
            bm, bn, bk = _tiles(layer.degree, lanes, layer.block, dy, groups)
            (tap_h, taps_h, step_h), (tap_w, taps_w, step_w) = rows.taps(row0), columns.taps(column0)
            chunk = lanes
            if lists is not None:
                chunk = min(lanes, max(1, SCRATCH // (4 * groups * layer.degree * bn)) * bn)
            out = dx if lists is None else dx.new_empty(groups * layer.degree, chunk, dtype=torch.float32)
            place = (rows.size, columns.size, row0, column0, *of_class, rows.stride, columns.stride)
            for first in range(0, lanes, chunk):
                tiles = groups * -(-layer.degree // bm) * -(-chunk // bn)
                _launch(
                    group.input_gradient, tiles, dy, by_tap, out, first, lanes, chunk, layer.n_out, layer.degree,
                    layer.block, rows.size, columns.size, rows.out, columns.out, columns.window, row0, column0,
                    *of_class, tap_h, tap_w, taps_h, taps_w, step_h, step_w, *_window(layer)[1:],
                    BM=bm, BN=bn, BK=bk, SPREAD=lists is None, **_dot(dy, precision, bm * bn),
                )  # fmt: skip
                if lists is not None:
                    bm_sum, bn_sum = min(16, _power(layer.n_in)), _side(chunk)
                    tiles = -(-layer.n_in // bm_sum) * -(-chunk // bn_sum)
                    _launch(
                        group.gather_sum, tiles, out, lists.pointer, lists.edges, dx, first, lanes, chunk, layer.n_in,
                        *place, BM=bm_sum, BN=bn_sum,
                    )  # fmt: skip


def _group_weight_gradient(dy: Tensor, x: Tensor, index: Tensor, layer: Layer, precision: str) -> Tensor:
    """(n_out, D, taps), fp32."""
    bm, bn, bk = _tiles(layer.block, layer.degree, layer.lanes, x)
    work = layer.taps * (layer.n_out // layer.block) * -(-layer.block // bm) * -(-layer.degree // bn)
    splits, span = _splits(work, layer.lanes, layer.edges * layer.taps, bk)
    parts = x.new_empty(splits, layer.taps, layer.n_out, layer.degree, dtype=torch.float32)
    _launch(
        group.weight_gradient, work * splits, dy, x, index, parts, layer.lanes, span, layer.n_in, layer.n_out,
        layer.degree, layer.block, layer.rows.size, layer.columns.size, layer.rows.out, layer.columns.out,
        layer.taps, *_window(layer), BM=bm, BN=bn, BK=bk, PADDED=layer.padded, **_dot(x, precision, 2 * bm * bn),
    )  # fmt: skip
    return parts.sum(0).permute(1, 2, 0).contiguous()


def _launch(kernel: Callable, programs: int, *arguments: object, **constants: object) -> None:
    with torch.cuda.device_of(arguments[0]):
        kernel[(programs,)](*arguments, **constants)


def _tiles(rows: int, columns: int, depth: int, x: Tensor, copies: int | None = None) -> tuple[int, int, int]:
    """Sides of a program's product: the rows' tile wastes least, and is the largest of those that waste the same.

    copies: how many such products there are, if nothing else makes them enough programs.
    """
    bm = min((128, 64, 32, 16), key=lambda side: -(-rows // side) * side)
    bn = max(16, min(128, _power(columns)))
    if copies is not None and bn == 128 and copies * -(-rows // bm) * -(-columns // bn) < PROGRAMS // 2:
        bn = 64
    bk = max(16, min(128 // x.element_size(), _power(depth)))
    return bm, bn, bk


def _dot(x: Tensor, precision: str, tile: int) -> dict[str, object]:
    return {
        "PRECISION": precision,
        "UPCAST": INTERPRETED and x.dtype == torch.bfloat16,
        "num_warps": 8 if tile >= 128 * 128 else 4,
        "num_stages": 3,
    }


def _splits(programs: int, lanes: int, floats: int, step: int, most: int | None = None) -> tuple[int, int]:
    """How many programs share a sum over lanes, and lanes of each: enough programs, little scratch, no short sums."""
    wanted = max(-(-PROGRAMS // programs), -(-lanes // max(most, step)) if most is not None else 1)
    wanted = max(1, min(wanted, SCRATCH // (4 * floats), lanes // (8 * step)))
    each = -(-lanes // wanted)
    span = -(-each // step) * step
    return -(-lanes // span), span


def _window(layer: Layer) -> tuple[int, ...]:
    r, c = layer.rows, layer.columns
    return (c.window, r.stride, c.stride, r.padding, c.padding, r.dilation, c.dilation)


def _by_tap(weight: Tensor) -> Tensor:
    """(n_out, D, *window) -> (taps, n_out, D)."""
    return weight.view(*weight.shape[:2], -1).permute(2, 0, 1).contiguous()


def _dense(weight: Tensor, index: Tensor, layer: Layer) -> Tensor:
    return to_dense_weight(weight, Edges(index, layer.n_in, layer.n_out, True, layer.block, False))


def _side(lanes: int) -> int:
    """Lanes of a program without tensor cores: a multiple of a warp."""
    return max(32, min(128, _power(lanes)))


def _power(n: int) -> int:
    """The next power of two."""
    return 1 << max(0, n - 1).bit_length()
