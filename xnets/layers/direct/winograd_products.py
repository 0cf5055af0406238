"""IR of the 36 sparse products of Winograd's algorithm, see winograd.py: of the layer, or of the weight's gradient.

The positions of a product are tiles of maps, in `sizes`: runs of so many vectors whose sums stay in registers. A run's
channels are rows that stand together, so that they stay in the cache.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from xnets.layers.direct.ir import Function, Variable
from xnets.layers.direct.pointwise import add_products, add_row, each_entry
from xnets.layers.direct.winograd import NUMBERS


def product(group: int, sizes: tuple[int, ...], lanes: int) -> Function:
    """sums[f] = sparse @ inputs[f] for f in [f0, f1): (rows, tile) = (rows, n_in) @ (n_in, tile) for each run.

    weights[f] are in the order of adjacency.Grouped, whose are columns, counts and where. inputs_step, weights_step and
    sums_step are floats from one f to the next. There are groups x group rows.
    """
    code = Function(
        "product",
        ["inputs", "weights", "columns", "counts", "where", "sums"],
        ["f0", "f1", "n_in", "groups", "inputs_step", "weights_step", "sums_step"],
        lanes,
    )
    rows = code.mul("%groups", group)
    share = code.add(code.op("sdiv i64 %n_in, %groups"), 1)  # of the next run's rows, to be called into the cache
    with code.loop("%f0", "%f1") as f:
        weights = code.at("%weights", code.mul(f, "%weights_step"))
        inputs, found = (code.at(f"%{m}", code.mul(f, f"%{m}_step")) for m in ("inputs", "sums"))
        for size in sizes:
            tile = size * lanes
            after = code.at(inputs, code.mul("%n_in", tile))
            with code.loop(0, "%groups") as g:
                begin = code.mul(g, share)
                with code.loop(begin, code.least(code.add(begin, share), "%n_in")) as c:
                    code.prefetch(code.at(after, code.mul(c, tile)), tile, level=2)
                totals = _group(code, g, inputs, weights, group, size)
                for o, vectors in enumerate(totals):
                    row = code.at(found, code.mul(code.add(code.mul(g, group), o), tile))
                    for v, vector in enumerate(vectors):
                        code.store(vector.get(), code.at(row, v * lanes))
            inputs, found = after, code.at(found, code.mul(rows, tile))
    return code


def _group(code: Function, g: str, inputs: str, weights: str, group: int, size: int) -> list[list[Variable]]:
    """Sums of the rows of group g."""
    sums = [[code.zero() for _ in range(size)] for _ in range(group)]

    def entry(pattern: int, e: str, w: str) -> None:
        row = code.at(inputs, code.mul(code.load_int("%columns", e, "i16"), size * code.width))
        add_row(code, sums, pattern, row, [code.at(weights, code.add(w, i)) for i in range(pattern.bit_count())])

    each_entry(code, g, group, entry)
    return sums


def weight_gradient(sizes: tuple[int, ...], numbers: int, lanes: int) -> Function:
    """gradient[f] of the weights for `numbers` f, at the edges of outputs [o0, o1): added to what is there if not
    `fresh`.

    inputs[f] (n_in, tile) and upstream[f] (n_out, tile) for each run; output o has the edges o * degree ... with inputs
    columns[e]. inputs_step, upstream_step and gradient_step are floats from one f to the next.
    """
    code = Function(
        "weight_gradient",
        ["inputs", "upstream", "columns", "gradient"],
        ["o0", "o1", "n_in", "n_out", "degree", "fresh", "inputs_step", "upstream_step", "gradient_step"],
        lanes,
    )
    fresh = code.op("icmp ne i64 %fresh, 0")
    with code.loop(0, numbers) as f:
        gradient = code.at("%gradient", code.mul(f, "%gradient_step"))
        inputs, upstream = (code.at(f"%{m}", code.mul(f, f"%{m}_step")) for m in ("inputs", "upstream"))
        for run, size in enumerate(sizes):
            tile = size * lanes
            with code.loop("%o0", "%o1") as o:
                row = code.at(upstream, code.mul(o, tile))
                vectors = [code.load(code.at(row, v * lanes)) for v in range(size)]
                start = code.mul(o, "%degree")
                edges = start, code.add(start, "%degree")
                add_products(code, vectors, inputs, "%columns", edges, gradient, fresh if run == 0 else "false")
            inputs, upstream = (code.at(m, code.mul(n, tile)) for m, n in ((inputs, "%n_in"), (upstream, "%n_out")))
    return code


# --- one step after the other, for strips of images ---

UNITS = ["images", "pixels", "together", "strips", "lines"]


@contextmanager
def _units(code: Function, first: str | int, last: str, maps: dict[str, str]) -> Iterator[tuple[str, str, dict]]:
    """Strips [first, last) of all images. Of each its number, the two arguments that tell a kernel how many images it
    has and its first line, and where its first image begins in each of `maps`, which have so many channels."""
    with code.loop(first, last) as unit:
        block = code.op(f"sdiv i64 {unit}, %strips")
        image = code.mul(block, "%together")
        line = code.mul(code.sub(unit, code.mul(block, "%strips")), "%lines")
        here = {m: code.at(f"%{m}", code.mul(code.mul(image, channels), "%pixels")) for m, channels in maps.items()}
        count = code.least("%together", code.sub("%images", image))
        yield unit, f"i64 {count}, i64 {line}", here


def product_of_units(lanes: int) -> Function:
    """y of x for units [u0, u1) by the kernels tiles_of_maps, product and maps_of_tiles, in rooms of this task."""
    code = Function(
        "product_of_units",
        ["to_tiles", "product", "to_maps", "x", "y", "weights", "columns", "counts", "where", "places_of_x",
         "places_of_y", "zeros", "sink", "tiles", "sums", "map"],
        ["u0", "u1", *UNITS, "rows", "channels", "groups", "tiles_step", "weights_step", "sums_step"],
        lanes,
    )  # fmt: skip
    with _units(code, "%u0", "%u1", {"x": "%channels", "y": "%rows"}) as (_, images_and_line, here):
        n = "i64 0, i64 %channels, i64 %channels"
        code.emit(
            f"call void %to_tiles(ptr {here['x']}, ptr %places_of_x, ptr %tiles, ptr %zeros, ptr %map, {n}, "
            f"{images_and_line}, i64 %tiles_step)"
        )
        code.emit(
            "call void %product(ptr %tiles, ptr %weights, ptr %columns, ptr %counts, ptr %where, ptr %sums, "
            f"i64 0, i64 {NUMBERS}, i64 %channels, i64 %groups, i64 %tiles_step, i64 %weights_step, i64 %sums_step)"
        )
        n = "i64 0, i64 %rows, i64 %rows"
        code.emit(
            f"call void %to_maps(ptr {here['y']}, ptr %places_of_y, ptr %sums, ptr %sink, ptr %map, {n}, "
            f"{images_and_line}, i64 %sums_step)"
        )
    return code


def gradient_of_units(lanes: int) -> Function:
    """Some of the 36 gradients for outputs [o0, o1) from all units by the kernels tiles_of_maps, of x and of dy, and
    weight_gradient, in rooms of this task."""
    code = Function(
        "gradient_of_units",
        ["x_to_tiles", "dy_to_tiles", "products", "x", "dy", "columns", "gradient", "places_of_x", "places_of_dy",
         "zeros", "tiles", "upstream", "map"],
        ["o0", "o1", "units", *UNITS, "n_in", "n_out", "degree", "tiles_step", "upstream_step", "gradient_step"],
        lanes,
    )  # fmt: skip
    with _units(code, 0, "%units", {"x": "%n_in", "dy": "%n_out"}) as (unit, images_and_line, here):
        n = "i64 0, i64 %n_in, i64 %n_in"
        code.emit(
            f"call void %x_to_tiles(ptr {here['x']}, ptr %places_of_x, ptr %tiles, ptr %zeros, ptr %map, {n}, "
            f"{images_and_line}, i64 %tiles_step)"
        )
        n = "i64 %o0, i64 %o1, i64 %n_out"
        code.emit(
            f"call void %dy_to_tiles(ptr {here['dy']}, ptr %places_of_dy, ptr %upstream, ptr %zeros, ptr %map, {n}, "
            f"{images_and_line}, i64 %upstream_step)"
        )
        fresh = code.op(f"zext i1 {code.op(f'icmp eq i64 {unit}, 0')} to i64")
        code.emit(
            "call void %products(ptr %tiles, ptr %upstream, ptr %columns, ptr %gradient, i64 %o0, i64 %o1, "
            f"i64 %n_in, i64 %n_out, i64 %degree, i64 {fresh}, i64 %tiles_step, i64 %upstream_step, "
            "i64 %gradient_step)"
        )
    return code
