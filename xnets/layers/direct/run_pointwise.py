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
from xnets.layers.direct.scratch import rooms_for
from xnets.layers.direct.threads import CACHE, addresses, in_parallel, parts, parts_of_images, threads_for

SHARING = 24  # from this compression on, outputs share too few inputs for grouping to pay
NEAR = 16 * 1024  # floats of input that shall stay close to the core
GROUPED = 8 * 1024  # as NEAR, where several outputs are summed at once
LYING = 12  # edges for each channel of x and y up to which images are read as they lie
FEWEST_EDGES = 16  # of an output in a chunk


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
    n, columns = x.channels, x.count
    rows = adjacency.n_in if transposed else adjacency.n_out
    threads = threads_for(weight.numel() * columns)
    y = x.like(rows)
    if as_they_lie(x, weight.numel(), rows):
        _of_images(x, weight.view(-1), adjacency, transposed, y, threads)
        return y
    group = 1 if transposed else max(g for g in (1, 2, 3, 4) if adjacency.block % g == 0)
    if group > 1:
        _shared(x, weight.view(-1), adjacency, group, y, threads)
        return y
    # the sums of several outputs at once load less, if the inputs stay in the cache
    group = _at_once()
    fits = n * _tile(columns, group) <= CACHE and n <= MOST_GROUPED and group * adjacency.degree <= 2 * MOST_GROUPED
    shares = fits and weight.numel() * SHARING > rows * n
    multiply = _grouped if shares else _segmented
    multiply(x, weight.view(-1), adjacency, transposed, y, threads)
    return y


def _at_once() -> int:
    """Outputs summed at once where they may share inputs; with few registers two, so that each has more vectors."""
    return 4 if vector_width() == 16 else 2


