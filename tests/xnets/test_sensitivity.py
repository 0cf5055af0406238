"""Theorem 1 on real networks: what an output is sensitive to is what its graphs reach, no more and no less.

Weights are positive, so nothing cancels, and ReLU and max-pooling pass everything on. An input channel is a tangent of
ones at all its places; one forward pass in forward mode carries one such tangent for each entry of the batch, so the
tangents at a layer are the sums of the Jacobian's columns, and their support is the Jacobian's.
"""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import forward_ad

from xnets.graphs import sample_graph
from xnets.graphs.measures import layers_until_all, sensitivity
from xnets.layers import ExpanderConv2d, ExpanderLayer
from xnets.models import PAPER_MODELS, build, parse_name
from xnets.models.densenet import DenseLayer
from xnets.models.resnet import Block

X_NETS = [name for name in PAPER_MODELS if parse_name(name).kind == "X"]
G_NETS = [name for name in PAPER_MODELS if parse_name(name).kind == "G"]
INPUTS = 24  # input channels that are followed

NARROW = {"vgg": 8, "resnet": 8, "mobilenet": 1, "alexnet": 32}


def narrow(name: str) -> int:
    """How many times narrower, so that it is quick and no layer has fewer inputs than C."""
    parsed = parse_name(name)
    if parsed.family != "densenet":
        return NARROW[parsed.family]
    growth = parsed.growth or (48 if parsed.depth == 161 else 32)
    return max(1, 2 * growth // max(2 * parsed.compression, 12))


@cache
def made(name: str, graph: str | None = None) -> nn.Sequential:
    """Everything above the network's dense first layers, with positive weights."""
    torch.manual_seed(1)
    model = build(name, graph=graph, narrow=narrow(name), drop_strides=9, num_classes=10).double().eval()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear, ExpanderLayer)):
                layer.weight.uniform_(0.5, 1.5).div_(max(1, layer.weight[0].numel() / 3))
                if layer.bias is not None:
                    layer.bias.zero_()
    classifier = model.classifier if isinstance(model.classifier, nn.Sequential) else [model.classifier]
    children = [*model.features, *classifier]
    first = next(i for i, child in enumerate(children) if any(map(is_sparse, child.modules())))
    return nn.Sequential(*children[first:])


def is_sparse(layer: nn.Module) -> bool:
    return isinstance(layer, ExpanderLayer) or (isinstance(layer, nn.Conv2d) and 1 < layer.groups < layer.in_channels)


def width(network: nn.Sequential) -> int:
    """Channels it takes."""
    layer = next(m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear, ExpanderLayer)))
    return layer.n_in if isinstance(layer, ExpanderLayer) else getattr(layer, "in_channels", None) or layer.in_features


def observed(network: nn.Sequential, inputs: np.ndarray) -> dict[nn.Module, np.ndarray]:
    """For each sparse layer and the network itself: (outputs, inputs) bool, where the Jacobian is not zero."""
    n, found, hooks = width(network), {}, []

    def note(layer, _, y):
        tangent = forward_ad.unpack_dual(y).tangent
        assert tangent.min() >= 0
        found[layer] = (tangent > 0).reshape(*tangent.shape[:2], -1).any(dim=2).T.numpy()

    for layer in [*filter(is_sparse, network.modules()), network]:
        hooks.append(layer.register_forward_hook(note))
    images = any(isinstance(m, (nn.Conv2d, ExpanderConv2d)) for m in network.modules())
    shape = (len(inputs), n, 2, 2) if images else (len(inputs), n)
    tangents = torch.zeros(shape, dtype=torch.float64)
    tangents[torch.arange(len(inputs)), torch.from_numpy(inputs)] = 1.0
    with forward_ad.dual_level(), torch.no_grad():
        network(forward_ad.make_dual(torch.rand(1, *shape[1:], dtype=torch.float64).expand(shape).clone(), tangents))
    for hook in hooks:
        hook.remove()
    return found


