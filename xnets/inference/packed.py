"""What a plan does, step by step, with blocked maps. Each step knows what it reads and writes and runs on a Context."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from xnets.inference.places import FLOATS, Context, Place
from xnets.inference.plain import Step, called
from xnets.inference.weights import Weights
from xnets.layers.direct import blocked, window
from xnets.layers.direct.adjacency import group_rows
from xnets.layers.direct.jit import compiled, vector_width
from xnets.layers.direct.threads import CACHE, addresses, in_parallel, parts, parts_of_tiles, threads_for
from xnets.layers.direct.tiles import Maps, cheapest_tile
from xnets.layers.direct.window import Tiling

SIDE = 4  # tiles of a strip
STRIP = 96 * 1024  # floats of a strip's input
SHARING = 12  # as run_pointwise.SHARING; but here weights are sorted once and for all, and grouping pays for longer


class Pack(Step):
    """An NCHW tensor (images, ...) to a blocked map."""

    def run(self, c: Context) -> None:
        """See Step."""
        x, place = c.values[self.takes[0]].contiguous(), self.writes
        channels, *sizes = _sizes(place)
        kernel = compiled(window.pack, *sizes, c.lanes)
        for block in range(c.blocks):
            now = x[block * c.lanes : (block + 1) * c.lanes]
            given = (now.data_ptr(), c.pointer(place, block), c.zeros.data_ptr())
            pieces = parts(channels, threads_for(4 * now.numel()))
            in_parallel(kernel, [(*given, *piece, channels, now.shape[0]) for piece in pieces])


def _sizes(place: Place) -> tuple[int, int, int]:
    """Channels, pixels and step; maps of one pixel are one channel of many, which fills the vectors better."""
    if place.step == 1:
        return 1, place.channels, place.channels
    return place.channels, place.pixels, place.step


class Unpack(Step):
    """A blocked map to an NCHW tensor of `shape` for each image."""

    def __init__(self, source: Place, gives: int, shape: tuple[int, ...]) -> None:
        super().__init__((source,), gives=gives)
        self.shape = shape

    def run(self, c: Context) -> None:
        """See Step."""
        place = self.reads[0]
        y = torch.empty(c.images, *self.shape, **FLOATS)
        channels, *sizes = _sizes(place)
        kernel = compiled(window.unpack, *sizes, c.lanes)
        for block in range(c.blocks):
            now = y[block * c.lanes : (block + 1) * c.lanes]
            given = (c.pointer(place, block), now.data_ptr(), c.sink.data_ptr())
            pieces = parts(channels, threads_for(4 * now.numel()))
            in_parallel(kernel, [(*given, *piece, channels, now.shape[0]) for piece in pieces])
        c.values[self.gives] = y


class Pointwise(Step):
    """A 1x1 convolution of stride 1, or a linear layer on maps of one pixel, along its edges."""

    def __init__(
        self, x: Place, y: Place, weights: Weights, relu: bool, other: Place | None = None,
        before: tuple[Tensor, Tensor] | None = None,
    ) -> None:  # fmt: skip
        super().__init__((x, other) if other else (x,), y)
        self.relu, self.adds, self.before = relu, other is not None, before
        edges = weights.filters.shape[0]
        n_in, n_out = weights.n_in, weights.n_out
        self.group = 4 if edges * SHARING > n_in * n_out else 1
        self.groups = -(-n_out // self.group)
        tile = min(4 * vector_width(), vector_width() * x.pixels)
        self.chunks = min(-(-n_in * tile // CACHE), n_in)
        self.sparse = group_rows(
            weights.outputs.numpy(), weights.inputs.numpy(), n_out, n_in, self.group, self.chunks
        )  # fmt: skip
        self.filters = weights.filters.flatten()[self.sparse.order.long()].contiguous()
        self.sparse = self.sparse._replace(order=self.sparse.order[:0])
        self.bias = torch.zeros(self.groups * self.group, **FLOATS)
        self.bias[:n_out] = weights.bias

    def run(self, c: Context) -> None:
        """See Step."""
        x, y = self.reads[0], self.writes
        positions = x.pixels * c.lanes
        width = min(vector_width(), positions)
        vectors = min(4, positions // width)
        tile = vectors * width
        side = self._side(positions, tile)
        strips = -(-positions // (side * tile))
        kernel = compiled(blocked.pointwise, self.group, vectors, width, self.before is not None, self.relu, self.adds)
        scale, shift = self.before or (self.bias, self.bias)
        s = self.sparse
        constant = addresses(self.filters, s.columns, s.counts, s.where, self.bias, scale, shift)
        numbers = (
            x.channels, y.channels, self.groups, self.chunks, positions, x.step * c.lanes, y.step * c.lanes, side
        )  # fmt: skip
        threads = threads_for(self.filters.numel() * positions)
        pieces = parts_of_tiles(strips, self.groups, threads)
        room = (x.channels + self.groups * self.group) * tile * side
        inputs = addresses(*(c.scratch(i, room) for i in range(len(pieces))))
        sums = 4 * x.channels * tile * side  # bytes further on
        for block in range(c.blocks):
            source, target = c.pointer(x, block), c.pointer(y, block)
            other = c.pointer(self.reads[1], block) if self.adds else target
            given = (source, *constant, other, target)
            in_parallel(
                kernel, [(*given, i, i + sums, *piece, *numbers) for i, piece in zip(inputs, pieces, strict=True)]
            )

    def _side(self, positions: int, tile: int) -> int:
        """Tiles in a strip: as many as the cache holds, and none that the positions lack; overlaps cost."""

        def cost(side: int) -> tuple[int, int]:
            return -(-positions // (side * tile)) * side, -side

        most = max(1, min(SIDE, positions // tile, STRIP // (self.reads[0].channels * tile)))
        return min(range(1, most + 1), key=cost)


class Window(Step):
    """A 3x3 convolution of padding 1 and stride 1 or 2, along its edges; its maxima over 2 x 2 outputs if `pooled`."""

    def __init__(
        self, x: Place, y: Place, weights: Weights, relu: bool, pooled: bool, other: Place | None = None
    ) -> None:
        super().__init__((x, other) if other else (x,), y)
        self.relu, self.adds, self.pooled, self.stride = relu, other is not None, pooled, weights.stride[0]
        self.columns = weights.inputs.to(torch.int32)
        counts = torch.bincount(weights.outputs, minlength=weights.n_out)
        self.pointer = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(torch.int32)
        self.filters, self.bias = weights.filters.contiguous(), weights.bias
        self.by_plane = self.filters.shape[0] <= 2 * weights.n_out  # few edges: x is read once and then not again

    def run(self, c: Context) -> None:
        """See Step."""
        x, y = self.reads[0], self.writes
        size = x.buffer.height, x.buffer.width
        maps = Maps(*((length - 1) // self.stride + 1 for length in size), *size, self.stride)
        tile = cheapest_tile(maps, 16 if vector_width() == 16 else 8, 2 if self.pooled else 1)
        kernel = compiled(
            blocked.window, Tiling(maps, *tile), c.lanes, self.relu, self.adds, self.by_plane, self.pooled
        )
        constant = addresses(self.filters, self.columns, self.pointer, self.bias)
        work_of = self.filters.numel() * y.pixels * (4 if self.pooled else 1)
        for block in range(c.blocks):
            source, target = c.pointer(x, block), c.pointer(y, block)
            other = c.pointer(self.reads[1], block) if self.adds else target
            given = (source, *constant, other, target)
            pieces = parts(y.channels, threads_for(work_of * c.lanes))
            in_parallel(kernel, [(*given, *piece, x.step, y.step) for piece in pieces])


def _by_channels(
    kernel: Callable[..., None],
    c: Context,
    places: tuple[Place, ...],
    arrays: tuple[int, ...],
    numbers: tuple[int, ...],
) -> None:
    """A kernel for channels [c0, c1) of `places`, the first of which is read, block by block."""
    x = places[0]
    pieces = parts(x.channels, threads_for(4 * x.channels * x.pixels * c.lanes))
    for block in range(c.blocks):
        given = (*(c.pointer(place, block) for place in places), *arrays)
        in_parallel(kernel, [(*given, *piece, *numbers) for piece in pieces])


class Pool(Step):
    """Maximum or mean of windows."""

    def __init__(self, x: Place, y: Place, pooling: tuple[bool, int, int, int]) -> None:
        super().__init__((x,), y)
        self.largest, self.window, self.stride, self.padding = pooling
        self.factor = torch.tensor([1.0 / self.window**2], **FLOATS)

    def run(self, c: Context) -> None:
        """See Step."""
        x, y = self.reads[0], self.writes
        kernel = compiled(blocked.pool, self.largest, self.window, c.lanes)
        sizes = (x.buffer.height, x.buffer.width, y.buffer.height, y.buffer.width)
        numbers = (*sizes, self.stride, self.padding, x.step, y.step)
        _by_channels(kernel, c, (x, y), addresses(self.factor), numbers)


class Mean(Step):
    """The mean of each channel."""

    def run(self, c: Context) -> None:
        """See Step."""
        x, y = self.reads[0], self.writes
        kernel = compiled(blocked.mean, c.lanes)
        factor = torch.tensor([1.0 / x.pixels], **FLOATS)
        _by_channels(kernel, c, (x, y), addresses(factor), (x.pixels, x.step))


class Affine(Step):
    """Scale and shift of each channel, or a sum of two maps, and ReLU."""

    def __init__(
        self, x: Place, y: Place, relu: bool, scale: tuple[Tensor, Tensor] | None = None, other: Place | None = None
    ) -> None:
        super().__init__((x, other) if other else (x,), y)
        self.relu, self.scale = relu, scale

    def run(self, c: Context) -> None:
        """See Step."""
        x, other, y = self.reads[0], self.reads[-1], self.writes
        kernel = compiled(blocked.affine, c.lanes, self.scale is not None, len(self.reads) > 1, self.relu)
        scale, shift = self.scale or (c.zeros, c.zeros)
        numbers = (x.pixels * c.lanes, x.step * c.lanes, other.step * c.lanes, y.step * c.lanes)
        _by_channels(kernel, c, (x, other, y), addresses(scale, shift), numbers)


class Copy(Step):
    """Every `stride`-th row and column of a map, or all of it in another shape."""

    def __init__(self, x: Place, y: Place, stride: int = 1) -> None:
        super().__init__((x,), y)
        self.stride = stride

    def run(self, c: Context) -> None:
        """See Step."""
        source, target = c.view(self.reads[0]), c.view(self.writes)
        target.copy_(source[:, :, :: self.stride, :: self.stride].reshape(target.shape))


class Elementwise(Step):
    """A function of torch, number by number."""

    def __init__(self, x: Place, y: Place, module: nn.Module | None, call: Any) -> None:
        super().__init__((x,), y)
        self.module, self.call = copy.deepcopy(module), call

    def run(self, c: Context) -> None:
        """See Step."""
        x = c.view(self.reads[0])
        c.view(self.writes).copy_(self.module(x) if self.module is not None else called(self.call, [x]))
