"""The first weights of layers and convolutions."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn

from tests.xnets.small_layers import BOTH
from xnets import ExpanderConv2d, ExpanderLinear, XNetsError
from xnets.graphs import BipartiteGraph, random_expander
from xnets.layers import INITS
from xnets.layers.initialise import initialise_convolution


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
