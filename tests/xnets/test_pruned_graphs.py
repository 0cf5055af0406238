"""Graphs of the largest weights of dense layers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnets import ExpanderLinear, XNetsError
from xnets.graphs.pruned import magnitude_pruned


@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 2**31), st.data())
def test_magnitude_pruning_keeps_the_largest_filters(n_out, n_in, seed, data):
    degree = data.draw(st.integers(1, n_in))
    weight = np.random.default_rng(seed).normal(size=(n_out, n_in, 3, 3))
    graph = magnitude_pruned(weight, degree)
    for v, inputs in enumerate(graph.neighbours):
        norms = [float((weight[v, u] ** 2).sum()) for u in range(n_in)]
        assert sorted(inputs) == sorted(sorted(range(n_in), key=lambda u: -norms[u])[:degree])
    layer = ExpanderLinear(n_in, n_out, graph=magnitude_pruned(weight.sum((2, 3)), degree))
    assert layer.degree == degree


@pytest.mark.parametrize(("shape", "degree", "why"), [((4,), 1, "dense layer"), ((4, 3), 4, "fan-in 3")])
def test_what_cannot_be_pruned(shape, degree, why):
    with pytest.raises(XNetsError, match=why):
        magnitude_pruned(np.ones(shape), degree)
