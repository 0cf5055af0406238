"""Graphs by name: what each construction promises, against the definition it is named after and its known spectrum."""

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from xnets import ExpanderConv2d, ExpanderLinear, XNetsError, expand_model
from xnets.graphs import (
    CONSTRUCTIONS,
    BipartiteGraph,
    find_construction,
    grouped_graph,
    lps_graph,
    sample_graph,
    sigma_ratio,
)
from xnets.graphs.explicit import _apart, _margulis_moves, first_return
from xnets.graphs.measures import layers_until_all
from xnets.graphs.numbers import inverses, is_prime, powers, primitive_root
from xnets.graphs.pruned import magnitude_pruned
from xnets.graphs.ramanujan import _line_moves, quaternions
from xnets.layers import ExpanderLayer
from xnets.models import PAPER_MODELS, build
from xnets.seeds import derive_seed

seeds = st.integers(0, 2**64)
every_name = pytest.mark.parametrize("name", CONSTRUCTIONS)
EXPLICIT = ("ramanujan", "margulis", "cayley", "paley", "zig-zag")


@st.composite
def sizes(draw, most=40):
    """(n_in, n_out, degree) with any degree the inputs allow."""
    n_in = draw(st.integers(1, most))
    return n_in, draw(st.integers(1, most)), draw(st.integers(1, n_in))


def adjacency(moves, n):
    """(n, n) how many of these permutations take each point to each other."""
    matrix = np.zeros((n, n))
    for move in moves:
        matrix[np.arange(n), move] += 1
    return matrix


def singular(matrix):
    """Its singular values, falling."""
    return np.linalg.svd(matrix, compute_uv=False)


# --- the record of each construction ---


@every_name
@given(sizes(), seeds)
@settings(max_examples=60)
def test_a_construction_is_what_its_record_says(name, size, seed):
    n_in, n_out, degree = size
    made = CONSTRUCTIONS[name]
    if made.drawn_by != "output":
        degree = min(degree, n_out)
    graph = made.draw(n_in, n_out, degree, seed)
    assert (graph.n_in, graph.n_out, graph.seed) == (n_in, n_out, seed)
    assert graph == made.draw(n_in, n_out, degree, seed)
    if made.drawn_by == "output":
        assert made.regular
        assert graph.degree == degree
    elif made.drawn_by == "input":
        assert (graph.out_degrees == degree).all()
    assert made.may_repeat or not graph.has_double_edges
    if not made.seeded:
        assert graph == made.draw(n_in, n_out, degree, seed + 1)


def test_what_only_some_draws_show():
    drawn = {name: [sample_graph(name, 12, 8, 4, seed) for seed in range(20)] for name in CONSTRUCTIONS}
    for name, graphs in drawn.items():
        made = CONSTRUCTIONS[name]
        assert any(graph.has_double_edges for graph in graphs) == made.may_repeat
        assert (len(set(graphs)) == 1) == (not made.seeded)
    assert any(graph.degree is None for graph in drawn["random-by-input"])
    assert len({made.about for made in CONSTRUCTIONS.values()}) == len(CONSTRUCTIONS)


@pytest.mark.parametrize("name", [name for name, made in CONSTRUCTIONS.items() if made.drawn_by == "output"])
def test_sizes_degrees_and_seeds_that_cannot_be_are_refused(name):
    draw = find_construction(name).draw
    for arguments, says in (
        ((8, 4, 0, 0), "degree must .* between 1 and 8"),
        ((8, 9, 9, 0), "degree must .* between 1 and 8, the number of input channels, not 9"),
        ((0, 8, 1, 0), "at least one input and one output"),
        ((8, 8, 2, -1), "graph seed must be a whole number >= 0, not -1"),
    ):
        with pytest.raises(XNetsError, match=says):
            draw(*arguments)


