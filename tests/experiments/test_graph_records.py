"""What the sample stage records of a network's stack, against the network's own gradients."""

import pytest
import torch
from torch import nn

from experiments.graphs import graph_record, sparse_stack, stack_record
from xnets.graphs import BipartiteGraph, grouped_graph
from xnets.models import ModelSpec, build_spec


def test_what_a_stack_joins_by_hand():
    pairs = grouped_graph(4, 4, 2)
    crossing = BipartiteGraph.from_neighbours([[0, 2], [0, 2], [1, 3], [1, 3]], 4, None, "by hand")
    assert stack_record([pairs, pairs]) == {"layers": 2, "until_all": None, "seen": 0.5, "reach": 0.5}
    # parts: the first layer alone, both, the second alone
    assert stack_record([pairs, crossing]) == {"layers": 2, "until_all": 2, "seen": 1.0, "reach": round(2 / 3, 6)}


def test_dense_layers_inside_count_and_those_around_do_not():
    network = build_spec(ModelSpec("X-MobileNet-0.5-4", 10, graph="grouped", narrow=4), 0)
    stack = sparse_stack(network)
    assert len(stack) == 12
    assert all(graph.construction == "grouped" for graph in stack)
    network.features[3 + 6 * 4 + 3] = nn.Conv2d(stack[3].n_in, stack[3].n_out, 1)
    inside = sparse_stack(network)
    assert sum(graph.n_edges == graph.n_in * graph.n_out for graph in inside) == 1
    assert len(inside) == 12, "the fourth of them is dense now"


@pytest.mark.parametrize("graph", ["grouped", "random"])
def test_a_path_is_there_exactly_where_a_gradient_is(graph):
    network = build_spec(ModelSpec("X-MobileNet-0.5-4", 10, graph=graph, narrow=4, drop_strides=5), 0).double()
    stack = sparse_stack(network)
    last = max(i for i, layer in enumerate(network.features) if type(layer).__name__ == "ExpanderConv2d")
    first = min(i for i, layer in enumerate(network.features) if type(layer).__name__ == "ExpanderConv2d")
    part = network.features[first : last + 1]
    for i, layer in enumerate(part):
        if isinstance(layer, (nn.BatchNorm2d, nn.ReLU)):  # nothing that could be zero by chance
            part[i] = nn.Identity()
    x = torch.rand(1, stack[0].n_in, 3, 3, dtype=torch.double, requires_grad=True)
    y = part(x).sum((0, 2, 3))
    rows = [torch.autograd.grad(y[o], x, retain_graph=True)[0].abs().sum((0, 2, 3)) > 0 for o in range(len(y))]
    assert stack_record(stack)["seen"] == pytest.approx(torch.stack(rows).double().mean().item(), abs=1e-6)


def test_networks_with_shortcuts_have_no_stack():
    assert graph_record(ModelSpec("X-DenseNet-BC-2-10-24", 10, narrow=4), 0)["stack"] is None
    dense = graph_record(ModelSpec("VGG16", 10, narrow=8), 0)
    assert (dense["layers"], dense["stack"]) == ([], None)
