"""Spectrum and expansion of graphs, against full matrices, all sets of small graphs, and known values."""

from itertools import combinations, product

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.xnets.measure_cases import COMPLETE, LPS, TWO_PARTS, graphs, matrix, normalised
from xnets import XNetsError
from xnets.graphs import BipartiteGraph, grouped_graph, random_expander, sample_graph, union_of_matchings
from xnets.graphs.measures import (
    discrepancy_bound,
    expansion_bound,
    leading,
    leading_values,
    least_ratio,
    mixing_time_bound,
    neighbourhood,
    ramanujan_ratio,
    sigma_ratio,
    spectral_gap,
    spectrum,
    vertex_expansion,
)
from xnets.graphs.measures.ensemble import sampled_gaps

# --- spectrum ---


@pytest.mark.parametrize("path", ["dense", "narrow"])
@given(graphs(), st.booleans(), st.booleans())
@settings(max_examples=60)
def test_leading_vectors_are_those_of_the_full_svd(path, graph, norm, centred):
    """Of the matrix that was asked for, by a dense matrix and by a sparse one with a short side."""
    with pytest.MonkeyPatch.context() as patch:
        if path == "narrow":
            patch.setattr(spectrum, "DENSE_ENTRIES", 0)
        full = normalised(graph) if norm else matrix(graph).astype(float)
        if centred:
            full = full - graph.n_edges / full.size
        count = min(2, *full.shape)
        values, left, right = leading(graph, count, norm, centred)
        expected = np.linalg.svd(full, compute_uv=False)[:count]
        assert values == pytest.approx(expected, abs=1e-6)
        if not centred:
            assert leading_values(graph, count, norm) == pytest.approx(expected, abs=1e-6)
        for i in range(count):
            if expected[i] > 1e-3:
                assert full @ right[:, i] == pytest.approx(values[i] * left[:, i], abs=1e-5)
                assert left[:, i] @ full == pytest.approx(values[i] * right[:, i], abs=1e-5)


