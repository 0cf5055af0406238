"""IR of 3x3 convolutions of padding 1 and stride 1 by Winograd's algorithm F(4x4, 3x3).

A tile of 4x4 outputs is a polynomial product, computed at six points of each direction: a tile's 6x6 inputs and a
filter are transformed to 36 numbers each, multiplied number by number, summed over the edges, and transformed back: 36
multiply-adds for an edge where nine for each output are 144 (Lavin and Gray, "Fast Algorithms for Convolutional Neural
Networks", 2016). The sums over the edges are 36 sparse products, see winograd_products.py. Both gradients are the same
with transposed transforms.

One image is in each lane of a vector, so that the transforms need no moves between lanes.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

from xnets.layers.direct.ir import Function

TILE, WINDOW, FILTER = 4, 6, 3  # outputs, inputs and taps of one direction
NUMBERS = WINDOW * WINDOW
# The points are 0, +-A, +-B and infinity. Rounding errors are a few times those of plain sums, and go by the largest
# pixel of a tile; with the usual 1 and 2 for A and B they are larger.
A, B = 5 / 8, 5 / 4
OF_A, OF_B = 1 / (2 * A**2 * (A**2 - B**2)), 1 / (2 * B**2 * (B**2 - A**2))  # what a filter is multiplied by at a point

Vectors = list[str]
Transform = Callable[[Function, Vectors], Vectors]


def _inputs(code: Function, d: Vectors) -> Vectors:
    """Six inputs at the six points."""
    a2, b2 = A * A, B * B
    even_a, odd_a = code.fma_by(d[2], -b2, d[4]), code.fma_by(d[1], -b2, d[3])
    even_b, odd_b = code.fma_by(d[2], -a2, d[4]), code.fma_by(d[1], -a2, d[3])
    return [
        code.fma_by(d[0], a2 * b2, code.fma_by(d[2], -a2 - b2, d[4])),
        code.fma_by(odd_a, A, even_a),
        code.fma_by(odd_a, -A, even_a),
        code.fma_by(odd_b, B, even_b),
        code.fma_by(odd_b, -B, even_b),
        code.fma_by(d[1], a2 * b2, code.fma_by(d[3], -a2 - b2, d[5])),
    ]


def _filter(code: Function, g: Vectors) -> Vectors:
    """Three taps at the six points."""
    even_a, odd_a = code.times_by(code.fma_by(g[2], A * A, g[0]), OF_A), code.times_by(g[1], A * OF_A)
    even_b, odd_b = code.times_by(code.fma_by(g[2], B * B, g[0]), OF_B), code.times_by(g[1], B * OF_B)
    return [
        code.times_by(g[0], 1 / (A * A * B * B)),
        code.plus(even_a, odd_a),
        code.minus(even_a, odd_a),
        code.plus(even_b, odd_b),
        code.minus(even_b, odd_b),
        g[2],
    ]


def _outputs(code: Function, m: Vectors) -> Vectors:
    """Four outputs of the products at the six points."""
    even_a, odd_a = code.plus(m[1], m[2]), code.minus(m[1], m[2])
    even_b, odd_b = code.plus(m[3], m[4]), code.minus(m[3], m[4])
    return [
        code.plus(m[0], code.plus(even_a, even_b)),
        code.fma_by(odd_b, B, code.times_by(odd_a, A)),
        code.fma_by(even_b, B**2, code.times_by(even_a, A**2)),
        code.fma_by(odd_b, B**3, code.fma_by(odd_a, A**3, m[5])),
    ]


def _upstream(code: Function, y: Vectors) -> Vectors:
    """`_outputs` transposed: gradients of four outputs to those of the products."""
    points = []
    for p in (A, B):
        even, odd = code.fma_by(y[2], p**2, y[0]), code.fma_by(y[3], p**3, code.times_by(y[1], p))
        points += [code.plus(even, odd), code.minus(even, odd)]
    return [y[0], *points, y[3]]


def _taps(code: Function, m: Vectors) -> Vectors:
    """`_filter` transposed: gradients at the six points to those of three taps."""
    even_a, odd_a = code.plus(m[1], m[2]), code.minus(m[1], m[2])
    even_b, odd_b = code.plus(m[3], m[4]), code.minus(m[3], m[4])
    even_a, even_b = code.times_by(even_a, OF_A), code.times_by(even_b, OF_B)
    return [
        code.fma_by(m[0], 1 / (A * A * B * B), code.plus(even_a, even_b)),
        code.fma_by(odd_b, B * OF_B, code.times_by(odd_a, A * OF_A)),
        code.fma_by(even_b, B * B, code.fma_by(even_a, A * A, m[5])),
    ]


def _both_ways(code: Function, square: list[Vectors], transform: Transform, rows: slice = slice(None)) -> list[Vectors]:
    """The transform of each column, then of each row of that, or of those rows."""
    columns = [transform(code, list(column)) for column in zip(*square, strict=True)]
    return [transform(code, list(row)) for row in list(zip(*columns, strict=True))[rows]]


class Strip(NamedTuple):
    """Rows of tiles of some maps that are computed together, in blocks of `lanes` images."""

    height: int  # of the maps
    width: int
    blocks: int
    tile_rows: int

    @property
    def across(self) -> int:
        """Tiles side by side."""
        return math.ceil(self.width / TILE)

    @property
    def vectors(self) -> int:
        """Tiles of all blocks, each a vector of as many images as there are lanes."""
        return self.blocks * self.tile_rows * self.across

    @property
    def lines(self) -> int:
        """Pixels high, of what it computes: four for each row of tiles, though the last may reach beyond the map."""
        return TILE * self.tile_rows

    def columns(self, around: int) -> int:
        """Pixels wide, of a packed map with `around` more on each side of its tiles."""
        return TILE * self.across + 2 * around

    def floats(self, lanes: int) -> int:
        """Room for a packed map of inputs, which has one pixel more on each side; each pixel is `lanes` floats."""
        return (self.lines + 2) * self.columns(1) * lanes

    @property
    def strips(self) -> int:
        """How many a map is cut into; the last may reach beyond it."""
        return math.ceil(self.height / self.lines)


# --- filters ---


def filters(flipped: bool, lanes: int) -> Function:
    """numbers[f, p] for places [p0, p1): the filter (3, 3) of edge order[p], weights[9 * order[p]] and on, transformed.

    p0 and p1 are multiples of the lanes, so `order` is padded to one, with any edges that there are. Each of the 36 f
    is `step` floats after the one before. flipped: for the gradient of the input, which meets the taps in reverse.
    """
    code = Function("filters", ["weights", "order", "numbers"], ["p0", "p1", "step"], lanes)
    with code.loop("%p0", "%p1", lanes) as place:
        each = [code.at("%weights", code.mul(code.load_int("%order", code.add(place, i)), 9)) for i in range(lanes)]
        taps = []
        for first in range(0, 8, lanes):
            taps += code.transpose([code.load(code.at(w, first)) for w in each])
        taps.append(code.gather([code.at(w, 8) for w in each]))
        taps = taps[::-1] if flipped else taps
        square = [taps[i : i + FILTER] for i in (0, 3, 6)]
        _store_numbers(code, _both_ways(code, square, _filter), code.at("%numbers", place))
    return code


def gradients_of_filters(lanes: int) -> Function:
    """gradient[order[p]] (3, 3) of the numbers at places [p0, p1), the transposed of `filters`.

    p0 is a multiple of the lanes, p1 at most the number of edges: what is read of numbers beyond is not kept. `nine`
    has room for nine vectors.
    """
    code = Function("gradients_of_filters", ["numbers", "order", "gradient", "nine"], ["p0", "p1", "step"], lanes)
    with code.loop("%p0", "%p1", lanes) as place:
        square = _load_numbers(code, code.at("%numbers", place))
        for tap, vector in enumerate(v for row in _both_ways(code, square, _taps) for v in row):
            code.store(vector, code.at("%nine", tap * lanes))
        with code.loop(0, code.least(lanes, code.sub("%p1", place))) as i:
            target = code.at("%gradient", code.mul(code.load_int("%order", code.add(place, i)), 9))
            for tap in range(9):
                number = code.op(f"load float, ptr {code.at('%nine', code.add(i, tap * lanes))}")
                code.emit(f"store float {number}, ptr {code.at(target, tap)}")
    return code


# --- maps ---


def tiles_of_maps(strip: Strip, upstream: bool, number_rows: tuple[int, int], lanes: int) -> Function:
    """numbers[f] of the tiles of x (images, channels, H, W), for channels [c0, c1) of the strip that begins with line
    `line`: of inputs, or, if `upstream`, of the outputs' gradients.

    number_rows are those of the six rows of numbers that are computed, from the first to the one before the second.
    Channel c of vector v stands at places[v, 0] + c * places[v, 1], each number `step` floats after the one before. In
    lanes without an image are zeros, of which `zeros` holds `lanes`. map has room for `strip.floats`.
    """
    code = Function(
        "tiles_of_maps",
        ["x", "places", "numbers", "zeros", "map"],
        ["c0", "c1", "channels", "images", "line", "step"],
        lanes,
    )
    side, around, transform = (TILE, 0, _upstream) if upstream else (WINDOW, 1, _inputs)
    columns = strip.columns(around)
    clear(code, strip, around)
    with code.loop("%c0", "%c1") as c, code.loop(0, strip.blocks) as block:
        images = _images(code, "%x", c, block, strip, "%zeros")

        def pack(first: str | int, places: list[str | int], images: Callable[..., Vectors] = images) -> None:
            pixels, mask = images(first), code.mask(len(places))
            loaded = [code.load(pixel, None if len(places) == lanes else mask) for pixel in pixels]
            for vector, place in zip(code.transpose(loaded), places, strict=False):
                code.store(vector, code.at("%map", place))

        _move(code, strip, around, pack)
        for corner, numbers in tiles_of_strip(code, strip, columns, block, c):
            transform_tile(code, corner, columns, side, numbers, transform, slice(*number_rows))
    return code


def maps_of_tiles(strip: Strip, lanes: int) -> Function:
    """y (images, channels, H, W) of the sums of products, which stand as in `tiles_of_maps`.

    `sink`, `lanes` floats, takes what belongs to no image.
    """
    code = Function(
        "maps_of_tiles",
        ["y", "places", "numbers", "sink", "map"],
        ["c0", "c1", "channels", "images", "line", "step"],
        lanes,
    )
    columns = strip.columns(0)
    with code.loop("%c0", "%c1") as c, code.loop(0, strip.blocks) as block:
        images = _images(code, "%y", c, block, strip, "%sink")
        for corner, numbers in tiles_of_strip(code, strip, columns, block, c):
            outputs_of_tile(code, numbers, corner, columns)

        def unpack(first: str | int, places: list[str | int], images: Callable[..., Vectors] = images) -> None:
            vectors = [code.load(code.at("%map", place)) for place in places]
            of_images = code.transpose(vectors + ["zeroinitializer"] * (lanes - len(places)))
            for pixels, target in zip(of_images, images(first), strict=True):
                code.store_some(pixels, target, len(places))

        _move(code, strip, 0, unpack)
    return code


def clear(code: Function, strip: Strip, around: int) -> None:
    """Zeros for the packed map: what lies beyond the map stays zero."""
    with code.loop(0, (strip.lines + 2 * around) * strip.columns(around) * code.width, code.width) as i:
        code.store("zeroinitializer", code.at("%map", i))


def _images(code: Function, maps: str, channel: str, block: str, strip: Strip, none: str) -> Callable[..., Vectors]:
    """Where a pixel of the channel's map stands in each image of a block; `none` where there is no image."""
    planes = []
    for lane in range(code.width):
        image = code.add(code.mul(block, code.width), lane)
        plane = code.mul(code.add(code.mul(image, "%channels"), channel), strip.height * strip.width)
        planes.append((code.op(f"icmp slt i64 {image}, %images"), code.at(maps, plane)))
    return lambda pixel: [code.pick(alive, code.at(plane, pixel), none) for alive, plane in planes]


