"""The random walk on a layer's graph, to and fro along its edges: how soon it forgets where it began."""

from collections.abc import Iterator

import numpy as np

from xnets.errors import XNetsError
from xnets.graphs.bipartite import BipartiteGraph
from xnets.graphs.measures.sets import chosen, gathered
from xnets.graphs.measures.spectrum import sigma_ratio

AT_ONCE = 2**24  # numbers held for the walks that are followed at the same time


def walk_distances(
    graph: BipartiteGraph, steps: int, start: str = "input", sample: int | None = None, seed: int = 0
) -> np.ndarray:
    """(steps + 1,) the total variation distance from the limit after 0, 1, ... steps, from the worst of the starts.

    A step goes along one of a vertex's edges, each equally likely, so a walk is on the inputs and on the outputs in
    turn. Its limit on a side is the share that each vertex has of the edges; on a regular side it is uniform (paper,
    section 3.3). The distance is half the sum of absolute differences, from 1 (apart) to 0.

    Args:
        graph: any graph with edges; vertices without any are no start.
        steps: at least 0.
        start: "input" or "output", the side where walks begin.
        sample: so many random starts only (then the worst of all may be worse); all unless given.
        seed: of the sample.
    """
    if steps < 0:
        raise XNetsError(f"steps must be >= 0, not {steps}.")
    worst = np.zeros(steps + 1)
    for walk in _walks(graph, start, sample, seed):
        worst = np.maximum(worst, [next(walk) for _ in range(steps + 1)])
    return worst


def mixing_time(
    graph: BipartiteGraph, within: float = 0.25, start: str = "input", sample: int | None = None, seed: int = 0,
    most: int = 1000,
) -> int | None:  # fmt: skip
    """The steps after which a walk from any vertex of a side is `within` of its limit, in total variation.

    The distance never grows, so this is the first such step; None if it is more than `most`, as on every disconnected
    graph. Arguments as in `walk_distances`; with a sample it is a lower bound.
    """
    _check_within(within)
    needed = 0
    for walk in _walks(graph, start, sample, seed):
        steps = next((step for step, distance in zip(range(most + 1), walk, strict=False) if distance <= within), None)
        if steps is None:
            return None
        needed = max(needed, steps)
    return needed


def mixing_time_bound(graph: BipartiteGraph, within: float = 0.25, start: str = "input") -> int | None:
    """No walk needs more steps than this to be `within` of its limit; None if the graph is disconnected.

    From a vertex with share s of the edges, the distance after t steps is at most sqrt(1 / s - 1) sigma2^t / 2, sigma2
    that of the normalised matrix (Levin and Peres, Markov Chains and Mixing Times, 2017, chapter 12).
    """
    _check_within(within)
    degrees = _degrees(graph, start)
    share = degrees[degrees > 0].min() / graph.n_edges
    sigma, first = sigma_ratio(graph, normalised=True), np.sqrt(1 / share - 1) / 2
    if first <= within:
        return 0
    if sigma >= 1 - 1e-9:
        return None
    return 1 if sigma < 1e-9 else int(np.ceil(np.log(first / within) / -np.log(sigma)))


def _walks(graph: BipartiteGraph, start: str, sample: int | None, seed: int) -> Iterator[Iterator[float]]:
    """For some starts at a time: an endless list of their worst distances, step by step."""
    degrees = _degrees(graph, start)
    there, back = (graph, graph.flipped()) if start == "input" else (graph.flipped(), graph)
    alive = np.flatnonzero(degrees)
    starts = alive[chosen(len(alive), sample, seed)]
    width = max(1, AT_ONCE // max(graph.n_edges, 1))
    for first in range(0, len(starts), width):
        yield _distances(there, back, starts[first : first + width])


def _distances(there: BipartiteGraph, back: BipartiteGraph, starts: np.ndarray) -> Iterator[float]:
    at = np.zeros((there.n_in, len(starts)))
    at[starts, np.arange(len(starts))] = 1.0
    while True:
        limit = there.out_degrees / there.n_edges
        yield float(abs(at - limit[:, None]).sum(axis=0).max() / 2)
        at = gathered(there, at / np.maximum(there.out_degrees, 1)[:, None], np.add)
        there, back = back, there


def _degrees(graph: BipartiteGraph, start: str) -> np.ndarray:
    if start not in ("input", "output"):
        raise XNetsError(f"start must be input or output, not {start!r}.")
    if not graph.n_edges:
        raise XNetsError("There is no walk on a graph without edges.")
    return graph.out_degrees if start == "input" else graph.in_degrees


def _check_within(within: float) -> None:
    if not 0 < within < 1:
        raise XNetsError(f"within must lie between 0 and 1, not {within}.")
