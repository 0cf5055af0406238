"""Paths, random walks and edges between sets: against networkx, products of matrices, all sets, and known values."""

from fractions import Fraction
from itertools import product

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.xnets.measure_cases import COMPLETE, LPS, TWO_PARTS, graphs, matrix, stacks, subsets
from xnets import XNetsError
from xnets.graphs import BipartiteGraph, grouped_graph, random_expander, union_of_matchings
from xnets.graphs.measures import (
    count_paths,
    diameter,
    discrepancy_bound,
    edge_discrepancy,
    edges_between,
    expansion_bound,
    layers_until_all,
    leading_values,
    least_ratio,
    mixing_time,
    mixing_time_bound,
    neighbourhood,
    path_lengths,
    ramanujan_ratio,
    sensitivity,
    sets,
    summary,
    vertex_expansion,
    walk_distances,
    worst_discrepancy,
)

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


def test_empty_sets_have_no_edges_paths_or_neighbours():
    assert edges_between(COMPLETE, [], [0]) == edges_between(COMPLETE, [0], []) == 0
    assert count_paths([COMPLETE], inputs=[]) == count_paths([COMPLETE], outputs=[]) == 0
    assert not len(neighbourhood(COMPLETE, []))


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
        (lambda: edges_between(COMPLETE, [-1], [0]), "inputs holds whole numbers from 0 to 5, not -1 to -1"),
        (lambda: edge_discrepancy(COMPLETE, [0], [3, 9]), "outputs holds whole numbers from 0 to 8, not 3 to 9"),
        (lambda: edges_between(COMPLETE, [0.5], [0]), "inputs holds whole numbers from 0 to 5, not 0.5"),
        (lambda: count_paths([COMPLETE], inputs=[6]), "inputs holds whole numbers from 0 to 5, not 6"),
        (lambda: count_paths([COMPLETE], outputs=[-2]), "outputs holds whole numbers from 0 to 8, not -2"),
        (lambda: neighbourhood(COMPLETE, [9]), "outputs holds whole numbers from 0 to 8, not 9"),
        (lambda: sensitivity([COMPLETE], 0), "A sample's size must be a whole number >= 1, not 0"),
        (lambda: path_lengths([COMPLETE], 0), "A sample's size must be a whole number >= 1, not 0"),
        (lambda: mixing_time(COMPLETE, sample=-1), "A sample's size must be a whole number >= 1, not -1"),
        (lambda: expansion_bound(COMPLETE, 0), "between 1 and 9, not 0"),
        (lambda: expansion_bound(COMPLETE, 10), "between 1 and 9, not 10"),
        (lambda: vertex_expansion(COMPLETE, 4, tries=0), "tries must be a whole number >= 1, not 0"),
        (lambda: least_ratio(3, 2, 0), "without edges"),
        (lambda: ramanujan_ratio(3, 2, 0), "without edges"),
        (lambda: summary(BipartiteGraph.from_edges([], [], 3, 2)), "nothing to measure"),
        (lambda: BipartiteGraph.from_edges([0.5], [0], 3, 2), "two lists of whole numbers of the same length"),
        (lambda: BipartiteGraph.from_edges([0, 1], [0], 3, 2), "two lists of whole numbers of the same length"),
        (lambda: BipartiteGraph(2.5, [0, 1], [0]), "n_in must be a whole number >= 1, not 2.5"),
        (lambda: BipartiteGraph.from_edges([], [], 3, -1), "n_out must be a whole number >= 1, not -1"),
        (lambda: BipartiteGraph.from_edges([0], [0], 3, 2.5), "n_out must be a whole number >= 1, not 2.5"),
        (lambda: BipartiteGraph.from_edges([[0]], [[1]], 3, 3), "two lists of whole numbers of the same length"),
        (lambda: BipartiteGraph.from_edges(0, 0, 3, 3), "two lists of whole numbers of the same length"),
        (lambda: path_lengths([COMPLETE], 2.5), "A sample's size must be a whole number >= 1, not 2.5"),
        (lambda: vertex_expansion(COMPLETE, 2.5), "between 1 and 9, not 2.5"),
        (lambda: discrepancy_bound(COMPLETE, 2.5, 2.5), "between 1 and 6 and 9, not 2.5 and 2.5"),
        (lambda: worst_discrepancy(COMPLETE, 2, 2, tries=0), "tries must be a whole number >= 1, not 0"),
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
