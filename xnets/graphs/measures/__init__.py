"""Measures of connectivity (paper, sections 3.2 to 3.4) of graphs that need be neither square nor regular."""

from xnets.graphs.measures.discrepancy import (
    WorstDiscrepancy,
    discrepancy_bound,
    edge_discrepancy,
    edges_between,
    worst_discrepancy,
)
from xnets.graphs.measures.expansion import Expansion, expansion_bound, neighbourhood, vertex_expansion
from xnets.graphs.measures.overview import Measure, sample_for, summary
from xnets.graphs.measures.paths import (
    PathLengths,
    Sensitivity,
    count_paths,
    dead_inputs,
    dead_outputs,
    diameter,
    layers_until_all,
    path_lengths,
    sensitivity,
)
from xnets.graphs.measures.spectrum import (
    leading,
    leading_values,
    least_ratio,
    ramanujan_ratio,
    sigma_ratio,
    spectral_gap,
)
from xnets.graphs.measures.walks import mixing_time, mixing_time_bound, walk_distances

__all__ = [
    "Expansion",
    "Measure",
    "PathLengths",
    "Sensitivity",
    "WorstDiscrepancy",
    "count_paths",
    "dead_inputs",
    "dead_outputs",
    "diameter",
    "discrepancy_bound",
    "edge_discrepancy",
    "edges_between",
    "expansion_bound",
    "layers_until_all",
    "leading",
    "leading_values",
    "least_ratio",
    "mixing_time",
    "mixing_time_bound",
    "neighbourhood",
    "path_lengths",
    "ramanujan_ratio",
    "sample_for",
    "sensitivity",
    "sigma_ratio",
    "spectral_gap",
    "summary",
    "vertex_expansion",
    "walk_distances",
    "worst_discrepancy",
]
