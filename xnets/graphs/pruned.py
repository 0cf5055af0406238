"""The connectivity that training would have kept: magnitude pruning, which random expanders are chosen instead of."""

import numpy as np

from xnets.errors import XNetsError
from xnets.graphs.bipartite import BipartiteGraph


def magnitude_pruned(weight: np.ndarray, degree: int) -> BipartiteGraph:
    """For each output the `degree` inputs with the largest filters: of equal ones, those that come first.

    Args:
        weight: of a trained dense layer, (n_out, n_in, *k); a filter's size is the sum of its squares.
        degree: D, inputs that each output keeps.

    Raises:
        XNetsError: a weight without two dimensions, or with values that are not finite; a degree outside 1 ... n_in.
    """
    weight = np.asarray(weight, dtype=np.float64)
    if weight.ndim < 2 or not np.isfinite(weight).all():
        raise XNetsError("Give the weight of a dense layer, (n_out, n_in, *k), with finite values.")
    n_out, n_in = weight.shape[:2]
    if not 1 <= degree <= n_in:
        raise XNetsError(f"degree must lie between 1 and the layer's fan-in {n_in}, not {degree}.")
    sizes = np.square(weight).reshape(n_out, n_in, -1).sum(axis=2)
    kept = np.argsort(-sizes, axis=1, kind="stable")[:, :degree]
    return BipartiteGraph.from_neighbours(np.sort(kept, axis=1), n_in, None, "magnitude-pruned")
