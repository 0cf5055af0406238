"""IR of batch normalisation in training, with or without ReLU after it: forward and backward, one channel at a time.

Sums are of floats within a row (one image's pixels of a channel) and of doubles over the rows. A channel that was
summed is still in the cache when it is normalised. A unit is what a row of vectors holds: one channel, or, where its
pixels divide a vector, as many as fill one. `room` is scratch: for each unit of a block MOMENTS rows of doubles, then
LANES rows of floats, all of a vector's width.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from xnets.layers.direct.ir import Function

MOMENTS, LANES = 2, 5
CHANNEL = ["mean", "inverse_sd", "scale", "shift"]  # of each channel, floats: what forward writes and backward reads
SIZES = ["u0", "u1", "block", "images", "channels"]


def channels_together(pixels: int, width: int) -> int:
    """Channels of a unit."""
    return width // pixels if pixels < width and width % pixels == 0 else 1


def room(units: int, width: int) -> int:
    """Floats of scratch for a block of so many units."""
    return units * width * (2 * MOMENTS + LANES)


def forward(pixels: int, ragged: bool, relu: bool, width: int) -> Function:
    """y = (x - mean) / sd * weight + bias, then perhaps its positive part, for units [u0, u1), `block` at a time.

    x, y (images, channels, pixels); eps is one double; var is the biased variance. ragged: whether the last
    unit has fewer channels than the others.
    """
    pointers = ["x", "weight", "bias", "eps", "y", *CHANNEL, "var", "room"]
    code = Function("norm", pointers, SIZES, width)
    unit = _Unit(code, pixels, ragged)
    count = unit.count()
    eps = code.op("load double, ptr %eps")
    with unit.blocks() as (first, last):
        middle, end = code.op("sdiv i64 %images, 2"), code.sub("%images", 1)
        with unit.channels(first, last) as (c, lanes):
            places = [
                code.add(code.mul(code.add(code.mul(image, "%channels"), c), pixels), pixel)
                for image, pixel in ((0, 0), (middle, pixels // 2), (end, pixels - 1))
            ]
            some = [code.op(f"load float, ptr {code.at('%x', place)}") for place in places]
            unit.spread(median(code, *some, "float", "i1"), 0, lanes)  # deviations are from it
        unit.clear(first, last)
        with unit.rows(first, last) as (u, start):
            origin = code.load(unit.lane(u, 0))
            sums, squares = _Sum(code, unit.chains), _Sum(code, unit.chains)
            for where, mask, chain in unit.vectors(u, start):
                deviation = code.only(code.minus(unit.load("%x", where, mask), origin), mask)
                sums.add(deviation, chain)
                squares.add_product(deviation, deviation, chain)
            unit.collect(u, 0, sums.total())
            unit.collect(u, 1, squares.total())
        with unit.channels(first, last) as (c, lanes):
            origin = code.op(f"fpext float {code.op(f'load float, ptr {lanes(0)}')} to double")
            moments = unit.moment(c, 0), unit.moment(c, 1)
            mean, scale, shift = statistics(code, c, origin, *moments, count, eps)
            for place, value in enumerate((mean, scale, shift)):
                unit.spread(narrow(code, value), place, lanes)
        with unit.rows(first, last) as (u, start):
            mean, scale, shift = (code.load(unit.lane(u, place)) for place in range(3))
            for where, mask, _ in unit.vectors(u, start):
                deviation = code.minus(unit.load("%x", where, mask), mean)
                y = code.fma(deviation, scale, shift)
                unit.store(code.positive(y, y) if relu else y, "%y", where, mask)
    return code


def backward(pixels: int, ragged: bool, relu: bool, width: int) -> Function:
    """dx, d_weight and d_bias from dy and what forward saw and wrote, for units [u0, u1), `block` at a time."""
    pointers = ["x", "dy", *CHANNEL, "dx", "d_weight", "d_bias", "room"]
    code = Function("norm_backward", pointers, SIZES, width)
    unit = _Unit(code, pixels, ragged)
    count = unit.count()

    def loaded(where: str, mask: str | None, mean: str, scale: str, shift: str) -> tuple[str, str]:
        """Deviations of x from its mean, and dy where ReLU let it through."""
        deviation, dy = code.minus(unit.load("%x", where, mask), mean), unit.load("%dy", where, mask)
        return deviation, code.positive(code.fma(deviation, scale, shift), dy) if relu else dy

    with unit.blocks() as (first, last):
        with unit.channels(first, last) as (c, lanes):
            for place, name in enumerate(("mean", "scale", "shift")):
                unit.spread(code.op(f"load float, ptr {code.at('%' + name, c)}"), place, lanes)
        unit.clear(first, last)
        with unit.rows(first, last) as (u, start):
            known = [code.load(unit.lane(u, place)) for place in range(3)]
            sums, products = _Sum(code, unit.chains), _Sum(code, unit.chains)
            for where, mask, chain in unit.vectors(u, start):
                deviation, dy = loaded(where, mask, *known)
                sums.add(dy, chain)
                products.add_product(deviation, dy, chain)
            unit.collect(u, 0, sums.total())
            unit.collect(u, 1, products.total())
        with unit.channels(first, last) as (c, lanes):
            through_mean, through_sd = through(code, c, unit.moment(c, 0), unit.moment(c, 1), count)
            unit.spread(through_mean, 3, lanes)
            unit.spread(through_sd, 4, lanes)
        with unit.rows(first, last) as (u, start):
            mean, scale, shift, through_mean, through_sd = (code.load(unit.lane(u, place)) for place in range(5))
            for where, mask, _ in unit.vectors(u, start):
                deviation, dy = loaded(where, mask, mean, scale, shift)
                unit.store(code.fma(dy, scale, code.fma(deviation, through_sd, through_mean)), "%dx", where, mask)
    return code


class _Unit:
    """Where the numbers of a unit are, and loops over them. Units are counted from the tensor's first channel."""

    def __init__(self, code: Function, pixels: int, ragged: bool) -> None:
        self.code, self.pixels, self.ragged = code, pixels, ragged
        self.together = channels_together(pixels, code.width)
        self.whole, self.tail = divmod(self.together * pixels, code.width)
        self.lanes = pixels if self.together > 1 else code.width  # of one channel
        self.chains = max(1, min(4, self.whole))
        self.first = ""  # of the block

    def count(self) -> str:
        """Numbers of a channel in the batch, a double."""
        images = self.code.op("sitofp i64 %images to double")
        return self.code.op(f"fmul double {images}, {float(self.pixels)}")

    @contextmanager
    def blocks(self) -> Iterator[tuple[str, str]]:
        """Ranges of units, one after the other."""
        with self.code.loop("%u0", "%u1", "%block") as self.first:
            yield self.first, self.code.least(self.code.add(self.first, "%block"), "%u1")

    @contextmanager
    def channels(self, first: str, last: str) -> Iterator[tuple[str, Callable[[int], str]]]:
        """Each channel of those units, and where its lanes are in each row of floats."""
        code, q = self.code, self.together
        stop = code.least(code.mul(last, q), "%channels")
        with code.loop(code.mul(first, q), stop) as c:
            u, skipped = self._place(c)
            yield c, lambda place: code.at(self.lane(u, place), skipped)

    def _place(self, c: str) -> tuple[str, str]:
        """A channel's unit, and how many lanes come before its own."""
        code, q = self.code, self.together
        u = code.op(f"sdiv i64 {c}, {q}")
        return u, code.mul(code.sub(c, code.mul(u, q)), self.pixels if q > 1 else 0)

    @contextmanager
    def rows(self, first: str, last: str) -> Iterator[tuple[str, str]]:
        """Each unit's row in each image, and where it starts."""
        code = self.code
        with code.loop(0, "%images") as n, code.loop(first, last) as u:
            c = code.add(code.mul(n, "%channels"), code.mul(u, self.together))
            yield u, code.mul(c, self.pixels)

    def vectors(self, u: str, start: str) -> Iterator[tuple[str, str | None, int]]:
        """Where each vector of a row is, its mask if it is not full, and which chain of sums it goes to."""
        code, w = self.code, self.code.width
        if self.ragged and self.together > 1:
            left = code.mul(code.sub("%channels", code.mul(u, self.together)), self.pixels)
            yield start, code.mask(left), 0
            return
        looped = self.whole - self.whole % self.chains if self.whole >= 2 * self.chains else 0
        if looped:
            with code.loop(start, code.add(start, looped * w), self.chains * w) as i:
                for chain in range(self.chains):
                    yield code.add(i, chain * w), None, chain
        for v in range(looped, self.whole):
            yield code.add(start, v * w), None, v % self.chains
        if self.tail:
            yield code.add(start, self.whole * w), code.mask(self.tail), self.whole % self.chains

    def load(self, array: str, where: str, mask: str | None) -> str:
        """A vector of it, zero in the lanes that are masked out."""
        return self.code.load(self.code.at(array, where), mask)

    def store(self, vector: str, array: str, where: str, mask: str | None) -> None:
        """A vector of it, but for the lanes that are masked out."""
        self.code.store(vector, self.code.at(array, where), mask)

    def lane(self, u: str, place: int) -> str:
        """Row `place` of the floats of a unit."""
        return self._room(u, 2 * MOMENTS + place)

    def _room(self, u: str, row: int) -> str:
        code = self.code
        return code.at("%room", code.add(code.mul(code.sub(u, self.first), room(1, code.width)), row * code.width))

    def spread(self, value: str, place: int, lanes: Callable[[int], str]) -> None:
        """Set a channel's lanes of a row to one float."""
        for lane in range(self.lanes):
            self.code.emit(f"store float {value}, ptr {self.code.at(lanes(place), lane)}")

    def clear(self, first: str, last: str) -> None:
        """Set the moments of those units to zero."""
        with self.code.loop(first, last) as u:
            for row in range(2 * MOMENTS):
                self.code.store("zeroinitializer", self._room(u, row))

    def collect(self, u: str, moment: int, vector: str) -> None:
        """Add a row's sums to a moment."""
        self.code.add_to_doubles(vector, self._room(u, 2 * moment))

    def moment(self, c: str, moment: int) -> str:
        """The sum of a channel's lanes."""
        code = self.code
        u, skipped = self._place(c)
        there = code.at(self._room(u, 2 * moment), skipped, "double")
        total = "0.0"
        for lane in range(self.lanes):
            value = code.op(f"load double, ptr {code.at(there, lane, 'double')}")
            total = code.op(f"fadd double {total}, {value}")
        return total


