"""Measures of connectivity: against networkx, brute force and full matrices on small graphs, and known values."""

from fractions import Fraction
from itertools import combinations, product

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xnets import XNetsError
from xnets.graphs import BipartiteGraph, grouped_graph, lps_graph, random_expander, sample_graph, union_of_matchings
from xnets.graphs.measures import (
    count_paths,
    diameter,
    discrepancy_bound,
    edge_discrepancy,
    edges_between,
    expansion_bound,
    layers_until_all,
    leading,
    leading_values,
    least_ratio,
    mixing_time,
    mixing_time_bound,
    neighbourhood,
    path_lengths,
    ramanujan_ratio,
    sensitivity,
    sets,
    sigma_ratio,
    spectral_gap,
    spectrum,
    summary,
    vertex_expansion,
    walk_distances,
    worst_discrepancy,
)


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
    assert not sampled.exact
    assert sampled.bound == expansion_bound(graph, size)
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


# --- paths ---


@pytest.mark.parametrize("room", [1, 2**25], ids=["slices", "at once"])
@given(stacks())
@settings(max_examples=60)
def test_sensitivity_is_the_support_of_the_product(room, stack):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets, "ROOM", room)
        found = sensitivity(stack)
    product_ = np.eye(stack[0].n_in, dtype=object)
    for depth, graph in enumerate(stack):
        product_ = matrix(graph) @ product_
        share = (product_ > 0).mean(axis=1)
        assert found.least[depth] == pytest.approx(share.min())
        assert found.mean[depth] == pytest.approx(share.mean())
    full = [depth for depth, least in enumerate(found.least, 1) if least == 1]
    assert found.layers == layers_until_all(stack) == (full[0] if full else None)
    assert found.exact


def test_many_words_and_many_slices_are_as_good_as_one(monkeypatch):
    stack = [union_of_matchings(500, 500, 6, seed) for seed in range(6)]
    seen, lengths = sensitivity(stack), path_lengths(stack[:2])
    assert 0 < seen.least[1] < seen.mean[1] < 0.2
    assert seen.layers in (5, 6)
    monkeypatch.setattr(sets, "ROOM", 7000)
    again = sensitivity(stack)
    assert (again.least, again.mean) == (pytest.approx(seen.least), pytest.approx(seen.mean))
    assert path_lengths(stack[:2], sample=10**9).counts.tolist() == lengths.counts.tolist()


def test_a_sample_follows_that_many_inputs():
    stack = [union_of_matchings(500, 500, 6, seed) for seed in range(6)]
    some = sensitivity(stack, sample=70, seed=1)
    assert (some.inputs, some.exact) == (70, False)
    assert some.layers <= layers_until_all(stack)
    assert some.mean[1] == pytest.approx(sensitivity(stack).mean[1], rel=0.2)
    assert sensitivity(stack, sample=70, seed=2).mean != some.mean
    assert path_lengths(stack[:1], sample=70).sources == 70


@given(stacks())
def test_numbers_of_paths_are_those_of_the_product(stack):
    product_ = np.eye(stack[0].n_in, dtype=object)
    for graph in stack:
        product_ = matrix(graph) @ product_
    assert count_paths(stack) == product_.sum()
    ins, outs = np.arange(0, stack[0].n_in, 2), np.arange(0, stack[-1].n_out, 3)
    assert count_paths(stack, ins, outs) == product_[np.ix_(outs, ins)].sum()
    assert count_paths(stack, [0, 0], [0]) == product_[0, 0]


def test_numbers_of_paths_have_no_largest():
    assert count_paths([grouped_graph(10, 10, 1)] * 50) == 10**51
    assert count_paths([grouped_graph(10, 10, 1)] * 18, [3], [4]) == 10**17


@given(stacks())
@settings(max_examples=60)
def test_distances_are_networkxs(stack):
    whole = networkx.Graph()
    for depth, graph in enumerate(stack):
        whole.add_nodes_from((depth, u) for u in range(graph.n_in))
        whole.add_nodes_from((depth + 1, v) for v in range(graph.n_out))
        pairs = zip(graph.indices.tolist(), graph.outputs.tolist(), strict=True)
        whole.add_edges_from(((depth, u), (depth + 1, v)) for u, v in pairs)
    lengths = [d for _, to in networkx.all_pairs_shortest_path_length(whole) for d in to.values()]
    found = path_lengths(stack)
    assert found.counts.tolist() == np.bincount(lengths).tolist()
    assert found.unreachable == len(whole) ** 2 - len(lengths)
    assert (found.sources, found.exact) == (len(whole), True)
    if len(stack) == 1:
        assert diameter(stack[0]) == found.diameter
    assert found.diameter == (networkx.diameter(whole) if networkx.is_connected(whole) else None)
    if max(lengths):
        assert found.mean == pytest.approx(sum(lengths) / np.count_nonzero(lengths))


