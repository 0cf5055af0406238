"""Drawn graphs: what a draw promises, and the same edges for ever."""

from collections import Counter

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from tests.xnets.graph_cases import edge_counts, seeds, sizes
from xnets import XNetsError
from xnets.graphs import (
    CONSTRUCTIONS,
    grouped_graph,
    load_graph,
    random_expander,
    sample_graph,
    save_graph,
    union_of_matchings,
)

# --- random expanders ---


@given(sizes(), seeds)
def test_each_output_draws_degree_distinct_inputs(size, seed):
    n_in, n_out, degree = size
    graph = random_expander(n_in, n_out, degree, seed)
    assert (graph.n_in, graph.n_out, graph.n_edges, graph.degree) == (n_in, n_out, n_out * degree, degree)
    for row in graph.neighbours.tolist():
        assert row == sorted(set(row))
        assert len(row) == degree
        assert 0 <= row[0] <= row[-1] < n_in
    assert not graph.has_double_edges


@given(sizes(), seeds)
def test_draws_are_floyds_algorithm_on_the_raw_stream(size, seed):
    """Both ways of looking up who was taken (degree up to 32, and above) against sets in plain Python."""
    n_in, n_out, degree = size
    raw = iter(np.random.PCG64(seed).random_raw(n_out * degree).tolist())
    rows = []
    for _ in range(n_out):
        chosen = set()
        for j in range(n_in - degree, n_in):
            t = int((next(raw) >> 11) * 2.0**-53 * (j + 1))
            chosen.add(j if t in chosen else t)
        rows.append(sorted(chosen))
    assert random_expander(n_in, n_out, degree, seed).neighbours.tolist() == rows


def test_a_draw_in_slices_is_the_same_draw():
    """2^20 inputs are looked up 64 outputs at a time; an output's inputs do not hang on the outputs after it."""
    many, few = random_expander(2**20, 150, 40, 1), random_expander(2**20, 10, 40, 1)
    assert (many.neighbours[:10] == few.neighbours).all()
    assert not many.has_double_edges
    assert len({tuple(row) for row in many.neighbours}) == 150


def test_every_subset_is_equally_likely():
    rows = Counter(map(tuple, random_expander(5, 100_000, 2, 0).neighbours.tolist()))
    assert len(rows) == 10
    assert chisquare(list(rows.values())).pvalue > 1e-3


@pytest.mark.parametrize("degree", [32, 33])
def test_inputs_and_pairs_are_drawn_evenly(degree):
    """On either side of the switch to the other look-up. Draws without replacement vary less by (n - D) / (n - 1)."""
    n, rows = 64, 20_000
    mask = random_expander(n, rows, degree, 3).to_mask().astype(float)
    expected = rows * degree / n
    statistic = ((mask.sum(0) - expected) ** 2 / expected).sum() * (n - 1) / (n - degree)
    assert abs(statistic - (n - 1)) < 4 * np.sqrt(2 * (n - 1))
    pairs = (mask.T @ mask)[np.triu_indices(n, 1)] / rows
    p = degree * (degree - 1) / n / (n - 1)
    assert abs(pairs - p).max() < 5 * np.sqrt(p * (1 - p) / rows)


def test_with_replacement_draws_are_independent():
    graph = random_expander(3, 90_000, 2, 0, replace=True)
    counts = Counter(map(tuple, graph.neighbours.tolist()))
    pairs = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
    assert chisquare([counts[p] for p in pairs], [10_000] * 3 + [20_000] * 3).pvalue > 1e-3
    assert graph.has_double_edges


@given(sizes(20, 20), seeds, st.data())
def test_input_side_draws_distinct_outputs(size, seed, data):
    n_in, n_out, _ = size
    degree = data.draw(st.integers(1, n_out))
    graph = random_expander(n_in, n_out, degree, seed, side="input")
    assert (graph.out_degrees == degree).all()
    assert not graph.has_double_edges
    mirror = random_expander(n_out, n_in, degree, seed)  # the same draw with the sides exchanged
    assert (graph.to_mask() == mirror.to_mask().T).all()


@pytest.mark.parametrize(("n_in", "n_out", "draws"), [(9, 8, "output"), (8, 8, "input"), (8, 9, "input")])
def test_smaller_side_is_the_authors_released_rule(n_in, n_out, draws):
    """Outputs draw if n_in > n_out: n_out * D edges; otherwise inputs do: n_in * D edges."""
    graph = random_expander(n_in, n_out, 3, 0, side="smaller")
    assert graph.n_edges == 3 * (n_out if n_in > n_out else n_in)
    assert graph == random_expander(n_in, n_out, 3, 0, side=draws)


