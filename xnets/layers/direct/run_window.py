"""Runs the compiled kernels of 3x3 convolutions: chooses how images are packed, splits the work among threads.

Each output is summed by one thread in an order that depends on shapes alone, so results do not depend on the number
of threads.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from xnets.layers.direct import window, window_gradient
from xnets.layers.direct.adjacency import Adjacency
from xnets.layers.direct.jit import compiled, vector_width
from xnets.layers.direct.scratch import rooms_for, scratch
from xnets.layers.direct.threads import address_of, addresses, in_parallel, parts, threads_for

CHUNK = 96 * 1024  # floats of packed inputs whose edges' gradients are computed at a time: a third of a core's cache
FEWEST = 16  # of them, in channels, if one has not too many pixels
UNDER_TILE = 192 * 1024  # floats of packed images under one tile of a window product: three quarters of a core's cache


def is_even(blocks: int, threads: int) -> bool:
    """Whether threads may each take whole blocks, or whole strips of them."""
    return threads == 1 or blocks % threads == 0 or blocks >= 4 * threads


class Packing(NamedTuple):
    """How images are packed, `lanes` at a time; `shape` is that of the product they are the source of."""

    shape: window.Map
    lanes: int

    def shared_evenly(self, images: int, threads: int) -> "Packing":
        """With as many lanes, or with fewer, if the threads then have as many blocks each.

        Each lane is computed as before. A thread that has blocks of its own waits for nobody, and what it packs it has
        near; where threads shared a block, narrower vectors were measured to be faster.
        """
        sizes = [self.lanes >> i for i in range(3) if self.lanes >> i >= 4]
        even = [lanes for lanes in sizes if is_even(-(-images // lanes), threads)]
        return self._replace(lanes=even[0]) if even else self

    def packer(self, size: tuple[int, ...], strip: window.Map | None = None) -> Callable[..., None]:
        """window.pack, of a source of height and width `size`; of a strip at a time, if there is one."""
        border = 0 if self.shape.inset else self.shape.border
        return compiled(window.pack, *size, border, border, *(strip or self.shape).padded, self.lanes)

    def pack(self, x: Tensor, into: int) -> None:
        """x (images, C, H, W), at most `lanes` images, -> (C, shape.plane, lanes)."""
        self._pack(self.packer(x.shape[2:]), x, into, self.shape.plane)

    def pack_upstream(self, dy: Tensor, into: int) -> None:
        """dy (images, C, H, W), the gradient of the product, -> (C, shape.upstream, lanes)."""
        high, wide = self.shape.height, self.shape.columns
        kernel = compiled(window.pack, *dy.shape[2:], 0, 0, high, wide, self.lanes)
        self._pack(kernel, dy, into, self.shape.upstream)

    def _pack(self, kernel: Callable[..., None], x: Tensor, into: int, vectors: int) -> None:
        (images, channels), zeros = x.shape[:2], x.new_zeros(self.lanes)
        pieces = parts(channels, threads_for(channels * vectors * self.lanes * 4))
        in_parallel(kernel, [(*addresses(x), into, *addresses(zeros), *piece, channels, images, 0) for piece in pieces])

    def floats(self, channels: int) -> int:
        """Of one packed block of sources."""
        return channels * self.shape.plane * self.lanes

    def floats_upstream(self, channels: int) -> int:
        """Of one packed block of gradients."""
        return channels * self.shape.upstream * self.lanes


def packing_for(
    images: int, size: tuple[int, int], step: int = 1, over: tuple[int, int] = (0, 0), inset: bool = False
) -> Packing:
    """One image to a lane; few images take narrow vectors. The product's size, the stride and the source's size."""
    width = vector_width()
    lanes = min(width, max(4, 1 << (images - 1).bit_length()))
    registers = (21 if step == 2 else 16) if width == 16 else 8
    return Packing(window.tiled(*size, registers, step, over, inset), lanes)


def window_product(
    x: Tensor, weight: Tensor, adjacency: Adjacency, transposed: bool, size: tuple[int, int], stride: int = 1
) -> Tensor:
    """x (N, columns of the matrix, H, W), weight (n_out, D, 3, 3) -> (N, its rows, *size)."""
    images = x.shape[0]
    grid = grid_of(images, size, stride)
    if grid != (1, 1):
        return _pieced(x, weight, adjacency, transposed, grid)
    step = window.SPREAD if transposed and stride == 2 else stride
    packing = packing_for(images, size, step, tuple(x.shape[2:]) if stride > 1 else (0, 0))
    return _windows(x, weight, adjacency, transposed, packing)


def grid_of(images: int, size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Rows and columns of pieces into which each map is cut: more than one where images are too few for the lanes."""
    width = vector_width()
    if stride > 1 or images > width // 2 or size[0] * size[1] <= 32:
        return 1, 1
    return window.cut_up(*size, images, width)


