"""IR of 3x3 convolutions of padding 1 and stride 1 or 2 on maps as they lie.

Nothing is packed: a vector holds pixels of one line. A tile of the product, some lines tall and at most two vectors
wide, stays in registers over all edges. A line is loaded once for each column of the filter, that many pixels to the
left or right, and each time serves up to three lines of the product; what would lie left or right of the map is masked,
what would lie above or below is left out.
"""

import functools

from xnets.layers.direct.ir import Function, Variable
from xnets.layers.direct.pointwise import add_to
from xnets.layers.direct.tiles import Maps, Strip

WRITTEN_OUT = 16  # lines at most that code is written out for


def product(maps: Maps, registers: int, lanes: int) -> Function:
    """y (N, rows, ...) for images [n0, n1) and rows [r0, r1) of the sparse matrix, from x (N, channels, ...).

    Row r has the edges bounds[r, 0] ... bounds[r, 1] with inputs columns[e] and filters weights[9 e]. At most
    `registers` vectors are summed at a time.
    """
    pointers, integers = ["x", "weights", "columns", "bounds", "y"], ["n0", "n1", "r0", "r1", "channels", "rows"]
    code = Function("product", pointers, integers, lanes)
    down, height, width, turns, strides = maps.down, maps.source_height, maps.source_width, maps.turns, maps.strides
    vectors = min(2, -(-maps.units // lanes))  # of units; wider tiles read less for each sum than taller ones do
    each = registers // vectors  # sums of each
    tall = down.equal(each // turns)
    chains = 2 if 2 * tall * turns <= each else 1  # one waits while another is added to
    across, channel, row = vectors * lanes, height * width, maps.height * maps.width
    fetched = code.op(f"sdiv i64 {code.sub(code.add('%channels', '%rows'), 1)}, %rows")

    def fetch(x: str, y: str, r: str, strip: Strip) -> None:
        """Call into the cache what is read next of some channels of x, and where a row of y will be written."""
        begin = code.mul(r, fetched)
        with code.loop(begin, code.least(code.add(begin, fetched), "%channels")) as c:
            _fetch(code, code.at(x, code.mul(c, channel)), len(strip.needed), across * strides, width)
        _fetch(code, code.at(y, code.mul(code.add(r, 2), row)), strip.length, across * turns, maps.width, write=True)

    def compute(x: str, y: str, r: str, strip: Strip, left: int) -> None:
        # the last vector of a line ends with it, even if it begins with columns that the one before has too
        most = max(0, maps.units - lanes)
        starts = [min(c, most) for c in range(left, min(left + across, maps.units), lanes)]
        places = [(i, c, turn) for i in range(strip.length) for c in starts for turn in range(turns)]
        sums = {place: [code.zero() for _ in range(chains)] for place in places}
        first, last = (code.load_int("%bounds", code.add(code.mul(r, 2), i)) for i in (0, 1))
        with code.loop(first, last) as e:
            source = code.at(x, code.mul(code.load_int("%columns", e), channel))
            filters = code.at("%weights", code.mul(e, 9))
            for shift, columns in maps.shifts().items():
                taps = {(di, dj): code.broadcast(code.at(filters, 3 * di + dj)) for di in range(3) for dj in columns}
                for line in strip.needed:
                    room = _room(strip.needed, line, width)
                    for c in starts:
                        place, count = code.at(source, line * width), maps.units - c
                        pixels = _pixels(code, place, strides * c + shift, width, room, strides, count)
                        for (di, dj), tap in taps.items():
                            place = down.reached(line, di), c, maps.turn(dj)
                            if place in sums:
                                s = sums[place][(di + dj) % chains]
                                s.set(code.fma(pixels, tap, s.get()))
        target = code.at(y, code.mul(r, row))
        for i in range(strip.length):
            for c in starts:
                found = [total(code, sums[i, c, turn]) for turn in range(turns)]
                _store(code, found, code.at(target, i * maps.width), c * turns, maps.width)

    with code.loop("%n0", "%n1") as n:
        x = code.at("%x", code.mul(code.mul(n, "%channels"), channel))
        y = code.at("%y", code.mul(code.mul(n, "%rows"), row))
        # a tile is the outermost, so that the part of x under it stays in the cache while all outputs are computed
        for strip in down.strips(code, tall):
            here, there = code.at(x, code.mul(strip.source, width)), code.at(y, code.mul(strip.first, maps.width))
            for left in range(0, maps.units, across):
                # where the next tile begins: to the right, in the next strip or in the next image
                after: str | int = strides * (left + across)
                if left + across >= maps.units and strip.first == maps.height - strip.length:
                    after = code.mul(code.sub(code.mul("%channels", height), strip.source), width)
                elif left + across >= maps.units:
                    after = down.under(tall) * width
                with code.loop("%r0", "%r1") as r:
                    fetch(code.at(here, after), code.at(there, left * turns), r, strip)
                    compute(here, there, r, strip, left)
    return code


def weight_gradient(maps: Maps, chains: int, lone: bool, lanes: int) -> Function:
    """gradient (M, 3, 3) of the weight at the edges of outputs [o0, o1), from x (N, n_in, ...) and dy (N, n_out, ...).

    Output o has in chunk c of the inputs the edges bounds[o, c] ... bounds[o, c + 1], with inputs columns[e]. Chunks,
    and `together` images, are taken one after the other, so that they stay in the cache. Each tap has several `chains`
    of sums where there are registers: one waits while another is added to. `lone`: an output has one edge, for which
    what it reads of x is called into the cache too. There are `edges` edges.
    """
    pointers = ["x", "dy", "columns", "bounds", "gradient"]
    integers = ["o0", "o1", "images", "together", "chunks", "n_in", "n_out", "edges"]
    code = Function("gradient", pointers, integers, lanes)
    down, height, width, channel = maps.down, maps.height, maps.width, maps.source_height * maps.source_width
    pixels = height * width

    def fetch(first: str, last: str, image: str, channels: str, c: str, pixels: int) -> None:
        """Call a channel of these images into the cache."""
        with code.loop(first, last) as n:
            plane = code.at(image, code.mul(code.add(code.mul(n, channels), c), pixels))
            with code.loop(0, pixels, 16) as i:
                code.prefetch(code.at(plane, i), 1)

    def correlate(sums: list[list[Variable]], x: str, dy: str, strip: Strip) -> None:
        for left in range(0, width, lanes):
            upstream: dict[int, str] = {}
            for line in strip.needed:
                served = {
                    di: down.reached(line, di) for di in range(3) if down.reached(line, di) in range(strip.length)
                }
                for i in served.values():
                    if i not in upstream:
                        room = _room(range(strip.length), i, width)
                        upstream[i] = _pixels(code, code.at(dy, i * width), left, width, room)
                room = _room(strip.needed, line, maps.source_width)
                for dj in range(3):
                    # beyond dy's line are zeros, times which a pixel that is no number would not be zero
                    place, column = code.at(x, line * maps.source_width), maps.step * left + dj - 1
                    pixels = _pixels(code, place, column, maps.source_width, room, maps.step)
                    pixels = code.only(pixels, inside(code, left, width))
                    for di, i in served.items():
                        s = sums[3 * di + dj][line % chains]
                        s.set(code.fma(pixels, upstream[i], s.get()))

    with code.loop(0, "%images", "%together") as first, code.loop(0, "%chunks") as chunk:
        last = code.least(code.add(first, "%together"), "%images")
        fresh = code.op(f"icmp eq i64 {first}, 0")
        with code.loop("%o0", "%o1") as o:
            fetch(first, last, "%dy", "%n_out", code.add(o, 1), pixels)
            if lone:
                after = code.least(code.add(o, 1), code.sub("%edges", 1))
                fetch(first, last, "%x", "%n_in", code.load_int("%columns", after), channel)
            place = code.add(code.mul(o, code.add("%chunks", 1)), chunk)
            with code.loop(code.load_int("%bounds", place), code.load_int("%bounds", code.add(place, 1))) as e:
                c = code.load_int("%columns", e)
                sums = [[code.zero() for _ in range(chains)] for _ in range(9)]
                with code.loop(first, last) as n:
                    x = code.at("%x", code.mul(code.add(code.mul(n, "%n_in"), c), channel))
                    dy = code.at("%dy", code.mul(code.add(code.mul(n, "%n_out"), o), pixels))
                    for strip in down.strips(code, down.equal(WRITTEN_OUT // maps.step)):
                        here = code.at(x, code.mul(strip.source, maps.source_width))
                        correlate(sums, here, code.at(dy, code.mul(strip.first, width)), strip)
                add_taps(code, sums, code.at("%gradient", code.mul(e, 9)), fresh)
    return code


def total(code: Function, chains: list[Variable]) -> str:
    """The sum of all."""
    first, *others = (s.get() for s in chains)
    return functools.reduce(code.plus, others, first)


def add_taps(code: Function, sums: list[list[Variable]], target: str, fresh: str) -> None:
    """Nine sums over their lanes, each in one or more chains, to nine consecutive floats: added to those if not
    `fresh`."""
    totals = [total(code, chains) for chains in sums]
    for first in range(0, 9, code.width):
        some = totals[first : first + code.width]
        add_to(code, code.sums(some), code.at(target, first), code.mask(len(some)), fresh)


def _room(lines: range, line: int, width: int) -> tuple[int, int]:
    """How many floats before and after a line may be read: those of the others that are known to be there."""
    return (line - lines.start) * width, (lines.stop - 1 - line) * width


def _pixels(code: Function, line: str, column: int, width: int, room: tuple[int, int], step: int = 1,
            count: int | None = None) -> str:  # fmt: skip
    """Every step-th pixel of a line from that column on, zero where it has none; `count` of them matter, or all.

    Other lines are read with it if there is `room`: without masks, to load a part of a vector takes longer than to load
    all and blend it.
    """
    loaded = []
    for start in range(column, column + step * code.width, code.width):
        mask, place = inside(code, start, width), code.at(line, start)
        if not code.has_masks and max(0, -start) <= room[0] and max(0, start + code.width - width) <= room[1]:
            matters = count is None or step > 1 or start < 0 or start + min(count, code.width) > width
            loaded.append(code.only(code.load(place), mask if matters else None))
        else:
            loaded.append(code.load(place, mask))
    return code.shuffle(*loaded, list(range(0, 2 * code.width, 2))) if step == 2 else loaded[0]


def _store(code: Function, turns: list[str], line: str, column: int, width: int) -> None:
    """A vector, or two whose pixels take turns, to a line from that column on, as far as the line goes."""
    if len(turns) == 2:
        lanes = [lane for i in range(code.width) for lane in (i, code.width + i)]
        turns = [code.shuffle(*turns, lanes[: code.width]), code.shuffle(*turns, lanes[code.width :])]
    for c, vector in zip(range(column, width, code.width), turns, strict=False):
        if c + code.width <= width or code.has_masks:
            code.store(vector, code.at(line, c), inside(code, c, width))
        else:
            code.store_some(vector, code.at(line, c), width - c)


def inside(code: Function, column: int, width: int) -> str | None:
    """Lanes that fall on a line of that width, from that column on; None if all do."""
    first, last = max(0, -column), min(code.width, width - column)
    return None if (first, last) == (0, code.width) else code.mask(last, first)


def _fetch(code: Function, place: str, lines: int, across: int, width: int, write: bool = False) -> None:
    """Call a part of a map into the cache, `lines` tall and `across` wide."""
    if width <= across:
        code.prefetch(place, lines * width, write)
        return
    for i in range(lines):
        code.prefetch(code.at(place, i * width), across + 1, write)
