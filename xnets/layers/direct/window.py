"""IR of 3x3 convolutions of padding 1 and stride 1 or 2, with one image in each lane of a vector.

`lanes` images are packed to (channels, step_of(pixels), lanes), so that a pixel is a vector, a filter's tap is one
number for all of it, and a loaded pixel serves up to nine taps. A tile of the output stays in registers over all edges.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

from xnets.layers.direct.ir import Function, Variable
from xnets.layers.direct.lines import total
from xnets.layers.direct.tiles import TAPS, Maps, Side, Strip

GAP = 9  # vectors added to a channel whose length is a multiple of `CROWDED`
CROWDED = 32


def step_of(pixels: int) -> int:
    """Vectors from one channel of packed maps to the next.

    Where a map is a multiple of a cache's way, the same pixels of many channels would fall on the same few places in
    that cache; a step a little longer spreads them.
    """
    return pixels + GAP if pixels % CROWDED == 0 else pixels


class Tiling(NamedTuple):
    """Maps, and the lines and columns of the tiles that the product is cut into."""

    maps: Maps
    tall: int
    wide: int

    @property
    def source(self) -> int:
        """Pixels of a source's map."""
        return self.maps.source_height * self.maps.source_width

    @property
    def pixels(self) -> int:
        """Of a product's map."""
        return self.maps.height * self.maps.width

    def tiles(self, code: Function) -> Iterator[tuple[Strip, Strip]]:
        """Lines and columns of each tile, in code: those that are alike are one."""
        for band in self.maps.down.strips(code, self.tall):
            for tile in self.maps.across.strips(code, self.wide):
                yield band, tile


@functools.cache
def under(tiling: Tiling) -> int:
    """Pixels of the source under a tile, at most."""
    sides = ((tiling.maps.down, tiling.tall), (tiling.maps.across, tiling.wide))
    lines, columns = (max(len(strip.needed) for strip, _ in side.cut(most)) for side, most in sides)
    return lines * columns


def pack(pixels: int, step: int, lanes: int) -> Function:
    """x (images, channels, pixels) -> packed (channels, step, lanes), for channels [c0, c1).

    In lanes without an image are zeros, of which `zeros` holds `lanes`.
    """
    code = Function("pack", ["x", "packed", "zeros"], ["c0", "c1", "channels", "images"], lanes)
    alive = [code.op(f"icmp slt i64 {i}, %images") for i in range(lanes)]
    offsets = [code.mul("%channels", i * pixels) for i in range(lanes)]

    def move(source: str, target: str, count: int) -> None:
        """`count` consecutive pixels of every image."""
        rows = []
        for i in range(lanes):
            here = code.pick(alive[i], code.at(source, offsets[i]), "%zeros")
            rows.append(code.load(here) if count == lanes else code.load_first(here, code.mask(count)))
        for i, vector in enumerate(code.transpose(rows)[:count]):
            code.store(vector, code.at(target, i * lanes))

    with code.loop("%c0", "%c1") as c:
        source, target = code.at("%x", code.mul(c, pixels)), code.at("%packed", code.mul(c, step * lanes))
        _in_vectors(code, pixels, lambda p, n: move(code.at(source, p), code.at(target, code.mul(p, lanes)), n))
    return code


def unpack(pixels: int, step: int, lanes: int) -> Function:
    """packed (channels, step, lanes) -> y (images, channels, pixels), for channels [c0, c1).

    `sink`, `lanes` floats, takes what belongs to no image. Apart from the product, since y is then written in order:
    the same rows of many images fall on the same few places of a cache, so that lines which are written tile by tile
    would be fetched anew for each.
    """
    code = Function("unpack", ["packed", "y", "sink"], ["c0", "c1", "channels", "images"], lanes)
    alive = [code.op(f"icmp slt i64 {i}, %images") for i in range(lanes)]
    offsets = [code.mul("%channels", i * pixels) for i in range(lanes)]

    def move(source: str, target: str, count: int) -> None:
        """`count` consecutive pixels of every image."""
        vectors = [code.load(code.at(source, i * lanes)) for i in range(count)]
        vectors += ["zeroinitializer"] * (lanes - count)
        for i, image in enumerate(code.transpose(vectors)):
            code.store_some(image, code.pick(alive[i], code.at(target, offsets[i]), "%sink"), count)

    with code.loop("%c0", "%c1") as c:
        source, target = code.at("%packed", code.mul(c, step * lanes)), code.at("%y", code.mul(c, pixels))
        _in_vectors(code, pixels, lambda p, n: move(code.at(source, code.mul(p, lanes)), code.at(target, p), n))
    return code


def _in_vectors(code: Function, pixels: int, move: Callable[[str | int, int], None]) -> None:
    """move(first, count) of all pixels, as many at a time as a vector has floats."""
    whole = pixels - pixels % code.width
    if whole:
        with code.loop(0, whole, code.width) as first:
            move(first, code.width)
    if whole < pixels:
        move(whole, pixels - whole)