def _pieced(x: Tensor, weight: Tensor, adjacency: Adjacency, transposed: bool, grid: tuple[int, int]) -> Tensor:
    """As window_product with stride 1: each map is cut into grid[0] x grid[1] pieces that overlap."""
    (images, _, height, width), (down, across) = x.shape, grid
    tall, wide = -(-height // down), -(-width // across)
    packing = packing_for(images * down * across, (tall, wide), inset=True)
    y = _windows(_cut(x, grid, 1), weight, adjacency, transposed, packing)
    y = y.view(images, down, across, -1, tall, wide).permute(0, 3, 1, 4, 2, 5)
    return y.reshape(images, -1, down * tall, across * wide)[:, :, :height, :width].contiguous()


def _cut(x: Tensor, grid: tuple[int, int], border: int) -> Tensor:
    """x (N, C, H, W) -> (N x pieces, C, ...): with `border` pixels of what is around each, zeros beyond the map."""
    (_, channels, height, width), (down, across) = x.shape, grid
    tall, wide = -(-height // down), -(-width // across)
    whole = F.pad(x, (border, across * wide + border - width, border, down * tall + border - height))
    high, broad = tall + 2 * border, wide + 2 * border
    pieces = whole.unfold(2, high, tall).unfold(3, broad, wide).permute(0, 2, 3, 1, 4, 5)
    return pieces.reshape(-1, channels, high, broad).contiguous()  # some may lie on others yet


def _windows(x: Tensor, weight: Tensor, adjacency: Adjacency, transposed: bool, packing: Packing) -> Tensor:
    """x (N, columns of the matrix, H, W) -> (N, its rows, height, width) of the packing's shape."""
    images, channels = x.shape[:2]
    rows = adjacency.n_in if transposed else adjacency.n_out
    shape = packing.shape
    size = shape.height, shape.width
    threads = threads_for(weight.numel() * size[0] * size[1] * packing.lanes)
    strip = window.strip_of(shape, channels, rows, packing.lanes)
    strips = shape.height // strip.height
    if not is_even(-(-images // packing.lanes) * strips, threads):
        packing = packing.shared_evenly(images, threads)
    lanes = packing.lanes
    # of the channels under a tile, as many at a time as stay in the cache
    chunks = min(-(-channels * shape.reach[0] * shape.reach[1] * lanes // UNDER_TILE), channels)
    y = x.new_empty(images, rows, *size)
    sparse, bounds = adjacency.transposed if transposed else adjacency.rows, adjacency.bounds(transposed, chunks)
    filters = sparse.sorted(weight.view(-1, 9))
    blocks = -(-images // lanes)
    x_image, y_image = (math.prod(t.shape[1:]) for t in (x, y))
    zeros = x.new_zeros(2 * lanes)
    nothing, sink = zeros.data_ptr(), zeros[lanes:].data_ptr()
    given = addresses(filters, sparse.columns, bounds)

    def kernels(shape: window.Map) -> tuple[Callable[..., None], Callable[..., None]]:
        product = compiled(window.product, shape, transposed and shape.step == 1, chunks > 1, lanes)
        return product, compiled(window.unpack, shape, lanes)

    if is_even(blocks * strips, threads):
        whole = compiled(window.whole_strips, lanes)
        steps = [address_of(kernel) for kernel in (packing.packer(x.shape[2:], strip), *kernels(strip))]
        sizes = (images, channels, rows, x_image, y_image, chunks)
        of_strips = (strips, strip.height, strip.height * shape.width)
        packed, sums = packing._replace(shape=strip).floats(channels), rows * strip.sums * lanes
        with rooms_for(parts(blocks * strips, threads), packed, sums) as rooms:
            in_parallel(
                whole,
                [
                    (*steps, *addresses(x, y), *given, *room, nothing, sink, *piece, *sizes, *of_strips)
                    for room, piece in rooms
                ],
            )
        return y
    product, unpack = kernels(shape)
    with scratch(packing.floats(channels)) as (packed,), scratch(rows * shape.sums * lanes) as (sums,):
        for first in range(0, images, lanes):
            now, into = x[first : first + lanes], y[first].data_ptr()
            packing.pack(now, packed)
            pieces = parts(rows, threads)
            in_parallel(product, [(packed, *given, sums, *piece, chunks) for piece in pieces])
            in_parallel(unpack, [(sums, into, sink, *piece, rows, now.shape[0], size[0] * size[1]) for piece in pieces])
    return y


def window_weight_gradient(dy: Tensor, x: Tensor, adjacency: Adjacency, stride: int = 1) -> Tensor:
    """dy (N, n_out, H', W'), x (N, n_in, H, W) -> (n_out, D, 3, 3)."""
    grid = grid_of(x.shape[0], tuple(dy.shape[2:]), stride)
    cut = grid != (1, 1)
    if cut:
        x, dy = _cut(x, grid, 1), _cut(dy, grid, 0)
    images, n_in = x.shape[:2]
    n_out, degree = adjacency.index.shape
    height, width = dy.shape[2:]
    packing = packing_for(images, (height, width), stride, tuple(x.shape[2:]) if stride > 1 else (0, 0), inset=cut)
    lanes, shape = packing.lanes, packing.shape
    gradient = x.new_empty(n_out, degree, 3, 3)
    threads = threads_for(gradient.numel() * height * width * lanes)
    blocks = -(-images // lanes)
    # several blocks at once save reductions of lanes; too many leave room for few channels
    together = max(1, min(blocks, CHUNK // (FEWEST * shape.plane * lanes)))
    together = -(-blocks // -(-blocks // together))
    # inputs are shared among the threads: the gradient of an edge is computed by one of them, whatever their number
    chunks = min(n_in, threads * -(-together * packing.floats(n_in) // (CHUNK * threads)))
    per = -(-n_in // chunks)
    bounds, sparse = adjacency.bounds(False, chunks), adjacency.rows
    zeros = x.new_zeros(lanes)
    of_chunk = compiled(window_gradient.weight_gradient, shape, lanes)
    steps = address_of(packing.packer(x.shape[2:])), address_of(of_chunk)
    given = addresses(sparse.columns, bounds, gradient)
    kernel = compiled(window_gradient.chunks_of_gradient, shape.plane, lanes)
    of_dy, x_image = packing.floats_upstream(n_out), math.prod(x.shape[1:])
    rooms = rooms_for(parts(chunks, threads), per * shape.plane * lanes * together)
    with scratch(together * of_dy) as (outputs,), rooms as rooms:
        for first in range(0, images, lanes * together):
            now = range(first, min(images, first + lanes * together), lanes)
            for i, block in enumerate(now):
                packing.pack_upstream(dy[block : block + lanes], outputs + 4 * i * of_dy)
            sizes = (chunks, per, n_in, n_out, x_image, first, images, len(now), int(first == 0))
            in_parallel(
                kernel,
                [
                    (*steps, *addresses(x), outputs, *given, *room, *addresses(zeros), *piece, *sizes)
                    for room, piece in rooms
                ],
            )
    return sparse.restored(gradient.view(-1, 9)).view_as(gradient)
