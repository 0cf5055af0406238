"""Layers from the meta device, from checkpoints and from seeds: which graph they have."""

import copy

import pytest
import torch

from tests.xnets.small_layers import BOTH, LOPSIDED, conv, linear
from xnets import ExpanderConv2d, ExpanderLinear, XNetsError
from xnets.graphs import BipartiteGraph, random_expander

WHERE = pytest.mark.parametrize(
    "how",
    [
        {"seed": 1},
        {"seed": 1, "graph": "random-with-replacement"},
        {"seed": 1, "graph": "random-by-input"},
        {"seed": None, "degree": None, "graph": LOPSIDED},
        {"seed": 1, "block": 2},
    ],
    ids=["random", "replacement", "irregular", "given", "block"],
)


def sized(make, **how):
    """As make(), 5 -> 4."""
    how = {"degree": 2, **how}
    return ExpanderConv2d(5, 4, 3, **how) if make is conv else ExpanderLinear(5, 4, **how)


@BOTH
@WHERE
def test_from_the_meta_device(make, x, how):
    """Shapes without values, then values by to_empty() and reset_parameters(), or from a checkpoint."""
    x = x[:, :5]
    on_meta, direct = sized(make, **how, device="meta"), sized(make, **how)
    assert all(t.is_meta for t in on_meta.state_dict().values())
    assert on_meta(x.to("meta")).shape == direct(x).shape
    loaded = copy.deepcopy(on_meta)
    loaded.load_state_dict(direct.state_dict(), assign=True)
    torch.testing.assert_close(loaded(x), direct(x), rtol=0, atol=0)
    assert (loaded.seed, loaded.construction) == (direct.seed, direct.construction)
    on_meta.to_empty(device="cpu")
    for layer in (on_meta, direct):
        torch.manual_seed(3)
        layer.reset_parameters()
    assert on_meta.graph == direct.graph
    torch.testing.assert_close(on_meta(x), direct(x), rtol=0, atol=0)


@BOTH
@WHERE
@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_checkpoint_brings_its_graph(make, x, how, assign, device):
    """The layer forgets its own seed, which no longer draws its graph, and keeps the checkpoint's on a reset."""
    x = x[:, :5]
    other = sized(make, **how | {"seed": 2} if how["seed"] else {"graph": "random-by-input", "seed": 4})
    if other.weight.shape != sized(make, **how).weight.shape:  # LOPSIDED has six edges
        other = sized(make, degree=None, graph=BipartiteGraph(5, [0, 1, 2, 3, 6], [4, 4, 3, 0, 1, 2]))
    layer = sized(make, **how, device=device)
    if device == "meta" and not assign:
        with pytest.warns(UserWarning, match="no-op"):  # torch's own, and nothing else goes wrong
            layer.load_state_dict(other.state_dict())
        return
    layer.load_state_dict(other.state_dict(), assign=assign)
    torch.testing.assert_close(layer(x), other(x), rtol=0, atol=0)
    assert layer.graph == other.graph != sized(make, **how).graph
    assert (layer.seed, layer.construction) == (None, "loaded")
    layer.reset_parameters()
    assert layer.graph == other.graph


@BOTH
@pytest.mark.parametrize(("graph", "row"), [("random", 0), ("random-by-input", 0), ("random-by-input", 1)])
@pytest.mark.parametrize("wrong", [-1, 8])
def test_a_checkpoint_with_edges_to_nowhere_is_refused_untouched(make, x, graph, row, wrong):
    layer, damaged = make(graph=graph), make(graph=graph, seed=1).state_dict()
    damaged["neighbours"][row, -1] = wrong
    before = layer(x)
    with pytest.raises(XNetsError, match="neighbours names channels this layer does not have"):
        layer.load_state_dict(damaged)
    torch.testing.assert_close(layer(x), before, rtol=0, atol=0)


@BOTH
def test_a_checkpoint_of_another_shape_gets_torchs_error(make, x):
    with pytest.raises(RuntimeError, match="size mismatch for neighbours"):
        make().load_state_dict(make(degree=2).state_dict())
    state = make().state_dict()
    del state["neighbours"]
    with pytest.raises(RuntimeError, match=r"Missing key.*neighbours"):
        make().load_state_dict(state)


def test_without_a_seed_the_graph_follows_torch_and_can_be_drawn_again():
    layers = []
    for seed, device in ((5, "cpu"), (5, "cpu"), (6, "cpu"), (5, "meta")):
        torch.manual_seed(seed)
        with torch.device(device):
            layers.append(linear(seed=None))
    layers[3].to_empty(device="cpu").reset_parameters()
    graphs = [layer.graph for layer in layers]
    assert graphs[0] == graphs[1] == graphs[3] != graphs[2]
    assert linear(seed=layers[0].seed).graph == graphs[0]
    assert graphs[0] == random_expander(6, 8, 3, layers[0].seed)
