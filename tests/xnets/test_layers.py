"""X-Conv and X-Linear against masked dense layers, under all that PyTorch does to a module; their first weights."""

import copy
import pickle
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from xnets import ExpanderConv2d, ExpanderLinear, XNetsError
from xnets.graphs import CONSTRUCTIONS, BipartiteGraph, grouped_graph, random_expander
from xnets.layers import INITS, KERNELS
from xnets.layers.initialise import initialise_convolution

F64 = {"dtype": torch.float64}
MODES = ("zeros", "reflect", "replicate", "circular")
LOPSIDED = BipartiteGraph(5, [0, 3, 3, 4, 6], [0, 2, 4, 1, 1, 3])  # output 1 has no input, input 0 one output
every_kernel = pytest.mark.parametrize("kernel", KERNELS)


def conv(**how):
    """A small X-Conv, 6 -> 8 channels."""
    return ExpanderConv2d(6, 8, 3, padding=1, **{"degree": 3, "seed": 0} | how)


def linear(**how):
    """A small X-Linear, 6 -> 8."""
    return ExpanderLinear(6, 8, **{"degree": 3, "seed": 0} | how)


def image(*shape, **how):
    return torch.randn(*(shape or (2, 6, 7, 5)), generator=torch.Generator().manual_seed(0), **how)


BOTH = pytest.mark.parametrize(("make", "x"), [(conv, image()), (linear, image(2, 6))], ids=["conv", "linear"])


def edges(layer):
    """(outputs, inputs) of the filters of layer.weight in their order, from the graph alone."""
    graph = layer.graph
    lists = [graph.indices[graph.indptr[r] : graph.indptr[r + 1]] for r in range(graph.n_out)]
    pairs = [(v, int(u)) for v in range(graph.n_out * layer.block) for u in lists[v // layer.block]]
    return torch.tensor(pairs).T


def masked_dense(layer, dense):
    """Give `dense`, an nn.Conv2d or nn.Linear, the weight of `layer`, edge by edge, and zero elsewhere."""
    mask = torch.from_numpy(np.repeat(layer.graph.to_mask(), layer.block, axis=0))
    dense = dense.to(layer.weight.dtype)
    with torch.no_grad():
        filters = layer.weight.reshape(-1, *layer.window)
        dense.weight.zero_().index_put_(tuple(edges(layer)), filters, accumulate=True)
        assert (dense.weight[~mask] == 0).all()
        if layer.bias is not None:
            dense.bias.copy_(layer.bias)
    return dense


def assert_same(layer, dense, x):
    """Equal outputs, and equal gradients of the input, of the bias, and of the weight at the edges."""
    masked_dense(layer, dense)
    mine, theirs = (x.clone().requires_grad_() for _ in range(2))
    y, expected = layer(mine), dense(theirs)
    torch.testing.assert_close(y, expected)
    upstream = torch.randn(y.shape, dtype=y.dtype)
    y.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(mine.grad, theirs.grad)
    gathered = dense.weight.grad[tuple(edges(layer))].reshape(layer.weight.shape)
    torch.testing.assert_close(layer.weight.grad, gathered)
    if layer.bias is not None:
        torch.testing.assert_close(layer.bias.grad, dense.bias.grad)


@st.composite
def connections(draw):
    """(n_in, n_out, what tells a layer its graph): every construction, given graphs, blocks, degree or compression."""
    n_in, rows, block = draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.integers(1, 3))
    seed = draw(st.integers(0, 2**62))
    graph = draw(st.sampled_from([*CONSTRUCTIONS, "given", "lopsided"]))
    if graph == "lopsided":
        return 5, 4, {"graph": LOPSIDED}
    if "-by-" in graph:
        return n_in, rows, {"graph": graph, "degree": draw(st.integers(1, min(n_in, rows))), "seed": seed}
    if graph == "given":
        how = {"graph": random_expander(n_in, rows, draw(st.integers(1, n_in)), seed)}
    else:
        how = {
            "graph": graph,
            draw(st.sampled_from(["degree", "compression"])): draw(st.integers(1, n_in)),
            "seed": seed,
        }
    return n_in, rows * block, how | {"block": block}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # torch says it costs a copy
@every_kernel
@pytest.mark.parametrize("mode", MODES)
@given(connections(), st.data())
def test_conv_is_a_masked_dense_conv(kernel, mode, connected, data):
    n_in, n_out, how = connected
    pair = st.one_of(st.integers(1, 2), st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = data.draw(
        st.one_of(st.sampled_from(["same", "valid"]), st.integers(0, 2), st.just((0, 2)), st.just((2, 1)))
    )
    shape = {
        "kernel_size": data.draw(st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3)))),
        "stride": data.draw(st.sampled_from([1, (1, 1)]) if padding == "same" else pair),
        "padding": padding,
        "dilation": data.draw(pair),
        "bias": data.draw(st.booleans()),
        "padding_mode": mode,
    }
    layer = ExpanderConv2d(n_in, n_out, **shape, **how, kernel=kernel, **F64)
    x = image(data.draw(st.integers(1, 2)), n_in, data.draw(st.integers(6, 8)), 7, **F64)
    assert_same(layer, nn.Conv2d(n_in, n_out, **shape), x)


