"""IR of the weight's gradient of 3x3 convolutions, for maps packed as those of window.py."""

from xnets.layers.direct.ir import Function, Variable
from xnets.layers.direct.lines import add_taps
from xnets.layers.direct.tiles import TAPS, Maps, Strip
from xnets.layers.direct.window import Tiling, corner_of, step_of

UPSTREAM = 12  # vectors of dy that are held beside the sums, where there are registers for them


def weight_gradient(tiling: Tiling, lanes: int) -> Function:
    """gradient (M, 3, 3) of the weight at the edges from one chunk of the inputs, over `blocks` blocks of images.

    x (blocks, per, step, lanes) begins with input 0, though only the chunk's `per` inputs are there; dy (blocks, n_out,
    step, lanes); `tiling` is that of the product that makes y of x. Output o has in the chunk the edges
    bounds[o, chunk] ... bounds[o, chunk + 1], with inputs columns[e]. Added to what is there if not `fresh`.
    """
    code = Function(
        "gradient",
        ["x", "dy", "columns", "bounds", "gradient"],
        ["chunk", "chunks", "per", "n_out", "blocks", "fresh"],
        lanes,
    )
    maps = tiling.maps
    tall = maps.down.equal(max(1, UPSTREAM // tiling.wide)) if lanes == 16 else 1
    x_channel, dy_channel = step_of(tiling.source) * lanes, step_of(tiling.pixels) * lanes
    fresh = code.op("icmp ne i64 %fresh, 0")

    def edge(o: str, e: str) -> None:
        channel = code.load_int("%columns", e)
        # one waits while another is added to; without registers for that, the tap in the middle, which falls off no map
        sums = [[code.zero() for _ in range(2 if lanes == 16 or tap == (1, 1) else 1)] for tap in TAPS]
        with code.loop(0, "%blocks") as block:
            x = code.at("%x", code.mul(code.add(code.mul(block, "%per"), channel), x_channel))
            dy = code.at("%dy", code.mul(code.add(code.mul(block, "%n_out"), o), dy_channel))
            for band, tile in tiling._replace(tall=tall).tiles(code):
                here = code.at(x, corner_of(code, band.source, tile.source, maps.source_width))
                there = code.at(dy, corner_of(code, band.first, tile.first, maps.width))
                _correlate(code, sums, here, there, maps, band, tile)
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


def _correlate(code: Function, sums: list[list[Variable]], x: str, dy: str, maps: Maps, band: Strip,
               tile: Strip) -> None:  # fmt: skip
    """Add dy times the pixel under each tap, for the pixels of a tile."""
    upstream = {
        (i, j): code.load(code.at(dy, (i * maps.width + j) * code.width))
        for i in range(band.length)
        for j in range(tile.length)
    }
    for column in tile.needed:
        for line in band.needed:
            pixel = code.load(code.at(x, (line * maps.source_width + column) * code.width))
            for chains, (di, dj) in zip(sums, TAPS, strict=True):
                place = maps.down.reached(line, di), maps.across.reached(column, dj)
                if place in upstream:
                    s = chains[column % len(chains)]
                    s.set(code.fma(pixel, upstream[place], s.get()))
