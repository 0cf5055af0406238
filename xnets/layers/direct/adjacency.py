"""What the kernels need of a graph beyond its index, computed once for each graph and kept while it lives."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from xnets.layers.direct.forked import ForkedLock
from xnets.layers.kernels import check_inputs

MOST_GROUPED = 2**15  # columns, and half of a group's edges
AT_ONCE = 2**16  # edges that are grouped at a time


class Grouped(NamedTuple):
    """A sparse matrix by groups of rows; within a group, columns are sorted by the subset of its rows they meet.

    The columns may be cut into chunks, in which all groups come again: what is read stays in the cache, what is
    written passes through it. A kernel that holds the sums of a group loads each column once, and knows without asking
    what it feeds.
    """

    counts: Tensor  # (chunks x groups, 2 ** group - 1) int32, entries of each subset
    columns: Tensor  # (E,) the column of each entry, int32; or as Adjacency.grouped says
    where: Tensor  # (chunks x groups, 2) int64, each group's first entry and first edge
    order: Tensor  # (M,) which edge stands at each place, int32; or as Adjacency.grouped says


class Rows(NamedTuple):
    """A sparse matrix by rows."""

    pointer: Tensor  # (rows + 1,) int32
    columns: Tensor | None  # (M,) int32, rising in each row
    order: Tensor | None  # (M,) int32, which edge stands at each place; None if all stand where the layer has them

    def sorted(self, weight: Tensor) -> Tensor:
        """The layer's filters as the rows have them (M, ...)."""
        if self.order is None:
            return weight
        edges = weight.view(len(self.order), -1)
        if edges.shape[1] > 1:
            return edges.index_select(0, self.order)
        return torch.from_numpy(edges.numpy().take(self.order.numpy()))  # twice as fast for single numbers

    def columns_or(self, index: Tensor) -> Tensor:
        """The columns; those of outputs that stand in order are the graph's index."""
        return index if self.columns is None else self.columns

    def room_for(self, gradient: Tensor) -> Tensor:
        """Where a gradient is to be filled in the rows' order: the gradient itself, if that is the layer's."""
        return gradient if self.order is None else torch.empty_like(gradient)

    def restore(self, found: Tensor, gradient: Tensor) -> None:
        """found, filled in the rows' order -> gradient, in the layer's; nothing to do if it is the gradient itself."""
        if self.order is not None:
            edges = len(self.order)
            gradient.view(edges, -1)[self.order] = found.view(edges, -1)


class Segments(NamedTuple):
    """Rows whose columns are cut into chunks; a row's edges into one chunk are a segment of it.

    In each chunk the rows, in blocks, come by the lengths of their segments. The edges of transposed rows stand chunk
    by chunk: to sort the weights by chunks takes less time, since a chunk of them stays in the cache.
    """

    rows: Rows | None
    slots: Tensor  # (chunks x rows + some, 2) int32, row in its block and first edge
    lengths: Tensor  # (blocks, chunks, longest + 1) int32, how many rows have a segment of each length
    spans: Tensor  # (blocks, chunks, 2) int32, where the edges of a block's transposed rows begin and end
    chunks: int
    longest: int


