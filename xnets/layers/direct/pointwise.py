"""IR of 1x1 convolutions and linear layers: sparse times dense over tiles of positions.

A position is one pixel of one image; N images of P pixels have N P positions, and a tile takes `tile` of them, across
images if need be. Of each tile all input channels are packed to rows of `tile` floats, so that an edge is one row to
multiply and the tile stays in the cache while all outputs pass over it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from xnets.layers.direct.channels_last import move_positions
from xnets.layers.direct.ir import Function, Variable

Fetch = Callable[[], None]
AHEAD = 8  # rows that are called into the cache before they are copied or computed


def _copy_rows(code: Function, rows: str | int, source: str, from_step: str | int, to: str, to_step: str | int,
               length: str, tile: int, into: bool) -> None:  # fmt: skip
    """rows x length floats, length <= tile; the steps are the distances of rows in floats.

    The image, which is the source if `into`, is what is not in the cache yet.
    """
    w = code.width
    full = code.op(f"icmp eq i64 {length}, {tile}")
    with code.when(full), code.loop(0, rows) as r:
        a, b = code.at(source, code.mul(r, from_step)), code.at(to, code.mul(r, to_step))
        image, step = (a, from_step) if into else (b, to_step)
        code.prefetch(code.at(image, code.mul(step, AHEAD)), tile, write=not into)
        vectors = [code.load(code.at(a, i)) for i in range(0, tile, w)]
        for i, vector in enumerate(vectors):
            code.store(vector, code.at(b, i * w))
    rows = code.op(f"select i1 {full}, i64 0, i64 {rows}")
    for vectors in range(1, tile // w):
        some = code.op(f"icmp eq i64 {code.op(f'sdiv i64 {length}, {w}')}, {vectors}")
        with code.when(some), code.loop(0, rows) as r:
            a, b = code.at(source, code.mul(r, from_step)), code.at(to, code.mul(r, to_step))
            starts = [*range(0, vectors * w, w), code.sub(length, w)]  # the last vector ends with the row
            for start, vector in [(start, code.load(code.at(a, start))) for start in starts]:
                code.store(vector, code.at(b, start))
    for count in range(1, w):
        with code.when(code.op(f"icmp eq i64 {length}, {count}")), code.loop(0, rows) as r:
            a, b = code.at(source, code.mul(r, from_step)), code.at(to, code.mul(r, to_step))
            code.store_some(code.load_first(a, code.mask(count)), b, count)


def move_tile(code: Function, image: str, channels: str, top: str | int, count: str | int, packed: str, tile: int,
              first: str, length: str, into: bool, last: bool) -> None:  # fmt: skip
    """Channels [top, top + count) of positions [first, first + length) of `image` (N, channels, pixels) to or from
    `packed` (channels, tile): one piece for each image the tile touches. `last`: image is (positions, channels)."""
    if last:
        move_positions(code, image, channels, top, count, packed, tile, first, length, into)
        return
    n, done = code.fresh(), code.variable(0)
    code.emit(f"br label %piece{n}")
    code.lines.append(f"piece{n}:")
    now = done.get()
    position = code.add(first, now)
    number = code.op(f"sdiv i64 {position}, %pixels")
    pixel = code.sub(position, code.mul(number, "%pixels"))
    here = code.least(code.sub(length, now), code.sub("%pixels", pixel))
    channel = code.add(code.mul(number, channels), top)
    start = code.at(image, code.add(code.mul(channel, "%pixels"), pixel))
    there = code.at(packed, code.add(code.mul(top, tile), now))
    if into:
        _copy_rows(code, count, start, "%pixels", there, tile, here, tile, into)
    else:
        _copy_rows(code, count, there, tile, start, "%pixels", here, tile, into)
    after = code.add(now, here)
    done.set(after)
    code.emit(f"br i1 {code.op(f'icmp slt i64 {after}, {length}')}, label %piece{n}, label %moved{n}")
    code.lines.append(f"moved{n}:")


@contextmanager
def each_tile(code: Function, tile: int, rows: str, positions: str, last: bool,
              visits: str) -> Iterator[tuple[str, str, Fetch]]:  # fmt: skip
    """Tiles [t0, t1) of x's positions in turn, packed in `inputs`: the first position of one, how many it has, and what
    is to be called `visits` times while it is computed, so that what is moved next is near by then.

    That is the next tile of x and, where channels are `last`, this one of y, which has `rows` channels.
    """
    with code.loop("%t0", "%t1") as t:
        first = code.mul(t, tile)
        length = code.least(tile, code.sub(positions, first))
        move_tile(code, "%x", "%n_in", 0, "%n_in", "%inputs", tile, first, length, True, last)
        fetches = [fetch_of(code, "%x", "%n_in", tile, code.add(first, tile), positions, last, visits)]
        if last:
            fetches.append(fetch_of(code, "%y", rows, tile, first, positions, last, visits, write=True))

        def fetch() -> None:
            for each in fetches:
                each()

        yield first, length, fetch


def fetch_of(code: Function, image: str, channels: str, tile: int, first: str, positions: str, last: bool,
             visits: str, write: bool = False) -> Fetch:  # fmt: skip
    """What calls the tile from position `first` on into the second-level cache, a share of its channels a time.

    Its rows are short and far apart, or its channels are taken some at a time, so that the processor does not foresee
    what comes. Of a tile that reaches into the next image the first image's part is called.
    """
    step = tile if last else "%pixels"
    begin = code.mul(first, channels)
    stop = code.add(begin, code.mul(channels, tile))
    if not last:
        number = code.op(f"sdiv i64 {first}, %pixels")
        start = code.mul(code.mul(number, channels), "%pixels")
        begin = code.add(start, code.sub(first, code.mul(number, "%pixels")))
        stop = code.add(start, code.mul(channels, "%pixels"))
    inside = code.op(f"icmp slt i64 {first}, {positions}")
    here = code.variable(code.op(f"select i1 {inside}, i64 {begin}, i64 {stop}"))
    share = code.mul(code.op(f"sdiv i64 {code.sub(code.add(channels, visits), 1)}, {visits}"), step)

    def fetch() -> None:
        now = here.get()
        after = code.least(code.add(now, share), stop)
        with code.loop(now, after, step) as place:
            code.prefetch(code.at(image, place), tile + 1, write, level=2)
        here.set(after)

    return fetch


def forward(group: int, gather: str, last: bool, vectors: int, width: int) -> Function:
    """y = sparse @ x for tiles [t0, t1) and groups of outputs [g0, g1).

    x (N, n_in, pixels), y (N, rows, pixels), or (positions, n_in) and (positions, rows) with `last`; rows = outputs,
    padded in `outputs` (tile, groups x group).
    columns, counts, where and order are those of adjacency.Grouped; weights are in that order already, or, if `gather`
    is not "", in the layer's own: where a thread has but a tile or two, sorting them first would cost more than it
    saves. `gather` says what the rows are, "outputs" or "inputs".
    """
    code = Function(
        "forward",
        ["x", "weights", "columns", "counts", "where", "order", "y", "inputs", "outputs"],
        ["t0", "t1", "g0", "g1", "n_in", "rows", "degree", "chunks", "positions", "pixels"],
        width,
    )
    tile = vectors * width
    groups = code.op(f"sdiv i64 {code.add('%rows', group - 1)}, {group}")
    visits = code.mul("%chunks", code.sub("%g1", "%g0"))
    with each_tile(code, tile, "%rows", "%positions", last, visits) as (first, length, fetch):
        with code.loop(0, "%chunks") as chunk:
            fresh = code.op(f"icmp eq i64 {chunk}, 0")
            offset = code.mul(chunk, groups)
            with code.loop("%g0", "%g1") as g:
                fetch()
                _group(code, g, code.add(g, offset), group, vectors, tile, gather, fresh)
        # outputs of these groups only: other threads may hold the others
        top = code.mul("%g0", group)
        bottom = code.least(code.mul("%g1", group), "%rows")
        move_tile(code, "%y", "%rows", top, code.sub(bottom, top), "%outputs", tile, first, length, False, last)
    return code


def _group(code: Function, g: str, place: str, group: int, vectors: int, tile: int, gather: str, fresh: str) -> None:
    """Group g of the outputs of one tile, from the entries at `place`.

    Inputs are taken by the subset of the outputs they feed: one load for all of them.
    """
    sums = [[code.zero() for _ in range(vectors)] for _ in range(group)]

    def entry(pattern: int, e: str, w: str) -> None:
        column = code.load_int("%columns", e, "i16")
        row = code.at("%inputs", code.mul(column, tile))
        places = [code.add(w, i) for i in range(pattern.bit_count())]
        if gather:
            places = [_edge(code, gather, g, column, which, group) for which in places]
        add_row(code, sums, pattern, row, [code.at("%weights", which) for which in places])

    each_entry(code, place, group, entry)
    for o in range(group):
        row = code.at("%outputs", code.mul(code.add(code.mul(g, group), o), tile))
        for v in range(vectors):
            there = code.at(row, v * code.width)
            code.store(code.plus(sums[o][v].get(), unless(code, fresh, code.load(there))), there)


def add_row(code: Function, sums: list[list[Variable]], pattern: int, row: str, weights: list[str]) -> None:
    """Add a row of the inputs to the sums of the outputs in `pattern`, times the weight of each."""
    members = [o for o in range(len(sums)) if pattern >> o & 1]
    scales = [code.broadcast(weight) for weight in weights]
    for v in range(len(sums[0])):
        loaded = code.load(code.at(row, v * code.width))
        for o, scale in zip(members, scales, strict=True):
            sums[o][v].set(code.fma(loaded, scale, sums[o][v].get()))


def each_entry(code: Function, place: str, group: int, entry: Callable[[int, str, str], None]) -> None:
    """entry(pattern, e, w) for each entry at `place`: its subset of the group, its number, and its first edge's."""
    edge = code.variable(code.load_int("%where", code.mul(place, 2), "i64"))
    weight = code.variable(code.load_int("%where", code.add(code.mul(place, 2), 1), "i64"))
    for pattern in range(1, 2**group):
        size = pattern.bit_count()
        count = code.load_int("%counts", code.add(code.mul(place, 2**group - 1), pattern - 1))
        e0, w0 = edge.get(), weight.get()
        with code.loop(0, count) as i:
            entry(pattern, code.add(e0, i), code.add(w0, code.mul(i, size)))
        edge.set(code.add(e0, count))
        weight.set(code.add(w0, code.mul(count, size)))


