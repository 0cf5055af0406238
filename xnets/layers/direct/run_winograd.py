"""Runs the kernels of Winograd's algorithm: which layers it is for, and how the work is split among threads.

Each number is summed by one thread in an order that depends on shapes alone, so results do not depend on the number
of threads.
"""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from xnets.layers.direct import run_lines, winograd, winograd_products
from xnets.layers.direct.adjacency import MOST_GROUPED, Adjacency
from xnets.layers.direct.jit import compiled, lanes_for, vector_width
from xnets.layers.direct.planned import Run, planned
from xnets.layers.direct.scratch import LINE, rooms_for, scratch
from xnets.layers.direct.threads import address_of, addresses, in_parallel, is_even, parts, threads_for
from xnets.layers.direct.tiles import equal
from xnets.layers.direct.winograd import NUMBERS, TILE, WINDOW, Strip

RUN = 4  # vectors of tiles whose products are summed at a time
TOGETHER = 4  # tiles of a unit, in vectors: their numbers have to stay in the third-level cache
# What decides for or against Winograd's algorithm counts times in one unit, u: the time of one edge and one tile, which
# is 36 multiply-adds of vectors. All was measured with AVX2 on maps of 4 to 56 pixels.
TRANSFORM_U = 9  # u to transform and to move the numbers of one tile of one channel
# Multiply-adds of vectors that the other kernels do in one u. Small maps, of at most 4x4, stay in registers, but of
# lanes that reach beyond their lines; packed are those of window_gradient.py, if larger than that.
PRODUCT_PER_U, SMALL_PRODUCT_PER_U = 48, 70
GRADIENT_PER_U, PACKED_GRADIENT_PER_U = 48, 75


def suit_product(adjacency: Adjacency, images: int, size: tuple[int, int], stride: int) -> bool:
    """Whether 36 multiply-adds for each tile and edge, and the transforms, take less time than nine for each pixel."""
    small = size[0] * size[1] <= TILE * TILE
    return _suit(adjacency, images, size, stride, SMALL_PRODUCT_PER_U if small else PRODUCT_PER_U)


def suit_gradient(adjacency: Adjacency, images: int, size: tuple[int, int], stride: int) -> bool:
    """The same for the weight's gradient; on small maps the other kernels are quick unless a tile is all of one."""
    packed = max(size) > TILE and not run_lines.suit_gradient(images, size[1], adjacency.degree, stride)
    return _suit(adjacency, images, size, stride, PACKED_GRADIENT_PER_U if packed else GRADIENT_PER_U)


