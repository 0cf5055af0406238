"""Paths through one graph and through a stack of layers: sensitivity (Theorem 1), distances, numbers of paths."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from xnets.errors import XNetsError
from xnets.graphs.bipartite import BipartiteGraph
from xnets.graphs.measures.sets import chosen, gathered, members_of, singletons, sizes


@dataclass(frozen=True)
class Sensitivity:
    """Which share of the inputs of a stack the outputs of each layer see, depth 1 first.

    inputs: how many inputs were followed; exact: whether these are all of them.
    least, mean: over the layer's outputs, the share of the followed inputs from which a path leads to the output.
    """

    inputs: int
    exact: bool
    least: tuple[float, ...]
    mean: tuple[float, ...]

    @property
    def layers(self) -> int | None:
        """The first depth at which every output sees every followed input, or None.

        If only some inputs were followed, all of them may need more layers, never fewer.
        """
        return next((depth for depth, share in enumerate(self.least, 1) if share == 1), None)


@dataclass(frozen=True)
class PathLengths:
    """Distances in edges between vertices of a stack.

    counts: (longest + 1,) how many pairs (source, vertex) are that far apart, each source from itself included.
    unreachable: pairs without any path. sources: vertices whose distances were taken; exact: whether these are all.
    """

    counts: np.ndarray
    unreachable: int
    sources: int
    exact: bool

    @property
    def diameter(self) -> int | None:
        """The longest of all distances (of those taken, so a lower bound if not exact); None if some are infinite."""
        return None if self.unreachable else len(self.counts) - 1

    @property
    def mean(self) -> float:
        """The mean distance of connected pairs of different vertices, in edges; nan if there are none."""
        pairs = self.counts[1:].sum()
        return float(self.counts @ np.arange(len(self.counts)) / pairs) if pairs else float("nan")


def sensitivity(graphs: Sequence[BipartiteGraph], sample: int | None = None, seed: int = 0) -> Sensitivity:
    """Which share of the inputs the outputs of each layer see, following paths forward (paper, Theorem 1).

    Time and memory grow with edges times inputs followed; `sample` follows so many random ones only.

    Args:
        graphs: the layers, the first one first; each has as many inputs as the one before has outputs.
        sample: how many inputs to follow; all unless given.
        seed: of the sample.

    Raises:
        XNetsError: layers that do not fit on one another.
    """
    check_stack(graphs)
    followed = chosen(graphs[0].n_in, sample, seed)
    seen = [np.zeros(graph.n_out, dtype=np.int64) for graph in graphs]
    for bits in singletons(graphs[0].n_in, followed, max(graph.n_edges for graph in graphs)):
        for depth, graph in enumerate(graphs):
            bits = gathered(graph, bits, np.bitwise_or)
            seen[depth] += sizes(bits)
    n = len(followed)
    return Sensitivity(
        n, n == graphs[0].n_in, tuple(float(s.min() / n) for s in seen), tuple(float(s.mean() / n) for s in seen)
    )


def layers_until_all(graphs: Sequence[BipartiteGraph], sample: int | None = None, seed: int = 0) -> int | None:
    """The number of layers after which every output sees every input, or None if these layers do not suffice.

    An input that feeds nothing is never seen. Arguments and errors are those of `sensitivity`; with a sample the
    result is a lower bound.
    """
    return sensitivity(graphs, sample, seed).layers


def path_lengths(graphs: Sequence[BipartiteGraph], sample: int | None = None, seed: int = 0) -> PathLengths:
    """Shortest paths between the vertices of a stack of layers, edges taken either way (paper, section 3.3).

    The vertices are the inputs and each layer's outputs, one layer's outputs being the next one's inputs. With one
    graph it is the bipartite graph itself, whose diameter the paper bounds by O(log n).

    Args:
        graphs: as in `sensitivity`.
        sample: distances from so many random vertices only; from all unless given.
        seed: of the sample.
    """
    check_stack(graphs)
    whole = _both_ways(graphs)
    n = whole.n_in
    sources = chosen(n, sample, seed)
    counts: list[int] = []
    for bits in singletons(n, sources, whole.n_edges):
        reached, front, distance = bits.copy(), bits, 0
        while front.any():
            counts += [0] * (distance + 1 - len(counts))
            counts[distance] += int(sizes(front).sum())
            front = gathered(whole, front, np.bitwise_or) & ~reached
            reached |= front
            distance += 1
    return PathLengths(np.array(counts), len(sources) * n - sum(counts), len(sources), len(sources) == n)


def diameter(graph: BipartiteGraph) -> int | None:
    """The longest shortest path between two vertices, in edges; None if the graph is disconnected."""
    return path_lengths([graph]).diameter


def count_paths(
    graphs: Sequence[BipartiteGraph], inputs: np.ndarray | None = None, outputs: np.ndarray | None = None
) -> int:
    """How many paths lead from a set of inputs to a set of the last layer's outputs, an edge of each layer at a time.

    The number is exact, however large. Double edges are two ways.

    Args:
        graphs: as in `sensitivity`.
        inputs, outputs: indices; all unless given.
    """
    check_stack(graphs)
    ways = np.zeros(graphs[0].n_in, dtype=np.int64)
    ways[slice(None) if inputs is None else members_of(inputs, len(ways), "inputs")] = 1
    for graph in graphs:
        if ways.dtype != object and int(ways.max()) * int(graph.in_degrees.max()) >= 2**63:
            ways = ways.astype(object)  # whole numbers of Python: any size
        ways = gathered(graph, ways, np.add)
    ends = ways if outputs is None else ways[members_of(outputs, len(ways), "outputs")]
    return sum(ends.tolist())


def dead_inputs(graph: BipartiteGraph) -> np.ndarray:
    """Indices of the inputs that feed no output."""
    return np.flatnonzero(graph.out_degrees == 0)


def dead_outputs(graph: BipartiteGraph) -> np.ndarray:
    """Indices of the outputs that have no input (possible only where inputs draw, or by a given mask)."""
    return np.flatnonzero(graph.in_degrees == 0)


def check_stack(graphs: Sequence[BipartiteGraph]) -> None:
    """Raise XNetsError unless there is a layer and each has as many inputs as the one before has outputs."""
    if not graphs:
        raise XNetsError("A stack needs at least one layer.")
    for depth, (below, above) in enumerate(pairwise(graphs), 1):
        if below.n_out != above.n_in:
            raise XNetsError(
                f"Layer {depth} has {below.n_out} outputs and layer {depth + 1} {above.n_in} inputs: they do not stack."
            )


def _both_ways(graphs: Sequence[BipartiteGraph]) -> BipartiteGraph:
    """All vertices of a stack on each side, each joined with its neighbours in the layers below and above."""
    starts = np.cumsum([0, *(graph.n_in for graph in graphs), graphs[-1].n_out])
    low = np.concatenate([graph.indices + start for graph, start in zip(graphs, starts[:-2], strict=True)])
    high = np.concatenate([graph.outputs + start for graph, start in zip(graphs, starts[1:-1], strict=True)])
    n = int(starts[-1])
    return BipartiteGraph.from_edges(np.append(low, high), np.append(high, low), n, n)