def _edge(code: Function, rows: str, g: str, column: str, which: str, group: int) -> str:
    """The edge, as the layer counts them, that stands at place `which`; see Adjacency.grouped."""
    first = code.mul(column, "%degree") if rows == "inputs" else code.mul(code.mul(g, group), "%degree")
    return code.add(first, code.load_int("%order", which, "u16"))


def sort(group: int, rows: str, width: int) -> Function:
    """sorted = the weights in the order of adjacency.Grouped, for places [p0, p1): chunks, and in each all groups."""
    code = Function(
        "sort",
        ["weights", "columns", "counts", "where", "order", "sorted"],
        ["p0", "p1", "groups", "degree"],
        width,
    )
    with code.loop("%p0", "%p1") as place:
        g = code.op(f"srem i64 {place}, %groups")

        def entry(pattern: int, e: str, w: str, g: str = g) -> None:
            column = code.load_int("%columns", e, "i16")
            for i in range(pattern.bit_count()):
                which = code.add(w, i)
                source = code.at("%weights", _edge(code, rows, g, column, which, group))
                weight = code.op(f"load float, ptr {source}")
                code.emit(f"store float {weight}, ptr {code.at('%sorted', which)}")

        each_entry(code, place, group, entry)
    return code


def weight_gradient(last: bool, vectors: int, once: bool, width: int) -> Function:
    """gradient (n_out x degree,) of the weight, for outputs [o0, o1), summed over all positions.

    x (N, n_in, pixels), dy (N, n_out, pixels), or (positions, n_in) and (positions, n_out) with `last`. Output o
    has in chunk c of the inputs the edges bounds[o, c] ... bounds[o, c + 1], with inputs columns[e]: a chunk of a tile
    stays close to the core. `inputs` and `outputs` hold one tile each, with zeros where the last is not full. once:
    there is one tile, so that no edge was near before.
    """
    code = Function(
        "weight_gradient",
        ["x", "dy", "columns", "bounds", "gradient", "inputs", "outputs"],
        ["o0", "o1", "n_in", "n_out", "chunks", "positions", "pixels"],
        width,
    )
    tile = vectors * width
    with code.loop(0, "%positions", tile) as first:
        length = code.least(tile, code.sub("%positions", first))
        with code.when(code.op(f"icmp slt i64 {length}, {tile}")):
            for name, rows in (("%inputs", "%n_in"), ("%outputs", "%n_out")):
                with code.loop(0, code.mul(rows, tile), width) as i:
                    code.store("zeroinitializer", code.at(name, i))
        move_tile(code, "%x", "%n_in", 0, "%n_in", "%inputs", tile, first, length, True, last)
        move_tile(code, "%dy", "%n_out", 0, "%n_out", "%outputs", tile, first, length, True, last)
        visits, after = code.mul("%chunks", code.sub("%o1", "%o0")), code.add(first, tile)
        fetch_x, fetch_dy = (
            fetch_of(code, image, channels, tile, after, "%positions", last, visits)
            for image, channels in (("%x", "%n_in"), ("%dy", "%n_out"))
        )
        fresh = code.op(f"icmp eq i64 {first}, 0")
        # few outputs at a time, whose edges' pages stay known to the processor
        with (
            code.loop("%o0", "%o1", 256) as o_first,
            code.loop(0, "%chunks") as c,
            code.loop(o_first, code.least(code.add(o_first, 256), "%o1")) as o,
        ):
            fetch_x()
            fetch_dy()
            row = code.at("%outputs", code.mul(o, tile))
            upstream = [code.load(code.at(row, v * width)) for v in range(vectors)]
            place, later = (
                code.add(code.mul(output, code.add("%chunks", 1)), c)
                for output in (o, code.least(code.add(o, AHEAD), code.sub("%n_out", 1)))
            )
            if once:
                edge = code.load_int("%bounds", later)
                code.prefetch(code.at("%columns", edge), 17)
                code.prefetch(code.at("%gradient", edge), 17, write=True)
            start, stop = code.load_int("%bounds", place), code.load_int("%bounds", code.add(place, 1))
            add_products(code, upstream, "%inputs", "%columns", (start, stop), "%gradient", fresh)
    return code