def _move(code: Function, strip: Strip, around: int, move: Callable[[str | int, list[str | int]], None]) -> None:
    """move(first pixel, where it and the next ones stand in the packed map) for all pixels of the strip, a vector of
    them at a time; lines shorter than that are taken together, for which the strip has to be the whole map."""
    lanes, width, columns = code.width, strip.width, strip.columns(around)
    if width < lanes:
        for first in range(0, strip.height * width, lanes):
            pixels = [divmod(p, width) for p in range(first, min(first + lanes, strip.height * width))]
            move(first, [((line + around) * columns + column + around) * lanes for line, column in pixels])
        return
    above, inside = lines_of_strip(code, strip, around)
    with inside as line:
        # the last vector of a line ends with it, even if it begins with columns that the one before has too
        for column in (min(c, width - lanes) for c in range(0, width, lanes)):
            begin = code.mul(code.add(code.mul(line, columns), column + around), lanes)
            places = [code.add(begin, i * lanes) for i in range(lanes)]
            move(code.add(code.mul(code.add(above, line), width), column), places)


def lines_of_strip(code: Function, strip: Strip, around: int) -> tuple[str, AbstractContextManager[str]]:
    """Which line of the map is the first of the packed one, and a loop over those of the packed one that are on it."""
    above = code.sub("%line", around)
    top = code.op(f"select i1 {code.op(f'icmp slt i64 {above}, 0')}, i64 {around}, i64 0")
    return above, code.loop(top, code.least(strip.lines + 2 * around, code.sub(strip.height, above)))