GOLDEN = {
    "d710089dee1befd0": lambda: random_expander(64, 128, 16, 0),
    "c08d2dc01f531cf3": lambda: random_expander(64, 128, 16, 2**70),
    "8f4b6b31575b05a2": lambda: random_expander(300, 200, 100, 1),
    "95aefc50f97072a5": lambda: random_expander(64, 128, 16, 0, replace=True),
    "17f1fb011a9765d2": lambda: random_expander(64, 128, 16, 0, side="input"),
    "17c27a79687915af": lambda: random_expander(128, 64, 16, 0, side="smaller"),
    "6f3a3bbe241aa48d": lambda: random_expander(40, 90, 50, 3, side="input", replace=True),
    "59a0120be4d0c118": lambda: union_of_matchings(64, 128, 16, 0),
    "4726702c9da413ae": lambda: union_of_matchings(30, 70, 20, 5),
    "d190fb11d5f4e0b3": lambda: grouped_graph(64, 128, 4),
}


@pytest.mark.parametrize("start", GOLDEN)
def test_edges_never_change(start):
    """If this fails, numpy or our code now draws other graphs from the same seed: every published seed is void."""
    assert GOLDEN[start]().hash.startswith(start)


def test_seeds_give_different_graphs():
    drawn = {sample_graph(name, 16, 16, 4, seed).hash for name in ("random", "matchings") for seed in range(100)}
    assert len(drawn) == 200


@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_recorded_seed_and_construction_draw_the_graph_again(name, tmp_path):
    graph = sample_graph(name, 12, 20, 5, np.int64(7))
    assert type(graph.seed) is int
    assert sample_graph(graph.construction, 12, 20, 5, graph.seed) == graph
    save_graph(graph, tmp_path / "graph.npz")
    assert load_graph(tmp_path / "graph.npz").construction == graph.construction


@pytest.mark.parametrize("draw", [random_expander, union_of_matchings])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((8, 8, 0, 0), "degree must .* between 1 and 8, .* not 0"),
        ((8, 9, 9, 0), "degree must .* between 1 and 8, .* not 9"),
        ((8, 8, 2.0, 0), "degree must be a whole number"),
        ((8, 8, 2, -1), "seed must be a whole number >= 0, not -1"),
        ((8, 8, 2, 1.0), r"seed must be a whole number >= 0, not 1\.0"),
        ((8, 8, 2, "1"), "seed must be a whole number"),
        ((8, 8, 2, None), "seed must be a whole number"),
        ((0, 8, 1, 0), "at least one input and one output"),
        ((8, 0, 1, 0), "at least one input and one output"),
    ],
)
def test_bad_arguments_are_refused_with_a_sentence(draw, arguments, says):
    with pytest.raises(XNetsError, match=says + r".*\.$"):
        draw(*arguments)


def test_unknown_names_are_refused():
    with pytest.raises(XNetsError, match="side must be one of output, input, smaller"):
        random_expander(8, 8, 2, 0, side="left")
    with pytest.raises(XNetsError, match=r"between 1 and 4, the number of output channels"):
        random_expander(8, 4, 5, 0, side="input")
    with pytest.raises(XNetsError, match="Unknown graph 'ring'; there are random,"):
        sample_graph("ring", 8, 8, 2, 0)


# --- groups and matchings ---


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5))
def test_groups_are_the_blocks_of_a_block_diagonal(groups, ins, outs):
    graph = grouped_graph(groups * ins, groups * outs, groups)
    assert (graph.to_mask() == np.kron(np.eye(groups), np.ones((outs, ins)))).all()
    parts = list(networkx.connected_components(networkx.Graph(graph.to_networkx())))
    assert [len(part) for part in parts] == [ins + outs] * groups


@pytest.mark.parametrize("groups", [0, 3, 8])
def test_groups_that_do_not_divide_are_refused(groups):
    with pytest.raises(XNetsError, match=f"^{groups} groups do not divide 8 inputs and 12 outputs"):
        grouped_graph(8, 12, groups)


@given(sizes(24, 24), seeds)
@settings(max_examples=300)
def test_matchings_are_regular_on_both_sides(size, seed):
    n_in, n_out, degree = size
    graph = union_of_matchings(n_in, n_out, degree, seed)
    assert graph.degree == degree
    assert edge_counts(graph).max() == 1
    fed = graph.out_degrees
    assert fed.max() - fed.min() == (n_out * degree % n_in > 0)


def test_matchings_use_every_edge_equally_often():
    times = sum(union_of_matchings(7, 6, 3, seed).to_mask().astype(int) for seed in range(2000)) / 2000
    assert abs(times - 3 / 7).max() < 5 * np.sqrt(3 / 7 * 4 / 7 / 2000)
