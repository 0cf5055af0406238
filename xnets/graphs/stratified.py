"""Random graphs whose outputs draw from runs of consecutive inputs: as even as the hardware of 1:C and 2:4 wants it."""

from itertools import pairwise

import numpy as np

from xnets.graphs.bipartite import BipartiteGraph
from xnets.graphs.sampling import check_degree, check_sizes
from xnets.seeds import checked_seed, derive_seed, permutation, uniform


def stratified(n_in: int, n_out: int, degree: int, seed: int) -> BipartiteGraph:
    """1:C sampling: an output draws one input of each of D runs of consecutive inputs, uniformly and independently.

    A run is C = n_in / D inputs long. Adapted where D does not divide n_in: the runs' lengths differ by at most one.
    """
    check_sizes(n_in, n_out)
    check_degree(degree, n_in)
    seed = checked_seed(seed, "graph seed")
    bounds = runs(n_in, degree)
    neighbours = bounds[:-1] + (uniform(seed, (n_out, degree)) * np.diff(bounds)).astype(np.int64)
    return BipartiteGraph.from_neighbours(neighbours, n_in, seed, "stratified")


def two_of_four(n_in: int, n_out: int, degree: int, seed: int) -> BipartiteGraph:
    """2:4 sampling where D = n_in / 2: an output draws two inputs of every four consecutive ones, uniformly.

    Adapted to any D as 2:2C: two inputs of each of D / 2 runs, whose lengths differ by at most one where they must.
    With an odd D one more run, half as long and the last, gives one input.
    """
    check_sizes(n_in, n_out)
    check_degree(degree, n_in)
    seed = checked_seed(seed, "graph seed")
    bounds = runs(n_in, degree)  # of one input each; a run of two is two of these side by side
    starts, ends = bounds[:-1][::2], np.append(bounds[2::2], n_in)[: -(-degree // 2)]
    draws = uniform(seed, (n_out, degree))
    length = ends - starts
    first = (draws[:, ::2] * length).astype(np.int64)
    pairs = degree // 2
    second = (draws[:, 1::2] * (length[:pairs] - 1)).astype(np.int64)
    second += second >= first[:, :pairs]  # one of the others
    neighbours = np.concatenate([starts + first, starts[:pairs] + second], axis=1)
    return BipartiteGraph.from_neighbours(neighbours, n_in, seed, "two-of-four")


def random_lift(n_in: int, n_out: int, degree: int, seed: int) -> BipartiteGraph:
    """A random lift (Amit and Linial, 2002) of a complete bipartite graph whose outputs have D inputs each.

    Every input of the base becomes a run of L = n_in / D consecutive inputs, every output a run of L outputs, and
    every edge a random matching of the two. The base's own singular values stay, the first and zeros beside it; with as
    many outputs as inputs the new ones are near 2 sqrt(D - 1) (Bordenave and Collins, 2019) where L is large. A small
    L costs: at C = L = 2 the matchings of a fibre are few, and sigma2 is that of draws with replacement.

    Adapted where D does not divide n_in: the runs' lengths differ by at most one and each matching is a run's inputs in
    random order, over and over, until all outputs have one. So inputs of equal runs differ in degree by at most one.
    It is `stratified` with balanced draws.
    """
    check_sizes(n_in, n_out)
    check_degree(degree, n_in)
    seed = checked_seed(seed, "graph seed")
    bounds = runs(n_in, degree)
    neighbours = np.empty((n_out, degree), dtype=np.int64)
    for i, (start, end) in enumerate(pairwise(bounds)):
        orders = permutation(derive_seed(seed, "lift", i), end - start, -(-n_out // (end - start)))
        neighbours[:, i] = start + orders.ravel()[:n_out]
    return BipartiteGraph.from_neighbours(neighbours, n_in, seed, "random-lift")


def runs(n_in: int, count: int) -> np.ndarray:
    """(count + 1,) where `count` runs of consecutive inputs begin and end, as equal as can be."""
    return np.arange(count + 1) * n_in // count
