"""IR of Winograd's algorithm on maps that stay packed from layer to layer, see blocked.py and winograd.py."""

from xnets.layers.direct.blocked import finish, larger
from xnets.layers.direct.ir import Function
from xnets.layers.direct.winograd import (
    NUMBERS,
    WINDOW,
    Strip,
    clear,
    lines_of_strip,
    outputs_of_tile,
    tiles_of_strip,
    transform_tile,
)


def tiles_of_blocks(strip: Strip, lanes: int) -> Function:
    """numbers[f] of the tiles of x (channels, x_step, lanes), for channels [c0, c1); see winograd.tiles_of_maps."""
    code = Function("tiles_of_blocks", ["x", "places", "numbers", "map"], ["c0", "c1", "line", "step", "x_step"], lanes)
    columns = strip.columns(1)
    clear(code, strip, 1)
    with code.loop("%c0", "%c1") as c:
        source = code.at("%x", code.mul(code.mul(c, "%x_step"), lanes))
        above, inside = lines_of_strip(code, strip, 1)
        with inside as line:
            here = code.at(source, code.mul(code.add(above, line), strip.width * lanes))
            there = code.at("%map", code.mul(code.add(code.mul(line, columns), 1), lanes))
            with code.loop(0, strip.width * lanes, lanes) as i:
                code.store(code.load(code.at(here, i)), code.at(there, i))
        for corner, numbers in tiles_of_strip(code, strip, columns, "0", c):
            transform_tile(code, corner, columns, WINDOW, numbers)
    return code


def blocks_of_tiles(strip: Strip, relu: bool, adds: bool, pooled: bool, lanes: int) -> Function:
    """y (rows, y_step, lanes) of the sums of products, for rows [c0, c1): plus bias, plus `other`, at least zero if
    `relu`; or the maximum of each 2 x 2 of them, for maps of even sides."""
    code = Function(
        "blocks_of_tiles",
        ["places", "numbers", "bias", "other", "y", "map"],
        ["c0", "c1", "line", "step", "y_step"],
        lanes,
    )
    columns, shrunk = strip.columns(0), 2 if pooled else 1
    with code.loop("%c0", "%c1") as c:
        bias = code.broadcast(code.at("%bias", c))
        for corner, numbers in tiles_of_strip(code, strip, columns, "0", c):
            outputs_of_tile(code, numbers, corner, columns)
        last = code.least(strip.lines, code.sub(strip.height, "%line"))
        with code.loop(0, last, shrunk) as line:
            here = code.at("%map", code.mul(line, columns * lanes))
            first = code.op(f"sdiv i64 {code.add('%line', line)}, {shrunk}")
            there = code.add(code.mul(c, "%y_step"), code.mul(first, strip.width // shrunk))
            with code.loop(0, strip.width // shrunk) as j:
                pixel = code.at(here, code.mul(j, shrunk * lanes))
                found = code.load(pixel)
                for place in (1, columns, columns + 1) if pooled else ():
                    found = larger(code, found, code.load(code.at(pixel, place * lanes)))
                target = code.mul(code.add(there, j), lanes)
                other = code.at("%other", target) if adds else None
                code.store(finish(code, code.plus(found, bias), other, relu), code.at("%y", target))
    return code


def whole_strips(lanes: int) -> Function:
    """`tiles_of_blocks`, `product` and `blocks_of_tiles` one after the other, for strips [s0, s1), in rooms of this
    task."""
    code = Function(
        "whole_strips",
        ["to_tiles", "product", "to_blocks", "x", "weights", "columns", "counts", "where", "places_of_x", "places_of_y",
         "bias", "other", "y", "tiles", "sums", "map"],
        ["s0", "s1", "lines", "rows", "x_step", "y_step", "channels", "groups", "tiles_step", "weights_step",
         "sums_step"],
        lanes,
    )  # fmt: skip
    with code.loop("%s0", "%s1") as s:
        line = f"i64 {code.mul(s, '%lines')}"
        code.emit(
            f"call void %to_tiles(ptr %x, ptr %places_of_x, ptr %tiles, ptr %map, i64 0, i64 %channels, {line}, "
            "i64 %tiles_step, i64 %x_step)"
        )
        code.emit(
            "call void %product(ptr %tiles, ptr %weights, ptr %columns, ptr %counts, ptr %where, ptr %sums, "
            f"i64 0, i64 {NUMBERS}, i64 %channels, i64 %groups, i64 %tiles_step, i64 %weights_step, i64 %sums_step)"
        )
        code.emit(
            "call void %to_blocks(ptr %places_of_y, ptr %sums, ptr %bias, ptr %other, ptr %y, ptr %map, "
            f"i64 0, i64 %rows, {line}, i64 %sums_step, i64 %y_step)"
        )
    return code