def test_diameters_of_known_graphs():
    assert diameter(grouped_graph(1, 1, 1)) == 1
    assert diameter(COMPLETE) == 2
    assert diameter(TWO_PARTS) is None
    ring = BipartiteGraph.from_neighbours([[v, (v + 1) % 10] for v in range(10)], 10)
    assert diameter(ring) == 10
    assert diameter(LPS) <= 2 * np.log(2 * LPS.n_in) / np.log(5) + 2  # the bound of Lubotzky, Phillips and Sarnak


def test_layers_that_do_not_stack_are_refused():
    for measure in (sensitivity, path_lengths, count_paths):
        with pytest.raises(XNetsError, match="Layer 2 has 9 outputs and layer 3 6 inputs: they do not stack"):
            measure([grouped_graph(3, 6, 1), COMPLETE, COMPLETE])
        with pytest.raises(XNetsError, match="at least one layer"):
            measure([])


def test_an_input_that_feeds_nothing_is_never_seen():
    dead = BipartiteGraph.from_neighbours([[0, 1], [0, 1], [0, 1]], 3)
    assert layers_until_all([dead] * 9) is None
    assert layers_until_all([grouped_graph(3, 3, 1), dead]) == 1


# --- random walks ---


@given(graphs(), st.sampled_from(["input", "output"]))
@settings(max_examples=60)
def test_walks_are_powers_of_the_transition_matrices(graph, start):
    a = matrix(graph).astype(float)
    a = a if start == "input" else a.T  # a[there, here]
    there, back = a / np.maximum(a.sum(axis=0), 1), a.T / np.maximum(a.sum(axis=1), 1)
    limits = a.sum(axis=0) / a.sum(), a.sum(axis=1) / a.sum()
    at = np.eye(a.shape[1])[:, a.sum(axis=0) > 0]
    expected = []
    for step in range(9):
        expected.append(abs(at - limits[step % 2][:, None]).sum(axis=0).max() / 2)
        at = (back if step % 2 else there) @ at
    found = walk_distances(graph, 8, start)
    assert found == pytest.approx(expected, abs=1e-9)
    assert (np.diff(found) <= 1e-9).all()
    for within in (0.25, 0.05):
        first = next((step for step, d in enumerate(expected) if d <= within), None)
        assert mixing_time(graph, within, start, most=8) == first
        bound = mixing_time_bound(graph, within, start)
        if bound is not None and bound <= 8:
            assert first is not None
            assert first <= bound


def test_mixing_of_known_graphs(monkeypatch):
    assert mixing_time(COMPLETE) == mixing_time_bound(COMPLETE) == 1
    assert mixing_time(TWO_PARTS) is None
    assert mixing_time_bound(TWO_PARTS) is None
    assert mixing_time(grouped_graph(1, 1, 1)) == mixing_time_bound(grouped_graph(1, 1, 1)) == 0
    graph = union_of_matchings(256, 256, 8, 0)
    exact = mixing_time(graph)
    assert 3 <= exact <= mixing_time_bound(graph) <= 2 * exact + 2
    assert mixing_time(graph, sample=5) <= exact
    monkeypatch.setattr("xnets.graphs.measures.walks.AT_ONCE", 8 * 256 * 50)
    assert mixing_time(graph) == exact


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: mixing_time(COMPLETE, within=0), "within must lie between 0 and 1, not 0"),
        (lambda: mixing_time_bound(COMPLETE, within=1), "within must lie between 0 and 1, not 1"),
        (lambda: mixing_time(COMPLETE, start="left"), "start must be input or output, not 'left'"),
        (lambda: walk_distances(COMPLETE, -1), "steps must be >= 0, not -1"),
        (lambda: mixing_time(BipartiteGraph.from_mask(np.zeros((2, 3)))), "no walk on a graph without edges"),
        (lambda: mixing_time_bound(BipartiteGraph.from_mask(np.zeros((2, 3)))), "no walk on a graph without edges"),
        (lambda: discrepancy_bound(COMPLETE, 0, 1), "between 1 and 6 and 9, not 0 and 1"),
        (lambda: worst_discrepancy(COMPLETE, 1, 10), "between 1 and 6 and 9, not 1 and 10"),
    ],
)
def test_wrong_arguments_are_sentences(ask, says):
    with pytest.raises(XNetsError, match=says):
        ask()