GOLDEN = {
    "stratified": "fb99943150f1242c",
    "two-of-four": "498501c01af6ecc0",
    "random-lift": "ad93f828848eedbf",
    "ramanujan": "a9a42ba29de24c1c",
    "margulis": "21c3f8c978b6f2bd",
    "cayley": "131421e5d7141702",
    "paley": "5dad546970b39014",
    "zig-zag": "b12832018636061b",
    "grouped": "6451b8e0eaa35f30",
    "grouped-shuffled": "8c147ca50dd986f9",
    "butterfly": "12f3ca7fd84ff907",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_edges_never_change(name):
    """If this fails, numpy or our code now draws other graphs from the same seed: every published seed is void."""
    assert sample_graph(name, 60, 100, 13, 3).hash[:16] == GOLDEN[name]


# --- where names are asked for ---


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    "ask",
    [
        lambda device: ExpanderConv2d(8, 8, 3, degree=2, graph="ring", device=device),
        lambda device: ExpanderLinear(8, 8, compression=2, graph="ring", device=device),
        lambda device: expand_model(nn.Linear(8, 8, device=device), graph="ring"),
        lambda device: build("X-VGG16-2", graph="ring", device=device),
        lambda device: build("VGG16", graph="ring", device=device),
    ],
    ids=["conv", "linear", "expand", "build", "dense"],
)
def test_unknown_names_are_refused_with_the_list(ask, device):
    with pytest.raises(XNetsError, match=r"Unknown graph 'ring'; there are random, .*ramanujan, .*butterfly\."):
        ask(device)


def test_a_wrong_seed_is_not_blamed_on_a_layer():
    with pytest.raises(XNetsError, match=r"^graph seed must be a whole number >= 0, not -1\.$"):
        expand_model(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), seed=-1, keep=())


@every_name
def test_every_construction_is_a_layers_graph(name):
    conv = ExpanderConv2d(12, 20, 3, padding=1, compression=4, graph=name, seed=5)
    # a meta layer has the shapes of a real one, and becomes it
    meta = ExpanderConv2d(12, 20, 3, padding=1, compression=4, graph=name, seed=5, device="meta")
    assert meta.weight.shape == conv.weight.shape
    assert meta.neighbours.shape == conv.neighbours.shape
    meta.to_empty(device="cpu").reset_parameters()
    assert meta.graph == conv.graph
    assert conv.graph == sample_graph(name, 12, 20, 5 if name == "random-by-input" else 3, 5)
    x = torch.randn(2, 12, 5, 5)
    torch.testing.assert_close(conv(x), conv.to_dense()(x))
    assert conv.construction == name


@every_name
def test_every_construction_is_a_models_graph(name):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3), nn.Flatten(), nn.Linear(12 * 4, 6), nn.Linear(6, 2))
    model = expand_model(plain, 2, graph=name)
    assert [m.construction for m in model.modules() if isinstance(m, ExpanderLayer)] == [name] * 2
    assert model(torch.randn(2, 3, 6, 6)).shape == (2, 2)


@pytest.mark.parametrize("name", ["ramanujan", "grouped-shuffled"])
def test_networks_of_the_paper_are_built_on_any_graph(name):
    for network in PAPER_MODELS:
        if network.startswith("X-"):
            model = build(network, graph=name, device="meta")
            twin = build(network, device="meta")
            assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in twin.parameters())


@every_name
def test_a_network_of_the_paper_runs_on_any_graph(name):
    model = build("X-DenseNet-BC-2-40-24", graph=name, narrow=4).eval()
    graphs = [m.graph for m in model.modules() if isinstance(m, ExpanderLayer)]
    assert len(graphs) == 38
    assert torch.isfinite(model(torch.randn(2, 3, 32, 32))).all()


# --- draws from runs ---


@given(sizes(), seeds)
def test_stratified_outputs_have_one_input_of_each_run(size, seed):
    n_in, n_out, degree = size
    bounds = np.arange(degree + 1) * n_in // degree
    for name in ("stratified", "random-lift"):
        neighbours = sample_graph(name, n_in, n_out, degree, seed).neighbours
        assert (neighbours >= bounds[:-1]).all()
        assert (neighbours < bounds[1:]).all()


@given(st.integers(1, 12), st.integers(1, 20), st.integers(1, 4), seeds)
def test_two_of_four_and_two_of_2c(runs, n_out, c, seed):
    """At C = 2 NVIDIA's pattern: two of each four consecutive inputs."""
    graph = sample_graph("two-of-four", 2 * c * runs, n_out, 2 * runs, seed)
    counts = graph.to_mask().reshape(n_out, runs, 2 * c).sum(axis=2)
    assert (counts == 2).all()