class _Sum:
    """A sum of vectors, in several chains: each addition would wait for the one before it."""

    def __init__(self, code: Function, chains: int) -> None:
        self.code, self.chains = code, [code.zero() for _ in range(chains)]

    def add(self, vector: str, chain: int) -> None:
        self.chains[chain].set(self.code.plus(self.chains[chain].get(), vector))

    def add_product(self, a: str, b: str, chain: int) -> None:
        self.chains[chain].set(self.code.fma(a, b, self.chains[chain].get()))

    def total(self) -> str:
        total = self.chains[0].get()
        for chain in self.chains[1:]:
            total = self.code.plus(total, chain.get())
        return total


def median(code: Function, a: str, b: str, c: str, kind: str, test: str) -> str:
    """Of three numbers, or vectors of them: sums of deviations from it lose little to one outlier."""
    below = code.op(f"fcmp olt {kind} {a}, {b}")
    low, high = (code.op(f"select {test} {below}, {kind} {p}, {kind} {q}") for p, q in ((a, b), (b, a)))
    high = code.op(f"select {test} {code.op(f'fcmp olt {kind} {high}, {c}')}, {kind} {high}, {kind} {c}")
    return code.op(f"select {test} {code.op(f'fcmp olt {kind} {low}, {high}')}, {kind} {high}, {kind} {low}")


