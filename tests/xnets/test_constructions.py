"""What holds of every construction: its record, its edges, and its name as the graph of layers and networks."""

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from tests.xnets.graph_cases import seeds, sizes
from xnets import ExpanderConv2d, ExpanderLinear, XNetsError, expand_model
from xnets.graphs import CONSTRUCTIONS, BipartiteGraph, find_construction, sample_graph
from xnets.layers import ExpanderLayer
from xnets.models import PAPER_MODELS, build

every_name = pytest.mark.parametrize("name", CONSTRUCTIONS)


# --- the record of each construction ---


@every_name
@given(sizes(most_in=40), seeds)
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


def test_given_graphs_of_a_by_input_construction_stay_irregular():
    """Shapes do not hang on whether degrees agree by luck; a graph of one's own is taken as it is."""
    graph = BipartiteGraph.from_neighbours([[0, 1], [1, 2]], 3)
    assert ExpanderLinear(3, 2, graph=graph).regular
    lucky = BipartiteGraph.from_neighbours([[0, 1], [1, 2]], 3, 0, "random-by-input")
    assert not ExpanderLinear(3, 2, graph=lucky).regular