def test_draws_from_runs_are_uniform():
    rows = 20_000
    one = sample_graph("stratified", 12, rows, 4, 0).to_mask().mean(axis=0)
    assert abs(one - 1 / 3).max() < 5 * np.sqrt(2 / 9 / rows)
    two = sample_graph("two-of-four", 4, rows, 2, 0).to_mask()
    pairs = (two.T.astype(float) @ two)[np.triu_indices(4, 1)] / rows
    assert abs(pairs - 1 / 6).max() < 5 * np.sqrt(5 / 36 / rows)
    odd = sample_graph("two-of-four", 10, rows, 5, 0).to_mask().mean(axis=0)  # 2 of 4, 2 of 4, 1 of 2
    assert abs(odd - 1 / 2).max() < 5 * np.sqrt(1 / 4 / rows)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 4), seeds)
def test_a_random_lift_is_one(degree, fibre, outputs, seed):
    """Projected on its runs it is the base, and between any two runs it is a matching."""
    graph = sample_graph("random-lift", degree * fibre, outputs * fibre, degree, seed)
    blocks = graph.to_mask().reshape(outputs, fibre, degree, fibre).transpose(0, 2, 1, 3)
    assert (blocks.sum(axis=2) == 1).all()
    assert (blocks.sum(axis=3) == 1).all()


# --- groups, shuffled groups, butterflies ---


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
def test_groups_that_divide_are_grouped_convolutions(groups, ins, outs):
    assert sample_graph("grouped", groups * ins, groups * outs, ins, 0) == grouped_graph(
        groups * ins, groups * outs, groups
    )


@given(sizes())
def test_groups_stay_apart_and_leave_nothing_out(size):
    n_in, n_out, degree = size
    groups = n_in // degree
    for name in ("grouped", "grouped-shuffled"):
        graph = sample_graph(name, n_in, n_out, degree, 0)
        parts = list(networkx.connected_components(networkx.Graph(graph.to_networkx())))
        fed = [part for part in parts if {side for side, _ in part} == {"in", "out"}]
        assert len(fed) == min(groups, n_out)
        if n_out >= n_in:  # each block has as many outputs as inputs, to take them in turn
            assert graph.out_degrees.min() > 0


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
def test_shuffled_groups_are_shufflenets_shuffle(groups, ins, outs):
    """Its reshape, transpose and flatten, on the rows of the grouped graph."""
    rows = torch.from_numpy(grouped_graph(groups * ins, groups * outs, groups).to_mask())
    shuffled = rows.reshape(groups, outs, groups * ins).transpose(0, 1).flatten(0, 1)
    graph = sample_graph("grouped-shuffled", groups * ins, groups * outs, ins, 0)
    assert (graph.to_mask() == shuffled.numpy()).all()


def test_two_shuffles_connect_what_groups_never_do():
    shuffled, plain = (sample_graph(name, 64, 64, 16, 0) for name in ("grouped-shuffled", "grouped"))
    assert layers_until_all([shuffled] * 5) == 2
    assert layers_until_all([plain] * 5) is None


@pytest.mark.parametrize(("digits", "log_block"), [(4, 0), (4, 1), (5, 2), (3, 3)])
def test_a_butterfly_is_the_sum_of_its_factors(digits, log_block):
    """Blocks that butterfly factors of every stride join, as a product of Kronecker powers."""
    n, block = 2**digits, 2**log_block
    blocks = digits - log_block
    eye, ones, swap = np.eye(2), np.ones((block, block)), np.ones((2, 2))
    expected = np.kron(np.eye(2**blocks), ones)
    for stride in range(blocks):
        factor = np.ones((1, 1))
        for k in range(blocks):
            factor = np.kron(factor, swap if k == stride else eye)
        expected = np.maximum(expected, np.kron(factor, ones))
    graph = sample_graph("butterfly", n, n, block * (1 + blocks), 0)
    assert (graph.to_mask() == (expected > 0)).all()


# --- explicit expanders ---


@given(st.integers(2, 300))
def test_numbers(n):
    assert is_prime(n) == all(n % d for d in range(2, n))
    if is_prime(n):
        g = primitive_root(n)
        order = [pow(g, k, n) for k in range(n - 1)]
        assert sorted(order) == list(range(1, n))
        assert powers(g, n).tolist() == order
        assert (inverses(n)[1:] * np.arange(1, n) % n == 1 % n).all()
        assert inverses(n)[0] == 0
    assert not is_prime(1)


