"""What is recorded of a network's graphs: seeds, hashes, spectral gaps, unused channels."""

from dataclasses import asdict
from typing import Any

from xnets.graphs import dead_inputs, dead_outputs, sigma_ratio
from xnets.layers import ExpanderLayer
from xnets.models import ModelSpec, build_spec


def graph_record(model: ModelSpec, graph_seed: int) -> dict[str, Any]:
    """One entry for each expander layer, in order; a dense or grouped network has none."""
    layers = []
    if model.parsed.kind == "X":
        for name, layer in build_spec(model, graph_seed).named_modules():
            if isinstance(layer, ExpanderLayer):
                layers.append(_layer_record(name, layer))
    return {"model": asdict(model), "graph_seed": graph_seed, "layers": layers}


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
