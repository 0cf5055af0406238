"""What the layers refuse: inputs of another size, and what cannot be built."""

import numpy as np
import pytest

from tests.xnets.small_layers import BOTH, conv, every_kernel
from xnets import ExpanderConv2d, XNetsError
from xnets.graphs import BipartiteGraph, grouped_graph

NOTHING = {"degree": None, "seed": None}  # to sample a graph with: it is given


@BOTH
@every_kernel
def test_inputs_of_another_size_are_refused(make, x, kernel):
    layer = make(kernel=kernel)
    for wrong in (x.repeat_interleave(2, 1), x[:, :5], x[0, ..., 0] if make is conv else x[:, 0]):
        with pytest.raises(XNetsError, match=r"Expected input .*6"):
            layer(wrong)


@BOTH
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"compression": 2}, "exactly one of degree"),
        ({"degree": None}, "exactly one of degree"),
        ({"degree": None, "compression": 7}, "compression 7 does not fit a layer with fan-in 6"),
        ({"degree": None, "compression": 0}, "compression 0 does not fit"),
        ({"degree": 7}, "degree must lie between 1 and .* 6, not 7"),
        ({"degree": 0}, "degree must lie between 1 and .* 6, not 0"),
        ({"block": 3}, "block must divide the 8 outputs, and 3 does not"),
        ({"block": 0}, "block must divide"),
        ({"block": 2, "graph": "random-by-input"}, "block > 1 needs a graph whose outputs all have the same degree"),
        ({"init": "zero"}, "Unknown initialisation 'zero'; there are torch, sparse-aware, authors"),
        ({"kernel": "fast"}, "Unknown kernel 'fast'; there are dense, algorithm1"),
        ({"graph": "ring"}, "Unknown graph 'ring'; there are random,"),
        ({"seed": -1}, "graph seed must be a whole number >= 0, not -1"),
        ({"seed": 0.5}, "graph seed must be a whole number"),
        ({"graph": grouped_graph(6, 8, 2)}, "Give a graph, or a degree or compression"),
        ({"graph": grouped_graph(6, 4, 2), **NOTHING}, "has 6 inputs and 4 outputs, the layer needs 6 and 8"),
        ({"graph": grouped_graph(6, 8, 2), **NOTHING, "block": 2}, "the layer needs 6 and 4"),
        ({"graph": BipartiteGraph.from_mask(np.zeros((8, 6))), **NOTHING}, "The graph has no edges"),
        ({"graph": grouped_graph(6, 8, 2), "degree": None, "seed": 3}, "and a seed to sample one with, not both"),
    ],
)
def test_what_cannot_be_built_is_refused(make, x, device, how, says):
    with pytest.raises(XNetsError, match=says):
        make(**how, device=device)


def test_padding_that_cannot_be_built_is_refused():
    with pytest.raises(XNetsError, match="padding_mode must be one of zeros, reflect, replicate, circular"):
        conv(padding_mode="mirror")
    for how in ({"padding": "full"}, {"padding": "same", "stride": (1, 2)}):
        with pytest.raises(XNetsError, match="padding must be numbers, 'valid', or 'same' with stride 1"):
            ExpanderConv2d(6, 8, 3, degree=2, **how)
