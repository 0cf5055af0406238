"""Explicit expanders, fitted to the (n_in, n_out, D) that a layer asks for.

Each family is an endless or long list of permutations of n points, of which the first few make its expander: point v
is joined to the point that each of them gives for v. `fitted` turns such a list into the graph of a layer:

1. The family works on n = max(n_in, n_out) points with M / n permutations, M = n_out D. One that exists for other
   sizes only takes the next larger one and closes each permutation over the first n points (`first_return`), so that
   it stays a permutation of them.
2. Its points are renamed by the seed, those of the outputs and those of the inputs: that moves no singular value, a
   stack of layers does not walk the same graph again and again, and what is folded next are points at random.
3. The smaller side is folded: the edges, one permutation after another, go round its channels, so that their degrees
   differ by at most one. Where it divides n, sigma2 / sigma1 is at most that of the whole graph.
4. Every output reads along the list until it has D different inputs: repeats (double edges) are passed over, and the
   bounds that hold for the family hold for the rest of its edges.
5. Above D = n_in / 2 the graph is the complement of the one with n_in - D, which has the same sigma2 if it is regular.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count, islice, product

import numpy as np

from xnets.graphs.bipartite import BipartiteGraph
from xnets.graphs.numbers import is_prime, powers, primitive_root
from xnets.graphs.sampling import check_degree, check_sizes
from xnets.seeds import checked_seed, derive_seed, permutation

Family = Callable[[int, int, int], Iterator[np.ndarray]]  # (n, D, seed) -> permutations of n points, the best first
TABLE = 2**28  # bytes that may be spent on a table of who is joined with whom


def fitted(family: Family, n_in: int, n_out: int, degree: int, seed: int, name: str) -> BipartiteGraph:
    """The graph of `family` fitted to a layer, as the top of this file says."""
    check_sizes(n_in, n_out)
    check_degree(degree, n_in)
    seed = checked_seed(seed, "graph seed")
    if 2 * degree > n_in:
        keep = np.ones((n_out, n_in), dtype=bool)
        if degree < n_in:
            keep = ~fitted(family, n_in, n_out, n_in - degree, seed, name).to_mask()
        return BipartiteGraph.from_neighbours(np.nonzero(keep)[1].reshape(n_out, degree), n_in, seed, name)
    n = max(n_in, n_out)
    moves = islice(family(n, -(-n_out * degree // n), seed), 4 * n_in + 64)
    (ins,), (outs,) = (permutation(derive_seed(seed, side), n) for side in ("inputs", "outputs"))
    rounds = _rounds((ins[move[outs]] for move in moves), n_in, n_out)
    rest = ((np.arange(n_out) + k) % n_in for k in range(n_in))  # should a list end too early
    neighbours = _first_different(chain(rounds, rest), n_in, n_out, degree)
    return BipartiteGraph.from_neighbours(neighbours, n_in, seed, name)


def margulis(n_in: int, n_out: int, degree: int, seed: int) -> BipartiteGraph:
    """Margulis-Gabber-Galil: the torus Z_m x Z_m and four maps, (x + 2y, y), (x + 2y + 1, y) and x, y exchanged.

    With their inverses D = 8, and sigma2 <= 5 sqrt(2) (Gabber and Galil, 1981; Hoory, Linial and Wigderson, 2006,
    theorem 8.2). Fitted: m = ceil(sqrt(n)). Other D take walks of t steps, the t-th power of the graph, with the
    smallest 8^t >= D; their order repeats whole powers t - 1, so sigma2 / D is at most theirs but for the last few.
    """
    return fitted(_margulis_moves, n_in, n_out, degree, seed, "margulis")


def cayley(n_in: int, n_out: int, degree: int, seed: int) -> BipartiteGraph:
    """The Cayley graph of Z_n with D random generators (Alon and Roichman, 1994): output v has the inputs v + s.

    It exists for every n and D, so only n_in != n_out needs fitting. An abelian group needs D of the order of log n
    generators to expand; its diameter is near n^(1/D) below that.
    """
    return fitted(_random_shifts, n_in, n_out, degree, seed, "cayley")


def paley(n_in: int, n_out: int, degree: int, seed: int) -> BipartiteGraph:
    """The Cayley graph of Z_q whose generators are the k-th power residues, k = (q - 1) / D (Paley's graph at k = 2).

    Its sigma2 is the largest Gauss period, at most ((k - 1) sqrt(q) + 1) / k, and at C = 2 that is half a random
    graph's: sqrt(n) / 2 is as low as any graph can go. Fitted: k is n / D rounded, q the next prime above n with
    q = 1 mod k; residues that D has no room for are left out, other cosets' added.
    """
    return fitted(_power_residues, n_in, n_out, degree, seed, "paley")


def zig_zag(n_in: int, n_out: int, degree: int, seed: int) -> BipartiteGraph:
    """The zig-zag product (Reingold, Vadhan and Wigderson, 2002) of a complete graph with a d-regular H, D = d^2.

    The complete graph with loops on r vertices has degree r and sigma2 = 0, so the product with H on r vertices has
    r^2, and sigma2 / D is that of H: about 2 / D^(1/4), the price of the construction. (v, i) is joined to
    (H_a(i), H_b(v)) for a, b < d. Fitted: r = ceil(sqrt(n)); H is a union of d random permutations without common
    edges, as the seed gives it; a D that is no square takes part of the pairs that the next d adds.
    """
    return fitted(_zig_zag_moves, n_in, n_out, degree, seed, "zig-zag")


def first_return(move: np.ndarray, n: int) -> np.ndarray:
    """`move`, a permutation of n or more points, closed over the first n: each goes on until it is among them again."""
    to = move[:n].copy()
    outside = np.flatnonzero(to >= n)
    while len(outside):
        to[outside] = move[to[outside]]
        outside = outside[to[outside] >= n]
    return to


def _rounds(moves: Iterable[np.ndarray], n_in: int, n_out: int) -> Iterator[np.ndarray]:
    """(n_out,) at a time, an input for each output: permutations of max(n_in, n_out) points with a side folded."""
    waiting = np.empty(0, dtype=np.int64)
    for k, move in enumerate(moves):
        waiting = np.append(waiting, (k * len(move) + move) % n_in)
        while len(waiting) >= n_out:
            yield waiting[:n_out]
            waiting = waiting[n_out:]


def _first_different(proposals: Iterator[np.ndarray], n_in: int, n_out: int, degree: int) -> np.ndarray:
    """(n_out, D): of the inputs proposed to each output, (n_out,) at a time, the first D different ones."""
    chosen = np.full((n_out, degree), -1, dtype=np.int64)
    found = np.zeros(n_out, dtype=np.int64)
    every = np.arange(n_out)
    table = np.zeros((n_out, n_in), dtype=bool) if degree > 16 and n_out * n_in <= TABLE else None
    for proposed in proposals:
        seen = table[every, proposed] if table is not None else (chosen == proposed[:, None]).any(axis=1)
        takes = np.flatnonzero(~seen & (found < degree))
        chosen[takes, found[takes]] = proposed[takes]
        found[takes] += 1
        if table is not None:
            table[takes, proposed[takes]] = True
        if found.min() == degree:
            break
    return chosen


def _margulis_moves(n: int, degree: int, seed: int) -> Iterator[np.ndarray]:
    m = max(2, int(np.ceil(np.sqrt(n))))
    x, y = np.divmod(np.arange(m * m), m)
    maps = [(x + 2 * y) % m * m + y, (x + 2 * y + 1) % m * m + y, x * m + (y + 2 * x) % m, x * m + (y + 2 * x + 1) % m]
    maps = [move for forth in maps for move in (forth, np.argsort(forth))]
    steps = next(t for t in count(1) if 8**t >= degree)
    while True:
        for last, *before in product(maps, repeat=steps):
            walk = last
            for move in before:
                walk = walk[move]
            yield first_return(walk, n)
        steps += 1


def _random_shifts(n: int, degree: int, seed: int) -> Iterator[np.ndarray]:
    (shifts,) = permutation(derive_seed(seed, "generators"), n)
    return ((np.arange(n) + shift) % n for shift in shifts)


def _power_residues(n: int, degree: int, seed: int) -> Iterator[np.ndarray]:
    k = max(1, round(n / degree))
    q = next(q for q in count(max(n, 3)) if q % k == 1 % k and is_prime(q))
    residues = powers(primitive_root(q), q)  # g^0, g^1, ...
    for coset in range(k):
        for shift in residues[coset::k]:
            yield first_return((np.arange(q) + shift) % q, n)


def _zig_zag_moves(n: int, degree: int, seed: int) -> Iterator[np.ndarray]:
    r = max(2, int(np.ceil(np.sqrt(n))))
    v, i = np.divmod(np.arange(r * r), r)
    small = _apart(r, derive_seed(seed, "H"))
    h: list[np.ndarray] = []
    for d in count():
        h.append(next(small))
        for a, b in [*((a, d) for a in range(d)), *((d, b) for b in range(d + 1))]:
            yield first_return(h[a][i] * r + h[b][v], n)


def _apart(r: int, seed: int) -> Iterator[np.ndarray]:
    """Random permutations of r points that agree with no earlier one anywhere, as long as exchanges can see to it."""
    stream = np.random.PCG64(seed)
    taken = np.zeros((r, r), dtype=bool)
    every = np.arange(r)
    while True:
        move = np.argsort(stream.random_raw(r), kind="stable")
        for _ in range(20 * r):
            clashes = np.flatnonzero(taken[every, move])
            if not len(clashes):
                break
            i, j = clashes[0], int(stream.random_raw() % np.uint64(r))
            if not taken[i, move[j]] and not taken[j, move[i]]:
                move[i], move[j] = move[j], move[i]
        taken[every, move] = True
        yield move