def _suit(adjacency: Adjacency, images: int, size: tuple[int, int], stride: int, per_u: int) -> bool:
    # Grouped's columns, and its order within a group, have 16 bits
    grouped = max(adjacency.n_in, adjacency.n_out, at_once() * adjacency.degree // 2) <= MOST_GROUPED
    if stride != 1 or not grouped:
        return False
    lanes, edges = lanes_for(images), adjacency.n_out * adjacency.degree
    vectors = max(images / vector_width(), images // lanes)  # of the other kernels
    channels = adjacency.n_in + adjacency.n_out
    return faster(size, math.ceil(images / lanes), vectors, edges, channels, per_u, 2 * edges)


def faster(
    size: tuple[int, int], blocks: int, vectors: float, edges: int, channels: int, per_u: int, filters_u: int = 0
) -> bool:
    """Whether Winograd's algorithm is estimated to take less time than the other kernels, in u (see TRANSFORM_U).

    Args:
        size: height and width of the maps.
        blocks: vectors that a pixel of all images fills here, one image to a lane.
        vectors: the same of the other kernels, which may fill theirs better: not always a whole number.
        edges: of the graph.
        channels: of x and of y together, all of which are transformed.
        per_u: multiply-adds of vectors that the other kernels do in one u, one of the constants above.
        filters_u: u to transform the filters; none if that was done once and for all.
    """
    # with AVX-512 it was not measured: only where well ahead
    per_u = per_u * 4 // 3 if vector_width() == 16 else per_u
    tiles = math.prod(math.ceil(n / TILE) for n in size) * blocks
    taps = math.prod(3 * n - 2 for n in size) * vectors  # of one edge, but for those that lie beyond the map
    return tiles * (edges + TRANSFORM_U * channels) + filters_u < edges * taps / per_u


def at_once() -> int:
    """Rows of a product that are summed at once, each over a run of vectors."""
    return 4 if vector_width() == 16 else 3


class Numbers(NamedTuple):
    """How the 36 numbers of some channels' tiles in a strip stand in memory; see winograd_products."""

    channels: int
    sizes: tuple[int, ...]
    lanes: int

    @property
    def step(self) -> int:
        """Floats from one of the 36 to the next: no multiple of a page, whose places in a cache are few."""
        return self.channels * sum(self.sizes) * self.lanes + LINE

    @functools.cache  # noqa: B019  few and small
    def places(self) -> Tensor:
        """Where each vector of a channel stands; see winograd.tiles_of_maps. Who uses its address has to keep it: two
        threads that ask first may be given one each, of which one is kept here."""
        found, first = [], 0
        for size in self.sizes:
            found += [((first * self.channels + v) * self.lanes, size * self.lanes) for v in range(size)]
            first += size
        return torch.tensor(found, dtype=torch.int64, device="cpu")


class Work(NamedTuple):
    """Units of a product or gradient: strips of some images."""

    strip: Strip
    images: int
    lanes: int

    @property
    def together(self) -> int:
        """Images of a unit."""
        return self.strip.blocks * self.lanes

    @property
    def units(self) -> int:
        """How many there are."""
        return math.ceil(self.images / self.together) * self.strip.strips

    @property
    def vectors(self) -> int:
        """Tiles of all units."""
        return self.units * self.strip.vectors

    @property
    def sizes(self) -> tuple[int, ...]:
        """Runs of vectors in a unit, see winograd_products: as few as can be, all of about one length."""
        return tuple(last - first for first, last in parts(self.strip.vectors, -(-self.strip.vectors // RUN)))

    def place_of(self, unit: int) -> tuple[int, int, int]:
        """Its first image, how many there are, and its first line."""
        block, strip = divmod(unit, self.strip.strips)
        first = block * self.together
        return first, min(self.together, self.images - first), strip * self.strip.lines

    @property
    def given(self) -> tuple[int, ...]:
        """What winograd_products.UNITS names."""
        pixels = self.strip.height * self.strip.width
        return self.images, pixels, self.together, self.strip.strips, self.strip.lines


def work_for(images: int, size: tuple[int, int]) -> Work:
    """Of as many tiles in a unit as shall be computed together."""
    lanes = lanes_for(images)  # one image to each; few images take narrow vectors
    height, width = size
    blocks, down, across = math.ceil(images / lanes), math.ceil(height / TILE), math.ceil(width / TILE)
    # lines shorter than a vector are not moved one by one
    tile_rows = down if width < lanes else equal(down, max(1, TOGETHER // across))
    together = equal(blocks, max(1, TOGETHER // (tile_rows * across))) if tile_rows == down else 1
    return Work(Strip(height, width, together, tile_rows), images, lanes)


@planned
def winograd_product(
    adjacency: Adjacency, shape: torch.Size, transposed: bool, size: tuple[int, int], stride: int
) -> Run:
    """x of that shape (N, columns of the matrix, H, W), weight (n_out, D, 3, 3) -> y (N, its rows, H, W)."""
    channels, rows = shape[1], adjacency.n_in if transposed else adjacency.n_out
    work = work_for(shape[0], size)
    strip, lanes, sizes = work.strip, work.lanes, work.sizes
    group = at_once()
    groups = -(-rows // group)
    x_numbers, y_numbers = Numbers(channels, sizes, lanes), Numbers(groups * group, sizes, lanes)
    threads = threads_for(NUMBERS * adjacency.n_out * adjacency.degree * work.vectors * lanes)
    sparse, order = adjacency.grouped(transposed, group), adjacency.order_of_grouped(transposed, group)
    weights_step = len(order) + LINE
    filters = compiled(winograd.filters, transposed, min(8, lanes))
    to_tiles = compiled(winograd.tiles_of_maps, strip, False, (0, WINDOW), lanes)
    product = compiled(winograd_products.product, group, sizes, lanes)
    to_maps = compiled(winograd.maps_of_tiles, strip, lanes)
    whole = compiled(winograd_products.product_of_units, lanes)
    kernels = tuple(address_of(kernel) for kernel in (to_tiles, product, to_maps))
    # tensors are named in `run`, which keeps them: an address alone does not
    zeros, sink = torch.zeros(2, lanes, dtype=torch.float32, device="cpu")
    places_of_x, places_of_y = x_numbers.places(), y_numbers.places()
    tables = addresses(sparse.columns, sparse.counts, sparse.where)
    filter_shares = [(8 * p0, 8 * p1, weights_step) for p0, p1 in parts(len(order) // 8, threads)]
    channel_shares, row_shares, number_shares = (parts(n, threads) for n in (channels, rows, NUMBERS))
    product_sizes = (channels, groups, x_numbers.step, weights_step, y_numbers.step)
    unit_shares = [(*piece, *work.given, rows, *product_sizes) for piece in parts(work.units, threads)]
    floats = NUMBERS * x_numbers.step, NUMBERS * y_numbers.step
    rooms = rooms_for(len(unit_shares), *floats, strip.floats(lanes))
    maps_of_x, maps_of_y = (rooms_for(len(shares), strip.floats(lanes)) for shares in (channel_shares, row_shares))

    def by_units(x: Tensor, y: Tensor, weights: int) -> None:
        """Each thread takes whole units, and waits for nobody."""
        places = addresses(places_of_x, places_of_y, zeros, sink)
        rooms.in_parallel(whole, (*kernels, *addresses(x, y), weights, *tables, *places), unit_shares)

    def by_steps(x: Tensor, y: Tensor, weights: int) -> None:
        """All threads work at one unit, step by step."""
        with scratch(floats[0]) as tiles, scratch(floats[1]) as sums:
            for first, *unit in map(work.place_of, range(work.units)):
                given = (*addresses(x[first], places_of_x), tiles, *addresses(zeros))
                maps_of_x.in_parallel(
                    to_tiles, given, [(*part, channels, *unit, x_numbers.step) for part in channel_shares]
                )
                in_parallel(product, [(tiles, weights, *tables, sums, *part, *product_sizes) for part in number_shares])
                given = (*addresses(y[first], places_of_y), sums, *addresses(sink))
                maps_of_y.in_parallel(to_maps, given, [(*part, rows, *unit, y_numbers.step) for part in row_shares])

    compute = by_units if is_even(work.units, threads) else by_steps

    def run(x: Tensor, weight: Tensor, index: Tensor, y: Tensor) -> None:
        with scratch(NUMBERS * weights_step) as weights:
            in_parallel(filters, [(*addresses(weight, order), weights, *share) for share in filter_shares])
            compute(x, y, weights)

    return run


@planned
def winograd_weight_gradient(adjacency: Adjacency, shape: torch.Size, size: tuple[int, int], stride: int) -> Run:
    """x of that shape (N, n_in, H, W), dy (N, n_out, H, W) -> the gradient (n_out, D, 3, 3)."""
    n_in, n_out, degree = shape[1], adjacency.n_out, adjacency.degree
    work = work_for(shape[0], size)
    strip, lanes, sizes = work.strip, work.lanes, work.sizes
    x_numbers, dy_numbers = Numbers(n_in, sizes, lanes), Numbers(n_out, sizes, lanes)
    threads = threads_for(NUMBERS * n_out * degree * work.vectors * lanes)
    sparse = adjacency.stored_rows(False)
    order = sparse.order if sparse.order is not None else torch.arange(n_out * degree, dtype=torch.int32, device="cpu")
    gradient_step = -(-len(order) // LINE) * LINE + LINE
    # each thread has some of the six rows of numbers, and if there are more, some of the outputs: it transforms what it
    # needs itself, since numbers that another core has written are far away
    whole = compiled(winograd_products.gradient_of_units, lanes)
    number_rows = parts(WINDOW, threads)
    tasks = []
    for first, last in number_rows:
        kernels = (
            compiled(winograd.tiles_of_maps, strip, False, (first, last), lanes),
            compiled(winograd.tiles_of_maps, strip, True, (first, last), lanes),
            compiled(winograd_products.weight_gradient, sizes, WINDOW * (last - first), lanes),
        )
        for piece in parts(n_out, max(1, threads // WINDOW)):
            tasks.append((tuple(address_of(kernel) for kernel in kernels), 4 * WINDOW * first * gradient_step, piece))
    some = WINDOW * max(last - first for first, last in number_rows)
    rooms = rooms_for(len(tasks), some * x_numbers.step, some * dy_numbers.step, strip.floats(lanes))
    narrow = min(8, lanes)
    to_taps = compiled(winograd.gradients_of_filters, narrow)
    filter_shares = [
        (narrow * p0, min(narrow * p1, len(order)), gradient_step)
        for p0, p1 in parts(-(-len(order) // narrow), threads)
    ]
    nine = rooms_for(len(filter_shares), 9 * narrow)
    zeros = torch.zeros(lanes, dtype=torch.float32, device="cpu")
    places_of_x, places_of_dy = x_numbers.places(), dy_numbers.places()
    rest = (work.units, *work.given, n_in, n_out, degree, x_numbers.step, dy_numbers.step, gradient_step)

    def run(x: Tensor, dy: Tensor, index: Tensor, gradient: Tensor) -> None:
        given = addresses(x, dy, sparse.columns_or(index))
        places = addresses(places_of_x, places_of_dy, zeros)
        with scratch(NUMBERS * gradient_step) as numbers, scratch(rooms.floats) as room:
            in_parallel(
                whole,
                [
                    (*kernels, *given, numbers + offset, *places, *[room + o for o in mine], *piece, *rest)
                    for (kernels, offset, piece), mine in zip(tasks, rooms.offsets, strict=True)
                ],
            )
            nine.in_parallel(to_taps, (numbers, *addresses(order, gradient)), filter_shares)

    return run
