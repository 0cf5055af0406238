"""What tests of graphs draw, and a count of edges one by one."""

import numpy as np
from hypothesis import strategies as st

seeds = st.integers(0, 2**64)


@st.composite
def sizes(draw, most_in=80, most_out=40):
    """(n_in, n_out, degree) with any degree the inputs allow."""
    n_in = draw(st.integers(1, most_in))
    return n_in, draw(st.integers(1, most_out)), draw(st.integers(1, n_in))


def edge_counts(graph):
    """(n_out, n_in) number of edges, counted one by one."""
    counts = np.zeros((graph.n_out, graph.n_in))
    for v in range(graph.n_out):
        for u in graph.indices[graph.indptr[v] : graph.indptr[v + 1]]:
            counts[v, u] += 1
    return counts
