"""Singular values of a layer's graph: the spectral gap (paper, section 3.2) and what it could be at best.

A graph here is its (n_out, n_in) biadjacency matrix A; a double edge counts 2. Its singular values are the positive
eigenvalues of the bipartite graph's adjacency matrix.
"""

from typing import Any

import numpy as np

from xnets.errors import XNetsError
from xnets.graphs.bipartite import BipartiteGraph

DENSE_LIMIT = 1024  # below this side length a full symmetric eigenvalue problem is quicker than Lanczos
NOTHING = 1e-10  # what rounding leaves of a matrix that is zero, as a share of what was subtracted
DENSE_ENTRIES = 2**26  # and above this size of the whole matrix there is no room for one


def sigma_ratio(graph: BipartiteGraph, normalised: bool = False) -> float:
    """sigma2 / sigma1 of the (n_out, n_in) biadjacency matrix: 0 for a complete graph, 1 for a disconnected one.

    On a graph that is regular on both sides sigma1 = sqrt(D_in D_out), and the paper's lambda / D is this ratio.

    Args:
        graph: any graph with edges; sides above 1024 need scipy.
        normalised: divide each edge by the root of its two vertices' degrees. Then sigma1 = 1 and sigma2 is what a step
            of the random walk leaves of any deviation from its limit; the same number on a graph that is regular on
            both sides, and not moved by some vertices having more edges than others.

    Raises:
        XNetsError: no edges; no scipy where it is needed.
    """
    if min(graph.n_in, graph.n_out) == 1 and graph.n_edges:
        return 0.0
    regular = len(set(graph.in_degrees)) == len(set(graph.out_degrees)) == 1
    if not _small(graph) and (normalised or regular) and _parts(graph) > 1:
        return 1.0  # each part has the largest value; Lanczos takes long to tell them from nearly equal ones
    first, second = leading_values(graph, 2, normalised)
    return min(float(second / first), 1.0)


def spectral_gap(graph: BipartiteGraph, normalised: bool = False) -> float:
    """gamma = 1 - sigma2 / sigma1, between 0 (disconnected) and 1 (complete); see `sigma_ratio`."""
    return 1.0 - sigma_ratio(graph, normalised)


def ramanujan_ratio(n_in: int, n_out: int, n_edges: int) -> float:
    """(sqrt(a - 1) + sqrt(b - 1)) / sqrt(a b), a and b the mean degrees of the two sides: a Ramanujan graph's ratio.

    Between regular sides no infinite family of graphs stays below it (Alon and Boppana; Feng and Li, 1996, for two
    degrees), and bipartite graphs that reach it exist for all degrees (Marcus, Spielman and Srivastava, 2015). It is a
    statement about n >> D: where n is a small multiple of D a graph can be far below; see `least_ratio`.
    """
    _check_edges(n_edges)
    a, b = n_edges / n_in, n_edges / n_out
    return float((np.sqrt(max(a - 1, 0)) + np.sqrt(max(b - 1, 0))) / np.sqrt(a * b))


def least_ratio(n_in: int, n_out: int, n_edges: int) -> float:
    """The sigma2 / sigma1 that no graph of this size is below that is regular on both sides, without double edges.

    The squares of the singular values add up to the number of edges, and the first takes n_edges^2 / (n_in n_out): the
    others are at least the root of what is left, shared equally.
    """
    _check_edges(n_edges)
    sides = min(n_in, n_out) - 1
    # above 1 where there is no such graph: fewer edges than vertices on a side
    return min(float(np.sqrt(max(n_in * n_out / n_edges - 1, 0) / sides)), 1.0) if sides else 0.0


def leading_values(graph: BipartiteGraph, count: int, normalised: bool = False) -> np.ndarray:
    """(count,) the largest singular values, falling."""
    if _small(graph):  # without the vectors
        squares = np.linalg.eigvalsh(_gram(_matrix(graph, normalised)))
        return np.sqrt(np.maximum(squares[::-1][:count], 0.0))
    return leading(graph, count, normalised)[0]