# --- edge discrepancy ---


@given(graphs(most_in=6, most_out=6), st.data())
@settings(max_examples=100)
def test_no_sets_exceed_the_lemmas_bound_nor_what_is_found_all_sets(graph, data):
    s, t = data.draw(st.integers(1, graph.n_in)), data.draw(st.integers(1, graph.n_out))
    a = matrix(graph)
    worst = Fraction(0)
    for ins, outs in product(subsets(graph.n_in, s), subsets(graph.n_out, t)):
        edges = a[np.ix_(outs, ins)].sum()
        off = edges - Fraction(graph.n_edges * s * t, graph.n_in * graph.n_out)
        worst = max(worst, abs(off))
    ins, outs = data.draw(st.sampled_from(subsets(graph.n_in, s))), data.draw(st.sampled_from(subsets(graph.n_out, t)))
    assert edges_between(graph, ins, outs) == a[np.ix_(outs, ins)].sum()
    expected = graph.n_edges * s * t / (graph.n_in * graph.n_out)
    assert edge_discrepancy(graph, ins, outs) == pytest.approx(edges_between(graph, ins, outs) - expected)
    found = worst_discrepancy(graph, s, t, tries=3)
    assert found.expected == pytest.approx(expected)
    assert max(found.random, found.greedy, found.spectral) <= worst + 1e-9
    assert worst <= found.bound + 1e-6
    assert found.bound == discrepancy_bound(graph, s, t)


def test_the_lemma_on_regular_graphs_is_the_papers():
    graph = union_of_matchings(60, 90, 6, 0)
    sigma = leading_values(graph, 2)[1]
    assert discrepancy_bound(graph, 10, 30) == pytest.approx(sigma * np.sqrt(10 * 30 * (50 / 60) * (60 / 90)))
    square = random_expander(50, 50, 5, 0)
    edges = edges_between(square, np.arange(7), np.arange(9))
    assert edge_discrepancy(square, np.arange(7), np.arange(9)) == pytest.approx(edges - 5 * 7 * 9 / 50)


def test_adversaries_find_what_random_sets_do_not():
    """A group and its outputs: all of its edges. And a graph that is one expander has no such sets."""
    groups = grouped_graph(64, 64, 4)
    found = worst_discrepancy(groups, 16, 16)
    assert found.greedy == found.spectral == pytest.approx(16 * 16 - 16 * 16 * 16 / 64)
    assert found.random < found.greedy / 4
    assert found.bound == pytest.approx(16 * 16 * 3 / 4)
    random = worst_discrepancy(union_of_matchings(64, 64, 16, 0), 16, 16)
    assert random.random < random.spectral <= random.bound < found.bound / 2
    assert random.greedy > random.random


# --- all of them ---


@given(graphs())
@settings(max_examples=40)
def test_the_summary_is_what_the_measures_say(graph):
    found = {name: measure.value for name, measure in summary(graph).items()}
    assert (found["inputs"], found["outputs"], found["edges"]) == (graph.n_in, graph.n_out, graph.n_edges)
    assert found["fan_out"] == (graph.out_degrees.min(), graph.out_degrees.max())
    assert (found["dead_inputs"], found["dead_outputs"]) == (
        (graph.out_degrees == 0).sum(),
        (graph.in_degrees == 0).sum(),
    )
    assert found["sigma_ratio"] == sigma_ratio(graph)
    assert found["diameter"] == diameter(graph)
    assert found["mixing_time"] == mixing_time(graph)
    assert found["expansion_bound"] <= found["expansion"]
    assert found["discrepancy_worst"] <= found["discrepancy_bound"] + 1e-6


def test_the_summary_says_what_it_took_samples_for(monkeypatch):
    graph = union_of_matchings(100, 100, 8, 0)
    assert "64 starts" not in summary(graph)["diameter"].about
    monkeypatch.setattr("xnets.graphs.measures.overview.ALL_SOURCES", 150)
    for name in ("diameter", "mixing_time", "mean_distance"):
        assert "64 starts" in summary(graph)[name].about


@pytest.mark.parametrize(("name", "degree"), [("random", 16), ("ramanujan", 14)])
def test_at_scale(name, degree):
    """10^5 x 10^5 in seconds (benchmarks/graphs.py has the times), near the value that Ramanujan graphs have."""
    graph = sample_graph(name, 100_000, 100_000, degree, 0)
    ratio = ramanujan_ratio(graph.n_in, graph.n_out, graph.n_edges)
    assert ratio - 0.01 < sigma_ratio(graph, normalised=True) < ratio + 0.01
