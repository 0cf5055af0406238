"""Runs the compiled kernels on tensors: chooses tiles, allocates scratch, splits the work among threads.

Each output is summed by one thread in an order that depends on shapes alone, so results do not depend on the number
of threads.
"""

from typing import NamedTuple

from torch import Tensor

from xnets.layers.direct import pointwise, segments, window
from xnets.layers.direct.adjacency import Adjacency
from xnets.layers.direct.jit import compiled, vector_width
from xnets.layers.direct.pool import in_parallel, parts, threads_for

CACHE = 128 * 1024  # floats of input that shall stay in the second-level cache: half of its 1 MiB
AT_ONCE = 4 * 1024 * 1024  # floats of packed inputs and outputs: 16 MiB
SHARING = 6  # from this compression on, four outputs share too few inputs for grouping to pay
NEAR = 16 * 1024  # floats of input that shall stay close to the core


class Columns(NamedTuple):
    """What 1x1 convolutions and linear layers take and give: `values` (N, channels, pixels), or, with channels `last`,
    (columns, channels), a column being a pixel of an image or a row of a batch."""

    values: Tensor
    last: bool

    @property
    def channels(self) -> int:
        """Floats of a column."""
        return self.values.shape[1]

    @property
    def count(self) -> int:
        """Of columns."""
        return self.values.numel() // self.channels

    @property
    def pixels(self) -> int:
        """Of an image."""
        return self.count if self.last else self.values.shape[2]

    def like(self, channels: int) -> "Columns":
        """The same with other channels, not set yet."""
        return Columns(self.values.new_empty(self.values.shape[0], channels, *self.values.shape[2:]), self.last)


