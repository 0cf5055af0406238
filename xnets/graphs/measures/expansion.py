"""Vertex expansion: how many inputs a set of outputs sees between them (paper, section 3.3)."""

from dataclasses import dataclass
from math import comb

import numpy as np

from xnets.errors import XNetsError
from xnets.graphs.bipartite import BipartiteGraph
from xnets.graphs.measures.sets import members_of
from xnets.graphs.measures.spectrum import leading
from xnets.seeds import derive_seed, permutation
from xnets.whole import is_whole, whole_number

EXACT_SETS = 200_000  # sets that are looked at one by one before the search is left to samples
DEEPEST = 200  # outputs in a set that is looked at so: the search goes down by one call for each
ROUNDS = 64  # greedy growth adds its outputs in at most so many goes


@dataclass(frozen=True)
class Expansion:
    """|N(S)| / |S| at its least over all sets S of `size` outputs: bound <= the least <= found.

    found: the least that was found, with `outputs` the set that has it; exact: whether every set was looked at, so that
    it is the least. bound: what no set is below, by the spectrum (or `found`, if exact).
    """

    size: int
    found: float
    bound: float
    exact: bool
    outputs: tuple[int, ...]


def neighbourhood(graph: BipartiteGraph, outputs: np.ndarray) -> np.ndarray:
    """The inputs that at least one of these outputs has: N(S), sorted."""
    rows = [graph.indices[graph.indptr[v] : graph.indptr[v + 1]] for v in members_of(outputs, graph.n_out, "outputs")]
    return np.unique(np.concatenate(rows)) if rows else graph.indices[:0]


def vertex_expansion(
    graph: BipartiteGraph, size: int, tries: int = 20, seed: int = 0, exact_sets: int = EXACT_SETS
) -> Expansion:
    """The least |N(S)| / |S| over sets of `size` outputs; the paper's K is the least of these up to alpha n_out.

    All sets are looked at if there are at most `exact_sets`, of at most 200 outputs (or of all). Otherwise `found` is
    the best of `tries` random sets and `tries` sets grown greedily from a random output by those that add fewest
    inputs: an upper bound of the least. The lower bound is `expansion_bound`. For sets of inputs and the outputs they
    feed take `graph.flipped()`.

    Raises:
        XNetsError: a size that is not between 1 and the number of outputs.
    """
    _check_size(graph, size)
    whole_number("tries", tries)
    if size == graph.n_out or (size <= DEEPEST and comb(graph.n_out, size) <= exact_sets):
        outputs = list(range(size)) if size == graph.n_out else _worst_set(graph, size)
        found = len(neighbourhood(graph, outputs)) / size
        return Expansion(size, found, found, True, tuple(outputs))
    sets = [permutation(derive_seed(seed, "set", i), graph.n_out)[0, :size] for i in range(tries)]
    flipped = graph.flipped()
    sets += [_grown(graph, flipped, int(outputs[0]), size) for outputs in sets]
    sizes = [len(neighbourhood(graph, outputs)) for outputs in sets]
    best = int(np.argmin(sizes))
    found = sizes[best] / size
    bound = min(expansion_bound(graph, size), found)  # which rounding may put a little above
    return Expansion(size, found, bound, False, tuple(np.sort(sets[best]).tolist()))


def expansion_bound(graph: BipartiteGraph, size: int) -> float:
    """No set of `size` outputs has a smaller |N(S)| / |S|: Tanner's bound (1984), for any graph.

    |N(S)| >= e(S)^2 / |A^T 1_S|^2, and with u the first left singular vector that norm is at most sigma1^2 <1_S, u>^2 +
    sigma2^2 (|S| - <1_S, u>^2). Where all outputs have degree D and inputs d it reads D^2 / (sigma2^2 + (D d -
    sigma2^2) |S| / n_out). N(S) also holds at least the inputs of one output.
    """
    _check_size(graph, size)
    count = min(2, graph.n_in, graph.n_out)
    values, left, _ = leading(graph, count)
    first, second = values[0] ** 2, values[1] ** 2 if count == 2 else 0.0
    along = min(np.sort(abs(left[:, 0]))[-size:].sum() ** 2, size)
    edges = np.sort(graph.in_degrees)[:size].sum()
    spectral = edges**2 / (second * size + (first - second) * along)
    each = np.sort(graph.in_degrees - _repeats(graph))
    return float(max(spectral, each[size - 1]) / size)  # at least one has as many inputs as the size-th smallest


def _check_size(graph: BipartiteGraph, size: int) -> None:
    if not is_whole(size) or not 1 <= size <= graph.n_out:
        raise XNetsError(f"A set of outputs has between 1 and {graph.n_out}, not {size}.")


def _repeats(graph: BipartiteGraph) -> np.ndarray:
    """(n_out,) how many of an output's edges name an input once more."""
    outputs = graph.outputs
    again = (np.diff(graph.indices) == 0) & (np.diff(outputs) == 0)
    return np.bincount(outputs[1:][again], minlength=graph.n_out)


def _rows(graph: BipartiteGraph) -> list[tuple[int, int]]:
    return list(zip(graph.indptr[:-1].tolist(), graph.indptr[1:].tolist(), strict=True))


def _worst_set(graph: BipartiteGraph, size: int) -> list[int]:
    """By going through all sets, leaving those that already see as many inputs as the best found."""
    sees = [sum(1 << u for u in set(graph.indices[a:b].tolist())) for a, b in _rows(graph)]
    best, least = list(range(size)), graph.n_in + 1

    def grow(outputs: list[int], inputs: int) -> None:
        nonlocal best, least
        seen = inputs.bit_count()
        if seen >= least:
            return
        if len(outputs) == size:
            best, least = outputs, seen
            return
        first = outputs[-1] + 1 if outputs else 0
        for v in range(first, graph.n_out - size + len(outputs) + 1):
            grow([*outputs, v], inputs | sees[v])

    grow([], 0)
    return best


def _grown(graph: BipartiteGraph, flipped: BipartiteGraph, first: int, size: int) -> np.ndarray:
    """(size,) outputs, from one on always those that see the fewest inputs which the set does not see yet."""
    inside = np.zeros(graph.n_out, dtype=bool)
    seen = np.zeros(graph.n_in, dtype=bool)
    more = graph.in_degrees.copy()  # edges of each output to inputs that are not seen
    add = np.array([first])
    while True:
        inside[add] = True
        left = size - int(inside.sum())
        if not left:
            return np.flatnonzero(inside)
        reached = neighbourhood(graph, add)
        new = reached[~seen[reached]]
        seen[new] = True
        for u in new.tolist():
            np.subtract.at(more, flipped.indices[flipped.indptr[u] : flipped.indptr[u + 1]], 1)
        more[add] = graph.n_edges + 1  # never again
        go = max(1, min(left, size // ROUNDS))
        add = np.argsort(more, kind="stable")[:go] if go > 1 else np.array([np.argmin(more)])