class Adjacency:
    """The graph of one layer, as a matrix (n_out, n_in) and transposed; `index` (n_out, D) is int32.

    What is kept of a graph holds no reference to the layer's own index, which would never be freed: see `of`. Tables
    are never replaced, since others know their addresses: of two threads that make one, the first one's is kept.
    Raises IndexError if the index names inputs that are not there.
    """

    index: Tensor

    def __init__(self, index: Tensor, n_in: int, n_out: int) -> None:
        check_inputs(index, n_in)
        self.block = block = n_out // index.shape[0]  # outputs that share their inputs
        self.n_in, self.n_out, self.degree = n_in, n_out, index.shape[1]
        whole = index.repeat_interleave(block, 0) if block > 1 else index
        whole = whole.to(torch.int32).contiguous()
        if index.is_inference():  # nothing but a comparison tells that it was written to
            whole = whole.clone()
        self._own = None if whole.data_ptr() == index.data_ptr() else whole
        self.kept: dict[Any, Any] = {}  # what others compute of the graph, under keys of theirs
        self.plans: dict[Any, Any] = {}  # see planned.py
        self._rows: dict[str, Rows] = {}
        self._grouped: dict[tuple[bool, int, int], Grouped] = {}
        self._segments: dict[tuple[bool, int, int], Segments] = {}
        self._bounds: dict[tuple[bool, int], Tensor] = {}

    def of(self, index: Tensor) -> "Adjacency":
        """The same, with the layer's index for as long as it is used; all that is computed is kept by both."""
        mine = object.__new__(type(self))
        mine.__dict__.update(self.__dict__, index=index if self._own is None else self._own)
        return mine

    def made_from(self, index: Tensor) -> bool:
        """Whether the index, of which this one has a copy, is still that one."""
        return torch.equal(self._own[:: self.block], index)

    def grouped(self, transposed: bool, group: int, chunks: int = 1) -> Grouped:
        """Rows are outputs, or inputs if transposed; of at most MOST_GROUPED columns, which are int16.

        order is 16 bits too: counted from the group's first edge, or, transposed, the place among its output's edges.
        """
        key = (transposed, group, chunks)
        if key not in self._grouped:
            inputs = self.index.numpy().ravel()
            outputs = np.repeat(np.arange(self.n_out, dtype=np.int32), self.degree)
            rows, columns = (inputs, outputs) if transposed else (outputs, inputs)
            shape = (self.n_in, self.n_out) if transposed else (self.n_out, self.n_in)
            found = group_rows(rows, columns, *shape, group, chunks)
            order = found.order % (self.degree if transposed else group * self.degree)
            found = found._replace(columns=found.columns.to(torch.int16), order=order.to(torch.int16))
            self._grouped.setdefault(key, found)
        return self._grouped[key]

    def order_of_grouped(self, transposed: bool, group: int) -> Tensor:
        """(M rounded up to a multiple of 8,) int32, which edge of the layer stands at each place of `grouped`."""
        key = ("order of grouped", transposed, group)
        if key not in self.kept:
            found = self.grouped(transposed, group)
            order, counts = found.order.numpy().view(np.uint16).astype(np.int32), found.counts.numpy()
            sizes = np.array([pattern.bit_count() for pattern in range(1, 2**group)])
            if transposed:
                entries = np.repeat(np.tile(sizes, len(counts)), counts.ravel())
                first = np.repeat(found.columns.numpy().astype(np.int32) * np.int32(self.degree), entries)
            else:
                first = np.repeat(found.where[:, 1].numpy().astype(np.int32), counts @ sizes)
            self.kept.setdefault(key, padded_to_eight(torch.from_numpy(order + first)))
        return self.kept[key]

    def segments(self, transposed: bool, chunk: int, block: int) -> Segments:
        """Of `rows` or `transposed`, in chunks of so many columns and blocks of so many rows."""
        key = (transposed, chunk, block)
        if key not in self._segments:
            if transposed:
                rows, lengths, starts = self._transposed_by_chunks(chunk)
            else:
                rows = self.rows
                bounds = segment_bounds(rows, chunk, -(-self.n_in // chunk))
                lengths, starts = np.diff(bounds), bounds[:, :-1]
            cut = cut_rows(rows, lengths, starts, block)
            self._segments.setdefault(key, cut if transposed else cut._replace(rows=None))
        found = self._segments[key]
        return found if transposed else found._replace(rows=self.rows)

    def bounds(self, transposed: bool, chunks: int) -> Tensor:
        """(rows, chunks + 1) int32: where the edges of `rows` or `transposed` begin and end, by chunks of columns."""
        key = (transposed, chunks)
        if key not in self._bounds:
            rows, n_columns = (self.transposed, self.n_out) if transposed else (self.rows, self.n_in)
            bounds = segment_bounds(rows, -(-n_columns // chunks), chunks)
            self._bounds.setdefault(key, torch.from_numpy(bounds.astype(np.int32)))
        return self._bounds[key]

    def _transposed_by_chunks(self, chunk: int) -> tuple[Rows, np.ndarray, np.ndarray]:
        """Inputs with their outputs in chunks: the edges, and of each segment (inputs, chunks) length and start."""
        inputs = self.index.numpy().ravel()
        orders, lengths = [], []
        for first in range(0, len(inputs), chunk * self.degree):
            mine = inputs[first : first + chunk * self.degree]
            orders.append((stable_order(mine, self.n_in) + first).astype(np.int32))
            lengths.append(np.bincount(mine, minlength=self.n_in))
        order = np.concatenate(orders)
        flat = np.concatenate(lengths)
        starts = (np.cumsum(flat) - flat).reshape(-1, self.n_in).T
        pointer = torch.empty(0, dtype=torch.int32, device="cpu")  # the edges of a row do not stand together
        rows = Rows(pointer, torch.from_numpy(order // np.int32(self.degree)), torch.from_numpy(order))
        return rows, np.stack(lengths, axis=1), starts

    @property
    def rows(self) -> Rows:
        """Rows are outputs, columns are inputs in rising order."""
        found = self.stored_rows(False)
        return found._replace(columns=self.index.view(-1)) if found.columns is None else found

    def stored_rows(self, transposed: bool) -> Rows:
        """`rows` or `transposed`; but columns are None where they are the index itself, which nobody may keep."""
        if transposed:
            return self.transposed
        if "outputs" not in self._rows:
            pointer = torch.arange(0, self.n_out * self.degree + 1, self.degree, dtype=torch.int32, device="cpu")
            found = Rows(pointer, None, None)
            if not bool((self.index[:, 1:] >= self.index[:, :-1]).all()):
                columns, order = self.index.sort(dim=1, stable=True)
                order += torch.arange(self.n_out, device="cpu").mul_(self.degree).unsqueeze(1)
                found = Rows(pointer, columns.view(-1), order.view(-1).to(torch.int32))
            self._rows.setdefault("outputs", found)
        return self._rows["outputs"]

    @property
    def transposed(self) -> Rows:
        """Rows are inputs, columns are outputs in rising order."""
        if "inputs" not in self._rows:
            inputs = self.index.numpy().ravel()
            order = stable_order(inputs, self.n_in)
            pointer = np.concatenate([[0], np.cumsum(np.bincount(inputs, minlength=self.n_in))])
            columns = order // self.degree
            found = Rows(*(torch.from_numpy(a.astype(np.int32)) for a in (pointer, columns, order)))
            self._rows.setdefault("inputs", found)
        return self._rows["inputs"]


def padded_to_eight(order: Tensor) -> Tensor:
    """The last number again and again, up to a multiple of eight."""
    return torch.cat([order, order[-1:].expand(-len(order) % 8)])


def stable_order(keys: np.ndarray, n: int) -> np.ndarray:
    """argsort of keys (M,) in [0, n), equal ones as they stand."""
    return np.argsort(keys.astype(np.uint16) if n <= 2**16 else keys, kind="stable")  # 16 bits: a radix sort


def segment_bounds(rows: Rows, chunk: int, chunks: int) -> np.ndarray:
    """(rows, chunks + 1) int64: where each row's edges into each chunk of `chunk` columns begin, and end."""
    pointer, columns = rows.pointer.numpy(), rows.columns.numpy()
    n = len(pointer) - 1
    if chunks == 1:
        return np.stack([pointer[:-1], pointer[1:]], axis=1).astype(np.int64)
    segment = columns // np.int32(chunk)
    segment += np.repeat(np.arange(n, dtype=np.int32) * np.int32(chunks), np.diff(pointer))
    lengths = np.bincount(segment, minlength=n * chunks).reshape(n, chunks)
    return np.cumsum(np.pad(lengths, ((0, 0), (1, 0))), axis=1) + pointer[:-1, None]


def cut_rows(rows: Rows, lengths: np.ndarray, starts: np.ndarray, block: int) -> Segments:
    """Segments from the length and the first edge of each row in each chunk, both (rows, chunks)."""
    (n, chunks), longest = lengths.shape, int(lengths.max())
    slots, counts, spans = [], [], []
    for first in range(0, n, block):
        mine = lengths[first : first + block].T
        order = np.argsort(mine.astype(np.uint16) if longest < 2**16 else mine, axis=1, kind="stable")
        begin = np.take_along_axis(starts[first : first + block].T, order, axis=1)
        slots.append(np.stack([order, begin], axis=2).astype(np.int32))
        last = min(first + block, n) - 1
        spans.append(np.stack([starts[first], starts[last] + lengths[last]], axis=1).astype(np.int32))
        counts.append(np.apply_along_axis(np.bincount, 1, mine, minlength=longest + 1).astype(np.int32))
    beyond = np.zeros((64, 2), dtype=np.int32)  # the kernel looks ahead
    flat = np.concatenate([np.concatenate(slots, axis=1).reshape(-1, 2), beyond])
    arrays = (flat, np.stack(counts), np.stack(spans))
    return Segments(rows, *(torch.from_numpy(a) for a in arrays), chunks, longest)


def group_rows(rows: np.ndarray, columns: np.ndarray, n_rows: int, n_columns: int, group: int, chunks: int) -> Grouped:
    """Edges (M,) to Grouped. An edge that stands twice is an entry of its own, so that its weights add up."""
    m, groups = len(rows), -(-n_rows // group)
    # the groups come once for each chunk of the columns
    block = (columns // -(-n_columns // chunks) * groups + rows // group).astype(np.int32)
    groups *= chunks
    order = stable_order(block, groups).astype(np.int32)
    ends = np.cumsum(np.bincount(block, minlength=groups))
    # some groups at a time: the whole would need many times its own memory on the way, at the peak of a training step
    step = max(1, groups * AT_ONCE // max(1, m))
    counts, entries, begin = [], [], 0
    for first in range(0, groups, step):
        last = min(first + step, groups)
        mine = order[begin : ends[last - 1]]
        block_of_mine = block[mine] - first
        count, entry, places = _group_some(rows[mine], columns[mine], block_of_mine, last - first, group, n_columns)
        counts.append(count)
        entries.append(entry)
        order[begin : ends[last - 1]] = mine[places]
        begin = ends[last - 1]
    whole = np.concatenate(counts)
    first_entry, first_edge = np.cumsum(whole.sum(1)) - whole.sum(1), ends - np.diff(ends, prepend=0)
    where = np.stack([first_entry, first_edge], axis=1).astype(np.int64)
    return Grouped(*(torch.from_numpy(a) for a in (whole, np.concatenate(entries), where, order)))


def _group_some(
    rows: np.ndarray, columns: np.ndarray, block: np.ndarray, groups: int, group: int, n_columns: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges of some groups -> entries of each subset, their columns, and the edges' order."""
    m, patterns = len(rows), 2**group - 1
    rows, columns, block = rows.astype(np.int64), columns.astype(np.int64), block.astype(np.int64)
    order = np.argsort((block * n_columns + columns) * group + rows % group, kind="stable")
    rows, columns, block = rows[order], columns[order], block[order]
    # a new entry begins with another group or column, or where an edge repeats
    new = np.ones(m, dtype=bool)
    new[1:] = (block[1:] != block[:-1]) | (columns[1:] != columns[:-1]) | (rows[1:] == rows[:-1])
    first = np.flatnonzero(new)
    pattern = np.bitwise_or.reduceat(1 << rows % group, first) if m else first
    key = block[first] * (patterns + 1) + pattern
    by_pattern = np.argsort(key, kind="stable")
    sizes = np.diff(np.append(first, m))[by_pattern]
    starts = first[by_pattern]
    before = np.cumsum(sizes) - sizes
    places = np.repeat(starts - before, sizes) + np.arange(m)
    counts = np.bincount(key, minlength=groups * (patterns + 1)).reshape(groups, -1)[:, 1:]
    return counts.astype(np.int32), columns[starts].astype(np.int32), order[places]


_known: dict[tuple, tuple[StorageWeakRef, Adjacency]] = {}
_lock = ForkedLock()  # two threads may meet a graph for the first time together


def adjacency_of(index: Tensor, n_in: int, n_out: int) -> Adjacency:
    """The Adjacency of an index (n_out / block, D), built once as long as the tensor lives and is not written to."""
    # made in inference_mode it has no version: only a look at it tells whether it was written to
    version = None if index.is_inference() else index._version
    storage = index.untyped_storage()
    view = (storage._cdata, index.data_ptr(), index.dtype, index.shape, index.stride(), n_in, n_out)
    key = (view, version)
    with _lock.now:
        found = _known.get(key)
        if found is None or (version is None and not found[1].made_from(index)):
            for old in [k for k, (kept, _) in _known.items() if kept.expired() or k[0] == view]:
                del _known[old]
            # the weak reference keeps the storage's number from being given to another one
            found = _known[key] = (StorageWeakRef(storage), Adjacency(index, n_in, n_out))
        return found[1].of(index)
