"""IR of the layers of a network whose maps stay packed from layer to layer: one image in each lane of a vector.

A blocked map is (channels, step, lanes) floats: `lanes` images stand in the innermost dimension, a pixel is a vector,
and the H x W pixels of a channel are the first of `step` vectors (see window.step_of). Lanes without an image hold
numbers that nobody reads.

Epilogues are part of the kernels: `bias` is what sums start from, then comes `other` (a residual), then ReLU.
"""

import functools

from xnets.layers.direct.ir import Function, Variable
from xnets.layers.direct.lines import total
from xnets.layers.direct.pointwise import add_row, each_entry
from xnets.layers.direct.tiles import Strip
from xnets.layers.direct.window import Tiling, chains, convolve, corner_of


def finish(code: Function, total: str, other: str | None, relu: bool) -> str:
    """The sum, plus the residual there, at least zero if `relu`; NaN stays NaN."""
    if other is not None:
        total = code.plus(total, code.load(other))
    return code.positive(total, total) if relu else total


# --- 1x1 convolutions and linear layers ---


def pointwise(group: int, vectors: int, width: int, before: bool, relu: bool, adds: bool) -> Function:
    """y = sparse @ x, for strips [t0, t1) of positions and groups [g0, g1) of outputs; chunks of the inputs in turn.

    A position is a pixel of an image; x (n_in, x_step), y and other (rows, y_step) in floats. A strip is `side` tiles
    side by side, so that what is read and written of a row is not too short a piece of memory. Of each strip the
    inputs are packed first, tile by tile: to max(0, x * scale + shift) if `before`. columns, counts and where are
    adjacency.Grouped's, the weights are in its order. `outputs` (side, groups x group, tile) takes the sums of all
    chunks but the last. The last strip ends where the positions end, so it may overlap the one before.
    """
    code = Function(
        "pointwise",
        ["x", "weights", "columns", "counts", "where", "bias", "scale", "shift", "other", "y", "inputs", "outputs"],
        ["t0", "t1", "g0", "g1", "n_in", "rows", "groups", "chunks", "positions", "x_step", "y_step", "side"],
        width,
    )
    tile = vectors * width
    strip = code.mul("%side", tile)
    last_chunk = code.sub("%chunks", 1)
    of_inputs, of_outputs = code.mul("%n_in", tile), code.mul("%groups", group * tile)
    with code.loop("%t0", "%t1") as t:
        first = code.least(code.mul(t, strip), code.sub("%positions", strip))
        source = code.at("%x", first)
        with code.loop(0, "%n_in") as c:
            row, target = code.at(source, code.mul(c, "%x_step")), code.at("%inputs", code.mul(c, tile))
            if before:
                scale, shift = code.broadcast(code.at("%scale", c)), code.broadcast(code.at("%shift", c))
            with code.loop(0, "%side") as s:
                a, b = code.at(row, code.mul(s, tile)), code.at(target, code.mul(s, of_inputs))
                for v in range(vectors):
                    vector = code.load(code.at(a, v * width))
                    if before:
                        vector = code.fma(vector, scale, shift)
                        vector = code.positive(vector, vector)
                    code.store(vector, code.at(b, v * width))
        with code.loop(0, "%chunks") as chunk:
            fresh = code.op(f"icmp eq i64 {chunk}, 0")
            ends = code.op(f"icmp eq i64 {chunk}, {last_chunk}")
            goes_on = code.op(f"icmp slt i64 {chunk}, {last_chunk}")
            offset = code.mul(chunk, "%groups")
            with code.loop("%g0", "%g1") as g, code.loop(0, "%side") as s:
                inputs = code.at("%inputs", code.mul(s, of_inputs))
                rows = [code.add(code.mul(g, group), o) for o in range(group)]
                outputs = code.at("%outputs", code.mul(s, of_outputs))
                kept = [code.at(outputs, code.mul(r, tile)) for r in rows]
                sums = _group(code, code.add(g, offset), inputs, rows, kept, vectors, fresh)
                with code.when(goes_on):
                    for o in range(group):
                        for v in range(vectors):
                            code.store(sums[o][v].get(), code.at(kept[o], v * width))
                with code.when(ends):
                    position = code.add(first, code.mul(s, tile))
                    for o, r in enumerate(rows):
                        with code.when(code.op(f"icmp slt i64 {r}, %rows")):
                            place = code.add(code.mul(r, "%y_step"), position)
                            for v in range(vectors):
                                here = code.add(place, v * width)
                                total = finish(code, sums[o][v].get(), code.at("%other", here) if adds else None, relu)
                                code.store(total, code.at("%y", here))
    return code


