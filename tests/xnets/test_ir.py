"""Pieces of the direct kernels' code, compiled for vectors of every width."""

import numpy as np
import pytest

from tests.xnets.direct_cases import needs_llvmlite
from xnets.layers.direct.ir import Function
from xnets.layers.direct.jit import compiled


def sums_of(count: int, width: int) -> Function:
    """y = for each of `count` vectors of x the sum of its lanes."""
    code = Function("sums_of", ["x", "y"], [], width)
    code.store(code.sums([code.load(code.at("%x", i * width)) for i in range(count)]), "%y")
    return code


@needs_llvmlite
@pytest.mark.parametrize("width", [4, 8, 16])
def test_sums_stand_in_the_order_of_their_vectors(width):
    x = np.random.default_rng(0).integers(-1000, 1000, (width, width)).astype(np.float32)  # sums without rounding
    for count in (1, 2, 3, width - 1, width):
        y = np.full(width, np.nan, dtype=np.float32)
        compiled(sums_of, count, width)(x.ctypes.data, y.ctypes.data)
        assert y.tolist() == [*x[:count].sum(1).tolist(), *[0.0] * (width - count)]
