"""IR of 3x3 convolutions of stride 1 and padding 1, with one image in each lane of a vector.

`lanes` images are packed to (channels, height, width, lanes), so that a pixel is a vector, a filter's tap is one number
for all of it, and a loaded pixel serves up to nine taps. A tile of the output stays in registers over all edges.

Small maps fit into one tile: then they are packed without a border, and taps that fall off the map are left out.
"""

from typing import NamedTuple

from xnets.layers.direct.ir import Function, Variable
from xnets.layers.direct.pointwise import add_to

TAPS = [(i, j) for i in range(3) for j in range(3)]


class Map(NamedTuple):
    """An image's size, the tiles it is cut into, and how it is packed."""

    height: int
    width: int
    tall: int  # rows of a tile
    wide: int

    @property
    def whole(self) -> bool:
        """Whether one tile is the image."""
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
    def padded(self) -> tuple[int, int]:
        """Height and width of a packed input: with a border, and up to whole tiles."""
        if self.whole:
            return self.height, self.width
        return self.bands * self.tall + 2, self.tiles * self.wide + 2

    @property
    def columns(self) -> int:
        """Width of whole tiles."""
        return self.tiles * self.wide


def tiled(height: int, width: int, registers: int) -> Map:
    """The tiles that cost least: multiply-adds, some of them beyond the map, and the loads that are not hidden."""
    if height * width <= registers:
        return Map(height, width, height, width)

    def cost(shape: Map) -> float:
        loads = (shape.tall + 2) * (shape.wide + 2) + 9
        runs = 1 if shape.wide == width else shape.tall  # each is transposed on its way to y
        return shape.bands * shape.tiles * (9 * shape.tall * shape.wide + loads / 2 + 3 * runs + 4)

    sizes = [(t, w) for t in range(1, min(height, 4) + 1) for w in range(1, width + 1) if t * w <= registers]
    return min((Map(height, width, *size) for size in sizes if size != (height, width)), key=cost)


def pack(height: int, width: int, top: int, left: int, tall: int, wide: int, lanes: int) -> Function:
    """x (images, channels, height, width) -> packed (channels, tall, wide, lanes), for channels [c0, c1).

    The map begins at (top, left); around it, and in lanes without an image, are zeros. `zeros` holds `lanes` of them.
    """
    code = Function("pack", ["x", "packed", "zeros"], ["c0", "c1", "channels", "images"], lanes)
    alive = [code.op(f"icmp slt i64 {i}, %images") for i in range(lanes)]
    pixels = height * width

    def clear(start: str, cells: int) -> None:
        with code.loop(0, cells * lanes, lanes) as i:
            code.store("zeroinitializer", code.at(start, i))

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
        plane = code.at("%packed", code.mul(c, tall * wide * lanes))
        clear(plane, top * wide)
        clear(code.at(plane, (top + height) * wide * lanes), (tall - top - height) * wide)
        if wide > width:
            with code.loop(top, top + height) as r:
                row = code.at(plane, code.mul(r, wide * lanes))
                clear(row, left)
                clear(code.at(row, (left + width) * lanes), wide - left - width)
        if pixels <= 256:  # unrolled: then short rows share the blocks that are transposed
            for first in range(0, pixels, lanes):
                count = min(lanes, pixels - first)
                cells = [divmod(p, width) for p in range(first, first + count)]
                places = [code.at(plane, ((top + i) * wide + left + j) * lanes) for i, j in cells]
                move(code.at(source, first), count, places)
        else:
            with code.loop(0, height) as r:
                row = code.at(plane, code.mul(code.add(code.mul(code.add(r, top), wide), left), lanes))
                start = code.at(source, code.mul(r, width))
                for first in range(0, width, lanes):
                    count = min(lanes, width - first)
                    places = [code.at(row, (first + i) * lanes) for i in range(count)]
                    move(code.at(start, first), count, places)
    return code


def product(height: int, width: int, tall: int, wide: int, mirrored: bool, lanes: int) -> Function:
    """y (images, rows, height, width) for rows [r0, r1) of the sparse matrix, from a packed x.

    Row r has the edges pointer[r] ... pointer[r + 1], with inputs columns[e] and filters weights[9 e]; the filters are
    turned by 180 degrees if `mirrored`. `sink` takes what belongs to no image, `lanes` floats.
    """
    code = Function(
        "product", ["x", "weights", "columns", "pointer", "y", "sink"], ["r0", "r1", "rows", "images"], lanes
    )  # fmt: skip
    shape = Map(height, width, tall, wide)
    alive = [code.op(f"icmp slt i64 {i}, %images") for i in range(lanes)]

    def unpack(vectors: list[str], target: str, count: str | int) -> None:
        """The first `count` of consecutive pixels of all images to y, `target` being the first image's."""
        for first in range(0, len(vectors), lanes):
            some = vectors[first : first + lanes]
            left = count - first if isinstance(count, int) else code.sub(count, first)
            for i, image in enumerate(code.transpose(some + ["zeroinitializer"] * (lanes - len(some)))):
                image_target = code.at(target, code.add(code.mul("%rows", i * height * width), first))
                place = code.pick(alive[i], image_target, "%sink")
                if isinstance(left, int) and left >= lanes:
                    code.store(image, place)
                else:
                    code.store_first(image, place, code.mask(left))

    # a tile is the outermost, so that the part of x under it stays in the cache while all outputs are computed
    with code.loop(0, shape.bands) as b, code.loop(0, shape.tiles) as t, code.loop("%r0", "%r1") as r:
        corner = code.add(code.mul(b, tall * shape.padded[1] * lanes), code.mul(t, wide * lanes))
        start, stop = code.load_int("%pointer", r), code.load_int("%pointer", code.add(r, 1))
        sums = [s.get() for s in _tile(code, shape, code.at("%x", corner), start, stop, mirrored)]
        top, left = code.mul(b, tall), code.mul(t, wide)
        pixel = code.add(code.mul(code.add(code.mul(r, height), top), width), left)
        below, beside = code.sub(height, top), code.sub(width, left)
        if wide == width:  # then the rows of a tile are consecutive
            count = tall * width if height % tall == 0 else code.least(tall * width, code.mul(below, width))
            unpack(sums, code.at("%y", pixel), count)
        for i in range(tall if wide < width else 0):
            count = wide if width % wide == 0 else code.least(wide, beside)
            with code.when(code.op(f"icmp slt i64 {i}, {below}")):
                unpack(sums[i * wide : (i + 1) * wide], code.at("%y", code.add(pixel, i * width)), count)
    return code


