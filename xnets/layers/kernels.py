"""How a condensed layer is computed. A kernel is one object; faster ones register beside these.

The condensed weight holds one k x k filter per edge and nothing else:
    regular graph    weight (n_out, D, *k)   index (n_out / block, D), the sorted inputs of each output (or block)
    irregular graph  weight (M, *k)          index (2, M), the output and the input of each edge
"""

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from xnets.errors import XNetsError


class Edges(NamedTuple):
    """The graph as a kernel sees it."""

    index: Tensor  # int32, see above
    n_in: int
    n_out: int
    regular: bool
    block: int  # outputs that share one row of the index; 1 for the paper's graphs
    double: bool  # whether some edge stands twice (sampling with replacement): its filters add up


class Convolution(NamedTuple):
    """Geometry of a convolution, as torch.nn.functional.conv2d takes it."""

    stride: tuple[int, int]
    padding: tuple[int, int] | str
    dilation: tuple[int, int]


class Kernel(Protocol):
    """One way to compute a layer, differentiable in x, weight and bias. `how` is None for a linear layer."""

    competes: bool  # whether "auto" measures it; a reference kernel does not
    device: str | None  # the only kind it is for, "cpu" or "cuda"

    def refuses(self, x: Tensor, weight: Tensor, edges: Edges, how: Convolution | None) -> str:
        """Why it does not compute this layer, in a few words; "" if it does."""

    def prefers(self, x: Tensor, weight: Tensor, edges: Edges, how: Convolution | None) -> bool:
        """Whether it is likely faster than dense, for where nothing can be measured; asked if it does not refuse."""

    def conv2d(self, x: Tensor, weight: Tensor, bias: Tensor | None, edges: Edges, how: Convolution) -> Tensor:
        """(N, n_in, H, W) -> (N, n_out, H', W')."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, edges: Edges) -> Tensor:
        """(..., n_in) -> (..., n_out)."""


def to_dense_weight(weight: Tensor, edges: Edges) -> Tensor:
    """Scatter a condensed weight to (n_out, n_in, *k), zero where there is no edge. Its gradient is a gather."""
    window = weight.shape[2:] if edges.regular else weight.shape[1:]
    if edges.regular:
        inputs = edges.index.repeat_interleave(edges.block, 0) if edges.block > 1 else edges.index
        outputs = torch.arange(edges.n_out, device=inputs.device).unsqueeze(1)
        rows = (outputs * edges.n_in + inputs).flatten()
    else:
        rows = edges.index[0].long() * edges.n_in + edges.index[1]
    dense = weight.new_zeros(edges.n_out * edges.n_in, *window)
    filters = weight.reshape(-1, *window)
    # index_copy_ takes half the time of index_add_, and is right as long as no edge stands twice
    dense = dense.index_add_(0, rows, filters) if edges.double else dense.index_copy_(0, rows, filters)
    return dense.view(edges.n_out, edges.n_in, *window)


def is_transformed() -> bool:
    """Whether torch looks at a call in a way that operators of our own do not know: vmap, jvp, torch.jit.trace."""
    if torch.compiler.is_compiling():
        return False
    inside_functorch = torch._C._functorch.peek_interpreter_stack() is not None
    return inside_functorch or torch.autograd.forward_ad._current_level >= 0 or torch.jit.is_tracing()


def is_watched(*tensors: Tensor) -> bool:
    """Whether anyone looks at operators as they are called: torch.compile, torch.func and what batches gradients, a
    dispatch mode, a tensor of another class, the profiler.

    If nobody does, an operator's functions may be called past torch's dispatcher, whose way through Python takes as
    long as a small layer.
    """
    if torch.compiler.is_compiling() or is_transformed():
        return True
    if torch.autograd._profiler_enabled() or torch._C._len_torch_dispatch_stack():
        return True
    batched = torch._C._functorch.is_legacy_batchedtensor  # by torch.autograd.grad's is_grads_batched
    return any(type(t) not in (Tensor, torch.nn.Parameter) or batched(t) for t in tensors)


def owned(view: Tensor) -> Tensor:
    """The same numbers, but no view: autograd lets no one (an in-place ReLU) change a view that an operator returns."""
    return view.new_empty(0).set_(view.untyped_storage(), view.storage_offset(), view.shape, view.stride())


class DenseKernel:
    """Scatter the weight to a dense one and let cuDNN, oneDNN or BLAS do the rest: correct for every case."""

    competes = True
    device = None

    def refuses(self, x: Tensor, weight: Tensor, edges: Edges, how: Convolution | None) -> str:
        """Nothing: what no other kernel computes is its."""
        return ""

    def prefers(self, x: Tensor, weight: Tensor, edges: Edges, how: Convolution | None) -> bool:
        """Never faster than itself."""
        return False

    def conv2d(self, x: Tensor, weight: Tensor, bias: Tensor | None, edges: Edges, how: Convolution) -> Tensor:
        """See Kernel."""
        return F.conv2d(x, to_dense_weight(weight, edges), bias, how.stride, how.padding, how.dilation)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, edges: Edges) -> Tensor:
        """See Kernel."""
        return F.linear(x, to_dense_weight(weight, edges), bias)


class Algorithm1Kernel:
    """The paper's Algorithm 1: for every output select its D input channels, then convolve them with its own filter.

    A reference to read and to test against: the selected channels take n_out D / n_in times the input's memory.
    """

    competes = False
    device = None

    def refuses(self, x: Tensor, weight: Tensor, edges: Edges, how: Convolution | None) -> str:
        """Nothing."""
        return ""

    def prefers(self, x: Tensor, weight: Tensor, edges: Edges, how: Convolution | None) -> bool:
        """Never: it is slow."""
        return False

    def conv2d(self, x: Tensor, weight: Tensor, bias: Tensor | None, edges: Edges, how: Convolution) -> Tensor:
        """See Kernel."""
        outputs = [
            F.conv2d(x[:, inputs], filters.unsqueeze(0), None, how.stride, how.padding, how.dilation)
            for inputs, filters in _per_output(weight, edges)
        ]
        y = torch.cat(outputs, dim=1)
        return y if bias is None else y + bias.to(y.dtype).view(-1, 1, 1)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, edges: Edges) -> Tensor:
        """See Kernel."""
        y = torch.stack([x[..., inputs] @ filters for inputs, filters in _per_output(weight, edges)], dim=-1)
        return y if bias is None else y + bias.to(y.dtype)


def _per_output(weight: Tensor, edges: Edges) -> list[tuple[Tensor, Tensor]]:
    """For each output its inputs (D,) and its filters (D, *k)."""
    if edges.regular:
        return [(edges.index[v // edges.block].long(), weight[v]) for v in range(edges.n_out)]
    pairs = []
    for v in range(edges.n_out):
        mine = edges.index[0] == v
        alive = bool(mine.any())  # an output without inputs is zero: input 0 with a zero filter
        inputs = edges.index[1, mine] if alive else edges.index.new_zeros(1)
        pairs.append((inputs.long(), weight[mine] if alive else weight.new_zeros(1, *weight.shape[1:])))
    return pairs


KERNELS: dict[str, Kernel] = {"dense": DenseKernel(), "algorithm1": Algorithm1Kernel()}


def find_kernel(name: str) -> Kernel:
    """The kernel of that name; XNetsError names those there are."""
    if not isinstance(name, str) or name not in KERNELS:
        raise XNetsError(f"Unknown kernel {name!r}; there are {', '.join(KERNELS)}.")
    return KERNELS[name]
