"""IR of 1x1 convolutions and linear layers with blocks of outputs that share one list of inputs.

As pointwise.forward, but a loaded input serves `group` outputs of a block, without asking which.
"""

from xnets.layers.direct.ir import Function
from xnets.layers.direct.pointwise import each_tile, move_tile, unless


def forward(group: int, last: bool, vectors: int, width: int) -> Function:
    """y = sparse @ x for tiles [t0, t1) and groups of outputs [g0, g1).

    x (N, n_in, pixels), y (N, n_out, pixels), weights (n_out, degree). Output o has in chunk c the edges bounds[o, c]
    ... bounds[o, c + 1] of all edges, with the inputs columns[e]; in a group, all have those of the first.
    inputs (n_in, tile) and outputs (n_out, tile) are scratch.
    """
    code = Function(
        "shared",
        ["x", "weights", "columns", "bounds", "y", "inputs", "outputs"],
        ["t0", "t1", "g0", "g1", "n_in", "n_out", "degree", "chunks", "positions", "pixels"],
        width,
    )
    tile = vectors * width
    visits = code.mul("%chunks", code.sub("%g1", "%g0"))
    with each_tile(code, tile, "%n_out", "%positions", last, visits) as (first, length, fetch):
        with code.loop(0, "%chunks") as chunk:
            fresh = code.op(f"icmp eq i64 {chunk}, 0")
            with code.loop("%g0", "%g1") as g:
                fetch()
                place = code.add(code.mul(code.mul(g, group), code.add("%chunks", 1)), chunk)
                start, stop = code.load_int("%bounds", place), code.load_int("%bounds", code.add(place, 1))
                _group(code, code.mul(g, group), start, stop, group, vectors, tile, fresh)
        top = code.mul("%g0", group)
        count = code.mul(code.sub("%g1", "%g0"), group)
        move_tile(code, "%y", "%n_out", top, count, "%outputs", tile, first, length, False, last)
    return code


def _group(code: Function, output: str, start: str, stop: str, group: int, vectors: int, tile: int, fresh: str) -> None:
    """Outputs [output, output + group) of one tile, from edges start ... stop of the first of them."""
    sums = [[code.zero() for _ in range(vectors)] for _ in range(group)]
    with code.loop(start, stop) as e:
        row = code.at("%inputs", code.mul(code.load_int("%columns", e), tile))
        loaded = [code.load(code.at(row, v * code.width)) for v in range(vectors)]
        for o in range(group):
            scale = code.broadcast(code.at("%weights", code.add(e, code.mul("%degree", o))))
            for x, s in zip(loaded, sums[o], strict=True):
                s.set(code.fma(x, scale, s.get()))
    for o in range(group):
        row = code.at("%outputs", code.mul(code.add(output, o), tile))
        for v, s in enumerate(sums[o]):
            there = code.at(row, v * code.width)
            code.store(code.plus(s.get(), unless(code, fresh, code.load(there))), there)
