"""All measures of one graph at once, as `xnets graph measure` prints them."""

from dataclasses import dataclass
from typing import Any

from xnets.errors import XNetsError
from xnets.graphs.bipartite import BipartiteGraph
from xnets.graphs.measures.discrepancy import worst_discrepancy
from xnets.graphs.measures.expansion import vertex_expansion
from xnets.graphs.measures.paths import dead_inputs, dead_outputs, path_lengths
from xnets.graphs.measures.spectrum import least_ratio, ramanujan_ratio, sigma_ratio
from xnets.graphs.measures.walks import mixing_time

ALL_SOURCES = 4096  # vertices up to which distances are taken from all of them, and walks begin at all
SAMPLE = 64  # and how many are taken of more


@dataclass(frozen=True)
class Measure:
    """A number, or None where it does not exist, and what it is."""

    value: Any
    about: str


def sample_for(graph: BipartiteGraph) -> int | None:
    """How many vertices a summary follows of this graph: None stands for all of them."""
    return None if graph.n_in + graph.n_out <= ALL_SOURCES else SAMPLE


def summary(graph: BipartiteGraph, seed: int = 0) -> dict[str, Measure]:
    """Every measure of a graph with edges, by name; on large graphs from samples drawn with `seed`, and said so."""
    if not graph.n_edges:
        raise XNetsError("A graph without edges has nothing to measure.")
    sizes = graph.n_in, graph.n_out, graph.n_edges
    sample = sample_for(graph)
    worst = "" if sample is None else f", the worst of {SAMPLE} starts"
    paths = path_lengths([graph], sample, seed)
    size = min(max(2, graph.n_in * graph.n_out // (2 * graph.n_edges)), graph.n_out)
    expansion = vertex_expansion(graph, size, seed=seed)
    tenth = max(1, graph.n_in // 10), max(1, graph.n_out // 10)
    discrepancy = worst_discrepancy(graph, *tenth, tries=5, seed=seed)
    sets = f"for a tenth of the inputs and of the outputs, {discrepancy.expected:.1f} edges expected"
    how = "least over all sets" if expansion.exact else "least found"
    return {
        "inputs": Measure(graph.n_in, "n_in"),
        "outputs": Measure(graph.n_out, "n_out"),
        "edges": Measure(graph.n_edges, "M"),
        "fan_in": Measure(_range(graph.in_degrees), "inputs of an output, least and most"),
        "fan_out": Measure(_range(graph.out_degrees), "outputs an input feeds, least and most"),
        "dead_inputs": Measure(len(dead_inputs(graph)), "inputs that feed nothing"),
        "dead_outputs": Measure(len(dead_outputs(graph)), "outputs without an input"),
        "sigma_ratio": Measure(sigma_ratio(graph), "sigma2 / sigma1: 0 complete, 1 disconnected"),
        "sigma_ratio_normalised": Measure(sigma_ratio(graph, normalised=True), "of the matrix normalised by degrees"),
        "ramanujan_ratio": Measure(ramanujan_ratio(*sizes), "a Ramanujan graph's, these degrees and n >> D"),
        "least_ratio": Measure(least_ratio(*sizes), "no graph of this size, regular on both sides, is below"),
        "diameter": Measure(paths.diameter, f"longest of the shortest paths, in edges{worst}; none if disconnected"),
        "mean_distance": Measure(paths.mean, f"of connected vertices, in edges{worst.replace('the worst of', 'from')}"),
        "mixing_time": Measure(
            mixing_time(graph, sample=sample, seed=seed), f"steps until within 1/4 of the limit{worst}; none if never"
        ),
        "expansion": Measure(expansion.found, f"|N(S)| / |S|, {how} of {size} outputs"),
        "expansion_bound": Measure(expansion.bound, "no such set is below"),
        "discrepancy_random": Measure(discrepancy.random, f"|e(S, T) - expected| of random sets, {sets}"),
        "discrepancy_worst": Measure(max(discrepancy.greedy, discrepancy.spectral), "of sets that were looked for"),
        "discrepancy_bound": Measure(discrepancy.bound, "no such sets exceed it (expander mixing lemma)"),
    }


def _range(degrees: Any) -> tuple[int, int]:
    return int(degrees.min()), int(degrees.max())
