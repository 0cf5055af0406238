"""How kernels of 3x3 convolutions, of padding 1 and stride 1 or 2, go through maps.

A product is computed in strips of lines, and these in tiles, over which sums stay in registers. Which of them touch the
border of the map is known while code for them is written, so that lines that fall off the map are left out of it.
"""

import functools
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

from xnets.layers.direct.ir import Function

TAPS = [(i, j) for i in range(3) for j in range(3)]


def equal(n: int, most: int) -> int:
    """The length of as few parts of n as can be, all of about one length, at most `most`."""
    return math.ceil(n / math.ceil(n / most))


class Strip(NamedTuple):
    """Consecutive lines (or columns) of a product: the first and how many; the first of the source under them, and
    which are needed of it, counted from that one."""

    first: str | int
    length: int
    source: str | int
    needed: range


class Side(NamedTuple):
    """Height or width of a product's map, and of its source's, for a layer of stride `step`; the product is that of the
    graph, or, transposed, the gradient of the layer's input."""

    length: int
    source: int
    step: int = 1
    transposed: bool = False

    def reached(self, pixel: int, tap: int) -> int | None:
        """The line (or column) of the product that one of the source adds to through a tap; None if there is none."""
        if self.transposed:
            return self.step * pixel + tap - 1
        there, between = divmod(pixel + 1 - tap, self.step)
        return None if between else there

    def under(self, first: int) -> int:
        """The line of the source under a line of the product where a strip begins."""
        return first // self.step if self.transposed else first * self.step

    def equal(self, most: int) -> int:
        """Lines of a strip: of as few strips of at most `most` lines as can be, all of about one length."""
        even = self.even
        return even * equal(math.ceil(self.length / even), most // even)

    @property
    def even(self) -> int:
        """Of what the length of a strip is a multiple: a line of the source may be spread over two."""
        return self.step if self.transposed else 1

    def cut(self, tall: int) -> list[tuple[Strip, int]]:
        """Strips of `tall` lines, the last of what is left, and how many are like it: but for the first and the last
        they are alike."""
        count = math.ceil(self.length / tall)
        kinds = {0: 1, tall: count - 2, (count - 1) * tall: 1}  # by where the first of them begins
        return [(self._strip(first, tall), alike) for first, alike in kinds.items() if alike > 0]

    def _strip(self, first: int, tall: int) -> Strip:
        length, source = min(tall, self.length - first), self.under(first)
        near = range(max(-1, -source), min(self.source - source, self.step * length + 1))
        found = [line for line in near if self.taps(line, length)]
        return Strip(first, length, source, range(found[0], found[-1] + 1))

    def taps(self, line: int, length: int) -> int:
        """How many taps lead from a line of the source to a strip of that length."""
        return sum(self.reached(line, tap) in range(length) for tap in range(3))

    def strips(self, code: Function, tall: int) -> Iterator[Strip]:
        """What `cut` tells, in code: those that are alike are one loop."""
        for strip, alike in self.cut(tall):
            if alike == 1:
                yield strip
            else:
                with code.loop(1, alike + 1) as i:
                    yield strip._replace(first=code.mul(i, tall), source=code.mul(i, self.under(tall)))


class Maps(NamedTuple):
    """A product's maps and those of its source; see Side."""

    height: int
    width: int
    source_height: int
    source_width: int
    step: int = 1
    transposed: bool = False

    @property
    def down(self) -> Side:
        """Lines."""
        return Side(self.height, self.source_height, self.step, self.transposed)

    @property
    def across(self) -> Side:
        """Columns."""
        return Side(self.width, self.source_width, self.step, self.transposed)

    @property
    def units(self) -> int:
        """Columns of the smaller of the two, by which lines.py counts both."""
        return min(self.width, self.source_width)

    @property
    def turns(self) -> int:
        """Columns of the product in a unit."""
        return self.step if self.transposed else 1

    @property
    def strides(self) -> int:
        """Columns of the source in a unit."""
        return 1 if self.transposed else self.step

    def shifts(self) -> dict[int, list[int]]:
        """By how many columns the source is shifted for which columns of the filter."""
        shifts: dict[int, list[int]] = {}
        for dj in range(3):
            # through dj, column j of the source adds to column step j + dj - 1 of the transposed product
            shift = (self.turn(dj) + 1 - dj) // self.step if self.transposed else dj - 1
            shifts.setdefault(shift, []).append(dj)
        return shifts

    def turn(self, dj: int) -> int:
        """Which of a unit's columns of the product a column of the filter leads to."""
        return (dj - 1) % self.turns


@functools.cache
def cheapest_tile(maps: Maps, registers: int, even: int = 1) -> tuple[int, int]:
    """Lines and columns of the tiles that cost least of those of about four lines, where what they load is not all
    hidden: the whole map if the registers hold its sums, else multiples of `even`."""
    down, across = maps.down, maps.across
    if maps.height * maps.width <= registers:
        return maps.height, maps.width

    def cost(tall: int, wide: int) -> float:
        cycles = 0.0
        for (band, bands), (tile, tiles) in itertools.product(down.cut(tall), across.cut(wide)):
            loads = len(band.needed) * len(tile.needed) + 9
            lines, columns = (
                sum(side.taps(line, strip.length) for line in strip.needed)
                for side, strip in ((down, band), (across, tile))
            )
            # the second-level cache gives less than one vector for two multiply-adds
            cycles += bands * tiles * (max(lines * columns + loads / 2, 1.8 * loads) + 2 * band.length + 4)
        return cycles

    even = math.lcm(even, down.even)
    rows, columns = (range(even, even * math.ceil(n / even) + 1, even) for n in (min(maps.height, 4), maps.width))
    return min(((t, w) for t in rows for w in columns if t * w <= registers), key=lambda tile: cost(*tile))
