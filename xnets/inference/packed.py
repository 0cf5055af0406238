"""What a plan does, step by step, with blocked maps. Each step knows what it reads and writes and runs on a Context."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from xnets.inference.places import FLOATS, Context, Place
from xnets.inference.plain import Step, called
from xnets.inference.weights import Weights
from xnets.layers.direct import blocked
from xnets.layers.direct.adjacency import group_rows
from xnets.layers.direct.jit import compiled, vector_width
from xnets.layers.direct.pool import in_parallel, parts, threads_for
from xnets.layers.direct.run import CACHE

SIDE = 4  # tiles of a strip
STRIP = 96 * 1024  # floats of a strip's input
SHARING = 12  # from this compression on, four outputs share too few inputs for grouping to pay


class Pack(Step):
    """An NCHW tensor (images, ...) to a blocked map."""

    def run(self, c: Context) -> None:
        """See Step."""
        x, place = c.values[self.takes[0]].contiguous(), self.writes
        kernel = compiled(blocked.pack, c.lanes, False)
        sizes = _sizes(place)
        for block in range(c.blocks):
            now = x[block * c.lanes : (block + 1) * c.lanes]

            def work(c0: int, c1: int, now: Tensor = now, block: int = block) -> None:
                kernel(now.data_ptr(), c.pointer(place, block), c.zeros.data_ptr(), c0, c1, *sizes, now.shape[0])

            in_parallel(work, parts(sizes[0], threads_for(4 * now.numel())))


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
        kernel = compiled(blocked.unpack, c.lanes)
        sizes = _sizes(place)
        for block in range(c.blocks):
            now = y[block * c.lanes : (block + 1) * c.lanes]

            def work(c0: int, c1: int, now: Tensor = now, block: int = block) -> None:
                kernel(c.pointer(place, block), now.data_ptr(), c.zeros.data_ptr(), c0, c1, *sizes, now.shape[0])

            in_parallel(work, parts(sizes[0], threads_for(4 * now.numel())))
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
        columns = x.pixels * c.lanes
        width = min(vector_width(), columns)
        vectors = min(4, columns // width)
        tile = vectors * width
        side = self._side(columns, tile)
        strips = -(-columns // (side * tile))
        kernel = compiled(blocked.pointwise, self.group, vectors, width, self.before is not None, self.relu, self.adds)
        scale, shift = self.before or (self.bias, self.bias)
        s = self.sparse
        constant = [t.data_ptr() for t in (self.filters, s.columns, s.counts, s.where, self.bias, scale, shift)]
        numbers = (
            x.channels, y.channels, self.groups, self.chunks, columns, x.step * c.lanes, y.step * c.lanes, side
        )  # fmt: skip
        threads = threads_for(self.filters.numel() * columns)
        for block in range(c.blocks):
            source, target = c.pointer(x, block), c.pointer(y, block)
            other = c.pointer(self.reads[1], block) if self.adds else target

            def work(
                i: int, t0: int, t1: int, g0: int, g1: int, source: int = source, target: int = target,
                other: int = other,
            ) -> None:  # fmt: skip
                inputs = c.scratch(i, (x.channels + self.groups * self.group) * tile * side)
                sums = inputs.data_ptr() + 4 * x.channels * tile * side
                kernel(source, *constant, other, target, inputs.data_ptr(), sums, t0, t1, g0, g1, *numbers)

            if strips >= threads:
                tasks = [(*part, 0, self.groups) for part in parts(strips, threads)]
            else:
                tasks = [(0, strips, *part) for part in parts(self.groups, threads)]
            in_parallel(work, [(i, *task) for i, task in enumerate(tasks)])

    def _side(self, columns: int, tile: int) -> int:
        """Tiles in a strip: as many as the cache holds, and none that the columns lack; overlaps cost."""

        def cost(side: int) -> tuple[int, int]:
            return -(-columns // (side * tile)) * side, -side

        most = max(1, min(SIDE, columns // tile, STRIP // (self.reads[0].channels * tile)))
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
        shape = blocked.shape_of_tiles(*size, self.stride, 16 if vector_width() == 16 else 8, self.pooled)
        kernel = compiled(
            blocked.window, *size, self.stride, shape.tall, shape.wide, c.lanes, self.relu, self.adds, self.by_plane,
            self.pooled,
        )  # fmt: skip
        constant = [t.data_ptr() for t in (self.filters, self.columns, self.pointer, self.bias)]
        work_of = self.filters.numel() * y.pixels * (4 if self.pooled else 1)
        for block in range(c.blocks):
            source, target = c.pointer(x, block), c.pointer(y, block)
            other = c.pointer(self.reads[1], block) if self.adds else target

            def work(r0: int, r1: int, source: int = source, target: int = target, other: int = other) -> None:
                kernel(source, *constant, other, target, c.zeros.data_ptr(), r0, r1, x.step, y.step)

            in_parallel(work, parts(y.channels, threads_for(work_of * c.lanes)))


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
        for block in range(c.blocks):
            source, target = c.pointer(x, block), c.pointer(y, block)

            def work(c0: int, c1: int, source: int = source, target: int = target) -> None:
                kernel(source, target, self.factor.data_ptr(), c0, c1, *numbers)

            in_parallel(work, parts(x.channels, threads_for(4 * x.channels * x.pixels * c.lanes)))


class Mean(Step):
    """The mean of each channel."""

    def run(self, c: Context) -> None:
        """See Step."""
        x, y = self.reads[0], self.writes
        kernel = compiled(blocked.mean, c.lanes)
        factor = torch.tensor([1.0 / x.pixels], **FLOATS)
        for block in range(c.blocks):
            source, target = c.pointer(x, block), c.pointer(y, block)

            def work(c0: int, c1: int, source: int = source, target: int = target) -> None:
                kernel(source, target, factor.data_ptr(), c0, c1, x.pixels, x.step)

            in_parallel(work, parts(x.channels, threads_for(4 * x.channels * x.pixels * c.lanes)))


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
        for block in range(c.blocks):
            pointers = [c.pointer(p, block) for p in (x, other, y)]

            def work(c0: int, c1: int, pointers: list[int] = pointers) -> None:
                kernel(*pointers, scale.data_ptr(), shift.data_ptr(), c0, c1, *numbers)

            in_parallel(work, parts(x.channels, threads_for(4 * x.channels * x.pixels * c.lanes)))


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