@pytest.mark.parametrize(("norm", "centred"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("sizes", [(1100, 1200), (1200, 1100), (30, 5000), (5000, 30)])
def test_large_graphs_agree_with_the_full_svd(norm, centred, sizes, monkeypatch):
    """By Lanczos where both sides are above 1024."""
    monkeypatch.setattr(spectrum, "DENSE_ENTRIES", 0)
    graph = random_expander(*sizes, 4, 0)
    full = normalised(graph) if norm else graph.to_scipy().toarray()
    full -= centred * graph.n_edges / full.size
    expected = np.sqrt(np.linalg.eigvalsh(full @ full.T if sizes[1] < sizes[0] else full.T @ full)[[-1, -2]])
    values, left, right = leading(graph, 2, norm, centred)
    assert values == pytest.approx(expected, rel=1e-7)
    assert np.diag(left.T @ full @ right) == pytest.approx(expected, rel=1e-6)


@given(graphs())
def test_the_normalised_first_value_is_one(graph):
    assert leading_values(graph, 1, normalised=True)[0] == pytest.approx(1)
    parts = [p for p in networkx.connected_components(networkx.Graph(graph.to_networkx())) if len(p) > 1]
    assert (sigma_ratio(graph, normalised=True) > 1 - 1e-9) == (len(parts) > 1)


def test_known_spectra():
    assert sigma_ratio(COMPLETE, normalised=True) == pytest.approx(0, abs=1e-6)
    assert spectral_gap(TWO_PARTS, normalised=True) == pytest.approx(0, abs=1e-9)
    assert leading_values(TWO_PARTS, 3) == pytest.approx([np.sqrt(12), np.sqrt(12), 0], abs=1e-6)
    assert sigma_ratio(LPS) <= ramanujan_ratio(LPS.n_in, LPS.n_out, LPS.n_edges) == pytest.approx(2 * np.sqrt(5) / 6)
    assert ramanujan_ratio(10, 20, 60) == pytest.approx((np.sqrt(5) + np.sqrt(2)) / np.sqrt(18))
    with pytest.raises(XNetsError, match="without edges"):
        leading_values(BipartiteGraph.from_mask(np.zeros((2, 3))), 1)


def test_the_least_ratio_is_reached_by_projective_planes():
    """Points and lines over F_7: every two lines meet in one point, so all singular values but the first are equal."""
    q = 7
    points = [(1, a, b) for a, b in product(range(q), repeat=2)] + [(0, 1, a) for a in range(q)] + [(0, 0, 1)]
    plane = BipartiteGraph.from_mask(np.array(points) @ np.array(points).T % q == 0)
    assert plane.degree == q + 1
    assert sigma_ratio(plane) == pytest.approx(np.sqrt(q) / (q + 1))
    assert least_ratio(plane.n_in, plane.n_out, plane.n_edges) == pytest.approx(sigma_ratio(plane))
    for n_out in (12, 24, 48):
        graph = union_of_matchings(24, n_out, 6, 0)
        assert sigma_ratio(graph) >= least_ratio(24, n_out, graph.n_edges)
    assert least_ratio(1, 5, 5) == 0


def test_a_large_spectrum_without_scipy_is_a_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scipy.sparse", None)
    with pytest.raises(XNetsError, match="needs scipy: pip install"):
        sigma_ratio(random_expander(1100, 1100, 2, 0))


@pytest.mark.parametrize(("name", "degree"), [("random", 16), ("ramanujan", 14)])
def test_at_scale(name, degree):
    """10^5 x 10^5 in seconds, near the value that Ramanujan graphs have."""
    graph = sample_graph(name, 100_000, 100_000, degree, 0)
    ratio = ramanujan_ratio(graph.n_in, graph.n_out, graph.n_edges)
    assert ratio - 0.01 < sigma_ratio(graph, normalised=True) < ratio + 0.01


# --- expansion ---


@given(graphs(most_out=7), st.data())
@settings(max_examples=200)
def test_exact_expansion_is_that_of_all_sets_and_bounds_hold(graph, data):
    size = data.draw(st.integers(1, graph.n_out))
    inputs = [set(np.flatnonzero(row)) for row in matrix(graph)]
    least = min(len(set().union(*(inputs[v] for v in s))) for s in combinations(range(graph.n_out), size)) / size
    exact = vertex_expansion(graph, size)
    assert exact.exact
    assert exact.found == exact.bound == least
    assert len(exact.outputs) == len(set(exact.outputs)) == size
    assert len(neighbourhood(graph, np.array(exact.outputs))) / size == least
    assert expansion_bound(graph, size) <= least + 1e-9
    sampled = vertex_expansion(graph, size, tries=3, exact_sets=0)
    assert sampled.exact == (size == graph.n_out)
    assert sampled.bound == (sampled.found if sampled.exact else expansion_bound(graph, size))
    assert sampled.found >= least
    assert len(neighbourhood(graph, np.array(sampled.outputs))) == round(sampled.found * size)
    assert len(set(sampled.outputs)) == size


def test_expansion_of_known_graphs():
    assert vertex_expansion(COMPLETE, 3).found == 6 / 3
    found = vertex_expansion(TWO_PARTS, 4)
    assert (found.found, found.outputs) == (3 / 4, (0, 1, 2, 3))
    regular = union_of_matchings(60, 90, 6, 0)  # Tanner's bound as he states it
    sigma = leading_values(regular, 2)[1]
    assert expansion_bound(regular, 30) == pytest.approx(36 / (sigma**2 + (6 * 9 - sigma**2) * 30 / 90))
    assert expansion_bound(regular, 1) == 6
    assert vertex_expansion(grouped_graph(400, 400, 10), 40).found == 1  # greedy sees a whole group
    with pytest.raises(XNetsError, match="between 1 and 9, not 10"):
        vertex_expansion(COMPLETE, 10)


def test_small_sets_of_random_expanders_expand_by_nearly_d():
    """The paper's K = D holds for a typical set; the worst one of ten falls to 6 of 8, and large ones have no room."""
    graph = random_expander(2000, 2000, 8, 0)
    assert vertex_expansion(graph, 1).found == 8
    assert len(neighbourhood(graph, np.arange(10))) / 10 > 7.5
    assert 5 < vertex_expansion(graph, 10).found <= 7
    assert vertex_expansion(graph, 1000).found <= 2


def doubled(graph):
    """Two copies of a graph that do not touch."""
    inputs = np.append(graph.indices, graph.indices + graph.n_in)
    outputs = np.append(graph.outputs, graph.outputs + graph.n_out)
    return BipartiteGraph.from_edges(inputs, outputs, 2 * graph.n_in, 2 * graph.n_out)


@pytest.mark.parametrize("name", ["cayley", "random-lift", "matchings"])
@pytest.mark.parametrize("degree", [2, 8])
def test_large_disconnected_graphs_have_no_gap(name, degree):
    """Their largest values are equal to the last bit, which Lanczos alone does not see."""
    graph = doubled(sample_graph(name, 600, 600, degree, 0))
    values = np.linalg.svd(matrix(graph).astype(float), compute_uv=False)
    for by_degrees in (False, True):
        assert sigma_ratio(graph, by_degrees) == pytest.approx(1, abs=1e-7)
    assert mixing_time_bound(graph) is None
    assert leading_values(graph, 3) == pytest.approx(values[:3], rel=1e-5)
    assert vertex_expansion(graph, 600).bound <= 1 + 1e-9


def test_large_disconnected_graphs_of_long_cycles_take_no_time():
    assert sigma_ratio(doubled(union_of_matchings(10_000, 10_000, 2, 0))) == 1


def test_large_graphs_of_rank_one_and_of_one_edge():
    complete = grouped_graph(1100, 1100, 1)
    assert sigma_ratio(complete) == pytest.approx(0, abs=1e-6)
    assert discrepancy_bound(complete, 10, 10) == pytest.approx(0, abs=1e-3)
    assert sigma_ratio(BipartiteGraph.from_edges([5], [7], 1100, 1100)) == 0


def test_sets_of_all_outputs_and_nearly_all():
    graph = random_expander(5000, 1500, 1, 0)
    whole = vertex_expansion(graph, 1500)
    assert whole.exact
    assert whole.found == len(np.unique(graph.indices)) / 1500
    nearly = vertex_expansion(graph, 1499, tries=2)
    assert nearly.bound <= nearly.found


def test_ratios_of_samples_whose_outputs_share_nothing():
    for n_in, n_out, degree in ((100_000, 50, 1), (1000, 50, 1), (5000, 50, 2)):
        assert sampled_gaps(n_in, n_out, degree, 3).ratios.min() > 0.7
    graphs = sampled_gaps(100_000, 50, 1, 3).ratios
    assert graphs == pytest.approx([1, 1, 1]), "50 edges that hardly ever meet"
