"""IR that moves tiles of positions whose channels are side by side: channels_last images, and linear layers' x.

The kernels of pointwise.py and segments.py want channels as rows, so squares of width x width floats are transposed in
registers on the way in and out.
"""

from xnets.layers.direct.ir import Function


def move_positions(code: Function, image: str, channels: str, top: str | int, count: str | int, packed: str, tile: int,
                 first: str, length: str, into: bool) -> None:  # fmt: skip
    """Channels [top, top + count) of positions [first, first + length) of `image` (positions, channels) to or from
    `packed` (channels, tile), which has room for `width` rows more. Positions beyond `length` come as zeros."""
    w = code.width
    whole = code.mul(code.op(f"sdiv i64 {count}, {w}"), w)
    start = code.at(image, code.add(code.mul(first, channels), top))
    there = code.at(packed, code.mul(top, tile))
    full = code.op(f"icmp eq i64 {length}, {tile}")
    # whole squares in the first loop, edges in the second
    with code.loop(0, code.op(f"select i1 {full}, i64 {whole}, i64 0"), w) as c:
        for p in range(0, tile, w):
            rows = [code.at(start, code.add(code.mul(channels, p + i), c)) for i in range(w)]
            square = [code.at(there, code.add(code.mul(code.add(c, i), tile), p)) for i in range(w)]
            sources, targets = (rows, square) if into else (square, rows)
            for vector, target in zip(code.transpose([code.load(s) for s in sources]), targets, strict=True):
                code.store(vector, target)
    with code.loop(code.op(f"select i1 {full}, i64 {whole}, i64 0"), count, w) as c:
        left = code.sub(count, c)
        with code.loop(0, tile, w) as p:
            base = code.at(start, code.add(code.mul(channels, p), c))
            square = [code.at(there, code.add(code.mul(code.add(c, i), tile), p)) for i in range(w)]
            rows, masks = [], []
            for i in range(w):
                rows.append(code.at(base, code.mul(channels, i)))
                inside = code.op(f"icmp slt i64 {code.add(p, i)}, {length}")
                masks.append(code.mask(code.op(f"select i1 {inside}, i64 {left}, i64 0")))
            if into:
                loaded = [code.load_first(row, mask) for row, mask in zip(rows, masks, strict=True)]
                for vector, target in zip(code.transpose(loaded), square, strict=True):
                    code.store(vector, target)
            else:
                vectors = code.transpose([code.load(s) for s in square])
                for vector, row, mask in zip(vectors, rows, masks, strict=True):
                    code.store_first(vector, row, mask)
