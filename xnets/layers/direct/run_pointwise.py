"""Runs the compiled kernels of 1x1 convolutions and linear layers: chooses tiles, splits the work among threads.

Each output is summed by one thread in an order that depends on shapes alone, so results do not depend on the number
of threads.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from xnets.layers.direct import planes, pointwise, segments, shared
from xnets.layers.direct.adjacency import MOST_GROUPED, Adjacency
from xnets.layers.direct.jit import compiled, registers_for_sums, vector_width
from xnets.layers.direct.planned import Run, planned
from xnets.layers.direct.scratch import rooms_for
from xnets.layers.direct.threads import (
    CACHE,
    addresses,
    in_parallel,
    parts,
    parts_of_images,
    parts_of_tiles,
    threads_for,
)

SHARING = 24  # from this compression on, outputs share too few inputs for grouping to pay
NEAR = 16 * 1024  # floats of input that shall stay close to the core
GROUPED = 8 * 1024  # as NEAR, where several outputs are summed at once
LYING = 12  # edges for each channel of x and y up to which images are read as they lie
FEWEST_EDGES = 16  # of an output in a chunk


class Positions(NamedTuple):
    """What 1x1 convolutions and linear layers take: (N, channels, pixels), or, with channels `last`, (positions,
    channels), a position being a pixel of an image or a row of a batch."""

    channels: int
    count: int  # of positions
    pixels: int  # of an image; if channels are last, of all
    last: bool


def positions_of(x: Tensor, last: bool) -> Positions:
    """Of an image (N, C, H, W), contiguous or channels_last, or of a batch (N, C)."""
    channels = x.shape[1]
    count = x.numel() // channels
    return Positions(channels, count, count if last else count // x.shape[0], last)


@planned
def pointwise_product(adjacency: Adjacency, x: Positions, transposed: bool) -> Run:
    """x with the columns of the matrix for channels -> the same with its rows; n_out x n_in, or its transpose."""
    n, edges = x.channels, adjacency.n_out * adjacency.degree
    rows = adjacency.n_in if transposed else adjacency.n_out
    threads = threads_for(edges * x.count)
    if as_they_lie(x, edges, rows):
        return _of_images(adjacency, x, rows, transposed, threads)
    group = 1 if transposed else max(g for g in (1, 2, 3, 4) if adjacency.block % g == 0)
    if group > 1:
        return _shared(adjacency, x, rows, group, threads)
    # the sums of several outputs at once load less, if the inputs stay in the cache
    group = _at_once()
    fits = n * _most(x.count, group) <= CACHE and n <= MOST_GROUPED and group * adjacency.degree <= 2 * MOST_GROUPED
    shares = fits and edges * SHARING > rows * n
    return (_grouped if shares else _segmented)(adjacency, x, rows, transposed, threads)


def _at_once() -> int:
    """Outputs summed at once where they may share inputs; with few registers two, so that each has more vectors."""
    return 4 if vector_width() == 16 else 2


def _most(positions: int, group: int) -> int:
    """Positions of a tile at most: as many vectors as the registers hold sums of for each of a group of outputs.

    What decides about the order of sums goes by this, which does not depend on the number of threads.
    """
    width = vector_width()
    vectors = 4 if width == 16 else min(8, 12 // group)
    return min(vectors, -(-positions // width)) * width


def _tile(positions: int, group: int, threads: int) -> int:
    """Positions of a tile: at most so many, or some fewer, so that the last tile is not nearly empty and all threads
    have about as much to do."""
    width = vector_width()
    vectors = -(-positions // width)

    def time(of_tile: int) -> float:
        tiles = -(-vectors // of_tile)
        each = tiles / threads if tiles < threads else -(-tiles // threads)
        return each * (of_tile + 1)  # weights are loaded for each tile

    return min(range(_most(positions, group) // width, 0, -1), key=time) * width


def as_they_lie(x: Positions, edges: int, rows: int) -> bool:
    """Whether an image's pixels fill vectors, and edges are so few that to pack tiles would take longer than they."""
    beyond = -x.pixels % vector_width()
    return not x.last and edges <= LYING * (x.channels + rows) and 3 * beyond <= x.pixels