def leading(
    graph: BipartiteGraph, count: int, normalised: bool = False, centred: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The largest singular values, falling, with their vectors.

    Args:
        graph: any graph with edges.
        count: how many, at most the smaller side.
        normalised: as in `sigma_ratio`.
        centred: of A - p J instead, p = n_edges / (n_in n_out) and J all ones.

    Returns:
        (count,) values; (n_out, count) left vectors; (n_in, count) right vectors.
    """
    if _small(graph):
        return _dense(graph, count, normalised, centred)
    return _sparse(graph, count, normalised, centred)


def edge_values(graph: BipartiteGraph, normalised: bool) -> np.ndarray:
    """(M,) what each edge adds to its entry of the matrix."""
    if not normalised:
        return np.ones(graph.n_edges)
    return 1 / np.sqrt(graph.in_degrees[graph.outputs] * graph.out_degrees[graph.indices])


def _parts(graph: BipartiteGraph) -> int:
    """How many connected parts its edges make."""
    try:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components
    except ImportError:
        return 1  # the spectrum of a graph this large says that scipy is needed
    n = graph.n_in + graph.n_out
    where = (graph.indices, graph.n_in + graph.outputs)
    _, part = connected_components(coo_array((np.ones(graph.n_edges), where), (n, n)), directed=False)
    return len(np.unique(part[graph.indices]))


def _check_edges(n_edges: int) -> None:
    if n_edges < 1:
        raise XNetsError("A graph without edges has no spectral gap.")


def _small(graph: BipartiteGraph) -> bool:
    """Whether to take it as a dense matrix."""
    _check_edges(graph.n_edges)
    return min(graph.n_in, graph.n_out) <= DENSE_LIMIT and graph.n_in * graph.n_out <= DENSE_ENTRIES


def _matrix(graph: BipartiteGraph, normalised: bool) -> np.ndarray:
    """(n_out, n_in)"""
    matrix = np.zeros((graph.n_out, graph.n_in))
    np.add.at(matrix, (graph.outputs, graph.indices), edge_values(graph, normalised))
    return matrix


def _gram(matrix: np.ndarray) -> np.ndarray:
    """The products of its rows, or of its columns if they are fewer."""
    return matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix


def _dense(
    graph: BipartiteGraph, count: int, normalised: bool, centred: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    matrix = _matrix(graph, normalised)
    if centred:
        matrix -= graph.n_edges / (graph.n_in * graph.n_out)
    squares, vectors = np.linalg.eigh(_gram(matrix))
    values, mine = np.sqrt(np.maximum(squares[::-1][:count], 0.0)), vectors[:, ::-1][:, :count]
    tall = graph.n_out > graph.n_in
    others = (matrix if tall else matrix.T) @ mine / np.where(values > 0, values, 1)
    return (values, others, mine) if tall else (values, mine, others)


def _sparse(
    graph: BipartiteGraph, count: int, normalised: bool, centred: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    try:
        from scipy.sparse import csr_array
    except ImportError:
        raise XNetsError("The spectrum of a graph this large needs scipy: pip install 'xnets[graphs]'.") from None
    edges = (edge_values(graph, normalised), graph.indices.copy(), graph.indptr.copy())
    matrix = csr_array(edges, (graph.n_out, graph.n_in))  # sums double edges whenever it is used
    transposed = matrix.T.tocsr()
    tall = graph.n_out > graph.n_in
    there, back = (matrix, transposed) if tall else (transposed, matrix)  # from the smaller side and to it again
    mean = graph.n_edges / (graph.n_in * graph.n_out) if centred else 0.0
    n = there.shape[1]
    if n <= DENSE_LIMIT:  # the other side alone is large
        sums = mean * there.sum(axis=0)
        gram = (back @ there).toarray() - sums - sums[:, None] + mean**2 * there.shape[0]
        squares, found = np.linalg.eigh(gram)
        squares, found = np.maximum(squares[-count:], 0.0), found[:, -count:]
    else:
        squares, found = _largest(there, back, mean, count)
    order = np.argsort(-squares, kind="stable")
    values, mine = np.sqrt(squares[order]), found[:, order]
    others = (there @ mine - mean * mine.sum(axis=0)) / np.where(values > 0, values, 1)
    return (values, others, mine) if tall else (values, mine, others)


def _largest(there: Any, back: Any, mean: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and vectors of (there - mean J)^T (there - mean J), back being there^T, by Lanczos.

    One at a time, those found taken out before the next is sought, from a start of its own: Lanczos finds equal values
    only once, the equal parts of a disconnected graph have equal ones, and what it has found has taken from the first
    start all there was of them.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    n = there.shape[1]
    squares, found = np.empty(0), np.empty((n, 0))

    def twice(x: np.ndarray) -> np.ndarray:
        x = x.ravel()
        y = there @ x - mean * x.sum()
        return back @ y - mean * y.sum() - found @ (squares * (found.T @ x))

    # fixed starts keep the result the same from run to run; no symmetry of a graph leaves these unchanged
    stream = np.random.PCG64(0)
    for i in range(count):
        start = stream.random_raw(n) * 2.0**-64 - (0.5 if i else 0.0)
        start -= found @ (found.T @ start)
        if np.linalg.norm(twice(start)) <= NOTHING * np.linalg.norm(back @ (there @ abs(start))):
            squares, found = np.append(squares, 0.0), np.column_stack([found, start / np.linalg.norm(start)])
            continue
        # The error of a value is the square of what tol allows its vector.
        try:
            (square,), vector = eigsh(
                LinearOperator((n, n), twice, dtype=float), 1, which="LA", v0=start, tol=1e-8, ncv=20
            )
        except ArpackNoConvergence:
            raise XNetsError(
                "Lanczos did not settle on the spectrum of this graph: its values lie too close."
            ) from None
        squares, found = np.append(squares, max(square, 0.0)), np.append(found, vector, axis=1)
    return squares, found
