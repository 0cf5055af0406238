"""IR of 3x3 convolutions of padding 1 and stride 1 or 2, with one image in each lane of a vector.

`lanes` images are packed to (channels, height, width, lanes), so that a pixel is a vector, a filter's tap is one number
for all of it, and a loaded pixel serves up to nine taps. A tile of the output stays in registers over all edges.

Small maps fit into one tile: then they are packed without a border, and taps that fall off the map are left out.
"""

from typing import NamedTuple

from xnets.layers.direct.ir import Function, Variable
from xnets.layers.direct.lines import reached

TAPS = [(i, j) for i in range(3) for j in range(3)]
SPREAD = -2
GAP = 9  # vectors added to a channel whose length is a multiple of `CROWDED`
CROWDED = 32
UNROLLED = 256  # pixels of a map up to which the code to move them is written out, pixel by pixel


def step_of(height: int, width: int) -> int:
    """Vectors from one channel of packed maps to the next.

    Where a map is a multiple of a cache's way, the same pixels of many channels would fall on the same few places in
    that cache; a step a little longer spreads them.
    """
    pixels = height * width
    return pixels + GAP if pixels % CROWDED == 0 else pixels


class Map(NamedTuple):
    """A product's map, the tiles it is cut into, and how its source, the map it is computed from, is packed.

    step is the stride: 1 where the source is of the same size, 2 where it is twice as tall and wide (rounded to either
    side), and SPREAD for the transposed product of stride 2, whose source is half as tall and wide (rounded up).
    """

    height: int
    width: int
    tall: int  # rows of a tile
    wide: int
    step: int = 1
    over: tuple[int, int] = (0, 0)  # the source's size, if it is not this one's

    @property
    def source(self) -> tuple[int, int]:
        """The source's size."""
        return (self.height, self.width) if self.step == 1 else self.over

    @property
    def whole(self) -> bool:
        """Whether one tile is the map."""
        return (self.tall, self.wide) == (self.height, self.width)

    @property
    def bands(self) -> int:
        """Rows of tiles."""
        return -(-self.height // self.tall)

    @property
    def tiles(self) -> int:
        """Tiles in a band."""
        return -(-self.width // self.wide)

    @property
    def border(self) -> int:
        """Rows above a packed source, and columns left of it."""
        return 0 if self.whole or self.step == SPREAD else 1

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width of a packed source: with a border, and up to whole tiles."""
        return self.source if self.whole else (self._under(self.bands * self.tall), self._under(self.columns))

    @property
    def reach(self) -> tuple[int, int]:
        """Rows and columns of the source that a tile needs."""
        return self.source if self.whole else (self._under(self.tall), self._under(self.wide))

    @property
    def columns(self) -> int:
        """Width of whole tiles."""
        return self.tiles * self.wide

    @property
    def plane(self) -> int:
        """Vectors from one channel of a packed source to the next."""
        return step_of(*self.padded)

    @property
    def upstream(self) -> int:
        """Vectors from one channel of the packed gradient of the product to the next."""
        return step_of(self.height, self.columns)

    @property
    def sums(self) -> int:
        """Vectors from one channel of a packed product, which is of whole tiles, to the next."""
        return step_of(self.bands * self.tall, self.columns)

    def _under(self, length: int) -> int:
        return {1: length + 2, 2: 2 * length + 1, SPREAD: length // 2 + 1}[self.step]

    def corner(self, band: int, tile: int) -> tuple[int, int]:
        """Where in the packed source the tile begins."""
        return {1: (band, tile), 2: (2 * band, 2 * tile), SPREAD: (band // 2, tile // 2)}[self.step]

    def target(self, pixel: int, tap: int) -> int | None:
        """The row (or column) of the tile that a row of the source reaches through a tap, None if none."""
        return reached(pixel - self.border, tap, abs(self.step), self.step == SPREAD)


def tiled(height: int, width: int, registers: int, step: int = 1, over: tuple[int, int] = (0, 0)) -> Map:
    """The tiles that cost least: multiply-adds, some of them beyond the map, and the loads that are not hidden."""
    if height * width <= registers:
        return Map(height, width, height, width, step, over)

    def cost(shape: Map) -> float:
        loads = shape.reach[0] * shape.reach[1] + 9
        sums = 9 * shape.tall * shape.wide / (4 if step == SPREAD else 1)
        # the second-level cache gives less than one vector for two multiply-adds
        return shape.bands * shape.tiles * (max(sums + loads / 2, 1.8 * loads) + 2 * shape.tall + 4)

    even = 2 if step == SPREAD else 1  # a pixel of the source is spread over two rows and columns
    rows = range(even, even * -(-min(height, 4) // even) + 1, even)
    columns = range(even, even * -(-width // even) + 1, even)
    maps = [Map(height, width, t, w, step, over) for t in rows for w in columns if t * w <= registers]
    return min((shape for shape in maps if not shape.whole), key=cost)


def pack(height: int, width: int, top: int, left: int, tall: int, wide: int, lanes: int) -> Function:
    """x (images, channels, height, width) -> packed (channels, step_of(tall, wide), lanes), for channels [c0, c1).

    The map stands at (top, left); around it, and in lanes without an image, are zeros, of which `zeros` holds `lanes`.
    """
    code = Function("pack", ["x", "packed", "zeros"], ["c0", "c1", "channels", "images"], lanes)
    alive = [code.op(f"icmp slt i64 {i}, %images") for i in range(lanes)]
    pixels = height * width

    def clear(start: str, cells: int) -> None:
        with code.loop(0, cells * lanes, lanes) as i:
            code.store("zeroinitializer", code.at(start, i))

    def clear_sides(row: str) -> None:
        clear(row, left)
        clear(code.at(row, (left + width) * lanes), wide - left - width)

    def move(source: str, count: int, places: list[str]) -> None:
        """`count` pixels in a row, of every image."""
        rows = []
        for i in range(lanes):
            here = code.pick(alive[i], code.at(source, code.mul("%channels", i * pixels)), "%zeros")
            rows.append(code.load(here) if count == lanes else code.load_first(here, code.mask(count)))
        for vector, place in zip(code.transpose(rows), places, strict=False):
            code.store(vector, place)

    with code.loop("%c0", "%c1") as c:
        source = code.at("%x", code.mul(c, pixels))
        plane = code.at("%packed", code.mul(c, step_of(tall, wide) * lanes))
        if pixels <= UNROLLED:  # then short rows share the blocks that are transposed
            clear(plane, top * wide)
            clear(code.at(plane, (top + height) * wide * lanes), (tall - top - height) * wide)
            if wide > width:
                with code.loop(top, top + height) as i:
                    clear_sides(code.at(plane, code.mul(i, wide * lanes)))
            for start in range(0, pixels, lanes):
                count = min(lanes, pixels - start)
                cells = [divmod(p, width) for p in range(start, start + count)]
                places = [code.at(plane, ((top + i) * wide + left + j) * lanes) for i, j in cells]
                move(code.at(source, start), count, places)
        else:
            with code.loop(0, tall) as i:
                row = code.at(plane, code.mul(i, wide * lanes))
                r = code.sub(i, top)
                inside = code.op(f"icmp ult i64 {r}, {height}")
                with code.when(code.op(f"xor i1 {inside}, true")):
                    clear(row, wide)
                with code.when(inside):
                    clear_sides(row)
                    start = code.at(source, code.mul(r, width))
                    for column in range(0, width, lanes):
                        count = min(lanes, width - column)
                        places = [code.at(row, (left + column + j) * lanes) for j in range(count)]
                        move(code.at(start, column), count, places)
    return code


def product(shape: Map, mirrored: bool, cut: bool, lanes: int) -> Function:
    """Packed y (rows, shape.sums, lanes) for rows [r0, r1) of the sparse matrix, from a packed x.

    The columns of the matrix come in `chunks`, of which more than one if `cut`: row r has in chunk c the edges
    bounds[r, c] ... bounds[r, c + 1] with inputs columns[e] and filters weights[9 e]; the filters are turned by 180
    degrees if `mirrored`. Sums stay in y from chunk to chunk.
    """
    code = Function("product", ["x", "weights", "columns", "bounds", "y"], ["r0", "r1", "chunks"], lanes)
    tall, wide = shape.tall, shape.wide

    def work(b: str, t: str, r: str, chunk: str | int) -> None:
        down, right = shape.corner(tall, wide)
        corner = code.add(code.mul(b, down * shape.padded[1] * lanes), code.mul(t, right * lanes))
        edge = code.add(code.mul(r, code.add("%chunks", 1) if cut else 2), chunk)
        start, stop = code.load_int("%bounds", edge), code.load_int("%bounds", code.add(edge, 1))
        first = code.add(code.mul(b, tall * shape.columns), code.mul(t, wide))
        first = code.at("%y", code.mul(code.add(code.mul(r, shape.sums), first), lanes))
        places = [code.at(first, (i * shape.columns + j) * lanes) for i in range(tall) for j in range(wide)]
        sums = [code.zero() for _ in places]
        if cut:
            with code.when(code.op(f"icmp sgt i64 {chunk}, 0")):
                for s, place in zip(sums, places, strict=True):
                    s.set(code.load(place))
        _tile(code, shape, code.at("%x", corner), start, stop, mirrored, sums)
        for s, place in zip(sums, places, strict=True):
            code.store(s.get(), place)

    # a tile is the outermost, so that the part of x under it stays in the cache while all outputs are computed
    with code.loop(0, shape.bands) as b, code.loop(0, shape.tiles) as t:
        if cut:
            with code.loop(0, "%chunks") as chunk, code.loop("%r0", "%r1") as r:
                work(b, t, r, chunk)
        else:
            with code.loop("%r0", "%r1") as r:
                work(b, t, r, 0)
    return code


def unpack(shape: Map, lanes: int) -> Function:
    """What `product` makes -> y (images, rows, height, width), for rows [r0, r1).

    `sink`, `lanes` floats, takes what belongs to no image. Apart from the product, since y is then written in order:
    the same rows of many images fall on the same few places of a cache, so that lines which are written tile by tile
    would be fetched anew for each.
    """
    code = Function("unpack", ["packed", "y", "sink"], ["r0", "r1", "rows", "images"], lanes)
    alive = [code.op(f"icmp slt i64 {i}, %images") for i in range(lanes)]
    height, width = shape.height, shape.width
    pixels = height * width
    image_of_y = code.mul("%rows", pixels)

    def move(places: list[str], target: str) -> None:
        """Pixels that are consecutive in y, of every image."""
        vectors = [code.load(place) for place in places] + ["zeroinitializer"] * (lanes - len(places))
        for i, image in enumerate(code.transpose(vectors)):
            here = code.at(target, code.mul(image_of_y, i))
            code.store_some(image, code.pick(alive[i], here, "%sink"), len(places))

    with code.loop("%r0", "%r1") as r:
        plane = code.at("%packed", code.mul(r, shape.sums * lanes))
        target = code.at("%y", code.mul(r, pixels))
        if pixels <= UNROLLED:  # then short rows share the blocks that are transposed
            for first in range(0, pixels, lanes):
                cells = [divmod(p, width) for p in range(first, min(first + lanes, pixels))]
                move([code.at(plane, (i * shape.columns + j) * lanes) for i, j in cells], code.at(target, first))
        else:
            with code.loop(0, height) as i:
                row, start = code.at(plane, code.mul(i, shape.columns * lanes)), code.at(target, code.mul(i, width))
                for first in range(0, width, lanes):
                    columns = range(first, min(first + lanes, width))
                    move([code.at(row, j * lanes) for j in columns], code.at(start, first))
    return code


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


def _tile(code: Function, shape: Map, corner: str, start: str, stop: str, mirrored: bool,
          sums: list[Variable]) -> None:  # fmt: skip
    """The sums of one tile over edges start ... stop, added to `sums`; `corner` is the first pixel of its source."""
    wide = shape.padded[1]
    with code.loop(start, stop) as e:
        plane = code.at(corner, code.mul(code.load_int("%columns", e), shape.plane * code.width))
        filters = code.at("%weights", code.mul(e, 9))
        taps = [code.broadcast(code.at(filters, 8 - t if mirrored else t)) for t in range(9)]
        for i in range(shape.reach[0]):
            for j in range(shape.reach[1]):
                pixel = code.load(code.at(plane, (i * wide + j) * code.width))
                for (di, dj), tap in zip(TAPS, taps, strict=True):
                    row, column = shape.target(i, di), shape.target(j, dj)
                    if row is None or column is None:
                        continue
                    if 0 <= row < shape.tall and 0 <= column < shape.wide:
                        s = sums[row * shape.wide + column]
                        s.set(code.fma(pixel, tap, s.get()))
