"""Bipartite graphs between the channels of two layers: constructions by name, measures, files."""

from xnets.graphs.bipartite import BipartiteGraph
from xnets.graphs.blocks import grouped_graph
from xnets.graphs.constructions import CONSTRUCTIONS, Construction, find_construction, sample_graph
from xnets.graphs.files import combined_hash, load_graph, save_graph
from xnets.graphs.measures import dead_inputs, dead_outputs, sigma_ratio, spectral_gap
from xnets.graphs.pruned import magnitude_pruned
from xnets.graphs.ramanujan import lps_graph
from xnets.graphs.sampling import random_expander, union_of_matchings

__all__ = [
    "CONSTRUCTIONS",
    "BipartiteGraph",
    "Construction",
    "combined_hash",
    "dead_inputs",
    "dead_outputs",
    "find_construction",
    "grouped_graph",
    "load_graph",
    "lps_graph",
    "magnitude_pruned",
    "random_expander",
    "sample_graph",
    "save_graph",
    "sigma_ratio",
    "spectral_gap",
    "union_of_matchings",
]
