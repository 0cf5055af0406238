"""IR of the layers of a network whose maps stay packed from layer to layer: one image in each lane of a vector.

A blocked map is (channels, step, lanes) floats: `lanes` images stand in the innermost dimension, a pixel is a vector,
and the H x W pixels of a channel are the first of `step` vectors (see window.step_of). Lanes without an image hold
numbers that nobody reads.

Epilogues are part of the kernels: `bias` is what sums start from, then comes `other` (a residual), then ReLU.
"""

import functools

from xnets.layers.direct.ir import Function, Variable
from xnets.layers.direct.pointwise import each_entry
from xnets.layers.direct.window import TAPS, Map, tiled


def _finish(code: Function, total: str, other: str | None, relu: bool) -> str:
    """The sum, plus the residual there, at least zero if `relu`; NaN stays NaN."""
    if other is not None:
        total = code.plus(total, code.load(other))
    return code.positive(total, total) if relu else total


# --- 1x1 convolutions and linear layers ---


def pointwise(group: int, vectors: int, width: int, before: bool, relu: bool, adds: bool) -> Function:
    """y = sparse @ x, for strips [t0, t1) of columns and groups [g0, g1) of outputs; chunks of the inputs in turn.

    A column is a pixel of an image; x (n_in, x_step), y and other (rows, y_step) in floats. A strip is `side` tiles
    side by side, so that what is read and written of a row is not too short a piece of memory. Of each strip the
    inputs are packed first, tile by tile: to max(0, x * scale + shift) if `before`. counts, edges and where are
    adjacency.Grouped's, the weights are in its order. `outputs` (side, groups x group, tile) takes the sums of all
    chunks but the last. The last strip ends where the columns end, so it may overlap the one before.
    """
    code = Function(
        "pointwise",
        ["x", "weights", "edges", "counts", "where", "bias", "scale", "shift", "other", "y", "inputs", "outputs"],
        ["t0", "t1", "g0", "g1", "n_in", "rows", "groups", "chunks", "columns", "x_step", "y_step", "side"],
        width,
    )
    tile = vectors * width
    strip = code.mul("%side", tile)
    last_chunk = code.sub("%chunks", 1)
    of_inputs, of_outputs = code.mul("%n_in", tile), code.mul("%groups", group * tile)
    with code.loop("%t0", "%t1") as t:
        first = code.least(code.mul(t, strip), code.sub("%columns", strip))
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
                    column = code.add(first, code.mul(s, tile))
                    for o, r in enumerate(rows):
                        with code.when(code.op(f"icmp slt i64 {r}, %rows")):
                            place = code.add(code.mul(r, "%y_step"), column)
                            for v in range(vectors):
                                here = code.add(place, v * width)
                                total = _finish(code, sums[o][v].get(), code.at("%other", here) if adds else None, relu)
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
        members = [o for o in range(group) if pattern >> o & 1]
        row = code.at(inputs, code.mul(code.load_int("%edges", e), tile))
        loaded = [code.load(code.at(row, v * code.width)) for v in range(vectors)]
        for k, o in enumerate(members):
            scale = code.broadcast(code.at("%weights", code.add(w, k)))
            for v, total in enumerate(sums[o]):
                total.set(code.fma(loaded[v], scale, total.get()))

    each_entry(code, place, group, entry)
    return sums


# --- 3x3 convolutions of padding 1 ---


