"""The spectral gap of a layer's graph (paper, section 3.2), and the channels the graph leaves unused."""

import numpy as np

from xnets.errors import XNetsError
from xnets.graphs.bipartite import BipartiteGraph

DENSE_LIMIT = 1024  # below this side length a full symmetric eigenvalue problem is quicker than Lanczos


def sigma_ratio(graph: BipartiteGraph) -> float:
    """sigma2 / sigma1 of the (n_out, n_in) biadjacency matrix: 0 for a complete graph, 1 for a disconnected one.

    These are the two largest eigenvalues of the bipartite graph's adjacency matrix; on a graph that is regular on both
    sides sigma1 = sqrt(D_in D_out), and the paper's lambda / D is this ratio.
    """
    if not graph.n_edges:
        raise XNetsError("A graph without edges has no spectral gap.")
    if min(graph.n_in, graph.n_out) == 1:
        return 0.0
    if min(graph.n_in, graph.n_out) <= DENSE_LIMIT:
        matrix = np.zeros((graph.n_out, graph.n_in))
        np.add.at(matrix, (graph.outputs, graph.indices), 1.0)
        gram = matrix @ matrix.T if graph.n_out <= graph.n_in else matrix.T @ matrix
        second, first = np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[-2:], 0.0))
    else:
        from scipy.sparse.linalg import LinearOperator, svds

        matrix = graph.to_scipy()
        # a fixed start keeps the result the same from run to run; no symmetry of a graph leaves this one unchanged
        start = np.random.PCG64(0).random_raw(min(matrix.shape)) * 2.0**-64
        # One at a time, the first taken out before the second is sought: Lanczos finds equal values only once, and the
        # equal halves of a disconnected graph have equal ones.
        left, (first,), right = svds(matrix, k=1, v0=start)
        left, right = left.ravel(), right.ravel()
        rest = LinearOperator(
            matrix.shape,
            matvec=lambda x: matrix @ x.ravel() - first * left * (right @ x.ravel()),
            rmatvec=lambda y: matrix.T @ y.ravel() - first * right * (left @ y.ravel()),
            dtype=matrix.dtype,
        )
        (second,) = svds(rest, k=1, v0=start, return_singular_vectors=False)
    return min(float(second / first), 1.0)


def spectral_gap(graph: BipartiteGraph) -> float:
    """gamma = 1 - sigma2 / sigma1, between 0 (disconnected) and 1 (complete); see `sigma_ratio`."""
    return 1.0 - sigma_ratio(graph)


def dead_inputs(graph: BipartiteGraph) -> np.ndarray:
    """Indices of the inputs that feed no output."""
    return np.flatnonzero(graph.out_degrees == 0)


def dead_outputs(graph: BipartiteGraph) -> np.ndarray:
    """Indices of the outputs that have no input (possible only where inputs draw, or by a given mask)."""
    return np.flatnonzero(graph.in_degrees == 0)
