"""What is found out about a layer's kernels from shapes alone, kept with the graph."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from xnets.layers.direct.adjacency import Adjacency
from xnets.layers.direct.jit import vector_width

MOST_PLANS = 256  # of a graph: batches of ever new sizes shall not fill the memory

# Of x, then weight or dy, then the graph's index; fills the last: y, or the weight's gradient.
Run = Callable[[Tensor, Tensor, Tensor, Tensor], None]


def planned(make: Callable[..., Any]) -> Callable[..., Any]:
    """What make(adjacency, *shape) returns is kept for each graph, shape, number of threads and width of vectors.

    Shapes alone decide about kernels, tables and shares of the work: to find them anew would take as long as a small
    layer. What `make` returns must not hold the adjacency, whose index would never be freed: see Adjacency.of. The
    adjacency's tables stay where they are for as long as it lives.
    """

    @functools.wraps(make)
    def plan(adjacency: Adjacency, *shape: Any) -> Any:
        key = (make, shape, torch.get_num_threads(), vector_width())
        found = adjacency.plans.get(key)
        if found is None:
            if len(adjacency.plans) >= MOST_PLANS:
                adjacency.plans.clear()
            found = adjacency.plans.setdefault(key, make(adjacency, *shape))
        return found

    return plan