def shape_of_tiles(height: int, width: int, stride: int, registers: int, even: bool) -> Map:
    """How the output of a 3x3 convolution is cut into tiles: `even` ones if it is to be pooled, and even itself."""
    high, across = (height - 1) // stride + 1, (width - 1) // stride + 1
    if not even or high * across <= registers:
        return tiled(high, across, registers)
    sizes = range(2, min(across, registers // 2) + 1, 2)
    return Map(high, across, 2, min(sizes, key=lambda wide: (-(-across // wide) * wide, -wide)))


def window(height: int, width: int, stride: int, tall: int, wide: int, lanes: int, relu: bool, adds: bool,
           by_plane: bool, pooled: bool) -> Function:  # fmt: skip
    """y (rows, y_step, lanes), for rows [r0, r1), from x (channels, x_step, lanes), a map of height x width.

    Row r has the edges pointer[r] ... pointer[r + 1], with inputs columns[e] and filters weights[9 e]. Tiles of
    tall x wide outputs; the last of a row or column ends where the map does. `zeros` is one vector of them. by_plane:
    all tiles of a row before the next row, for depthwise convolutions; otherwise the part of x under a tile stays in
    the cache while all rows are computed. pooled: y is the maximum of each 2 x 2 outputs; tiles and map are even.
    """
    code = Function(
        "window", ["x", "weights", "columns", "pointer", "bias", "other", "y", "zeros"],
        ["r0", "r1", "x_step", "y_step"], lanes,
    )  # fmt: skip
    high, across = (height - 1) // stride + 1, (width - 1) // stride + 1
    bands, tiles = -(-high // tall), -(-across // wide)

    def body(r: str, b: str, t: str) -> None:
        top = 0 if bands == 1 else code.least(code.mul(b, tall), high - tall)
        left = 0 if tiles == 1 else code.least(code.mul(t, wide), across - wide)
        start, stop = code.load_int("%pointer", r), code.load_int("%pointer", code.add(r, 1))
        bias = code.broadcast(code.at("%bias", r))
        sums = [code.variable(bias, code.vector) for _ in range(tall * wide)]
        with code.loop(start, stop) as e:
            plane = code.at("%x", code.mul(code.mul(code.load_int("%columns", e), "%x_step"), lanes))
            filters = code.at("%weights", code.mul(e, 9))
            taps = [code.broadcast(code.at(filters, t)) for t in range(9)]
            _edge(code, sums, plane, taps, (height, width), stride, (tall, wide), top, left)
        totals, row = {(i, j): sums[i * wide + j].get() for i in range(tall) for j in range(wide)}, across
        if pooled:
            top, left, row = *(code.op(f"ashr i64 {v}, 1") for v in (top, left)), across // 2
            totals = {
                (i // 2, j // 2): functools.reduce(
                    lambda a, b: _larger(code, a, b), [totals[i + di, j + dj] for di in (0, 1) for dj in (0, 1)]
                )
                for i in range(0, tall, 2)
                for j in range(0, wide, 2)
            }
        corner = code.add(code.mul(r, "%y_step"), code.add(code.mul(top, row), left))
        for (i, j), total in totals.items():
            place = code.mul(code.add(corner, i * row + j), lanes)
            code.store(_finish(code, total, code.at("%other", place) if adds else None, relu), code.at("%y", place))

    if by_plane:
        with code.loop("%r0", "%r1") as r, code.loop(0, bands) as b, code.loop(0, tiles) as t:
            body(r, b, t)
    else:
        with code.loop(0, bands) as b, code.loop(0, tiles) as t, code.loop("%r0", "%r1") as r:
            body(r, b, t)
    return code


def _edge(code: Function, sums: list[Variable], plane: str, taps: list[str], size: tuple[int, int], stride: int,
          tile: tuple[int, int], top: str | int, left: str | int) -> None:  # fmt: skip
    """Add one input times its filter to the tile at (top, left) of the output.

    What lies outside the map is left out while the code is written where the tile spans the map, and asked for where
    it does not: rows are jumped over, columns read `zeros`.
    """
    (height, width), (tall, wide) = size, tile
    last_row, last_column = stride * (tall - 1) + 1, stride * (wide - 1) + 1  # read, counted from the tile's own corner
    y0, x0 = (code.mul(top, stride), code.mul(left, stride))
    for q in range(-1, last_row + 1):
        if top == 0 and not 0 <= q < height:  # the tile is as tall as the map
            continue
        inside = None
        if top != 0 and q == -1:
            inside = code.op(f"icmp sgt i64 {y0}, 0")
        elif top != 0 and q == last_row and stride * ((height - 1) // stride) + 1 >= height:
            inside = code.op(f"icmp slt i64 {code.add(y0, q)}, {height}")

        def row(q: int = q) -> None:
            first = code.at(plane, code.mul(code.add(code.mul(code.add(y0, q), width), x0), code.width))
            for p in range(-1, last_column + 1):
                if left == 0 and not 0 <= p < width:
                    continue
                here = code.at(first, p * code.width)
                if left != 0 and p == -1:
                    here = code.pick(code.op(f"icmp sgt i64 {x0}, 0"), here, "%zeros")
                elif left != 0 and p == last_column and stride * ((width - 1) // stride) + 1 >= width:
                    here = code.pick(code.op(f"icmp slt i64 {code.add(x0, p)}, {width}"), here, "%zeros")
                pixel = code.load(here)
                for (di, dj), tap in zip(TAPS, taps, strict=True):
                    i, j = q - di + 1, p - dj + 1
                    if i % stride or j % stride or not (0 <= i // stride < tall and 0 <= j // stride < wide):
                        continue
                    s = sums[i // stride * wide + j // stride]
                    s.set(code.fma(pixel, tap, s.get()))

        if inside is None:
            row()
        else:
            with code.when(inside):
                row()


# --- everything else ---


def pack(lanes: int) -> Function:
    """x (images, channels, pixels) -> packed (channels, step, lanes), for channels [c0, c1)."""
    code = Function("pack", ["x", "packed", "zeros"], ["c0", "c1", "channels", "pixels", "step", "images"], lanes)
    alive, offsets, whole, rest = _images_of(code)
    mask = code.mask(rest)

    def moved(source: str, masked: bool) -> list[str]:
        rows = []
        for i in range(lanes):
            here = code.pick(alive[i], code.at(source, offsets[i]), "%zeros")
            rows.append(code.load_first(here, mask) if masked else code.load(here))
        return code.transpose(rows)

    with code.loop("%c0", "%c1") as c:
        source = code.at("%x", code.mul(c, "%pixels"))
        plane = code.at("%packed", code.mul(code.mul(c, "%step"), lanes))
        with code.loop(0, whole, lanes) as p:
            for i, vector in enumerate(moved(code.at(source, p), False)):
                code.store(vector, code.at(plane, code.mul(code.add(p, i), lanes)))
        with code.when(code.op(f"icmp sgt i64 {rest}, 0")):
            for i, vector in enumerate(moved(code.at(source, whole), True)):
                with code.when(code.op(f"icmp slt i64 {i}, {rest}")):
                    code.store(vector, code.at(plane, code.mul(code.add(whole, i), lanes)))
    return code


def unpack(lanes: int) -> Function:
    """packed (channels, step, lanes) -> y (images, channels, pixels), for channels [c0, c1)."""
    code = Function("unpack", ["packed", "y", "zeros"], ["c0", "c1", "channels", "pixels", "step", "images"], lanes)
    alive, offsets, whole, rest = _images_of(code)
    mask = code.mask(rest)

    def move(source: list[str], target: str, masked: bool) -> None:
        rows = code.transpose([code.load(s) for s in source])
        for i, vector in enumerate(rows):
            with code.when(alive[i]):
                place = code.at(target, offsets[i])
                if masked:
                    code.store_first(vector, place, mask)
                else:
                    code.store(vector, place)

    with code.loop("%c0", "%c1") as c:
        target = code.at("%y", code.mul(c, "%pixels"))
        plane = code.at("%packed", code.mul(code.mul(c, "%step"), lanes))
        with code.loop(0, whole, lanes) as p:
            there = code.at(plane, code.mul(p, lanes))
            move([code.at(there, i * lanes) for i in range(lanes)], code.at(target, p), False)
        with code.when(code.op(f"icmp sgt i64 {rest}, 0")):
            there = code.at(plane, code.mul(whole, lanes))
            left = [code.op(f"icmp slt i64 {i}, {rest}") for i in range(lanes)]
            source = [code.pick(left[i], code.at(there, i * lanes), "%zeros") for i in range(lanes)]
            move(source, code.at(target, whole), True)
    return code


def _images_of(code: Function) -> tuple[list[str], list[str], str, str]:
    """Whether each lane has an image and where that begins; a channel's pixels in full vectors, and the rest."""
    alive = [code.op(f"icmp slt i64 {i}, %images") for i in range(code.width)]
    every = code.mul("%channels", "%pixels")
    offsets = [code.mul(every, i) for i in range(code.width)]
    whole = code.mul(code.op(f"sdiv i64 %pixels, {code.width}"), code.width)
    return alive, offsets, whole, code.sub("%pixels", whole)


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
                            pixel if best is None else _larger(code, best, pixel) if largest else code.plus(best, pixel)
                        )
                if factor is not None:
                    best = code.op(f"fmul {code.vector} {best}, {factor}")
                code.store(best, code.at(target, code.mul(code.add(code.mul(i, "%across"), j), lanes)))
    return code


def _larger(code: Function, a: str, b: str) -> str:
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
            code.store(_finish(code, vector, code.at(other, i) if adds else None, relu), code.at(y, i))
    return code
