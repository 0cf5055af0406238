"""The structured sparsity that expanders compete with: groups, ShuffleNet's shuffled groups, flat block butterflies.

The order of the channels is the point of these graphs, so they have no randomness: the seed is recorded and not used.
"""

import numpy as np

from xnets.errors import XNetsError
from xnets.graphs.bipartite import BipartiteGraph
from xnets.graphs.sampling import check_degree, check_sizes
from xnets.graphs.stratified import runs
from xnets.seeds import checked_seed


def grouped_graph(n_in: int, n_out: int, groups: int) -> BipartiteGraph:
    """The graph of a grouped convolution: `groups` complete bipartite blocks, disconnected from one another."""
    check_sizes(n_in, n_out)
    if groups < 1 or n_in % groups or n_out % groups:
        raise XNetsError(f"{groups} groups do not divide {n_in} inputs and {n_out} outputs.")
    first = np.arange(n_out) // (n_out // groups) * (n_in // groups)
    return BipartiteGraph.from_neighbours(first[:, None] + np.arange(n_in // groups), n_in, None, "grouped")


def grouped(n_in: int, n_out: int, degree: int, seed: int) -> BipartiteGraph:
    """Groups for any sizes: `grouped_graph` with floor(n_in / D) groups wherever that divides both sides.

    Adapted otherwise: the inputs are cut into floor(n_in / D) runs whose lengths differ by at most one, the outputs
    likewise, and where a run is longer than D, each output of the block takes D of it from one place further on,
    cyclically. The blocks stay disconnected from one another.
    """
    groups = _groups(n_in, n_out, degree)
    v = np.arange(n_out)
    block = v * groups // n_out
    first_output = -(-block * n_out // groups)
    return _windows(n_in, degree, groups, block, v - first_output, seed, "grouped")


def grouped_shuffled(n_in: int, n_out: int, degree: int, seed: int) -> BipartiteGraph:
    """Groups followed by ShuffleNet's channel shuffle (Zhang et al., CVPR 2018): output v is of group v mod g.

    Two such layers connect every output with every input if g groups of D inputs have g <= D. Adapted as `grouped`.
    """
    groups = _groups(n_in, n_out, degree)
    v = np.arange(n_out)
    return _windows(n_in, degree, groups, v % groups, v // groups, seed, "grouped-shuffled")


def butterfly(n_in: int, n_out: int, degree: int, seed: int) -> BipartiteGraph:
    """A flat block butterfly (Pixelated Butterfly: Dao et al., ICLR 2022): the sum of a butterfly's factors.

    With 2^m channels in blocks of b, an output sees its own block and the blocks whose number differs from its own in
    one binary digit: D = b (1 + log2(2^m / b)). Adapted: b is the largest power of two for which that is at most D;
    what D has more comes from the blocks that differ in two digits, then three; positions beyond n_in are passed
    over; output v stands at position floor(v n_in / n_out). With D < 1 + log2(2^m) not even single channels reach all
    digits: the graph, and every stack of it, is disconnected.
    """
    check_sizes(n_in, n_out)
    check_degree(degree, n_in)
    digits = (n_in - 1).bit_length()
    block = max((2**k for k in range(digits + 1) if 2**k * (1 + digits - k) <= degree), default=1)
    steps = np.arange(2**digits)
    differing = sum((steps // block) >> k & 1 for k in range(max(digits, 1)))
    steps = steps[np.lexsort((steps, differing))]
    position = np.arange(n_out) * n_in // n_out
    neighbours = np.empty((n_out, degree), dtype=np.int64)
    found = np.zeros(n_out, dtype=np.int64)
    for step in steps:
        there = position ^ step
        takes = np.flatnonzero((there < n_in) & (found < degree))
        neighbours[takes, found[takes]] = there[takes]
        found[takes] += 1
        if (found == degree).all():
            break
    return BipartiteGraph.from_neighbours(neighbours, n_in, checked_seed(seed, "graph seed"), "butterfly")


def _groups(n_in: int, n_out: int, degree: int) -> int:
    """How many groups of at least D inputs there are."""
    check_sizes(n_in, n_out)
    check_degree(degree, n_in)
    return n_in // degree


def _windows(
    n_in: int, degree: int, groups: int, block: np.ndarray, turn: np.ndarray, seed: int, name: str
) -> BipartiteGraph:
    """Output v takes D inputs of run block[v], cyclically from its place turn[v]; two arrays of shape (n_out,)."""
    bounds = runs(n_in, groups)
    first, length = bounds[block, None], np.diff(bounds)[block, None]
    neighbours = first + (turn[:, None] + np.arange(degree)) % length
    return BipartiteGraph.from_neighbours(neighbours, n_in, checked_seed(seed, "graph seed"), name)
