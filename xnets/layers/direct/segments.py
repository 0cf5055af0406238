"""IR of 1x1 convolutions and linear layers whose outputs share few inputs, or whose inputs do not fit the cache.

As pointwise.forward, but the inputs are taken in chunks that stay close to the core, and an output's edges into one
chunk are a segment of its row, in the order that the layer has them. Within a chunk the outputs come by the length of
their segments, so that the processor can tell how each loop over a segment ends.
"""

from xnets.layers.direct.ir import Function
from xnets.layers.direct.pointwise import each_tile, move_tile

FETCH = 8  # outputs ahead whose weights are called into the cache: a segment begins anywhere in memory


def forward(last: bool, vectors: int, gather: bool, width: int) -> Function:
    """y = sparse @ x for tiles [t0, t1) and blocks of `block` rows [b0, b1).

    x (N, n_in, pixels), y (N, rows, pixels), or (positions, n_in) and (positions, rows) with `last`; weights and
    columns are those of adjacency.Rows, slots and lengths those of adjacency.Segments. With `gather` the weights are in
    the layer's order, and those of a block and a chunk are sorted by `order` to `sorted` first: where there is but one
    tile, to sort all would cost more than it saves. inputs (n_in, tile), outputs (block, tile) and sorted (longest
    span) are scratch.
    """
    code = Function(
        "segments",
        ["x", "weights", "columns", "order", "slots", "lengths", "spans", "y", "inputs", "outputs", "sorted"],
        ["t0", "t1", "b0", "b1", "n_in", "rows", "block", "chunks", "longest", "positions", "pixels"],
        width,
    )
    tile = vectors * width
    visits = code.mul("%chunks", code.least("%rows", code.mul("%block", code.sub("%b1", "%b0"))))
    tiles = each_tile(code, tile, "%rows", "%positions", last, visits)
    with tiles as (first, length, fetch), code.loop("%b0", "%b1") as b:
        top = code.mul(b, "%block")
        count = code.least("%block", code.sub("%rows", top))
        with code.loop(0, code.mul(count, tile), width) as i:
            code.store("zeroinitializer", code.at("%outputs", i))
        with code.loop(0, "%chunks") as c:
            slot = code.variable(code.add(code.mul(c, "%rows"), top))
            piece = code.add(code.mul(b, "%chunks"), c)
            weights = _gathered(code, piece) if gather else "%weights"
            place = code.mul(piece, code.add("%longest", 1))
            with code.loop(0, code.add("%longest", 1)) as n:
                some = code.load_int("%lengths", code.add(place, n))
                here = slot.get()
                after = code.add(here, some)
                slot.set(after)
                # an empty segment adds nothing
                begin = code.op(f"select i1 {code.op(f'icmp eq i64 {n}, 0')}, i64 {after}, i64 {here}")
                with code.loop(begin, after) as s:
                    fetch()
                    _segment(code, s, n, weights, vectors, tile)
        # the scratch begins with row `top`
        shifted = code.at("%outputs", code.sub(0, code.mul(top, tile)))
        move_tile(code, "%y", "%rows", top, count, shifted, tile, first, length, False, last)
    return code


def _gathered(code: Function, piece: str) -> str:
    """Sort the weights of a piece; the address from which its edges count."""
    begin, end = (code.load_int("%spans", code.add(code.mul(piece, 2), i)) for i in (0, 1))
    here = code.at("%sorted", code.sub(0, begin))
    with code.loop(begin, end) as e:
        weight = code.op(f"load float, ptr {code.at('%weights', code.load_int('%order', e))}")
        code.emit(f"store float {weight}, ptr {code.at(here, e)}")
    return here


def _segment(code: Function, slot: str, edges: str, weights: str, vectors: int, tile: int) -> None:
    """Add the products of `edges` edges to the slot's row."""
    place = code.mul(slot, 2)
    row = code.at("%outputs", code.mul(code.load_int("%slots", place), tile))
    start = code.load_int("%slots", code.add(place, 1))
    later = code.load_int("%slots", code.add(place, 2 * FETCH + 1))
    for array in (weights, "%columns"):
        code.prefetch(code.at(array, later), 17)  # up to two lines: most segments have fewer floats than one
    sums = [code.variable(code.load(code.at(row, v * code.width)), code.vector) for v in range(vectors)]
    with code.loop(start, code.add(start, edges)) as e:
        source = code.at("%inputs", code.mul(code.load_int("%columns", e), tile))
        weight = code.broadcast(code.at(weights, e))
        for v, s in enumerate(sums):
            s.set(code.fma(code.load(code.at(source, v * code.width)), weight, s.get()))
    for v, s in enumerate(sums):
        code.store(s.get(), code.at(row, v * code.width))