def tiles_of_strip(code: Function, strip: Strip, columns: int, block: str, channel: str) -> Iterator[tuple[str, str]]:
    """Of each tile of a block its first pixel in the packed map, and its channel's first number, in one loop."""
    with code.loop(0, strip.tile_rows) as i, code.loop(0, strip.across) as j:
        vector = code.add(code.mul(code.add(code.mul(block, strip.tile_rows), i), strip.across), j)
        start, step = (code.load_int("%places", code.add(code.mul(vector, 2), k), "i64") for k in (0, 1))
        corner = code.mul(code.add(code.mul(i, TILE * columns), code.mul(j, TILE)), code.width)
        yield code.at("%map", corner), code.at("%numbers", code.add(start, code.mul(channel, step)))


def transform_tile(code: Function, corner: str, columns: int, side: int, numbers: str, transform: Transform = _inputs,
                   rows: slice = slice(None)) -> None:  # fmt: skip
    """Numbers of the side x side pixels from `corner` on, in a packed map of so many columns."""
    square = [[code.load(code.at(corner, (i * columns + j) * code.width)) for j in range(side)] for i in range(side)]
    _store_numbers(code, _both_ways(code, square, transform, rows), numbers)


def outputs_of_tile(code: Function, numbers: str, corner: str, columns: int) -> None:
    """The 4x4 outputs that a tile's sums of products make, to a packed map."""
    for i, row in enumerate(_both_ways(code, _load_numbers(code, numbers), _outputs)):
        for j, vector in enumerate(row):
            code.store(vector, code.at(corner, (i * columns + j) * code.width))


def _load_numbers(code: Function, numbers: str) -> list[Vectors]:
    return [
        [code.load(code.at(numbers, code.mul("%step", WINDOW * i + j))) for j in range(WINDOW)] for i in range(WINDOW)
    ]


def _store_numbers(code: Function, square: list[Vectors], numbers: str) -> None:
    for f, vector in enumerate(v for row in square for v in row):
        code.store(vector, code.at(numbers, code.mul("%step", f)))
