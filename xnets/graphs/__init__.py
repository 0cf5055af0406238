"""Bipartite graphs between the channels of two layers: sampling, spectral gap, files."""

from xnets.graphs.bipartite import BipartiteGraph
from xnets.graphs.files import combined_hash, load_graph, save_graph
from xnets.graphs.sampling import CONSTRUCTIONS, grouped_graph, random_expander, sample_graph, union_of_matchings
from xnets.graphs.spectrum import dead_inputs, dead_outputs, sigma_ratio, spectral_gap

__all__ = [
    "CONSTRUCTIONS",
    "BipartiteGraph",
    "combined_hash",
    "dead_inputs",
    "dead_outputs",
    "grouped_graph",
    "load_graph",
    "random_expander",
    "sample_graph",
    "save_graph",
    "sigma_ratio",
    "spectral_gap",
    "union_of_matchings",
]
