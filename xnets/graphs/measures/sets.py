"""Sets of vertices as bits, 64 to a word, passed along the edges of a graph."""

from collections.abc import Iterator

import numpy as np

from xnets.errors import XNetsError
from xnets.graphs.bipartite import BipartiteGraph
from xnets.seeds import derive_seed, permutation
from xnets.whole import whole_number

ROOM = 2**25  # words that may be gathered along the edges at once
COUNTS = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)


def chosen(n: int, sample: int | None, seed: int) -> np.ndarray:
    """All numbers below n, or `sample` random ones of them where that is fewer. Raises XNetsError for a sample < 1."""
    if sample is not None:
        whole_number("A sample's size", sample)
    if sample is None or sample >= n:
        return np.arange(n)
    return np.sort(permutation(derive_seed(seed, "sample"), n)[0, :sample])


def members_of(indices: np.ndarray, n: int, what: str) -> np.ndarray:
    """The set, each member once and in order. Raises XNetsError for anything but numbers from 0 to n - 1."""
    found = np.unique(np.asarray(indices))
    if len(found) and (found.dtype.kind not in "iu" or not 0 <= found[0] <= found[-1] < n):
        raise XNetsError(f"A set of {what} holds whole numbers from 0 to {n - 1}, not {found[0]} to {found[-1]}.")
    return found.astype(np.int64)


def singletons(n: int, members: np.ndarray, edges: int) -> Iterator[np.ndarray]:
    """(n, words) uint64 at a time: bit i of the slice is set at the slice's i-th member, and nowhere else.

    A slice has as many words as `edges` edges can pass on in the room there is.
    """
    width = 64 * max(1, min(ROOM // max(edges, 1), 256))
    for first in range(0, len(members), width):
        part = members[first : first + width]
        bits = np.zeros((n, -(-len(part) // 64)), dtype=np.uint64)
        i = np.arange(len(part))
        bits[part, i // 64] = np.uint64(1) << (i % 64).astype(np.uint64)
        yield bits


def gathered(graph: BipartiteGraph, values: np.ndarray, by: np.ufunc) -> np.ndarray:
    """(n_out, ...): the values (n_in, ...) of each output's inputs, joined by a ufunc; 0 where there is no input."""
    result = np.zeros((graph.n_out, *values.shape[1:]), dtype=values.dtype)
    fed = np.flatnonzero(graph.in_degrees)
    if len(fed):
        result[fed] = by.reduceat(values[graph.indices], graph.indptr[fed], axis=0)
    return result


def sizes(bits: np.ndarray) -> np.ndarray:
    """(n,) how many bits are set in each row of (n, words) uint64."""
    return COUNTS[bits.view(np.uint8)].sum(axis=1, dtype=np.int64)