def _tile(code: Function, shape: Map, corner: str, start: str, stop: str, mirrored: bool) -> list[Variable]:
    """The sums of one tile over edges start ... stop; `corner` is its first pixel, one up and left with a border."""
    tall, wide = shape.padded
    sums = [code.zero() for _ in range(shape.tall * shape.wide)]
    border = 0 if shape.whole else 1
    with code.loop(start, stop) as e:
        plane = code.at(corner, code.mul(code.load_int("%columns", e), tall * wide * code.width))
        filters = code.at("%weights", code.mul(e, 9))
        taps = [code.broadcast(code.at(filters, 8 - t if mirrored else t)) for t in range(9)]
        for i in range(shape.tall + 2 * border):
            for j in range(shape.wide + 2 * border):
                pixel = code.load(code.at(plane, (i * wide + j) * code.width))
                for (di, dj), tap in zip(TAPS, taps, strict=True):
                    row, column = i - di + 1 - border, j - dj + 1 - border
                    if 0 <= row < shape.tall and 0 <= column < shape.wide:
                        s = sums[row * shape.wide + column]
                        s.set(code.fma(pixel, tap, s.get()))
    return sums


def weight_gradient(height: int, width: int, tall: int, wide: int, lanes: int) -> Function:
    """gradient (n_out, degree, 3, 3) of the weight, for outputs [o0, o1), over `blocks` packed blocks of images.

    x (blocks, n_in, *padded, lanes), dy (blocks, n_out, height, columns, lanes); added to what is there if not `fresh`.
    """
    code = Function(
        "gradient", ["x", "dy", "index", "gradient"], ["o0", "o1", "n_in", "n_out", "degree", "blocks", "fresh"], lanes
    )
    shape = Map(height, width, tall, wide)
    high, across = shape.padded
    fresh = code.op("icmp ne i64 %fresh, 0")
    with code.loop("%o0", "%o1") as o, code.loop(0, "%degree") as d:
        edge = code.add(code.mul(o, "%degree"), d)
        source = code.mul(code.load_int("%index", edge), high * across * lanes)
        sums = [code.zero() for _ in TAPS]
        with code.loop(0, "%blocks") as block:
            x = code.at("%x", code.add(code.mul(code.mul(block, "%n_in"), high * across * lanes), source))
            plane = code.add(code.mul(block, "%n_out"), o)
            dy = code.at("%dy", code.mul(plane, height * shape.columns * lanes))
            if shape.whole:
                _correlate(code, sums, x, dy, height, width, across, border=False)
            else:
                with code.loop(0, height) as r, code.loop(0, shape.tiles) as t:
                    left = code.mul(t, wide * lanes)
                    here = code.at(x, code.add(code.mul(r, across * lanes), left))
                    there = code.at(dy, code.add(code.mul(r, shape.columns * lanes), left))
                    _correlate(code, sums, here, there, 1, wide, across, border=True)
        _add_taps(code, sums, code.at("%gradient", code.mul(edge, 9)), fresh)
    return code


def _correlate(code: Function, sums: list[Variable], x: str, dy: str, rows: int, columns: int, across: int,
               border: bool) -> None:  # fmt: skip
    """Add dy times the pixel under each tap, for rows x columns pixels."""
    loaded: dict[tuple[int, int], str] = {}
    for i in range(rows):
        for j in range(columns):
            upstream = code.load(code.at(dy, (i * columns + j) * code.width))
            for s, (di, dj) in zip(sums, TAPS, strict=True):
                row, column = (i + di, j + dj) if border else (i + di - 1, j + dj - 1)
                if not border and not (0 <= row < rows and 0 <= column < columns):
                    continue
                if (row, column) not in loaded:
                    loaded[row, column] = code.load(code.at(x, (row * across + column) * code.width))
                s.set(code.fma(loaded[row, column], upstream, s.get()))


def _add_taps(code: Function, sums: list[Variable], target: str, fresh: str) -> None:
    """Nine sums over their lanes, to nine consecutive floats."""
    for first in range(0, 9, code.width):
        some = [s.get() for s in sums[first : first + code.width]]
        add_to(code, code.sums(some), code.at(target, first), code.mask(len(some)), fresh)