def product(tiling: Tiling, cut: bool, lanes: int) -> Function:
    """Packed y (rows, step, lanes) for rows [r0, r1) of the sparse matrix, from a packed x.

    The columns of the matrix come in `chunks`, of which more than one if `cut`: row r has in chunk c the edges
    bounds[r, c] ... bounds[r, c + 1] with inputs columns[e] and filters weights[9 e]. Sums stay in y from chunk to
    chunk.
    """
    code = Function("product", ["x", "weights", "columns", "bounds", "y"], ["r0", "r1", "chunks"], lanes)
    maps = tiling.maps
    x_channel, y_channel = step_of(tiling.source) * lanes, step_of(tiling.pixels) * lanes

    def work(band: Strip, tile: Strip, r: str, chunk: str | int) -> None:
        edge = code.add(code.mul(r, code.add("%chunks", 1) if cut else 2), chunk)
        start, stop = code.load_int("%bounds", edge), code.load_int("%bounds", code.add(edge, 1))
        corner = code.at(code.at("%y", code.mul(r, y_channel)), corner_of(code, band.first, tile.first, maps.width))
        sums = {place: [code.zero() for _ in range(n)] for place, n in chains(maps, band, tile, lanes).items()}
        places = {(i, j): code.at(corner, (i * maps.width + j) * lanes) for i, j in sums}
        if cut:
            with code.when(code.op(f"icmp sgt i64 {chunk}, 0")):
                for place, s in sums.items():
                    s[0].set(code.load(places[place]))
        source = code.at("%x", corner_of(code, band.source, tile.source, maps.source_width))
        with code.loop(start, stop) as e:
            plane = code.at(source, code.mul(code.load_int("%columns", e), x_channel))
            convolve(code, sums, plane, code.at("%weights", code.mul(e, 9)), maps, band, tile)
        for place, s in sums.items():
            code.store(total(code, s), places[place])

    # a tile is the outermost, so that the part of x under it stays in the cache while all outputs are computed
    for band, tile in tiling.tiles(code):
        if cut:
            with code.loop(0, "%chunks") as chunk, code.loop("%r0", "%r1") as r:
                work(band, tile, r, chunk)
        else:
            with code.loop("%r0", "%r1") as r:
                work(band, tile, r, 0)
    return code


def corner_of(code: Function, line: str | int, column: str | int, width: int) -> str:
    """Where a pixel of a packed map of that width stands, in floats."""
    return code.mul(code.add(code.mul(line, width), column), code.width)


def chains(maps: Maps, band: Strip, tile: Strip, lanes: int) -> dict[tuple[int, int], int]:
    """How many sums each pixel of a tile has: two, as far as registers go, where one would often wait for itself.

    A sum waits four cycles for its last addition, in which eight others may be done.
    """
    added = {
        (i, j): _added(maps.down, band, i) * _added(maps.across, tile, j)
        for i in range(band.length)
        for j in range(tile.length)
    }
    left = (22 if lanes == 16 else 11) - len(added)
    found = dict.fromkeys(added, 1)
    for place in sorted(added, key=lambda place: -added[place])[: max(0, left)]:
        if 8 * added[place] > sum(added.values()):
            found[place] = 2
    return found


def _added(side: Side, strip: Strip, line: int) -> int:
    """How many lines of the source add to one of a strip."""
    return sum(side.reached(source, tap) == line for source in strip.needed for tap in range(3))


def convolve(code: Function, sums: dict[tuple[int, int], list[Variable]], plane: str, filters: str, maps: Maps,
             band: Strip, tile: Strip) -> None:  # fmt: skip
    """Add one input times its filter to the `sums` of a tile; `plane` is the first pixel of the source under it."""
    taps = {(di, dj): code.broadcast(code.at(filters, 3 * di + dj)) for di, dj in TAPS}
    for i in band.needed:
        for j in tile.needed:
            pixel = code.load(code.at(plane, (i * maps.source_width + j) * code.width))
            for (di, dj), tap in taps.items():
                place = maps.down.reached(i, di), maps.across.reached(j, dj)
                if place in sums:
                    s = sums[place][(di + dj) % len(sums[place])]
                    s.set(code.fma(pixel, tap, s.get()))


def whole_blocks(lanes: int) -> Function:
    """`pack`, `product` and `unpack` one after the other, for blocks [b0, b1) of `lanes` images each.

    x and y have x_image and y_image floats for each of `images`. zeros and sink are `lanes` floats. All threads share
    the sink, which nobody reads.
    """
    code = Function(
        "whole_blocks",
        ["pack", "product", "unpack", "x", "y", "filters", "columns", "bounds", "packed", "sums", "zeros", "sink"],
        ["b0", "b1", "images", "channels", "rows", "x_image", "y_image", "chunks"],
        lanes,
    )
    with code.loop("%b0", "%b1") as block:
        first = code.mul(block, lanes)
        now = f"i64 {code.least(lanes, code.sub('%images', first))}"
        x, y = (code.at(f"%{m}", code.mul(first, f"%{m}_image")) for m in "xy")
        code.emit(f"call void %pack(ptr {x}, ptr %packed, ptr %zeros, i64 0, i64 %channels, i64 %channels, {now})")
        matrix = "ptr %filters, ptr %columns, ptr %bounds"
        code.emit(f"call void %product(ptr %packed, {matrix}, ptr %sums, i64 0, i64 %rows, i64 %chunks)")
        code.emit(f"call void %unpack(ptr %sums, ptr {y}, ptr %sink, i64 0, i64 %rows, i64 %rows, {now})")
    return code
