"""The spectrum of a graph against full SVDs."""

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.xnets.graph_cases import edge_counts, seeds, sizes
from xnets import XNetsError
from xnets.graphs import (
    CONSTRUCTIONS,
    BipartiteGraph,
    grouped_graph,
    random_expander,
    sample_graph,
    sigma_ratio,
    spectral_gap,
    union_of_matchings,
)


def tied(*blocks):
    """The graph of these masks side by side, disconnected from one another."""
    return BipartiteGraph.from_mask(
        np.block([[b if i == j else np.zeros_like(b) for j in range(len(blocks))] for i, b in enumerate(blocks)])
    )


@given(sizes(12, 12), seeds, st.sampled_from(list(CONSTRUCTIONS)))
def test_sigma_ratio_is_that_of_the_full_svd_and_of_the_adjacency_matrix(size, seed, name):
    n_in, n_out, degree = size
    graph = sample_graph(name, n_in, n_out, min(degree, n_out), seed)
    sigma = np.append(np.linalg.svd(edge_counts(graph), compute_uv=False), 0)
    lam = np.sort(np.linalg.eigvalsh(networkx.to_numpy_array(graph.to_networkx())))[::-1]
    for first, second in (sigma[:2], np.maximum(lam[:2], 0)):
        assert sigma_ratio(graph) == pytest.approx(second / first, abs=1e-6)
        assert spectral_gap(graph) == pytest.approx(1 - second / first, abs=1e-6)


def test_sigma_ratio_of_complete_and_disconnected_graphs():
    assert sigma_ratio(grouped_graph(12, 30, 1)) == pytest.approx(0, abs=1e-6)
    for groups in (2, 3, 6):
        assert sigma_ratio(grouped_graph(12, 30, groups)) == pytest.approx(1)
    with pytest.raises(XNetsError, match="without edges"):
        sigma_ratio(BipartiteGraph.from_mask(np.zeros((2, 3))))


HALF = union_of_matchings(600, 600, 4, 0).to_mask()


@pytest.mark.parametrize(
    "graph",
    [
        random_expander(1100, 1200, 4, 0),
        random_expander(1200, 1100, 3, 0, replace=True),
        tied(HALF, HALF),
        tied(HALF, union_of_matchings(600, 600, 4, 1).to_mask()),
        grouped_graph(1040, 1040, 4),
        grouped_graph(1040, 1040, 1),
    ],
    ids=["random", "double edges", "equal halves", "halves", "groups", "complete"],
)
def test_lanczos_agrees_with_the_full_svd(graph):
    """Both sides above 1024. Disconnected graphs have their largest singular value twice, which Lanczos may miss."""
    counts = graph.to_scipy().toarray()
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(counts @ counts.T)[-2:], 0))
    assert sigma_ratio(graph) == pytest.approx(values[0] / values[1], abs=1e-6)
    assert sigma_ratio(graph) <= 1