def _of_images(adjacency: Adjacency, x: Positions, rows: int, transposed: bool, threads: int) -> Run:
    sparse, bounds = adjacency.stored_rows(transposed), adjacency.bounds(transposed, 1)
    kernel = compiled(planes.product, x.pixels, registers_for_sums(), vector_width())
    shares = [(*piece, x.channels, rows) for piece in parts_of_images(x.count // x.pixels, rows, threads)]

    def run(x: Tensor, weight: Tensor, index: Tensor, y: Tensor) -> None:
        weight = sparse.sorted(weight)
        given = addresses(x, weight, sparse.columns_or(index), bounds, y)
        in_parallel(kernel, [(*given, *share) for share in shares])

    return run


def _shared(adjacency: Adjacency, x: Positions, rows: int, group: int, threads: int) -> Run:
    n, width, tile = x.channels, vector_width(), _tile(x.count, group, threads)
    chunks = min(-(-n * _most(x.count, group) // CACHE), n)
    sparse, bounds = adjacency.stored_rows(False), adjacency.bounds(False, chunks)
    kernel = compiled(shared.forward, group, x.last, tile // width, width)
    pieces = parts_of_tiles(-(-x.count // tile), rows // group, threads)
    shares = [(*piece, n, rows, adjacency.degree, chunks, x.count, x.pixels) for piece in pieces]
    rooms = rooms_for(len(pieces), (n + width) * tile, (rows + width) * tile)

    def run(x: Tensor, weight: Tensor, index: Tensor, y: Tensor) -> None:
        weight = sparse.sorted(weight)
        given = addresses(x, weight, sparse.columns_or(index), bounds, y)
        rooms.in_parallel(kernel, given, shares)

    return run


def _chunks_of_grouped(n: int, tile: int, degree: int) -> int:
    """Of n columns of the matrix, whose rows have so many edges, some of which are summed at once over `tile` floats.

    Close to the core, but not too few edges in a chunk, nor sums to be read and written too often: where two outputs
    are summed at once, more are worth it than where four are.
    """
    most = 16 // _at_once()
    return max(1, min(-(-n * tile // GROUPED), most, degree // FEWEST_EDGES))


def _grouped(adjacency: Adjacency, x: Positions, rows: int, transposed: bool, threads: int) -> Run:
    n, width, group, edges = x.channels, vector_width(), _at_once(), adjacency.n_out * adjacency.degree
    tile = _tile(x.count, group, threads)
    tiles, groups = -(-x.count // tile), -(-rows // group)
    chunks = _chunks_of_grouped(n, _most(x.count, group), edges // rows)
    sparse, side = adjacency.grouped(transposed, group, chunks), "inputs" if transposed else "outputs"
    tables = addresses(sparse.columns, sparse.counts, sparse.where, sparse.order)
    pieces = parts_of_tiles(tiles, groups, threads)
    gather = side if max(t1 - t0 for t0, t1, *_ in pieces) <= 2 else ""  # a thread needs each weight once a tile
    sort = compiled(pointwise.sort, group, side, width)
    sorts = [(*part, groups, adjacency.degree) for part in parts(chunks * groups, threads_for(edges))]
    kernel = compiled(pointwise.forward, group, gather, x.last, tile // width, width)
    shares = [(*piece, n, rows, adjacency.degree, chunks, x.count, x.pixels) for piece in pieces]
    rooms = rooms_for(len(pieces), (n + width) * tile, (groups * group + width) * tile)

    def run(x: Tensor, weight: Tensor, index: Tensor, y: Tensor) -> None:
        if not gather:
            source, weight = weight, torch.empty_like(weight)
            given = (*addresses(source), *tables, *addresses(weight))
            in_parallel(sort, [(*given, *part) for part in sorts])
        rooms.in_parallel(kernel, (*addresses(x, weight), *tables, *addresses(y)), shares)

    return run


def _segmented(adjacency: Adjacency, x: Positions, rows: int, transposed: bool, threads: int) -> Run:
    n, width, tile = x.channels, vector_width(), _tile(x.count, 1, threads)
    tiles = -(-x.count // tile)
    block = min(1024, -(-rows // (threads if tiles < threads else 1)))  # sums of a block stay in the cache
    cut = adjacency.segments(transposed, NEAR // _most(x.count, 1), block)
    sparse = cut.rows if transposed else adjacency.stored_rows(False)
    gather = tiles <= 2 and sparse.order is not None
    order = sparse.order if gather else cut.spans
    most = int((cut.spans[..., 1] - cut.spans[..., 0]).max()) if gather else 1
    kernel = compiled(segments.forward, x.last, tile // width, gather, width)
    tables = addresses(order, cut.slots, cut.lengths, cut.spans)
    pieces = parts_of_tiles(tiles, -(-rows // block), threads)
    shares = [(*piece, n, rows, block, cut.chunks, cut.longest, x.count, x.pixels) for piece in pieces]
    rooms = rooms_for(len(pieces), (n + width) * tile, (block + width) * tile, most)

    def run(x: Tensor, weight: Tensor, index: Tensor, y: Tensor) -> None:
        weight = weight if gather else sparse.sorted(weight)
        given = (*addresses(x, weight, sparse.columns_or(index)), *tables, *addresses(y))
        rooms.in_parallel(kernel, given, shares)

    return run


@planned
def pointwise_weight_gradient(adjacency: Adjacency, x: Positions) -> Run:
    """Of x, and dy in the same layout -> the gradient (n_out, D)."""
    n_in, width = x.channels, vector_width()
    n_out, degree = adjacency.n_out, adjacency.degree
    vectors = -(-x.count // width)
    vectors = -(-vectors // -(-vectors // 8))
    tile = vectors * width
    # few inputs at a time, but several of each output
    chunk = max(NEAR // tile // 2, 16 * n_in // degree)
    chunks = -(-n_in // chunk)
    kernel = compiled(pointwise.weight_gradient, x.last, vectors, x.count <= tile, width)
    sparse, bounds = adjacency.stored_rows(False), adjacency.bounds(False, chunks)
    pieces = parts(n_out, threads_for(n_out * degree * x.count))
    shares = [(*piece, n_in, n_out, chunks, x.count, x.pixels) for piece in pieces]
    rooms = rooms_for(len(pieces), (n_in + width) * tile, (n_out + width) * tile)

    def run(x: Tensor, dy: Tensor, index: Tensor, gradient: Tensor) -> None:
        found = sparse.room_for(gradient)
        rooms.in_parallel(kernel, addresses(x, dy, sparse.columns_or(index), bounds, found), shares)
        sparse.restore(found, gradient)

    return run
