"""One graph and its several views, which agree and cannot be changed."""

import hashlib
import struct
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.xnets.graph_cases import edge_counts, seeds, sizes
from xnets import XNetsError
from xnets.graphs import CONSTRUCTIONS, BipartiteGraph, dead_inputs, dead_outputs, sample_graph


@given(sizes(12, 12), seeds, st.sampled_from(list(CONSTRUCTIONS)))
def test_views_agree(size, seed, name):
    n_in, n_out, degree = size
    graph = sample_graph(name, n_in, n_out, min(degree, n_out), seed)
    counts = edge_counts(graph)
    assert (graph.to_mask() == (counts > 0)).all()
    assert (graph.to_scipy().toarray() == counts).all()
    multi = Counter((u, v) for (_, u), (_, v) in graph.to_networkx().edges())
    assert multi == {(u, v): counts[v, u] for v, u in zip(*np.nonzero(counts), strict=True)}
    assert graph.to_networkx().number_of_nodes() == n_in + n_out
    assert graph.has_double_edges == (counts.max() > 1)
    assert dead_inputs(graph).tolist() == [u for u in range(n_in) if not counts[:, u].any()]
    assert dead_outputs(graph).tolist() == [v for v in range(n_out) if not counts[v].any()]
    if not graph.has_double_edges:
        assert BipartiteGraph.from_mask(counts) == graph
    order = np.random.default_rng(0).permutation(graph.n_edges)
    assert BipartiteGraph.from_edges(graph.indices[order], graph.outputs[order], n_in, n_out) == graph


def test_equality_is_about_edges_alone():
    a = BipartiteGraph(3, [0, 2, 3], [0, 2, 1], seed=1, construction="random")
    b = BipartiteGraph.from_neighbours([[2, 0]], 3, seed=2)
    c = BipartiteGraph.from_mask([[1, 0, 1], [0, 1, 0]])
    assert a == c
    assert hash(a) == hash(c)
    assert a.hash == c.hash == hashlib.sha256(struct.pack("<5q3i", 3, 2, 0, 2, 3, 0, 2, 1)).hexdigest()
    assert len({a, b, c}) == 2
    assert BipartiteGraph(4, [0, 2, 3], [0, 2, 1]) != a  # one more input, even if nothing is joined to it
    assert BipartiteGraph(3, [0, 1, 3], [0, 1, 2]) != a
    assert a != a.hash


def test_a_graph_cannot_be_changed():
    given_edges = np.array([0, 2, 1], dtype=np.int32)
    graph = BipartiteGraph(3, [0, 2, 3], given_edges)
    given_edges[0] = 1
    assert graph.indices.tolist() == [0, 2, 1]
    with pytest.raises(ValueError, match="read-only"):
        graph.indices[0] = 1


@pytest.mark.parametrize(
    ("indptr", "indices", "says"),
    [
        ([0, 2, 3], [2, 0, 1], "sorted"),
        ([0, 2], [0, 1, 2], "rise from 0 to the number of edges"),
        ([1, 3], [0, 1, 2], "rise from 0"),
        ([0, 2, 1, 3], [0, 1, 2], "rise from 0"),
        ([0, 1], [3], "between 0 and 2"),
        ([0, 1], [-1], "between 0 and 2"),
        ([0, 1], [0.5], "between 0 and 2"),
        ([0, 1], np.array([2**32 + 1]), "between 0 and 2"),  # would be 1 in 32 bits
        ([0], [], "at least one input and one output"),
    ],
)
def test_edges_that_are_no_graph_are_refused(indptr, indices, says):
    with pytest.raises(XNetsError, match=says):
        BipartiteGraph(3, indptr, indices)


def test_wrong_shapes_are_refused():
    with pytest.raises(XNetsError, match=r"neighbours must have shape \(n_out, D\), not \(2,\)"):
        BipartiteGraph.from_neighbours([0, 1], 2)
    with pytest.raises(XNetsError, match=r"mask must have shape \(n_out, n_in\), not \(2,\)"):
        BipartiteGraph.from_mask([0, 1])
    with pytest.raises(XNetsError, match="outputs between 0 and 1"):
        BipartiteGraph.from_edges([0, 1], [0, 2], 2, 2)
    with pytest.raises(XNetsError, match="different degrees"):
        _ = BipartiteGraph(3, [0, 2, 3], [0, 2, 1]).neighbours
