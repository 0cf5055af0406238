"""X-Conv and X-Linear against masked dense layers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from tests.xnets.small_layers import BOTH, F64, LOPSIDED, conv, every_kernel, image, linear
from xnets import ExpanderConv2d, ExpanderLinear
from xnets.graphs import CONSTRUCTIONS, random_expander

MODES = ("zeros", "reflect", "replicate", "circular")


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