def reached(network: nn.Module, seen: np.ndarray, found: dict[nn.Module, np.ndarray]) -> np.ndarray:
    """The same by following paths in the graphs: (channels, inputs) bool, from the rows `seen` of what goes in."""
    if isinstance(network, Block):
        seen = reached(network.body, seen, found) | reached(network.shortcut, seen, found)
    elif isinstance(network, DenseLayer):
        seen = np.concatenate([seen, reached(network.body, seen, found)])
    elif isinstance(network, nn.Sequential):
        for layer in network:
            seen = reached(layer, seen, found)
    elif isinstance(network, ExpanderLayer):
        graph = network.graph
        seen = np.stack([seen[graph.indices[a:b]].any(axis=0) for a, b in pairwise(graph.indptr)])
    elif isinstance(network, nn.Conv2d):
        groups = np.split(seen, network.groups)
        rows = [np.repeat(group.any(axis=0)[None], network.out_channels // network.groups, 0) for group in groups]
        seen = np.concatenate(rows)
    elif isinstance(network, nn.Linear):
        seen = np.repeat(seen.any(axis=0)[None], network.out_features, 0)
    else:
        assert not list(network.parameters(recurse=True)) or isinstance(network, (nn.BatchNorm2d, nn.BatchNorm1d))
    found[network] = seen
    return seen


def compared(network: nn.Sequential) -> tuple[dict[nn.Module, np.ndarray], dict[nn.Module, np.ndarray]]:
    n = width(network)
    inputs = np.arange(n)[:: max(1, n // INPUTS)]
    by_graphs: dict[nn.Module, np.ndarray] = {}
    reached(network, (np.arange(n)[:, None] == inputs), by_graphs)
    return observed(network, inputs), by_graphs


@pytest.mark.parametrize("name", [*X_NETS, *G_NETS])
def test_the_jacobians_support_is_reachability(name):
    network = made(name)
    by_autograd, by_graphs = compared(network)
    sparse = [layer for layer in network.modules() if is_sparse(layer)]
    assert sparse
    for layer in [*sparse, network]:
        assert np.array_equal(by_autograd[layer], by_graphs[layer])
    shares = [by_graphs[layer].mean() for layer in sparse]
    assert shares[0] < 1, "a test in which everything is reached at once shows nothing"


@pytest.mark.parametrize("name", G_NETS)
def test_groups_never_mix(name):
    """The last sparse layer of a G-MobileNet sees of its group and nothing else, thirteen layers up."""
    network = made(name)
    groups = parse_name(name).compression
    last = [layer for layer in network.modules() if is_sparse(layer)][-1]
    n = width(network)
    inputs = np.arange(n)[:: max(1, n // INPUTS)]
    outputs = last.out_channels
    expected = (np.arange(outputs) * groups // outputs)[:, None] == inputs * groups // n
    assert np.array_equal(observed(network, inputs)[last], expected)


@pytest.mark.parametrize("name", ["X-VGG16-2", "X-MobileNet-0.5-4", "X-MobileNet-0.5-16"])
def test_grouped_graphs_never_mix_and_shuffled_ones_do(name):
    def seen(graph: str) -> np.ndarray:
        network = made(name, graph)
        by_autograd, by_graphs = compared(network)
        last = [layer for layer in network.modules() if isinstance(layer, ExpanderLayer)][-1]
        assert np.array_equal(by_autograd[last], by_graphs[last])
        return by_autograd[last]

    assert not seen("grouped").all(axis=1).any()
    assert seen("grouped-shuffled").all()


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 12), st.integers(2, 6), st.integers(1, 40),
    st.sampled_from(["grouped", "grouped-shuffled"]),
)  # fmt: skip
def test_stacks_of_groups(groups, degree, depth, name):
    """Without shuffle an output sees its group for ever; with it D^t inputs after t layers, the most there can be."""
    n = groups * degree
    stack = [sample_graph(name, n, n, degree, 0)] * depth
    found = sensitivity(stack)
    if name == "grouped":
        assert layers_until_all(stack) is None
        assert found.mean == (degree / n,) * depth
    else:
        least = next(t for t in range(1, 99) if degree**t >= n)
        assert found.layers == (least if depth >= least else None)


def test_deep_x_nets_are_sensitive_to_every_input_that_is_used():
    """Of the paper's networks: at their last sparse layer every output sees every input but those that are lost."""
    for name in ("X-MobileNet-0.5-2", "X-ResNet-2-50", "X-DenseNet-BC-2-40-24"):
        network = made(name)
        by_autograd, _ = compared(network)
        last = by_autograd[[layer for layer in network.modules() if is_sparse(layer)][-1]]
        assert last.all()
