"""Runs the compiled kernels of 3x3 convolutions: chooses how images are packed, splits the work among threads.

Each output is summed by one thread in an order that depends on shapes alone, so results do not depend on the number
of threads.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from xnets.layers.direct import window, window_gradient
from xnets.layers.direct.adjacency import Adjacency
from xnets.layers.direct.jit import compiled, lanes_for, vector_width
from xnets.layers.direct.planned import Run, planned
from xnets.layers.direct.scratch import rooms_for, scratch
from xnets.layers.direct.threads import address_of, addresses, in_parallel, is_even, parts, threads_for
from xnets.layers.direct.tiles import Maps, cheapest_tile
from xnets.layers.direct.window import Tiling, step_of

CHUNK = 96 * 1024  # floats of packed inputs whose edges' gradients are computed at a time: 384 KiB, near the core
FEWEST = 16  # of them, in channels, if one has not too many pixels
UNDER_TILE = 192 * 1024  # floats of packed images under one tile of a product: 768 KiB, of a core's cache of 1 MiB


class Packing(NamedTuple):
    """How images are packed, `lanes` at a time, for products by tiles."""

    tiling: Tiling
    lanes: int

    def packer(self, pixels: int) -> Callable[..., None]:
        """window.pack, of maps of so many pixels."""
        return compiled(window.pack, pixels, step_of(pixels), self.lanes)

    def pack(self, x: Tensor, into: int) -> None:
        """x (images, C, H, W), at most `lanes` images, -> (C, step, lanes)."""
        images, channels, pixels = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
        kernel, zeros = self.packer(pixels), x.new_zeros(self.lanes)
        pieces = parts(channels, threads_for(channels * pixels * self.lanes * 4))
        in_parallel(kernel, [(*addresses(x), into, *addresses(zeros), *piece, channels, images) for piece in pieces])

    def floats(self, channels: int) -> int:
        """Of one packed block of sources."""
        return channels * step_of(self.tiling.source) * self.lanes

    def sums(self, channels: int) -> int:
        """Floats of one packed block of products, or of their gradients."""
        return channels * step_of(self.tiling.pixels) * self.lanes


def packing_for(images: int, maps: Maps) -> Packing:
    """One image to a lane; few images take narrow vectors."""
    width = vector_width()
    lanes = lanes_for(images)
    shrinks = maps.step == 2 and not maps.transposed
    registers = (21 if shrinks else 16) if width == 16 else 8
    return Packing(Tiling(maps, *cheapest_tile(maps, registers)), lanes)


@planned
def window_product(
    adjacency: Adjacency, shape: torch.Size, transposed: bool, size: tuple[int, int], stride: int
) -> Run:
    """x of that shape (N, columns of the matrix, H, W), weight (n_out, D, 3, 3) -> y (N, its rows, *size)."""
    images, channels = shape[:2]
    packing = packing_for(images, Maps(*size, *shape[2:], stride, transposed))
    rows = adjacency.n_in if transposed else adjacency.n_out
    tiling, lanes = packing
    threads = threads_for(9 * adjacency.n_out * adjacency.degree * size[0] * size[1] * lanes)
    # of the channels under a tile, as many at a time as stay in the cache
    chunks = min(-(-channels * window.under(tiling) * lanes // UNDER_TILE), channels)
    sparse, bounds = adjacency.stored_rows(transposed), adjacency.bounds(transposed, chunks)
    blocks = -(-images // lanes)
    # what lies beyond a border, and a place for what nobody reads
    zeros, sink = torch.zeros(2, lanes, dtype=torch.float32, device="cpu")
    product = compiled(window.product, tiling, chunks > 1, lanes)
    unpack = compiled(window.unpack, tiling.pixels, step_of(tiling.pixels), lanes)
    packed_floats, sums_floats = packing.floats(channels), packing.sums(rows)
    steps = [address_of(kernel) for kernel in (packing.packer(tiling.source), product, unpack)]
    whole = compiled(window.whole_blocks, lanes)
    sizes = (images, channels, rows, *(math.prod(sizes[1:]) for sizes in (shape, (images, rows, *size))), chunks)
    shares, pieces = [(*piece, *sizes) for piece in parts(blocks, threads)], parts(rows, threads)
    rooms = rooms_for(len(shares), packed_floats, sums_floats)

    def run_blocks(x: Tensor, weight: Tensor, index: Tensor, y: Tensor) -> None:
        """Each thread takes whole blocks, and waits for nobody."""
        filters = sparse.sorted(weight)
        given = (*steps, *addresses(x, y, filters, sparse.columns_or(index), bounds))
        rooms.in_parallel(whole, given, [(*addresses(zeros, sink), *share) for share in shares])

    def run(x: Tensor, weight: Tensor, index: Tensor, y: Tensor) -> None:
        filters = sparse.sorted(weight)
        given = addresses(filters, sparse.columns_or(index), bounds)
        with scratch(packed_floats) as packed, scratch(sums_floats) as sums:
            for first in range(0, images, lanes):
                now, into = x[first : first + lanes], y[first].data_ptr()
                packing.pack(now, packed)
                in_parallel(product, [(packed, *given, sums, *piece, chunks) for piece in pieces])
                in_parallel(unpack, [(sums, into, *addresses(sink), *piece, rows, now.shape[0]) for piece in pieces])

    return run_blocks if is_even(blocks, threads) else run


@planned
def window_weight_gradient(adjacency: Adjacency, shape: torch.Size, size: tuple[int, int], stride: int) -> Run:
    """x of that shape (N, n_in, H, W), dy (N, n_out, *size) -> the gradient (n_out, D, 3, 3)."""
    images, n_in = shape[:2]
    n_out, degree = adjacency.n_out, adjacency.degree
    packing = packing_for(images, Maps(*size, *shape[2:], stride))
    tiling, lanes = packing
    plane = step_of(tiling.source)
    threads = threads_for(9 * n_out * degree * size[0] * size[1] * lanes)
    blocks = -(-images // lanes)
    # several blocks at once save reductions of lanes; too many leave room for few channels
    together = max(1, min(blocks, CHUNK // (FEWEST * plane * lanes)))
    together = -(-blocks // -(-blocks // together))
    # inputs are shared among the threads: the gradient of an edge is computed by one of them, whatever their number
    chunks = min(n_in, threads * -(-together * packing.floats(n_in) // (CHUNK * threads)))
    per = -(-n_in // chunks)
    sparse, bounds = adjacency.stored_rows(False), adjacency.bounds(False, chunks)
    zeros = torch.zeros(lanes, dtype=torch.float32, device="cpu")
    of_chunk = compiled(window_gradient.weight_gradient, tiling, lanes)
    steps = address_of(packing.packer(tiling.source)), address_of(of_chunk)
    kernel = compiled(window_gradient.chunks_of_gradient, plane, lanes)
    of_dy, x_image = packing.sums(n_out), math.prod(shape[1:])
    pieces = parts(chunks, threads)
    rooms = rooms_for(len(pieces), per * plane * lanes * together)

    def run(x: Tensor, dy: Tensor, index: Tensor, gradient: Tensor) -> None:
        found = sparse.room_for(gradient)
        given = addresses(sparse.columns_or(index), bounds, found)
        with scratch(together * of_dy) as outputs:
            for first in range(0, images, lanes * together):
                now = range(first, min(images, first + lanes * together), lanes)
                for i, block in enumerate(now):
                    packing.pack(dy[block : block + lanes], outputs + 4 * i * of_dy)
                sizes = (chunks, per, n_in, n_out, x_image, first, images, len(now), int(first == 0))
                shares = [(*addresses(zeros), *piece, *sizes) for piece in pieces]
                rooms.in_parallel(kernel, (*steps, *addresses(x), outputs, *given), shares)
        sparse.restore(found, gradient)

    return run