@every_kernel
@given(connections(), st.booleans(), st.sampled_from([(), (3,), (2, 1, 3)]))
def test_linear_is_a_masked_dense_linear(kernel, connected, bias, batch):
    n_in, n_out, how = connected
    layer = ExpanderLinear(n_in, n_out, bias, **how, kernel=kernel, **F64)
    assert_same(layer, nn.Linear(n_in, n_out, bias), image(*batch, n_in, **F64))


@BOTH
@every_kernel
@pytest.mark.parametrize("graph", ["random", "random-with-replacement", "random-by-input"])
def test_gradcheck(make, x, kernel, graph):
    layer = make(graph=graph, kernel=kernel, **F64)
    x = x[:1, :, :3, :3] if x.dim() == 4 else x

    def run(x, weight, bias):
        return functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(run, (x.double().requires_grad_(), layer.weight, layer.bias))


@BOTH
@pytest.mark.parametrize(
    ("how", "n_edges", "n_index"), [({}, 24, 24), ({"graph": "random-by-input"}, 18, 36), ({"block": 4}, 24, 6)]
)
def test_one_parameter_per_edge_and_no_mask(make, x, how, n_edges, n_index):
    layer = make(**how)
    window = 9 if make is conv else 1
    assert layer.weight.numel() == n_edges * window
    assert sum(p.numel() for p in layer.parameters()) == n_edges * window + 8
    assert set(layer.state_dict()) == {"weight", "bias", "neighbours"}
    assert set(make(bias=False, **how).state_dict()) == {"weight", "neighbours"}
    assert layer.neighbours.numel() == n_index


@BOTH
def test_to_dense_is_the_same_function(make, x):
    layer = make(graph="random-with-replacement").eval().requires_grad_(False)
    dense = layer.to_dense()
    assert type(dense) is {conv: nn.Conv2d, linear: nn.Linear}[make]
    assert (dense.training, dense.weight.requires_grad) == (False, False)
    torch.testing.assert_close(dense(x), layer(x))


# --- what PyTorch does to modules ---


@BOTH
@every_kernel
def test_autocast(make, x, kernel):
    layer = make(kernel=kernel)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        expected = layer.to_dense()(x)
    assert y.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, atol=0.03, rtol=0.03)
    y.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32


@BOTH
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("graph", ["random", "random-with-replacement", "random-by-input"])
def test_compiled_without_a_graph_break(make, x, backend, graph):
    torch.compiler.reset()
    layer = make(graph=graph)
    y = torch.compile(layer, backend=backend, fullgraph=True)(x)
    torch.testing.assert_close(y, layer(x))
    gradient = torch.autograd.grad(y.square().sum(), layer.weight)
    torch.testing.assert_close(gradient, torch.autograd.grad(layer(x).square().sum(), layer.weight))


@BOTH
def test_exported_for_any_batch(make, x):
    layer = make()
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    more = torch.cat([x, x, -x])
    torch.testing.assert_close(program.module()(more), layer(more))


@BOTH
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
@pytest.mark.parametrize("how", [{}, {"graph": grouped_graph(6, 8, 2), "degree": None, "seed": None}])
def test_copies_compute_the_same_and_stand_alone(make, x, clone, how):
    layer = make(**how)
    twin = clone(layer)
    before = layer(x)
    torch.testing.assert_close(twin(x), before, rtol=0, atol=0)
    assert (twin.graph, twin.seed, twin.construction) == (layer.graph, layer.seed, layer.construction)
    nn.init.zeros_(twin.weight)
    torch.testing.assert_close(layer(x), before, rtol=0, atol=0)
    twin.reset_parameters()
    assert twin.graph == layer.graph


