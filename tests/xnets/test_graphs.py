"""Graphs: what a draw promises, the same edges for ever, files that cannot lie, and the spectrum against full SVDs."""

import hashlib
import json
import struct
from collections import Counter

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from xnets import XNetsError
from xnets.graphs import (
    CONSTRUCTIONS,
    BipartiteGraph,
    dead_inputs,
    dead_outputs,
    grouped_graph,
    load_graph,
    random_expander,
    sample_graph,
    save_graph,
    sigma_ratio,
    spectral_gap,
    union_of_matchings,
)

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


def tied(*blocks):
    """The graph of these masks side by side, disconnected from one another."""
    return BipartiteGraph.from_mask(
        np.block([[b if i == j else np.zeros_like(b) for j in range(len(blocks))] for i, b in enumerate(blocks)])
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


# --- one graph, several views ---


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


# --- files ---


@pytest.fixture
def saved(tmp_path):
    """A graph file, and its graph."""
    graph = random_expander(20, 10, 4, 7)
    save_graph(graph, tmp_path / "graph.npz")
    return tmp_path / "graph.npz", graph


@pytest.mark.parametrize(
    "graph",
    [
        random_expander(9, 7, 3, 2**70),
        random_expander(3, 7, 3, 0, replace=True),
        random_expander(4, 9, 1, 0, side="input"),
        grouped_graph(8, 4, 2),
        BipartiteGraph.from_mask(np.zeros((2, 3))),
    ],
)
def test_saved_graphs_come_back(graph, tmp_path):
    save_graph(graph, tmp_path / "graph.npz")
    back = load_graph(str(tmp_path / "graph.npz"))
    assert back == graph
    assert (back.seed, back.construction) == (graph.seed, graph.construction)


def test_a_flipped_bit_is_refused_or_did_not_matter(saved):
    path, graph = saved
    raw, refused = path.read_bytes(), 0
    for i in range(len(raw)):
        path.write_bytes(raw[:i] + bytes([raw[i] ^ 1 << i % 8]) + raw[i + 1 :])
        try:
            back = load_graph(path)
        except XNetsError:
            refused += 1
        else:  # the zip archive's dates and the like
            assert (back.hash, back.seed, back.construction) == (graph.hash, 7, "random")
    assert refused > len(raw) / 2


def test_a_truncated_file_is_refused(saved):
    path, _ = saved
    raw = path.read_bytes()
    for length in range(0, len(raw), 7):
        path.write_bytes(raw[:length])
        with pytest.raises(XNetsError, match="is not a graph file, or is damaged"):
            load_graph(path)


def swap_edge(note, arrays):
    assert arrays["indices"][0] == 4  # the smallest input of output 0
    arrays["indices"][0] = 3


def swap_edge_and_hash(note, arrays):
    swap_edge(note, arrays)
    note["hash"] = BipartiteGraph(20, arrays["indptr"], arrays["indices"]).hash


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (swap_edge, "does not match its checksum"),
        (swap_edge_and_hash, "does not match its checksum"),
        (lambda note, _: note.update(seed=8), "does not match its checksum"),
        (lambda note, _: note.update(construction="matchings"), "does not match its checksum"),
        (lambda note, _: note.update(n_in=21), "does not match its checksum"),
        (lambda note, _: note.update(hash="0" * 64), "does not match its checksum"),
        (lambda note, _: note.pop("checksum"), "does not match its checksum"),
        (lambda note, _: note.update(n_in=4), "is damaged .*between 0 and 3"),
        (lambda note, _: note.update(n_in="20"), "is damaged"),
        (lambda note, _: note.pop("seed"), "is damaged"),
        (lambda note, _: note.update(format=2), "has format 2, .* update xnets"),
        (lambda _, arrays: arrays.pop("indptr"), "is not a graph file"),
    ],
)
def test_a_changed_file_is_refused(saved, change, says):
    path, _ = saved
    with np.load(path) as file:
        arrays = dict(file)
    note = json.loads(str(arrays.pop("note")))
    np.savez_compressed(path, note=json.dumps(note), **arrays)
    load_graph(path)  # rewritten unchanged it is fine
    change(note, arrays)
    np.savez_compressed(path, note=json.dumps(note), **arrays)
    with pytest.raises(XNetsError, match=says):
        load_graph(path)


def test_what_is_no_graph_file_is_refused(tmp_path):
    with pytest.raises(XNetsError, match=r"missing\.npz: there is no such graph file"):
        load_graph(tmp_path / "missing.npz")
    (tmp_path / "text.npz").write_text("not a zip archive")
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "list.npz", note=json.dumps([1]), indptr=[0, 1], indices=[0])
    for name in ("text.npz", "array.npy", "list.npz", "."):
        with pytest.raises(XNetsError, match="is not a graph file, or is damaged"):
            load_graph(tmp_path / name)


# --- spectrum ---


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
