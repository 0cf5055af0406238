"""IR of 1x1 convolutions on images as they lie: sparse times dense, the positions being the pixels of one image.

Nothing is packed, as in lines.py: a vector holds consecutive pixels of a channel. It is for few edges, where to pack
would take longer than to compute.
"""

import math

from xnets.layers.direct.ir import Function
from xnets.layers.direct.lines import inside

LEAST = 8  # sums at a time, so that none waits for its last addition


def product(pixels: int, registers: int, lanes: int) -> Function:
    """y (N, rows, pixels) for images [n0, n1) and rows [r0, r1) of the sparse matrix, from x (N, channels, pixels).

    Row r has the edges bounds[r, 0] ... bounds[r, 1] with inputs columns[e] and weights[e]. At most `registers` vectors
    are summed at a time.
    """
    pointers, integers = ["x", "weights", "columns", "bounds", "y"], ["n0", "n1", "r0", "r1", "channels", "rows"]
    code = Function("product", pointers, integers, lanes)
    vectors = math.ceil(pixels / lanes)
    tile = math.ceil(vectors / math.ceil(vectors / registers)) * lanes  # of an image, in tiles of about one size
    together = max(1, LEAST // (tile // lanes))  # images, which share the weights
    x_image, y_image = code.mul("%channels", pixels), code.mul("%rows", pixels)
    fetched = code.op(f"sdiv i64 {code.sub(code.add('%channels', '%rows'), 1)}, %rows")

    def fetch(x: str, y: str, r: str, images: int, length: int) -> None:
        """Call into the cache what is read next of some channels of x, and where a row of y will be written."""
        begin, later = code.mul(r, fetched), code.mul(code.add(r, 2), pixels)
        for i in range(images):
            with code.loop(begin, code.least(code.add(begin, fetched), "%channels")) as c:
                code.prefetch(code.at(x, code.add(code.mul(x_image, i), code.mul(c, pixels))), min(tile, pixels))
            code.prefetch(code.at(y, code.add(code.mul(y_image, i), later)), length, write=True)

    def compute(x: str, y: str, r: str, images: int, length: int) -> None:
        # the last vector ends with the pixels, even if it begins with some that the one before has too
        starts = [min(c, max(0, length - lanes)) for c in range(0, length, lanes)]
        places = [(i, c) for i in range(images) for c in starts]
        sums = {place: code.zero() for place in places}
        first, last = (code.load_int("%bounds", code.add(code.mul(r, 2), i)) for i in (0, 1))
        with code.loop(first, last) as e:
            channel = code.at(x, code.mul(code.load_int("%columns", e), pixels))
            weight = code.broadcast(code.at("%weights", e))
            for (i, c), s in sums.items():
                source = code.at(channel, code.add(code.mul(x_image, i), c))
                s.set(code.fma(code.load(source, inside(code, c, length)), weight, s.get()))
        row = code.at(y, code.mul(r, pixels))
        for (i, c), s in sums.items():
            code.store(s.get(), code.at(row, code.add(code.mul(y_image, i), c)), inside(code, c, length))

    def work(n: str, first: str | int, images: int, length: int, last: bool) -> None:
        """`length` pixels from `first` on, of all rows."""
        x, y = (code.at(f"%{m}", code.add(code.mul(n, image), first)) for m, image in (("x", x_image), ("y", y_image)))
        after = code.sub(code.mul(x_image, images), first) if last else tile
        with code.loop("%r0", "%r1") as r:
            fetch(code.at(x, after), y, r, images, length)
            compute(x, y, r, images, length)

    whole = (pixels - 1) // tile * tile
    several = code.sub("%n1", code.op(f"srem i64 {code.sub('%n1', '%n0')}, {together}"))
    for images, start, stop in ((together, "%n0", several), (1, several, "%n1"))[: 2 if together > 1 else 1]:
        # a tile is the outermost, so that the part of x under it stays in the cache while all outputs are computed
        with code.loop(start, stop, images) as n:
            if whole:
                with code.loop(0, whole, tile) as first:
                    work(n, first, images, tile, False)
            work(n, whole, images, pixels - whole, True)
    return code