@BOTH
def test_distributed_data_parallel(make, x, tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        layer = make()
        wrapped = nn.parallel.DistributedDataParallel(copy.deepcopy(layer))
        wrapped(x).square().sum().backward()
        layer(x).square().sum().backward()
        torch.testing.assert_close(wrapped.module.weight.grad, layer.weight.grad)
    finally:
        torch.distributed.destroy_process_group()


@every_kernel
def test_channels_last_and_unbatched_images(kernel):
    layer, x = conv(kernel=kernel), image()
    torch.testing.assert_close(layer(x.to(memory_format=torch.channels_last)), layer(x))
    torch.testing.assert_close(layer(x[0]), layer(x)[0])
    assert layer(x[:0]).shape == (0, 8, 7, 5)


@BOTH
@every_kernel
def test_inputs_of_another_size_are_refused(make, x, kernel):
    layer = make(kernel=kernel)
    for wrong in (x.repeat_interleave(2, 1), x[:, :5], x[0, ..., 0] if make is conv else x[:, 0]):
        with pytest.raises(XNetsError, match=r"Expected input .*6"):
            layer(wrong)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(make, x, dtype):
    for layer in (make(dtype=dtype), make().to(dtype)):
        assert (layer.weight.dtype, layer.bias.dtype, layer.neighbours.dtype) == (dtype, dtype, torch.int32)
        assert layer(x.to(dtype)).dtype == dtype
        torch.testing.assert_close(layer(x.to(dtype)), layer.to_dense()(x.to(dtype)))


# --- the meta device, checkpoints, seeds ---

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


NOTHING = {"degree": None, "seed": None}  # to sample a graph with: it is given


@BOTH
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"compression": 2}, "exactly one of degree"),
        ({"degree": None}, "exactly one of degree"),
        ({"degree": None, "compression": 7}, "compression 7 does not fit a layer with fan-in 6"),
        ({"degree": None, "compression": 0}, "compression 0 does not fit"),
        ({"degree": 7}, "degree must lie between 1 and .* 6, not 7"),
        ({"degree": 0}, "degree must lie between 1 and .* 6, not 0"),
        ({"block": 3}, "block must divide the 8 outputs, and 3 does not"),
        ({"block": 0}, "block must divide"),
        ({"block": 2, "graph": "random-by-input"}, "block > 1 needs a graph whose outputs all have the same degree"),
        ({"init": "zero"}, "Unknown initialisation 'zero'; there are torch, sparse-aware, authors"),
        ({"kernel": "fast"}, "Unknown kernel 'fast'; there are dense, algorithm1"),
        ({"graph": "ring"}, "Unknown graph 'ring'; there are random,"),
        ({"seed": -1}, "graph seed must be a whole number >= 0, not -1"),
        ({"seed": 0.5}, "graph seed must be a whole number"),
        ({"graph": grouped_graph(6, 8, 2)}, "Give a graph, or a degree or compression"),
        ({"graph": grouped_graph(6, 4, 2), **NOTHING}, "has 6 inputs and 4 outputs, the layer needs 6 and 8"),
        ({"graph": grouped_graph(6, 8, 2), **NOTHING, "block": 2}, "the layer needs 6 and 4"),
        ({"graph": BipartiteGraph.from_mask(np.zeros((8, 6))), **NOTHING}, "The graph has no edges"),
        ({"graph": grouped_graph(6, 8, 2), "degree": None, "seed": 3}, "and a seed to sample one with, not both"),
    ],
)
def test_what_cannot_be_built_is_refused(make, x, device, how, says):
    with pytest.raises(XNetsError, match=says):
        make(**how, device=device)


def test_padding_that_cannot_be_built_is_refused():
    with pytest.raises(XNetsError, match="padding_mode must be one of zeros, reflect, replicate, circular"):
        conv(padding_mode="mirror")
    for how in ({"padding": "full"}, {"padding": "same", "stride": (1, 2)}):
        with pytest.raises(XNetsError, match="padding must be numbers, 'valid', or 'same' with stride 1"):
            ExpanderConv2d(6, 8, 3, degree=2, **how)


# --- initialisation ---


