"""The bipartite graph between the input and the output channels of one layer (paper, section 3.1)."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from xnets.errors import XNetsError
from xnets.whole import whole_number

if TYPE_CHECKING:
    import networkx
    import scipy.sparse


@dataclass(frozen=True, eq=False)
class BipartiteGraph:
    """Edges from inputs U to outputs V of a layer, listed output by output.

    Two graphs are equal if they have the same edges; seed and construction say where the edges came from.

    Args:
        n_in: |U|, number of input channels.
        indptr: (n_out + 1,) int64; the inputs of output v are `indices[indptr[v]:indptr[v + 1]]`.
        indices: (M,) int32, sorted within each output. An input that stands twice in a row is a double edge.
        seed: the seed the edges were drawn with, if any.
        construction: how they were made, e.g. "random".
    """

    n_in: int
    indptr: np.ndarray = field(repr=False)
    indices: np.ndarray = field(repr=False)
    seed: int | None = None
    construction: str = "given"

    def __post_init__(self) -> None:
        indptr = np.array(self.indptr, dtype=np.int64)
        given = np.asarray(self.indices)
        indices = given.astype(np.int32)
        object.__setattr__(self, "n_in", whole_number("n_in", self.n_in))
        if indptr.ndim != 1 or len(indptr) < 2:
            raise XNetsError("A bipartite graph needs at least one input and one output.")
        if indptr[0] != 0 or indptr[-1] != len(indices) or (np.diff(indptr) < 0).any():
            raise XNetsError("indptr must rise from 0 to the number of edges.")
        whole = np.array_equal(indices, given)  # neither a fraction nor beyond int32
        if len(indices) and not (whole and indices.min() >= 0 and indices.max() < self.n_in):
            raise XNetsError(f"Edges must name inputs between 0 and {self.n_in - 1}.")
        falls = np.flatnonzero(np.diff(indices) < 0) + 1
        if not np.isin(falls, indptr).all():
            raise XNetsError("The inputs of each output must be sorted.")
        for array in (indptr, indices):
            array.flags.writeable = False
        object.__setattr__(self, "indptr", indptr)
        object.__setattr__(self, "indices", indices)

    @classmethod
    def from_neighbours(
        cls, neighbours: np.ndarray, n_in: int, seed: int | None = None, construction: str = "given"
    ) -> "BipartiteGraph":
        """The graph whose output v has the inputs `neighbours[v]`; neighbours is (n_out, D), in any order."""
        neighbours = np.asarray(neighbours)
        if neighbours.ndim != 2:
            raise XNetsError(f"neighbours must have shape (n_out, D), not {neighbours.shape}.")
        n_out, degree = neighbours.shape
        return cls(n_in, np.arange(n_out + 1) * degree, np.sort(neighbours, axis=1).ravel(), seed, construction)

    @classmethod
    def from_edges(
        cls, inputs: np.ndarray, outputs: np.ndarray, n_in: int, n_out: int, seed: int | None = None,
        construction: str = "given",
    ) -> "BipartiteGraph":  # fmt: skip
        """The graph with edges (inputs[e], outputs[e]); two arrays of shape (M,), in any order."""
        inputs, outputs = (np.asarray(side) for side in (inputs, outputs))
        inputs, outputs = (side if side.size else np.empty(0, np.int64) for side in (inputs, outputs))
        kinds = inputs.dtype.kind + outputs.dtype.kind
        if inputs.ndim != 1 or inputs.shape != outputs.shape or not set(kinds) <= set("iu"):
            raise XNetsError("Edges are named by two lists of whole numbers of the same length.")
        whole_number("n_out", n_out)
        if len(outputs) and not (outputs.min() >= 0 and outputs.max() < n_out):
            raise XNetsError(f"Edges must name outputs between 0 and {n_out - 1}.")
        indptr = np.concatenate([[0], np.cumsum(np.bincount(outputs, minlength=n_out))])
        return cls(n_in, indptr, inputs[np.lexsort((inputs, outputs))], seed, construction)

    @classmethod
    def from_mask(cls, mask: np.ndarray) -> "BipartiteGraph":
        """The graph of a (n_out, n_in) array: an edge wherever it is not zero."""
        mask = np.asarray(mask)
        if mask.ndim != 2:
            raise XNetsError(f"A mask must have shape (n_out, n_in), not {mask.shape}.")
        outputs, inputs = np.nonzero(mask)
        return cls.from_edges(inputs, outputs, mask.shape[1], mask.shape[0], construction="mask")

    @property
    def n_out(self) -> int:
        """|V|, number of output channels."""
        return len(self.indptr) - 1

    @property
    def n_edges(self) -> int:
        """M, number of edges; a double edge counts twice."""
        return len(self.indices)

    @cached_property
    def in_degrees(self) -> np.ndarray:
        """(n_out,) number of inputs of each output: the fan-in."""
        return np.diff(self.indptr)

    @cached_property
    def out_degrees(self) -> np.ndarray:
        """(n_in,) number of outputs each input feeds."""
        return np.bincount(self.indices, minlength=self.n_in)

    @property
    def degree(self) -> int | None:
        """D if every output has D inputs, else None."""
        first = int(self.in_degrees[0])
        return first if (self.in_degrees == first).all() else None

    @property
    def outputs(self) -> np.ndarray:
        """(M,) the output of each edge, beside `indices`, its input."""
        return np.repeat(np.arange(self.n_out, dtype=np.int32), self.in_degrees)

    @property
    def neighbours(self) -> np.ndarray:
        """(n_out, D) int32, the sorted inputs of each output. Raises XNetsError if the degrees differ."""
        if self.degree is None:
            raise XNetsError("This graph's outputs have different degrees: read indptr and indices instead.")
        return self.indices.reshape(self.n_out, self.degree)

    @property
    def has_double_edges(self) -> bool:
        """Whether some output has the same input twice (sampling with replacement)."""
        same = np.flatnonzero(np.diff(self.indices) == 0) + 1
        return not np.isin(same, self.indptr).all()

    @cached_property
    def hash(self) -> str:
        """sha256 of n_in, n_out and the edges, in hex: independent of seed, machine and library versions."""
        digest = hashlib.sha256(np.array([self.n_in, self.n_out], dtype="<i8").tobytes())
        digest.update(self.indptr.astype("<i8").tobytes())
        digest.update(self.indices.astype("<i4").tobytes())
        return digest.hexdigest()

    def flipped(self) -> "BipartiteGraph":
        """The same edges with the sides exchanged: outputs become inputs."""
        return BipartiteGraph.from_edges(self.outputs, self.indices, self.n_out, self.n_in)

    def to_mask(self) -> np.ndarray:
        """(n_out, n_in) bool: the mask the authors multiply a dense weight with."""
        mask = np.zeros((self.n_out, self.n_in), dtype=bool)
        mask[self.outputs, self.indices] = True
        return mask

    def to_scipy(self) -> "scipy.sparse.csr_array":
        """The (n_out, n_in) biadjacency matrix; a double edge counts 2."""
        from scipy.sparse import csr_array

        matrix = csr_array((np.ones(self.n_edges), self.indices.copy(), self.indptr.copy()), (self.n_out, self.n_in))
        matrix.sum_duplicates()
        return matrix

    def to_networkx(self) -> "networkx.MultiGraph":
        """A bipartite multigraph with nodes ("in", u) and ("out", v)."""
        import networkx

        graph = networkx.MultiGraph()
        graph.add_nodes_from((("in", u) for u in range(self.n_in)), bipartite=0)
        graph.add_nodes_from((("out", v) for v in range(self.n_out)), bipartite=1)
        pairs = zip(self.indices.tolist(), self.outputs.tolist(), strict=True)
        graph.add_edges_from((("in", u), ("out", v)) for u, v in pairs)
        return graph

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BipartiteGraph) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)
