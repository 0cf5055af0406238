"""A small X-Conv and a small X-Linear, and inputs for them."""

import pytest
import torch

from xnets import ExpanderConv2d, ExpanderLinear
from xnets.graphs import BipartiteGraph
from xnets.layers import KERNELS

F64 = {"dtype": torch.float64}
LOPSIDED = BipartiteGraph(5, [0, 3, 3, 4, 6], [0, 2, 4, 1, 1, 3])  # output 1 has no input, input 0 one output
every_kernel = pytest.mark.parametrize("kernel", KERNELS)


def conv(**how):
    """A small X-Conv, 6 -> 8 channels."""
    return ExpanderConv2d(6, 8, 3, padding=1, **{"degree": 3, "seed": 0} | how)


def linear(**how):
    """A small X-Linear, 6 -> 8."""
    return ExpanderLinear(6, 8, **{"degree": 3, "seed": 0} | how)


def image(*shape, **how):
    return torch.randn(*(shape or (2, 6, 7, 5)), generator=torch.Generator().manual_seed(0), **how)


BOTH = pytest.mark.parametrize(("make", "x"), [(conv, image()), (linear, image(2, 6))], ids=["conv", "linear"])