def _tile(columns: int, group: int) -> int:
    """Columns of a tile: as many vectors of them as the registers hold sums of for each of a group of outputs."""
    width = vector_width()
    vectors = 4 if width == 16 else min(8, 12 // group)
    return min(vectors, -(-columns // width)) * width


def as_they_lie(x: Columns, edges: int, rows: int) -> bool:
    """Whether an image's pixels fill vectors, and edges are so few that to pack tiles would take longer than they."""
    beyond = -x.pixels % vector_width()
    return not x.last and edges <= LYING * (x.channels + rows) and 3 * beyond <= x.pixels


def _of_images(x: Columns, weight: Tensor, adjacency: Adjacency, transposed: bool, y: Columns, threads: int) -> None:
    sparse, bounds = adjacency.transposed if transposed else adjacency.rows, adjacency.bounds(transposed, 1)
    sorted_weight = sparse.sorted(weight)
    kernel = compiled(planes.product, x.pixels, registers_for_sums(), vector_width())
    given = addresses(x.values, sorted_weight, sparse.columns, bounds, y.values)
    pieces = parts_of_images(x.values.shape[0], y.channels, threads)
    in_parallel(kernel, [(*given, *piece, x.channels, y.channels) for piece in pieces])


def _shared(x: Columns, weight: Tensor, adjacency: Adjacency, group: int, y: Columns, threads: int) -> None:
    n, rows, width, tile = x.channels, y.channels, vector_width(), _tile(x.count, group)
    chunks = min(-(-n * tile // CACHE), n)
    bounds = adjacency.bounds(False, chunks)
    sorted_weight = adjacency.rows.sorted(weight)
    kernel = compiled(shared.forward, group, x.last, tile // width, width)
    given = addresses(x.values, sorted_weight, adjacency.rows.columns, bounds, y.values)
    sizes = (n, rows, adjacency.degree, chunks, x.count, x.pixels)
    pieces = _pieces(-(-x.count // tile), rows // group, threads)
    with rooms_for(pieces, (n + width) * tile, (rows + width) * tile) as rooms:
        in_parallel(kernel, [(*given, *room, *piece, *sizes) for room, piece in rooms])


def _chunks_of_grouped(n: int, tile: int, degree: int) -> int:
    """Of n columns of the matrix, whose rows have so many edges, some of which are summed at once over `tile` floats.

    Close to the core, but not too few edges in a chunk, nor sums to be read and written too often: where two outputs
    are summed at once, more are worth it than where four are.
    """
    most = 16 // _at_once()
    return max(1, min(-(-n * tile // GROUPED), most, degree // FEWEST_EDGES))


def _grouped(x: Columns, weight: Tensor, adjacency: Adjacency, transposed: bool, y: Columns, threads: int) -> None:
    n, rows, width, group = x.channels, y.channels, vector_width(), _at_once()
    tile = _tile(x.count, group)
    tiles, groups = -(-x.count // tile), -(-rows // group)
    chunks = _chunks_of_grouped(n, tile, weight.numel() // rows)
    sparse, side = adjacency.grouped(transposed, group, chunks), "inputs" if transposed else "outputs"
    tables = addresses(sparse.columns, sparse.counts, sparse.where, sparse.order)
    gather = side if tiles <= 2 else ""
    if not gather:
        weight, given = torch.empty_like(weight), addresses(weight)
        given = (*given, *tables, *addresses(weight))
        pieces = parts(chunks * groups, threads_for(weight.numel()))
        sort = compiled(pointwise.sort, group, side, width)
        in_parallel(sort, [(*given, *piece, groups, adjacency.degree) for piece in pieces])
    kernel = compiled(pointwise.forward, group, gather, x.last, tile // width, width)
    given = (*addresses(weight), *tables, *addresses(y.values))
    sizes = (n, rows, adjacency.degree, chunks, x.count, x.pixels)
    with rooms_for(_pieces(tiles, groups, threads), (n + width) * tile, (groups * group + width) * tile) as rooms:
        in_parallel(kernel, [(*addresses(x.values), *given, *room, *piece, *sizes) for room, piece in rooms])


def _segmented(x: Columns, weight: Tensor, adjacency: Adjacency, transposed: bool, y: Columns, threads: int) -> None:
    n, rows, width, tile = x.channels, y.channels, vector_width(), _tile(x.count, 1)
    tiles = -(-x.count // tile)
    block = min(1024, -(-rows // (threads if tiles < threads else 1)))  # sums of a block stay in the cache
    cut = adjacency.segments(transposed, NEAR // tile, block)
    gather = tiles <= 2 and cut.rows.order is not None
    sorted_weight, order = (weight, cut.rows.order) if gather else (cut.rows.sorted(weight), cut.spans)
    most = int((cut.spans[..., 1] - cut.spans[..., 0]).max()) if gather else 1
    kernel = compiled(segments.forward, x.last, tile // width, gather, width)
    graph = (cut.rows.columns, order, cut.slots, cut.lengths, cut.spans)
    given = addresses(x.values, sorted_weight, *graph, y.values)
    sizes = (n, rows, block, cut.chunks, cut.longest, x.count, x.pixels)
    pieces = _pieces(tiles, -(-rows // block), threads)
    with rooms_for(pieces, (n + width) * tile, (block + width) * tile, most) as rooms:
        in_parallel(kernel, [(*given, *room, *piece, *sizes) for room, piece in rooms])


def _pieces(tiles: int, blocks: int, threads: int) -> list[tuple[int, int, int, int]]:
    """Ranges of tiles and of blocks of rows, one for each thread."""
    if tiles >= threads:
        return [(*part, 0, blocks) for part in parts(tiles, threads)]
    return [(0, tiles, *part) for part in parts(blocks, threads)]


def pointwise_weight_gradient(dy: Columns, x: Columns, adjacency: Adjacency) -> Tensor:
    """Of columns in one layout -> (n_out, D)."""
    n_in, columns, width = x.channels, x.count, vector_width()
    n_out, degree = adjacency.index.shape
    vectors = min(8, -(-columns // width))
    tile = vectors * width
    # few inputs at a time, but several of each output
    chunk = max(NEAR // tile // 2, 16 * n_in // degree)
    chunks = -(-n_in // chunk)
    kernel = compiled(pointwise.weight_gradient, x.last, vectors, columns <= tile, width)
    bounds, sparse = adjacency.bounds(False, chunks), adjacency.rows
    gradient = x.values.new_empty(n_out, degree)

    given = addresses(x.values, dy.values, sparse.columns, bounds, gradient)
    sizes = (n_in, n_out, chunks, columns, x.pixels)
    pieces = parts(n_out, threads_for(gradient.numel() * columns))
    with rooms_for(pieces, (n_in + width) * tile, (n_out + width) * tile) as rooms:
        in_parallel(kernel, [(*given, *room, *piece, *sizes) for room, piece in rooms])
    return sparse.restored(gradient.view(-1)).view_as(gradient)