def add_products(code: Function, upstream: list[str], inputs: str, columns: str, edges: tuple[str, str], gradient: str,
                 fresh: str) -> None:  # fmt: skip
    """gradient[e] (+)= sum over the tile of upstream * input columns[e], for edges from the first to the second."""
    some, few = min(8, code.width), min(4, code.width)  # at a time
    start, stop = edges
    whole = code.add(start, code.op(f"and i64 {code.sub(stop, start)}, -{some}"))
    with code.loop(start, whole, some) as e:
        _add_some(code, upstream, inputs, columns, e, some, some, gradient, fresh)
    with code.loop(whole, stop, few) as e:
        _add_some(code, upstream, inputs, columns, e, few, code.least(few, code.sub(stop, e)), gradient, fresh)


def _add_some(code: Function, upstream: list[str], inputs: str, columns: str, edge: str, most: int, count: str | int,
              gradient: str, fresh: str) -> None:  # fmt: skip
    """The same for edge + i, i < count <= most."""
    vectors = []
    for i in range(most):
        # what is beyond the last edge is computed of it again, and not kept
        e = code.add(edge, i if isinstance(count, int) else code.least(i, code.sub(count, 1)))
        row = code.at(inputs, code.mul(code.load_int(columns, e), len(upstream) * code.width))
        chains: list[str] = []
        for v, dy in enumerate(upstream):
            x = code.load(code.at(row, v * code.width))
            if v < 2:
                chains.append(code.times(x, dy))
            else:
                chains[v % 2] = code.fma(x, dy, chains[v % 2])
        vectors.append(chains[0] if len(chains) == 1 else code.plus(*chains))
    add_to(code, code.sums(vectors), code.at(gradient, edge), code.mask(count), fresh)


def add_to(code: Function, vector: str, pointer: str, mask: str, fresh: str) -> None:
    """pointer[masked lanes] = vector, plus what is there unless `fresh`."""
    code.store_first(code.plus(vector, unless(code, fresh, code.load_first(pointer, mask))), pointer, mask)


def unless(code: Function, fresh: str, vector: str) -> str:
    """The vector, or zero if `fresh`: what is there was never written."""
    return code.op(f"select i1 {fresh}, {code.vector} zeroinitializer, {code.vector} {vector}")