@given(st.permutations(range(12)), st.integers(1, 12))
def test_first_return_follows_the_permutation(move, n):
    expected = []
    for x in range(n):
        x = move[x]
        while x >= n:
            x = move[x]
        expected.append(x)
    assert first_return(np.array(move), n).tolist() == expected
    assert sorted(expected) == list(range(n))


@pytest.mark.parametrize("p", [5, 13, 17, 29, 37, 101])
def test_there_are_p_plus_1_quaternions_with_their_conjugates(p):
    found = quaternions(p)
    assert len(set(found)) == len(found) == p + 1  # Jacobi
    for (a, b, c, d), conjugate in zip(found[::2], found[1::2], strict=True):
        assert (a * a + b * b + c * c + d * d, a % 2, a > 0) == (p, 1, True)
        assert conjugate == (a, -b, -c, -d)


@pytest.mark.parametrize(("p", "q", "bipartite"), [(5, 13, True), (17, 13, False)])
def test_lps_graphs_are_ramanujan(p, q, bipartite):
    """Both cases: p a square modulo q and not. One trivial singular value, the others at most 2 sqrt(p)."""
    graph = lps_graph(p, q)
    assert graph.n_in == graph.n_out == q * (q * q - 1) // 2
    assert graph.degree == p + 1
    assert not graph.has_double_edges
    assert (graph.out_degrees == p + 1).all()
    values = singular(graph.to_mask().astype(float))
    assert values[0] == pytest.approx(p + 1)
    assert values[1] <= 2 * np.sqrt(p)
    assert (pow(p, (q - 1) // 2, q) == q - 1) == bipartite
    mask = graph.to_mask()
    assert (mask == mask.T).all() != bipartite  # a double cover's edges are those of one graph, both ways


@pytest.mark.parametrize(("p", "q"), [(5, 5), (13, 5), (7, 13), (5, 11), (5, 21), (9, 13)])
def test_primes_that_make_no_lps_graph_are_refused(p, q):
    with pytest.raises(XNetsError, match=rf"two primes that are 1 modulo 4 with q > 2 sqrt\(p\), not {p} and {q}"):
        lps_graph(p, q)


@pytest.mark.parametrize(("q", "degree"), [(13, 6), (101, 14), (101, 18), (197, 30), (509, 6)])
def test_lps_quotients_on_the_line_are_ramanujan(q, degree):
    moves = [move for move, _ in zip(_line_moves(q + 1, degree, 0), range(degree), strict=False)]
    matrix = adjacency(moves, q + 1)
    assert (matrix == matrix.T).all()
    values = np.sort(abs(np.linalg.eigvalsh(matrix)))[::-1]
    assert values[0] == pytest.approx(degree)
    assert values[1] <= 2 * np.sqrt(degree - 1)


@pytest.mark.parametrize("m", [2, 5, 12, 20])
def test_gabber_and_galils_bound_holds(m):
    moves = _margulis_moves(m * m, 8, 0)
    matrix = adjacency([next(moves) for _ in range(8)], m * m)
    assert (matrix == matrix.T).all()
    assert singular(matrix)[1] <= 5 * np.sqrt(2)
    x, y = 1, m - 1  # by the definition
    for u, v in ((x + 2 * y, y), (x + 2 * y + 1, y), (x, y + 2 * x), (x, y + 2 * x + 1)):
        assert matrix[x * m + y, u % m * m + v % m] >= 1
    moves = _margulis_moves(m * m, 64, 0)
    squared = adjacency([next(moves) for _ in range(64)], m * m)
    assert (squared == matrix @ matrix).all()


@given(st.integers(2, 60), st.data(), seeds)
def test_cayley_graphs_are_circulants_with_their_fourier_spectrum(n, data, seed):
    degree = data.draw(st.integers(1, n // 2))
    graph = sample_graph("cayley", n, n, degree, seed)
    assert (graph.out_degrees == degree).all()
    stream = np.random.PCG64(derive_seed(seed, "generators"))
    generators = np.argsort(stream.random_raw(n), kind="stable")[:degree]
    fourier = np.sort(abs(np.fft.fft(np.isin(np.arange(n), generators))))[::-1]
    assert sigma_ratio(graph) == pytest.approx(fourier[1] / degree, abs=1e-6)


@pytest.mark.parametrize("q", [13, 29, 61, 101, 509])
def test_paley_graphs_have_the_spectrum_of_paley(q):
    """Gauss: (sqrt(q) + 1) / 2, and for fourth powers at most (3 sqrt(q) + 1) / 4."""
    graph = sample_graph("paley", q, q, (q - 1) // 2, 0)
    assert sigma_ratio(graph) == pytest.approx((np.sqrt(q) + 1) / 2 / graph.degree)
    quarter = sample_graph("paley", q, q, (q - 1) // 4, 0)
    assert sigma_ratio(quarter) <= (3 * np.sqrt(q) + 1) / 4 / quarter.degree


@pytest.mark.parametrize(("r", "d"), [(7, 2), (10, 3), (16, 4)])
def test_a_zig_zag_product_has_the_sigma_of_its_small_graph(r, d):
    """lambda(G z H) <= lambda(G) + lambda(H) + lambda(H)^2, and with G complete it is lambda(H)."""
    small = _apart(r, derive_seed(9, "H"))
    h = adjacency([next(small) for _ in range(d)], r)
    assert h.max() == 1
    graph = sample_graph("zig-zag", r * r, r * r, d * d, 9)
    assert (graph.out_degrees == d * d).all()
    assert sigma_ratio(graph) == pytest.approx(singular(h)[1] / d, abs=1e-6)


@pytest.mark.parametrize("name", EXPLICIT)
@pytest.mark.parametrize("size", [(96, 96, 12), (96, 40, 12), (40, 96, 12), (97, 97, 70), (100, 50, 49)])
def test_fitted_expanders_expand(name, size):
    """Whatever was fitted: far from disconnected, and no input has far from its share of edges."""
    n_in, n_out, degree = size
    graph = sample_graph(name, n_in, n_out, degree, 1)
    assert sigma_ratio(graph) < (0.9 if name in ("margulis", "zig-zag") else 0.75)
    share = n_out * degree / n_in
    assert share / 3 < graph.out_degrees.min()
    assert graph.out_degrees.max() < 2 * share


@pytest.mark.parametrize("name", EXPLICIT)
def test_few_outputs_leave_no_input_out(name):
    """Where random graphs, of the same edges, leave some hundred without an output."""
    graph, random = (sample_graph(kind, 2000, 500, 10, 0) for kind in (name, "random"))
    assert graph.out_degrees.min() > 0
    assert (random.out_degrees == 0).sum() > 100
    assert sigma_ratio(graph, normalised=True) < sigma_ratio(random, normalised=True) + 0.03


@pytest.mark.parametrize("name", EXPLICIT)
def test_above_half_of_the_inputs_a_graph_is_the_complement_of_one_below(name):
    many, few = (sample_graph(name, 30, 24, degree, 2).to_mask() for degree in (21, 9))
    assert (many == ~few).all()


@pytest.mark.parametrize("name", EXPLICIT)
def test_the_seed_renames_channels_and_keeps_the_spectrum(name):
    if name in ("cayley", "zig-zag"):  # their generators, their small graph are the seed's too
        assert len({sample_graph(name, 50, 50, 6, seed).hash for seed in range(10)}) == 10
        return
    graphs = [sample_graph(name, 50, 50, 6, seed) for seed in range(5)]
    assert len(set(graphs)) == 5
    values = [singular(graph.to_mask().astype(float)) for graph in graphs]
    for other in values[1:]:
        assert other == pytest.approx(values[0], abs=1e-6)


def test_given_graphs_of_a_by_input_construction_stay_irregular():
    """Shapes do not hang on whether degrees agree by luck; a graph of one's own is taken as it is."""
    graph = BipartiteGraph.from_neighbours([[0, 1], [1, 2]], 3)
    assert ExpanderLinear(3, 2, graph=graph).regular
    lucky = BipartiteGraph.from_neighbours([[0, 1], [1, 2]], 3, 0, "random-by-input")
    assert not ExpanderLinear(3, 2, graph=lucky).regular


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
