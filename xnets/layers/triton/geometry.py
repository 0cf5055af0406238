"""Sizes of one layer and one batch, as launches and estimates need them."""

from collections.abc import Sequence
from math import gcd, prod
from typing import NamedTuple

GROUP = 16  # the smallest side of a tensor core's tile


class Axis(NamedTuple):
    """One side of the image."""

    size: int
    out: int
    window: int
    stride: int
    padding: int
    dilation: int

    def taps(self, remainder: int) -> tuple[int, int, int]:
        """Which window positions reach input pixels = remainder (mod stride): the first, how many, the step."""
        fits = [k for k in range(self.window) if (remainder + self.padding - k * self.dilation) % self.stride == 0]
        return fits[0] if fits else 0, len(fits), self.stride // gcd(self.stride, self.dilation)


class Layer:
    """x is (images, n_in, rows.size, columns.size), the output (images, n_out, rows.out, columns.out)."""

    def __init__(self, images: int, n_in: int, n_out: int, degree: int, block: int, rows: Axis, columns: Axis) -> None:
        self.images, self.n_in, self.n_out, self.degree, self.block = images, n_in, n_out, degree, block
        self.rows, self.columns = rows, columns

    @property
    def taps(self) -> int:
        """Positions of the window."""
        return self.rows.window * self.columns.window

    @property
    def lanes(self) -> int:
        """Output pixels of all images."""
        return self.images * self.rows.out * self.columns.out

    @property
    def in_lanes(self) -> int:
        """Input pixels of all images."""
        return self.images * self.rows.size * self.columns.size

    @property
    def edges(self) -> int:
        """Edges of the graph, each with `taps` weights."""
        return self.n_out * self.degree

    @property
    def grouped(self) -> bool:
        """Whether outputs share lists enough for tensor cores."""
        return self.block >= GROUP

    @property
    def padded(self) -> bool:
        """Whether a window can reach outside of the image."""
        return any(
            a.padding or (a.out - 1) * a.stride + (a.window - 1) * a.dilation >= a.size
            for a in (self.rows, self.columns)
        )


POINT = Axis(1, 1, 1, 1, 0, 1)


def layer_of(
    size: Sequence[int], weight: Sequence[int], rows: int, stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int],
) -> Layer:  # fmt: skip
    """From the sizes of x, weight and index. What looks at single pixels sees one row of all of them.

    A linear layer's x is taken as the transpose of (N, n_in): one image, a row of N pixels.
    """
    n_out, degree = weight[:2]
    ends = (size[1], n_out, degree, n_out // rows)
    if len(size) == 2:
        return Layer(1, *ends, POINT, POINT._replace(size=size[0], out=size[0]))
    axes = [
        Axis(n, (n + 2 * p - d * (k - 1) - 1) // s + 1, k, s, p, d if k > 1 else 1)
        for n, k, s, p, d in zip(size[2:], weight[2:], stride, padding, dilation, strict=True)
    ]
    if all(a[2:] == POINT[2:] for a in axes):
        pixels = prod(a.size for a in axes)
        return Layer(size[0], *ends, POINT, POINT._replace(size=pixels, out=pixels))
    return Layer(size[0], *ends, *axes)
