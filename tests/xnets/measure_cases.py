"""What tests of measures draw and compare with: graphs, stacks of them, full matrices, and graphs of known values."""

from itertools import combinations

import numpy as np
from hypothesis import strategies as st

from xnets.graphs import BipartiteGraph, grouped_graph, lps_graph


@st.composite
def graphs(draw, most_in=8, most_out=8, n_in=None):
    """Any graph with at least one edge: not regular, double edges, dead vertices."""
    n_in = n_in or draw(st.integers(1, most_in))
    n_out = draw(st.integers(1, most_out))
    edge = st.tuples(st.integers(0, n_in - 1), st.integers(0, n_out - 1))
    edges = np.array(draw(st.lists(edge, min_size=1, max_size=3 * n_out)))
    return BipartiteGraph.from_edges(edges[:, 0], edges[:, 1], n_in, n_out)


@st.composite
def stacks(draw, most=4):
    """One to four such layers that fit on one another."""
    layers = [draw(graphs())]
    for _ in range(draw(st.integers(0, most - 1))):
        layers.append(draw(graphs(n_in=layers[-1].n_out)))
    return layers


def matrix(graph):
    """(n_out, n_in) number of edges, as whole numbers of Python."""
    counts = np.zeros((graph.n_out, graph.n_in), dtype=object)
    for v, u in zip(graph.outputs.tolist(), graph.indices.tolist(), strict=True):
        counts[v, u] += 1
    return counts


def normalised(graph):
    """D_out^-1/2 A D_in^-1/2."""
    a = matrix(graph).astype(float)
    outs, ins = (1 / np.sqrt(np.maximum(a.sum(axis=axis), 1)) for axis in (1, 0))
    return outs[:, None] * a * ins


def subsets(n, size):
    return [np.array(members) for members in combinations(range(n), size)]


COMPLETE = grouped_graph(6, 9, 1)
TWO_PARTS = grouped_graph(6, 8, 2)
LPS = lps_graph(5, 13)