def assert_drawn(weight, rule, variance):
    """The variance within 5 %, and the distribution's shape: uniform stays within its bound, normal does not."""
    weight = weight.detach().double()
    assert abs(weight.mean()) < 0.05 * variance**0.5
    assert weight.var().item() == pytest.approx(variance, rel=0.05)
    if rule == "uniform":
        assert 0.99 < weight.abs().max() / (3 * variance) ** 0.5 <= 1
    else:
        assert weight.pow(4).mean() / weight.pow(2).mean() ** 2 == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize(
    ("init", "rule", "of_conv", "of_linear"),
    [
        ("torch", "uniform", 1 / (3 * 40 * 9), 1 / (3 * 40)),
        ("sparse-aware", "normal", 2 / (40 * 9), 2 / 40),
        ("authors", "normal", 2 / (300 * 9), 2 / 200),
    ],
)
def test_first_weights_of_a_regular_layer(init, rule, of_conv, of_linear):
    """200 -> 300 channels, D = 40; the bias is uniform with nn.Conv2d's bound at the true fan-in, by every rule."""
    torch.manual_seed(0)
    how = {"degree": 40, "seed": 0, "init": init}
    for layer, variance, fan_in in (
        (ExpanderConv2d(200, 300, 3, **how), of_conv, 360),
        (ExpanderLinear(200, 300, **how), of_linear, 40),
        (ExpanderConv2d(200, 300, 3, **how, block=4), of_conv, 360),
    ):
        assert_drawn(layer.weight, rule, variance)
        assert 0.95 < layer.bias.abs().max() * fan_in**0.5 <= 1


def test_default_weights_are_those_of_a_group_convolution():
    torch.manual_seed(0)
    groups = nn.Conv2d(200, 300, 3, groups=5)
    assert_drawn(groups.weight, "uniform", ExpanderConv2d(200, 300, 3, compression=5).weight.var().item())


@pytest.mark.parametrize("kind", ["conv", "linear"])
@pytest.mark.parametrize(("init", "rule", "gain"), [("torch", "uniform", 1 / 3), ("sparse-aware", "normal", 2)])
def test_first_weights_of_an_irregular_layer_follow_each_outputs_fan_in(kind, init, rule, gain):
    """1000 outputs of 4 inputs, one of none, which computes its bias, and 1000 of 36."""
    torch.manual_seed(0)
    few, many = random_expander(40, 1000, 4, 0).to_mask(), random_expander(40, 1000, 36, 0).to_mask()
    graph = BipartiteGraph.from_mask(np.concatenate([few, np.zeros((1, 40)), many]))
    size = (40, 2001, 3) if kind == "conv" else (40, 2001)
    layer = (ExpanderConv2d if kind == "conv" else ExpanderLinear)(*size, graph=graph, init=init)
    window = 9 if kind == "conv" else 1
    assert_drawn(layer.weight[:4000], rule, gain / (4 * window))
    assert_drawn(layer.weight[4000:], rule, gain / (36 * window))
    y = layer(torch.ones(1, 40, 3, 3) if kind == "conv" else torch.ones(1, 40))
    assert y.isfinite().all()
    torch.testing.assert_close(y[0, 1000].squeeze(), layer.bias[1000])


@pytest.mark.parametrize(
    ("init", "rule", "variance", "bound"),
    [
        ("torch", "uniform", 1 / (3 * 50 * 9), (50 * 9) ** -0.5),
        ("sparse-aware", "normal", 2 / (50 * 9), (50 * 9) ** -0.5),
        ("authors", "uniform", 1 / (3 * 200 * 9), (200 * 9) ** -0.5),  # PyTorch 0.3 did not divide by the groups
    ],
)
def test_first_weights_of_a_group_convolution(init, rule, variance, bound):
    torch.manual_seed(0)
    layer = nn.Conv2d(200, 300, 3, groups=4)
    initialise_convolution(layer, init)
    assert_drawn(layer.weight, rule, variance)
    assert 0.95 < layer.bias.abs().max() / bound <= 1
    initialise_convolution(nn.Conv2d(200, 300, 3, groups=4, bias=False), init)


def test_unknown_rule_is_refused_for_convolutions_too():
    with pytest.raises(XNetsError, match="Unknown initialisation 'xavier'"):
        initialise_convolution(nn.Conv2d(2, 2, 1), "xavier")


@BOTH
@pytest.mark.parametrize("init", INITS)
def test_reset_weights_draws_new_weights_on_the_same_graph(make, x, init):
    layer = make(init=init)
    graph, weight = layer.graph, layer.weight.detach().clone()
    with patch("xnets.layers.expander.sample_graph", side_effect=AssertionError("drew a graph")):
        layer.reset_weights()
    assert layer.graph == graph
    assert (layer.weight != weight).all()
