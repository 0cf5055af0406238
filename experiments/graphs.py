"""What is recorded of a network's graphs: seeds, hashes, spectral gaps, unused channels, and what the stack joins."""

from dataclasses import asdict
from typing import Any

from torch import nn

from xnets.graphs import BipartiteGraph, dead_inputs, dead_outputs, grouped_graph, sigma_ratio
from xnets.graphs.measures import sensitivity
from xnets.layers import ExpanderLayer
from xnets.models import ModelSpec, build_spec

PLAIN = ("vgg", "mobilenet")  # families in which each layer feeds the next one and nothing else


def graph_record(model: ModelSpec, graph_seed: int) -> dict[str, Any]:
    """One entry for each expander layer, in order; a dense or grouped network has none."""
    layers, stack = [], None
    if model.parsed.kind == "X":
        network = build_spec(model, graph_seed)
        for name, layer in network.named_modules():
            if isinstance(layer, ExpanderLayer):
                layers.append(_layer_record(name, layer))
        if model.parsed.family in PLAIN:
            stack = stack_record(sparse_stack(network))
    return {"model": asdict(model), "graph_seed": graph_seed, "layers": layers, "stack": stack}


def sparse_stack(network: nn.Module) -> list[BipartiteGraph]:
    """The graphs of a plain network from its first expander layer to its last, dense layers in between included.

    Depthwise convolutions join each channel with itself only, and are left out.
    """
    graphs = []
    for layer in network.modules():
        if isinstance(layer, ExpanderLayer):
            graphs.append((True, layer.graph))
        elif isinstance(layer, nn.Conv2d) and layer.groups < layer.in_channels:
            graphs.append((False, grouped_graph(layer.in_channels, layer.out_channels, layer.groups)))
        elif isinstance(layer, nn.Linear):
            graphs.append((False, grouped_graph(layer.in_features, layer.out_features, 1)))
    sparse = [i for i, (is_sparse, _) in enumerate(graphs) if is_sparse]
    return [graph for _, graph in graphs[sparse[0] : sparse[-1] + 1]]


def stack_record(graphs: list[BipartiteGraph]) -> dict[str, Any]:
    """What layers that follow one another join.

    layers: how many there are. until_all: after how many every output sees every input; None: never. seen: share of
    the pairs of an input and an output that a path joins, of the whole stack. reach: that share, averaged over all
    parts of the stack, from any layer to any later one: a stack may join all in its first layers, and nothing after.
    """
    parts = [sensitivity(graphs[first:]) for first in range(len(graphs))]
    shares = [share for part in parts for share in part.mean]
    return {
        "layers": len(graphs),
        "until_all": parts[0].layers,
        "seen": round(parts[0].mean[-1], 6),
        "reach": round(sum(shares) / len(shares), 6),
    }


def _layer_record(name: str, layer: ExpanderLayer) -> dict[str, Any]:
    graph = layer.graph
    return {
        "layer": name,
        "construction": graph.construction,
        "seed": graph.seed,
        "n_in": graph.n_in,
        "n_out": graph.n_out,
        "degree": graph.degree,
        "edges": graph.n_edges,
        "sigma_ratio": round(sigma_ratio(graph), 6),
        "dead_inputs": len(dead_inputs(graph)),
        "dead_outputs": len(dead_outputs(graph)),
        "hash": graph.hash,
    }
