"""Which inputs an output is connected to: the paper's random expanders, and unions of matchings.

Draws use the raw 64-bit stream of numpy's PCG64, which numpy promises never to change, and plain arithmetic on it,
so that a seed gives the same edges with every version of numpy and torch.
"""

import numpy as np

from xnets.errors import XNetsError
from xnets.graphs.bipartite import BipartiteGraph
from xnets.seeds import checked_seed, uniform
from xnets.whole import is_whole

SIDES = ("output", "input", "smaller")


def random_expander(
    n_in: int, n_out: int, degree: int, seed: int, replace: bool = False, side: str = "output"
) -> BipartiteGraph:
    """A random bipartite expander (paper, sections 3.2 and 4.2).

    Args:
        n_in: number of input channels |U|.
        n_out: number of output channels |V|.
        degree: D, edges of each vertex of the side that draws.
        seed: a whole number >= 0; the same seed gives the same graph everywhere.
        replace: draw with replacement, as the caption of the paper's Fig. 2 says (an input may then stand twice);
            section 4.2 and the authors' code draw without, the default.
        side: who draws. "output": every output draws D inputs, the paper's definition. "input": every input draws D
            outputs. "smaller": the authors' released rule, outputs draw if n_in > n_out, else inputs; outputs may
            then be left without any input.

    Raises:
        XNetsError: a degree below 1 or above what the other side has, an unknown side, a negative seed.
    """
    check_sizes(n_in, n_out)
    if side not in SIDES:
        raise XNetsError(f"side must be one of {', '.join(SIDES)}, not {side!r}.")
    if side == "smaller":
        side = "output" if n_in > n_out else "input"
    draws, others = (n_out, n_in) if side == "output" else (n_in, n_out)
    check_degree(degree, others, "input" if side == "output" else "output")
    seed = checked_seed(seed, "graph seed")
    choice = _choose(draws, others, degree, seed, replace)
    how = "-with-replacement" if replace else ""
    if side == "output":
        return BipartiteGraph.from_neighbours(choice, n_in, seed, "random" + how)
    inputs = np.repeat(np.arange(n_in), degree)
    return BipartiteGraph.from_edges(inputs, choice.ravel(), n_in, n_out, seed, "random-by-input" + how)


def union_of_matchings(n_in: int, n_out: int, degree: int, seed: int) -> BipartiteGraph:
    """A union of random matchings: every output has D inputs and the inputs' degrees differ by at most one.

    Both sides are exactly regular where n_in divides n_out * D, as Theorems 1 and 2 of the paper assume
    (random_expander is regular on the outputs only). Repeated edges are removed by random degree-keeping swaps.
    """
    check_sizes(n_in, n_out)
    check_degree(degree, n_in, "input")
    seed = checked_seed(seed, "graph seed")
    if 2 * degree > n_in:  # the complement of such a graph is one too, and sparse enough to repair quickly
        if degree == n_in:
            keep = np.ones((n_out, n_in), dtype=bool)
        else:
            keep = ~union_of_matchings(n_in, n_out, n_in - degree, seed).to_mask()
        return BipartiteGraph.from_neighbours(np.nonzero(keep)[1].reshape(n_out, degree), n_in, seed, "matchings")
    stream = np.random.PCG64(seed)
    slots = n_out * degree
    rounds = -(-slots // n_in)
    keys = stream.random_raw(rounds * n_in).reshape(rounds, n_in)
    neighbours = np.argsort(keys, axis=1, kind="stable").ravel()[:slots].reshape(degree, n_out).T.copy()
    _swap_away_double_edges(neighbours, stream)
    return BipartiteGraph.from_neighbours(neighbours, n_in, seed, "matchings")


def _choose(rows: int, n: int, degree: int, seed: int, replace: bool) -> np.ndarray:
    """(rows, degree) numbers below n, each row uniform: independent draws, or distinct ones by Floyd's algorithm."""
    draws = uniform(seed, (rows, degree))
    if replace:
        return (draws * n).astype(np.int64)
    chosen = np.empty((rows, degree), dtype=np.int64)
    # A step takes t below j + 1, or j itself where t was taken before. Who was taken is looked up among the few
    # earlier columns, or for large degrees in a table of bytes, a slice of the rows at a time.
    step = rows if degree <= 32 else max(1, 2**26 // n)
    for start in range(0, rows, step):
        part = slice(start, min(start + step, rows))
        every = np.arange(part.stop - part.start)
        taken = np.zeros((len(every), n), dtype=bool) if degree > 32 else None
        for i in range(degree):
            j = n - degree + i
            t = (draws[part, i] * (j + 1)).astype(np.int64)
            seen = taken[every, t] if taken is not None else (chosen[part, :i] == t[:, None]).any(axis=1)
            t = np.where(seen, j, t)
            chosen[part, i] = t
            if taken is not None:
                taken[every, t] = True
    return chosen


def _swap_away_double_edges(neighbours: np.ndarray, stream: np.random.PCG64) -> None:
    """Exchange repeated inputs with random other slots until no row holds one twice; degrees stay as they are."""
    n_out, degree = neighbours.shape
    while True:
        order = np.argsort(neighbours, axis=1, kind="stable")
        in_order = np.take_along_axis(neighbours, order, axis=1)
        rows, places = np.nonzero(in_order[:, 1:] == in_order[:, :-1])
        if not len(rows):
            return
        partners = stream.random_raw(len(rows)) % np.uint64(n_out * degree)
        for row, column, partner in zip(rows, order[rows, places + 1], partners.astype(np.int64), strict=True):
            other_row, other_column = divmod(partner, degree)
            mine, other = neighbours[row, column], neighbours[other_row, other_column]
            if (neighbours[row] != other).all() and (neighbours[other_row] != mine).all():
                neighbours[row, column], neighbours[other_row, other_column] = other, mine


def check_sizes(n_in: int, n_out: int) -> None:
    """Raise XNetsError unless both are whole numbers >= 1."""
    if not all(is_whole(n) and n >= 1 for n in (n_in, n_out)):
        raise XNetsError(f"A layer needs at least one input and one output, not {n_in} and {n_out}.")


def check_degree(degree: int, most: int, other_side: str = "input") -> None:
    """Raise XNetsError unless `degree` is a whole number from 1 to `most`, the channels of the other side."""
    if not is_whole(degree) or not 1 <= degree <= most:
        raise XNetsError(
            f"degree must be a whole number between 1 and {most}, the number of {other_side} channels, not {degree}."
        )
