"""IR of the weight's gradient of 3x3 convolutions, for maps packed as those of window.py."""

from xnets.layers.direct.ir import Function, Variable
from xnets.layers.direct.lines import add_taps
from xnets.layers.direct.window import TAPS, Map


def weight_gradient(shape: Map, lanes: int) -> Function:
    """gradient (M, 3, 3) of the weight at the edges from one chunk of the inputs, over `blocks` blocks of images.

    x (blocks, per, shape.plane, lanes) begins with input 0, though only the chunk's `per` inputs are there; dy (blocks,
    n_out, shape.upstream, lanes); `shape` is that of the product that makes y of x. Output o has in the chunk the edges
    bounds[o, chunk] ... bounds[o, chunk + 1], with inputs columns[e]. Added to what is there if not `fresh`.
    """
    code = Function(
        "gradient",
        ["x", "dy", "columns", "bounds", "gradient"],
        ["chunk", "chunks", "per", "n_out", "blocks", "fresh"],
        lanes,
    )
    height, wide, across = shape.height, shape.wide, shape.padded[1]
    chains = 2 if lanes == 16 else 1  # sums of each tap, where there are registers: one waits while another is added to
    fresh = code.op("icmp ne i64 %fresh, 0")

    def edge(o: str, e: str) -> None:
        source = code.mul(code.load_int("%columns", e), shape.plane * lanes)
        sums = [[code.zero() for _ in TAPS] for _ in range(chains)]
        with code.loop(0, "%blocks") as block:
            x = code.at("%x", code.add(code.mul(code.mul(block, "%per"), shape.plane * lanes), source))
            plane = code.add(code.mul(block, "%n_out"), o)
            dy = code.at("%dy", code.mul(plane, shape.upstream * lanes))
            if shape.whole:
                _correlate(code, sums, x, dy, shape, height)
            else:
                with code.loop(0, height) as r, code.loop(0, shape.tiles) as t:
                    here = code.add(code.mul(r, shape.step * across * lanes), code.mul(t, shape.step * wide * lanes))
                    there = code.add(code.mul(r, shape.columns * lanes), code.mul(t, wide * lanes))
                    _correlate(code, sums, code.at(x, here), code.at(dy, there), shape, 1)
        add_taps(code, sums, code.at("%gradient", code.mul(e, 9)), fresh)

    with code.loop(0, "%n_out") as o:
        place = code.add(code.mul(o, code.add("%chunks", 1)), "%chunk")
        with code.loop(code.load_int("%bounds", place), code.load_int("%bounds", code.add(place, 1))) as e:
            edge(o, e)
    return code


def chunks_of_gradient(plane: int, lanes: int) -> Function:
    """`pack` and `weight_gradient` one after the other for chunks [c0, c1) of `per` inputs each.

    x has x_image floats for each of `images`, of which `blocks` blocks from image `first` on are taken; a packed
    channel takes `plane` vectors. packed (blocks, per, plane, lanes) is scratch, which stays in the cache.
    """
    code = Function(
        "chunks_of_gradient",
        ["pack", "gradient", "x", "dy", "columns", "bounds", "target", "packed", "zeros"],
        ["c0", "c1", "chunks", "per", "n_in", "n_out", "x_image", "first", "images", "blocks", "fresh"],
        lanes,
    )
    channel = plane * lanes
    with code.loop("%c0", "%c1") as c:
        top = code.mul(c, "%per")
        bottom = code.least(code.add(top, "%per"), "%n_in")
        packed = code.at("%packed", code.sub(0, code.mul(top, channel)))
        with code.loop(0, "%blocks") as b:
            image = code.add("%first", code.mul(b, lanes))
            now = code.least(lanes, code.sub("%images", image))
            x = code.at("%x", code.mul(image, "%x_image"))
            into = code.at(packed, code.mul(b, code.mul("%per", channel)))
            sizes = f"i64 {top}, i64 {bottom}, i64 %n_in, i64 {now}"
            code.emit(f"call void %pack(ptr {x}, ptr {into}, ptr %zeros, {sizes})")
        given = f"ptr {packed}, ptr %dy, ptr %columns, ptr %bounds, ptr %target"
        sizes = f"i64 {c}, i64 %chunks, i64 %per, i64 %n_out, i64 %blocks, i64 %fresh"
        code.emit(f"call void %gradient({given}, {sizes})")
    return code


def _correlate(code: Function, sums: list[list[Variable]], x: str, dy: str, shape: Map, rows: int) -> None:
    """Add dy times the pixel under each tap, for `rows` rows of a tile."""
    loaded: dict[tuple[int, int], str] = {}
    high, across = shape.padded
    for i in range(rows):
        for j in range(shape.wide):
            upstream = code.load(code.at(dy, (i * shape.wide + j) * code.width))
            for s, (di, dj) in zip(sums[j % len(sums)], TAPS, strict=True):
                row = shape.step * i + di - 1 + shape.border
                column = shape.step * j + dj - 1 + shape.border
                if not 0 <= row < high or not 0 <= column < across:  # never so with a border
                    continue
                if (row, column) not in loaded:
                    loaded[row, column] = code.load(code.at(x, (row * across + column) * code.width))
                s.set(code.fma(loaded[row, column], upstream, s.get()))
