"""How maps are cut into tiles: against every tap of every pixel, counted one by one."""

from hypothesis import given
from hypothesis import strategies as st

from xnets.layers.direct.tiles import Maps, cheapest_tile


@st.composite
def maps(draw):
    """Of a layer whose input has some size: its output's, or its input's gradient's."""
    step, transposed = draw(st.sampled_from([1, 2])), draw(st.booleans())
    size = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    output = tuple((length - 1) // step + 1 for length in size)
    return Maps(*size, *output, step, True) if transposed else Maps(*output, *size, step, False)


sides = maps().map(lambda drawn: drawn.down)


def taps_on_the_map(side):
    """(line of the product, line of the source, tap) of a convolution of padding 1, or of its transpose."""
    outputs, inputs = (side.source, side.length) if side.transposed else (side.length, side.source)
    met = {(o, side.step * o + tap - 1, tap) for o in range(outputs) for tap in range(3)}
    met = {(o, i, tap) for o, i, tap in met if 0 <= i < inputs}
    return {(i, o, tap) for o, i, tap in met} if side.transposed else met


def every_strip(side, tall):
    """Those that are alike one by one."""
    found = []
    for strip, alike in side.cut(tall):
        for i in range(alike):
            first = strip.first + i * tall
            found.append(strip._replace(first=first, source=side.under(first)))
    return found


@given(sides, st.integers(1, 9))
def test_strips_meet_every_tap_on_the_map_once(side, tall):
    tall *= side.even
    found = []
    for strip in every_strip(side, tall):
        for line in strip.needed:
            assert 0 <= strip.source + line < side.source
            reached = [(side.reached(line, tap), tap) for tap in range(3)]
            inside = [(there, tap) for there, tap in reached if there in range(strip.length)]
            found += [(strip.first + there, strip.source + line, tap) for there, tap in inside]
    assert len(found) == len(set(found))
    assert set(found) == taps_on_the_map(side)


@given(sides, st.integers(2, 30))
def test_equal_strips_are_few_and_differ_little(side, most):
    tall = side.equal(most)
    assert tall <= max(most, side.even)
    assert tall % side.even == 0
    assert sum(alike for _, alike in side.cut(tall)) == -(-side.length // (most // side.even * side.even))


@given(maps(), st.sampled_from([8, 16, 21]), st.sampled_from([1, 2]))
def test_sums_of_a_tile_fit_the_registers(drawn, registers, even):
    tall, wide = cheapest_tile(drawn, registers, even)
    assert tall * wide <= registers
    whole = (tall, wide) == (drawn.height, drawn.width)
    assert whole or (tall % even, wide % even) == (0, 0)
