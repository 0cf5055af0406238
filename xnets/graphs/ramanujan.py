"""The Ramanujan graphs of Lubotzky, Phillips and Sarnak ("Ramanujan graphs", Combinatorica 8, 1988).

For primes p and q that are 1 mod 4, the p + 1 integer quaternions of norm p with an odd positive first part and even
others act as matrices modulo q. As generators of PSL2(q) or PGL2(q) they make X^{p,q}: (p + 1)-regular and, but for the
trivial ones, with all eigenvalues at most 2 sqrt(p). There are few sizes: 60, 1092, 2448, 12180 ...
"""

from collections.abc import Iterator
from itertools import count

import numpy as np

from xnets.errors import XNetsError
from xnets.graphs.bipartite import BipartiteGraph
from xnets.graphs.explicit import first_return, fitted
from xnets.graphs.numbers import inverses, is_prime, primitive_root


def ramanujan(n_in: int, n_out: int, degree: int, seed: int) -> BipartiteGraph:
    """LPS graphs on the projective line over F_q, which has q + 1 points: for (almost) every size a layer has.

    The line is a quotient of X^{p,q} by a subgroup, so its eigenvalues are among those of X^{p,q} and the bound stays,
    |lambda| <= 2 sqrt(p) with D = p + 1; what is lost is that points may be joined twice. (x, y) is an edge of the
    layer's graph, its bipartite double cover, if a quaternion takes x to y. Fitted as xnets.graphs.explicit says: q is
    the smallest prime 1 mod 4 with q + 1 >= n. p is the largest one with p + 1 <= D, and what D has more, and what
    double edges cost, comes from the next larger primes' quaternions; D < 6 takes some of p = 5.
    """
    return fitted(_line_moves, n_in, n_out, degree, seed, "ramanujan")


def lps_graph(p: int, q: int) -> BipartiteGraph:
    """X^{p,q} itself as a bipartite graph: n_in = n_out = q (q^2 - 1) / 2, D = p + 1, sigma2 <= 2 sqrt(p).

    If p is no square modulo q, X^{p,q} is bipartite already: its two sides are the outputs (PSL2) and the inputs (the
    rest of PGL2). Otherwise it lies on PSL2 alone and this is its double cover.

    Raises:
        XNetsError: p and q that are not two primes 1 mod 4 with q > 2 sqrt(p).
    """
    if p == q or not all(n % 4 == 1 and is_prime(n) for n in (p, q)) or q * q <= 4 * p:
        raise XNetsError(f"An LPS graph needs two primes that are 1 modulo 4 with q > 2 sqrt(p), not {p} and {q}.")
    inverse = inverses(q)
    a, b, c, d = (np.append(first, second) for first, second in zip(*_all_matrices(q), strict=True))
    square = np.zeros(q, dtype=bool)
    square[np.arange(1, q) ** 2 % q] = True
    inside = square[(a * d - b * c) % q]
    keys = ((a * q + b) * q + c) * q + d
    outputs = np.flatnonzero(inside)
    inputs = np.sort(keys[inside if square[p % q] else ~inside])
    neighbours = []
    for e, f, g, h in _matrices(p, q):
        w, x, y, z = a[outputs], b[outputs], c[outputs], d[outputs]
        moved = [(w * e + x * g) % q, (w * f + x * h) % q, (y * e + z * g) % q, (y * f + z * h) % q]
        scale = inverse[np.where(moved[0] > 0, moved[0], moved[1])]
        moved = [part * scale % q for part in moved]
        neighbours.append(np.searchsorted(inputs, ((moved[0] * q + moved[1]) * q + moved[2]) * q + moved[3]))
    return BipartiteGraph.from_neighbours(np.stack(neighbours, axis=1), len(inputs), None, f"lps-{p}-{q}")


def quaternions(p: int) -> list[tuple[int, int, int, int]]:
    """The p + 1 (a, b, c, d) of norm p, a odd and positive, the others even; conjugates side by side."""
    most = int(p**0.5) // 2 * 2
    evens = np.arange(-most, most + 1, 2)
    b, c, d = (part.ravel() for part in np.meshgrid(evens, evens, evens, indexing="ij"))
    left = p - b**2 - c**2 - d**2
    a = np.sqrt(np.maximum(left, 0)).round().astype(np.int64)
    good = (a * a == left) & (left > 0)
    found = list(zip(*(part[good].tolist() for part in (a, b, c, d)), strict=True))
    half = [s for s in found if s[1:] > (0, 0, 0)]
    return [s for a, b, c, d in half for s in ((a, b, c, d), (a, -b, -c, -d))]


def _matrices(p: int, q: int) -> list[tuple[int, int, int, int]]:
    """The quaternions of norm p as 2 x 2 matrices modulo q."""
    i = pow(primitive_root(q), (q - 1) // 4, q)  # i^2 = -1
    return [((a + i * b) % q, (c + i * d) % q, (i * d - c) % q, (a - i * b) % q) for a, b, c, d in quaternions(p)]


def _all_matrices(q: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """PGL2(q), each element once, in rising order of its scaled entries: those that begin 0, 1 and those with 1."""
    c, d = (part.ravel() for part in np.meshgrid(np.arange(1, q), np.arange(q), indexing="ij"))
    zero = [np.zeros_like(c), np.ones_like(c), c, d]
    b, c, d = (part.ravel() for part in np.meshgrid(*[np.arange(q)] * 3, indexing="ij"))
    good = (d - b * c) % q != 0
    return zero, [np.ones_like(b)[good], b[good], c[good], d[good]]


def _line_moves(n: int, degree: int, seed: int) -> Iterator[np.ndarray]:
    """x -> (a x + b) / (c x + d) on 0 .. q - 1 and q, which stands for infinity."""
    q = next(q for q in count(max(5, n - 1)) if q % 4 == 1 and is_prime(q))
    inverse = inverses(q)
    x = np.append(np.arange(q), 1)  # (x : 1), and (1 : 0) for infinity
    one = np.append(np.ones(q, dtype=np.int64), 0)
    first = next((p for p in range(degree - 1, 4, -1) if p % 4 == 1 and is_prime(p)), 5)
    for p in count(first):
        if p % 4 == 1 and p != q and is_prime(p):
            for a, b, c, d in _matrices(p, q):
                above, below = (a * x + b * one) % q, (c * x + d * one) % q
                yield first_return(np.where(below > 0, above * inverse[below] % q, q), n)