def statistics(
    code: Function, c: str, origin: str, deviations: str, squares: str, count: str, eps: str
) -> tuple[str, str, str]:
    """Write CHANNEL and var of channel c, from the sums of its deviations from `origin` and of their squares; mean,
    scale and shift as doubles."""
    off = code.op(f"fdiv double {deviations}, {count}")
    square = code.op(f"fdiv double {squares}, {count}")
    var = code.op(f"fsub double {square}, {code.op(f'fmul double {off}, {off}')}")
    var = code.op(f"select i1 {code.op(f'fcmp olt double {var}, 0.0')}, double 0.0, double {var}")
    mean = code.op(f"fadd double {origin}, {off}")
    sd = _sqrt(code, code.op(f"fadd double {var}, {eps}"))
    inverse = code.op(f"fdiv double 1.0, {sd}")
    scale = code.op(f"fmul double {wide(code, '%weight', c)}, {inverse}")
    # what the mean loses as a float goes into the shift
    lost = code.op(f"fsub double {code.op(f'fpext float {narrow(code, mean)} to double')}, {mean}")
    shift = code.op(f"fadd double {wide(code, '%bias', c)}, {code.op(f'fmul double {lost}, {scale}')}")
    for name, value in zip([*CHANNEL, "var"], (mean, inverse, scale, shift, var), strict=True):
        code.emit(f"store float {narrow(code, value)}, ptr {code.at('%' + name, c)}")
    return mean, scale, shift


def through(code: Function, c: str, total: str, product: str, count: str) -> tuple[str, str]:
    """Write d_weight and d_bias of channel c, from the sums of dy and of dy times deviation; and the floats by which dx
    depends on all of dy: one to add, one to add for each unit of deviation."""
    inverse, scale = wide(code, "%inverse_sd", c), wide(code, "%scale", c)
    d_weight = code.op(f"fmul double {product}, {inverse}")
    code.emit(f"store float {narrow(code, total)}, ptr {code.at('%d_bias', c)}")
    code.emit(f"store float {narrow(code, d_weight)}, ptr {code.at('%d_weight', c)}")
    share = code.op(f"fneg double {code.op(f'fdiv double {scale}, {count}')}")
    through_mean = code.op(f"fmul double {share}, {total}")
    through_sd = code.op(f"fmul double {share}, {code.op(f'fmul double {d_weight}, {inverse}')}")
    return narrow(code, through_mean), narrow(code, through_sd)


def wide(code: Function, array: str, c: str) -> str:
    """array[c] as a double."""
    return code.op(f"fpext float {code.op(f'load float, ptr {code.at(array, c)}')} to double")


def narrow(code: Function, value: str) -> str:
    """A double as a float."""
    return code.op(f"fptrunc double {value} to float")


def _sqrt(code: Function, value: str) -> str:
    code.declared.add("declare double @llvm.sqrt.f64(double)")
    return code.op(f"call double @llvm.sqrt.f64(double {value})")
