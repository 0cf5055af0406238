"""Edges between sets of inputs and outputs against what their sizes promise (paper, Theorem 2)."""

from dataclasses import dataclass

import numpy as np

from xnets.errors import XNetsError
from xnets.graphs.bipartite import BipartiteGraph
from xnets.graphs.measures.sets import gathered, members_of
from xnets.graphs.measures.spectrum import leading
from xnets.seeds import derive_seed, permutation
from xnets.whole import is_whole, whole_number


@dataclass(frozen=True)
class WorstDiscrepancy:
    """The largest |e(S, T) - M |S||T| / (n_in n_out)| found over sets of two sizes, in edges.

    random: of random sets. greedy: of sets improved in turn from random ones. spectral: of those improved from the
    largest and smallest entries of the singular vectors. bound: no sets exceed it. expected: M |S||T| / (n_in n_out).
    """

    inputs: int
    outputs: int
    expected: float
    random: float
    greedy: float
    spectral: float
    bound: float


def edges_between(graph: BipartiteGraph, inputs: np.ndarray, outputs: np.ndarray) -> int:
    """e(S, T): edges from a set of inputs to a set of outputs, both by their indices; a double edge counts twice."""
    inputs, outputs = members_of(inputs, graph.n_in, "inputs"), members_of(outputs, graph.n_out, "outputs")
    return int(gathered(graph, _indicator(graph.n_in, inputs), np.add)[outputs].sum())


def edge_discrepancy(graph: BipartiteGraph, inputs: np.ndarray, outputs: np.ndarray) -> float:
    """e(S, T) - M |S||T| / (n_in n_out), in edges; with D edges at each output it is e(S, T) - D |S||T| / n_in."""
    expected = graph.n_edges * len(np.unique(inputs)) * len(np.unique(outputs)) / (graph.n_in * graph.n_out)
    return edges_between(graph, inputs, outputs) - expected


def discrepancy_bound(graph: BipartiteGraph, inputs: int, outputs: int) -> float:
    """No sets of these sizes have a larger |edge_discrepancy|: the expander mixing lemma (Alon and Chung, 1988).

    On a graph that is regular on both sides it is sigma2 sqrt(|S||T| (1 - |S| / n_in) (1 - |T| / n_out)). On others,
    where degrees alone make a difference, s sqrt(|S||T|) with s the norm of A - M / (n_in n_out) J.
    """
    _check_sizes(graph, inputs, outputs)
    return _bound(graph, inputs, outputs, float(leading(graph, 1, centred=True)[0][0]))


def worst_discrepancy(
    graph: BipartiteGraph, inputs: int, outputs: int, tries: int = 20, seed: int = 0
) -> WorstDiscrepancy:
    """Look for sets of these sizes with far more or far fewer edges between them than expected.

    Args:
        graph: any graph with edges.
        inputs, outputs: |S| and |T|.
        tries: how many random sets, each also improved: S becomes the inputs with most (fewest) edges to T, then T the
            outputs with most (fewest) from S, until neither changes the number.
        seed: of the sets.

    Raises:
        XNetsError: sizes that are not between 1 and the graph's; no edges.
    """
    _check_sizes(graph, inputs, outputs)
    whole_number("tries", tries)
    (norm, *_), left, _ = leading(graph, 1, centred=True)
    flipped, share = graph.flipped(), graph.n_edges / (graph.n_in * graph.n_out)
    expected = share * inputs * outputs

    def improved(outs: np.ndarray, sign: int) -> float:
        best = -np.inf
        while True:
            ins = _first(-sign * gathered(flipped, _indicator(graph.n_out, outs), np.add), inputs)
            into = gathered(graph, _indicator(graph.n_in, ins), np.add)
            outs = _first(-sign * into, outputs)
            now = sign * (int(into[outs].sum()) - expected)
            if now <= best:
                return best
            best = now

    random, greedy = [], []
    for i in range(tries):
        ins = permutation(derive_seed(seed, "inputs", i), graph.n_in)[0, :inputs]
        outs = permutation(derive_seed(seed, "outputs", i), graph.n_out)[0, :outputs]
        random.append(abs(edge_discrepancy(graph, ins, outs)))
        greedy += [improved(outs, 1), improved(outs, -1)]
    spectral = [improved(_first(way * left[:, 0], outputs), sign) for way in (1, -1) for sign in (1, -1)]
    bound = _bound(graph, inputs, outputs, float(norm))
    return WorstDiscrepancy(
        inputs, outputs, expected, max(random, default=0.0), max(greedy, default=0.0), max(spectral), bound
    )


def _bound(graph: BipartiteGraph, inputs: int, outputs: int, norm: float) -> float:
    room = 1.0
    if all((degrees == degrees[0]).all() for degrees in (graph.in_degrees, graph.out_degrees)):
        room = (1 - inputs / graph.n_in) * (1 - outputs / graph.n_out)
    return norm * float(np.sqrt(inputs * outputs * room))


def _indicator(n: int, members: np.ndarray) -> np.ndarray:
    ones = np.zeros(n, dtype=np.int64)
    ones[np.asarray(members)] = 1
    return ones


def _first(values: np.ndarray, count: int) -> np.ndarray:
    """(count,) indices of the smallest values."""
    return np.argsort(values, kind="stable")[:count]


def _check_sizes(graph: BipartiteGraph, inputs: int, outputs: int) -> None:
    whole = is_whole(inputs) and is_whole(outputs)
    if not (whole and 1 <= inputs <= graph.n_in and 1 <= outputs <= graph.n_out):
        raise XNetsError(
            f"Sets of inputs and outputs have between 1 and {graph.n_in} and {graph.n_out}, not {inputs} and {outputs}."
        )