def pointwise_product(x: Columns, weight: Tensor, adjacency: Adjacency, transposed: bool) -> Columns:
    """x with the columns of the matrix for channels -> the same with its rows; n_out x n_in, or its transpose."""
    n, columns, width = x.channels, x.count, vector_width()
    rows = adjacency.n_in if transposed else adjacency.n_out
    tile = min(4, -(-columns // width)) * width
    threads = threads_for(weight.numel() * columns)
    y = x.like(rows)
    # the sums of four outputs at once load less, if the inputs stay in the cache
    shares = weight.numel() * SHARING > rows * n and n * tile <= 2 * CACHE
    multiply = _grouped if shares else _segmented
    multiply(x, weight.view(-1), adjacency, transposed, y, tile, threads)
    return y


def _grouped(
    x: Columns, weight: Tensor, adjacency: Adjacency, transposed: bool, y: Columns, tile: int, threads: int
) -> None:
    n, rows, width, group = x.channels, y.channels, vector_width(), 4
    tiles, groups = -(-x.count // tile), -(-rows // group)
    chunks = min(-(-n * tile // CACHE), n)
    gather = tiles <= 2
    sparse = adjacency.grouped(transposed, group, chunks)
    sorted_weight = weight if gather else weight.index_select(0, sparse.order)
    kernel = compiled(pointwise.forward, group, gather, x.last, tile // width, width)

    def work(t0: int, t1: int, g0: int, g1: int) -> None:
        inputs, outputs = weight.new_empty(n + width, tile), weight.new_empty(groups * group + width, tile)
        sparse_arrays = (sorted_weight, sparse.columns, sparse.counts, sparse.where, sparse.order)
        arrays = (x.values, *sparse_arrays, y.values, inputs, outputs)
        kernel(*(a.data_ptr() for a in arrays), t0, t1, g0, g1, n, rows, chunks, x.count, x.pixels)

    in_parallel(work, _pieces(tiles, groups, threads))


def _segmented(
    x: Columns, weight: Tensor, adjacency: Adjacency, transposed: bool, y: Columns, tile: int, threads: int
) -> None:
    n, rows, width = x.channels, y.channels, vector_width()
    tiles = -(-x.count // tile)
    block = min(1024, -(-rows // (threads if tiles < threads else 1)))  # sums of a block stay in the cache
    sparse = adjacency.transposed if transposed else adjacency.rows
    cut = adjacency.segments(transposed, NEAR // tile, block)
    sorted_weight = sparse.sorted(weight)
    kernel = compiled(segments.forward, x.last, tile // width, width)

    def work(t0: int, t1: int, b0: int, b1: int) -> None:
        inputs, outputs = weight.new_empty(n + width, tile), weight.new_empty(block + width, tile)
        arrays = (x.values, sorted_weight, sparse.columns, cut.slots, cut.lengths, y.values, inputs, outputs)
        sizes = (n, rows, block, cut.chunks, cut.longest, x.count, x.pixels)
        kernel(*(a.data_ptr() for a in arrays), t0, t1, b0, b1, *sizes)

    in_parallel(work, _pieces(tiles, -(-rows // block), threads))


def _pieces(tiles: int, blocks: int, threads: int) -> list[tuple[int, int, int, int]]:
    """Ranges of tiles and of blocks of rows, one for each thread."""
    if tiles >= threads:
        return [(*part, 0, blocks) for part in parts(tiles, threads)]
    return [(0, tiles, *part) for part in parts(blocks, threads)]


def pointwise_weight_gradient(dy: Columns, x: Columns, adjacency: Adjacency) -> Tensor:
    """Of columns in one layout -> (n_out, D)."""
    n_in, columns, width = x.channels, x.count, vector_width()
    n_out, degree = adjacency.index.shape
    vectors = min(8 if n_in * 8 * width <= CACHE else 4, -(-columns // width))
    tile = vectors * width
    kernel = compiled(pointwise.weight_gradient, degree % width, x.last, vectors, width)
    gradient = x.values.new_empty(n_out, degree)

    def work(o0: int, o1: int) -> None:
        inputs, outputs = gradient.new_empty(n_in + width, tile), gradient.new_empty(n_out + width, tile)
        arrays = (x.values, dy.values, adjacency.index, gradient, inputs, outputs)
        kernel(*(a.data_ptr() for a in arrays), o0, o1, n_in, n_out, degree, columns, x.pixels)

    in_parallel(work, parts(n_out, threads_for(gradient.numel() * columns)))
    return gradient


class Packing(NamedTuple):
    """How images are packed, `lanes` at a time; `shape` is that of the product they are the source of."""

    shape: window.Map
    lanes: int

    def pack(self, x: Tensor, into: Tensor) -> None:
        """x (images, C, H, W), at most `lanes` images, -> (C, *shape.padded, lanes)."""
        self._pack(x, into, self.shape.border, *self.shape.padded)

    def pack_upstream(self, dy: Tensor, into: Tensor) -> None:
        """dy (images, C, H, W), the gradient of the product, -> (C, height, columns, lanes)."""
        self._pack(dy, into, 0, self.shape.height, self.shape.columns)

    def _pack(self, x: Tensor, into: Tensor, border: int, tall: int, wide: int) -> None:
        images, channels, height, width = x.shape
        kernel = compiled(window.pack, height, width, border, border, tall, wide, self.lanes)
        zeros = x.new_zeros(self.lanes)

        def work(c0: int, c1: int) -> None:
            kernel(x.data_ptr(), into.data_ptr(), zeros.data_ptr(), c0, c1, channels, images)

        in_parallel(work, parts(channels, threads_for(into.numel() * 4)))

    def floats(self, channels: int) -> int:
        """Of one packed block of sources."""
        return channels * self.shape.padded[0] * self.shape.padded[1] * self.lanes

    def floats_upstream(self, channels: int) -> int:
        """Of one packed block of gradients."""
        return channels * self.shape.height * self.shape.columns * self.lanes


def packing_for(images: int, size: tuple[int, int], step: int = 1, over: tuple[int, int] = (0, 0)) -> Packing:
    """One image to a lane; few images take narrow vectors. The product's size, the stride and the source's size."""
    width = vector_width()
    lanes = min(width, max(4, 1 << (images - 1).bit_length()))
    return Packing(window.tiled(*size, 16 if width == 16 else 8, step, over), lanes)


def window_product(
    x: Tensor, weight: Tensor, adjacency: Adjacency, transposed: bool, size: tuple[int, int], stride: int = 1
) -> Tensor:
    """x (N, columns of the matrix, H, W), weight (n_out, D, 3, 3) -> (N, its rows, *size)."""
    images, channels = x.shape[:2]
    rows = adjacency.n_in if transposed else adjacency.n_out
    step = window.SPREAD if transposed and stride == 2 else stride
    packing = packing_for(images, size, step, tuple(x.shape[2:]) if stride > 1 else (0, 0))
    lanes = packing.lanes
    kernel = compiled(window.product, packing.shape, transposed and stride == 1, lanes)
    y = x.new_empty(images, rows, *size)
    sparse = adjacency.transposed if transposed else adjacency.rows
    filters = sparse.sorted(weight.view(-1, 9))
    packed, sink = x.new_empty(packing.floats(channels)), x.new_empty(lanes)
    for first in range(0, images, lanes):
        now = x[first : first + lanes]
        packing.pack(now, packed)
        arrays = (packed, filters, sparse.columns, sparse.pointer, y[first], sink)

        def work(r0: int, r1: int, arrays: tuple[Tensor, ...] = arrays, images: int = now.shape[0]) -> None:
            kernel(*(a.data_ptr() for a in arrays), r0, r1, rows, images)

        in_parallel(work, parts(rows, threads_for(weight.numel() * size[0] * size[1] * lanes)))
    return y


def window_weight_gradient(dy: Tensor, x: Tensor, adjacency: Adjacency, stride: int = 1) -> Tensor:
    """dy (N, n_out, H', W'), x (N, n_in, H, W) -> (n_out, D, 3, 3)."""
    images, n_in = x.shape[:2]
    n_out, degree = adjacency.index.shape
    height, width = dy.shape[2:]
    packing = packing_for(images, (height, width), stride, tuple(x.shape[2:]) if stride > 1 else (0, 0))
    lanes = packing.lanes
    kernel = compiled(window.weight_gradient, packing.shape, lanes)
    gradient = x.new_empty(n_out, degree, 3, 3)
    of_x, of_dy = packing.floats(n_in), packing.floats_upstream(n_out)
    # several blocks at once save reductions of lanes; too many would leave the cache
    together = max(1, min(-(-images // lanes), AT_ONCE // (of_x + of_dy)))
    inputs, outputs = x.new_empty(together, of_x), x.new_empty(together, of_dy)
    for first in range(0, images, lanes * together):
        blocks = range(first, min(images, first + lanes * together), lanes)
        for i, block in enumerate(blocks):
            packing.pack(x[block : block + lanes], inputs[i])
            packing.pack_upstream(dy[block : block + lanes], outputs[i])

        def work(o0: int, o1: int, blocks: int = len(blocks), fresh: bool = first == 0) -> None:
            arrays = (inputs, outputs, adjacency.index, gradient)
            kernel(*(a.data_ptr() for a in arrays), o0, o1, n_in, n_out, degree, blocks, fresh)

        in_parallel(work, parts(n_out, threads_for(gradient.numel() * height * width * lanes)))
    return gradient