def _group(code: Function, place: str, inputs: str, rows: list[str], kept: list[str], vectors: int,
           fresh: str) -> list[list[Variable]]:  # fmt: skip
    """Sums of the outputs `rows` over the entries at `place`, from the bias on if `fresh`, else from what is kept.

    Inputs are taken by the subset of the outputs they feed: one load for all of them.
    """
    group, tile = len(rows), vectors * code.width
    sums = []
    for r, row in zip(rows, kept, strict=True):
        bias = code.broadcast(code.at("%bias", r))  # as long as groups x group
        sums.append([code.variable(bias, code.vector) for _ in range(vectors)])
        with code.when(code.op(f"xor i1 {fresh}, true")):
            for v, total in enumerate(sums[-1]):
                total.set(code.load(code.at(row, v * code.width)))

    def entry(pattern: int, e: str, w: str) -> None:
        row = code.at(inputs, code.mul(code.load_int("%columns", e), tile))
        add_row(code, sums, pattern, row, [code.at("%weights", code.add(w, i)) for i in range(pattern.bit_count())])

    each_entry(code, place, group, entry)
    return sums


# --- 3x3 convolutions of padding 1 ---


def window(tiling: Tiling, lanes: int, relu: bool, adds: bool, by_plane: bool, pooled: bool) -> Function:
    """y (rows, y_step, lanes), for rows [r0, r1), from x (channels, x_step, lanes).

    Row r has the edges pointer[r] ... pointer[r + 1], with inputs columns[e] and filters weights[9 e]. by_plane: all
    tiles of a row before the next row, for depthwise convolutions; otherwise the part of x under a tile stays in the
    cache while all rows are computed. pooled: y is the maximum of each 2 x 2 outputs; tiles and map are even.
    """
    code = Function(
        "window", ["x", "weights", "columns", "pointer", "bias", "other", "y"], ["r0", "r1", "x_step", "y_step"], lanes
    )
    maps = tiling.maps
    shrunk = 2 if pooled else 1

    def work(band: Strip, tile: Strip, r: str) -> None:
        start, stop = code.load_int("%pointer", r), code.load_int("%pointer", code.add(r, 1))
        bias = code.broadcast(code.at("%bias", r))
        sums = {place: [code.zero() for _ in range(n)] for place, n in chains(maps, band, tile, lanes).items()}
        for s in sums.values():
            s[0].set(bias)
        source = code.at("%x", corner_of(code, band.source, tile.source, maps.source_width))
        with code.loop(start, stop) as e:
            plane = code.at(source, code.mul(code.mul(code.load_int("%columns", e), "%x_step"), lanes))
            convolve(code, sums, plane, code.at("%weights", code.mul(e, 9)), maps, band, tile)
        totals = {place: total(code, s) for place, s in sums.items()}
        if pooled:
            totals = {
                (i // 2, j // 2): functools.reduce(
                    lambda a, b: larger(code, a, b), [totals[i + di, j + dj] for di in (0, 1) for dj in (0, 1)]
                )
                for i, j in sums
                if i % 2 == j % 2 == 0
            }
        top, left = (code.op(f"sdiv i64 {first}, {shrunk}") for first in (band.first, tile.first))
        corner = corner_of(code, top, left, maps.width // shrunk)
        first = code.add(code.mul(code.mul(r, "%y_step"), lanes), corner)
        for (i, j), found in totals.items():
            place = code.add(first, (i * (maps.width // shrunk) + j) * lanes)
            code.store(finish(code, found, code.at("%other", place) if adds else None, relu), code.at("%y", place))

    if by_plane:
        with code.loop("%r0", "%r1") as r:
            for band, tile in tiling.tiles(code):
                work(band, tile, r)
    else:
        for band, tile in tiling.tiles(code):
            with code.loop("%r0", "%r1") as r:
                work(band, tile, r)
    return code


# --- everything else ---


def pool(largest: bool, window: int, lanes: int) -> Function:
    """Maximum or mean over window x window pixels, for channels [c0, c1); `padding` for the maximum only.

    Positions outside the map give way to the nearest inside, which the window holds too. `factor` is one float, what
    a sum is multiplied by.
    """
    code = Function(
        "pool", ["x", "y", "factor"],
        ["c0", "c1", "height", "width", "high", "across", "stride", "padding", "x_step", "y_step"], lanes,
    )  # fmt: skip
    factor = None if largest else code.broadcast("%factor")

    def clamped(at: str, i: int, size: str) -> str:
        place = code.add(at, i)
        if not largest:
            return place
        place = code.op(f"select i1 {code.op(f'icmp slt i64 {place}, 0')}, i64 0, i64 {place}")
        return code.least(place, code.sub(size, 1))

    with code.loop("%c0", "%c1") as c:
        source = code.at("%x", code.mul(code.mul(c, "%x_step"), lanes))
        target = code.at("%y", code.mul(code.mul(c, "%y_step"), lanes))
        with code.loop(0, "%high") as i:
            top = code.sub(code.mul(i, "%stride"), "%padding")
            rows = [code.mul(clamped(top, k, "%height"), "%width") for k in range(window)]
            with code.loop(0, "%across") as j:
                left = code.sub(code.mul(j, "%stride"), "%padding")
                columns = [clamped(left, k, "%width") for k in range(window)]
                best = None
                for r in rows:
                    for column in columns:
                        pixel = code.load(code.at(source, code.mul(code.add(r, column), lanes)))
                        best = (
                            pixel if best is None else larger(code, best, pixel) if largest else code.plus(best, pixel)
                        )
                if factor is not None:
                    best = code.op(f"fmul {code.vector} {best}, {factor}")
                code.store(best, code.at(target, code.mul(code.add(code.mul(i, "%across"), j), lanes)))
    return code


def larger(code: Function, a: str, b: str) -> str:
    """The greater, NaN if either is, as torch's pooling."""
    takes = code.op(f"fcmp ugt {code.vector} {b}, {a}")  # or unordered
    bits = f"<{code.width} x i1>"
    known = code.op(f"fcmp ord {code.vector} {a}, {a}")  # a NaN in a stays
    return code.op(f"select {bits} {code.op(f'and {bits} {takes}, {known}')}, {code.vector} {b}, {code.vector} {a}")


def mean(lanes: int) -> Function:
    """x (channels, x_step, lanes), the first `pixels` of each -> y (channels, lanes), for channels [c0, c1)."""
    code = Function("mean", ["x", "y", "factor"], ["c0", "c1", "pixels", "x_step"], lanes)
    factor = code.broadcast("%factor")
    with code.loop("%c0", "%c1") as c:
        source = code.at("%x", code.mul(code.mul(c, "%x_step"), lanes))
        total = code.zero()
        with code.loop(0, "%pixels") as p:
            total.set(code.plus(total.get(), code.load(code.at(source, code.mul(p, lanes)))))
        average = code.op(f"fmul {code.vector} {total.get()}, {factor}")
        code.store(average, code.at("%y", code.mul(c, lanes)))
    return code


def affine(width: int, scales: bool, adds: bool, relu: bool) -> Function:
    """y = x * scale + shift if `scales`, plus other if `adds`, at least zero if `relu`; for channels [c0, c1).

    All are (channels, step) floats, each with a step of its own; `floats` of a channel, a multiple of `width`.
    """
    code = Function(
        "affine", ["x", "other", "y", "scale", "shift"], ["c0", "c1", "floats", "x_step", "other_step", "y_step"], width
    )
    with code.loop("%c0", "%c1") as c:
        x, other, y = (code.at(f"%{n}", code.mul(c, f"%{n}_step")) for n in ("x", "other", "y"))
        if scales:
            scale, shift = code.broadcast(code.at("%scale", c)), code.broadcast(code.at("%shift", c))
        with code.loop(0, "%floats", width) as i:
            vector = code.load(code.at(x, i))
            if scales:
                vector = code.fma(vector, scale, shift)
            code.store(finish(code, vector, code.at(other, i) if adds else None, relu), code.at(y, i))
    return code
