"""How a condensed layer is computed. A kernel is one object; xnets.layers names those there are.

The condensed weight holds one k x k filter per edge and nothing else:
    regular graph    weight (n_out, D, *k)   index (n_out / block, D), the sorted inputs of each output (or block)
    irregular graph  weight (M, *k)          index (2, M), the output and the input of each edge
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from xnets.errors import XNetsError

FEWEST_NUMBERS = 16_384  # of a batch: below, the call of an operator is what takes time, and torch has the shortest


class Edges(NamedTuple):
    """The graph as a kernel sees it."""

    index: Tensor  # int32, see above
    n_in: int
    n_out: int
    regular: bool
    block: int  # outputs that share one row of the index; 1 for the paper's graphs
    double: bool  # whether some edge stands twice (sampling with replacement): its filters add up

    def fit(self, weight: Tensor) -> bool:
        """Whether weight (n_out, D, *k) has a filter for each edge of this regular graph, and no more."""
        lists, *degree = self.index.shape
        return weight.shape[:2] == (self.n_out, *degree) and lists * self.block == self.n_out


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


class ComputesAll:
    """What kernels share that compute every layer, and are never the fastest by their own account."""

    device = None

    def refuses(self, x: Tensor, weight: Tensor, edges: Edges, how: Convolution | None) -> str:
        """Nothing."""
        return ""

    def prefers(self, x: Tensor, weight: Tensor, edges: Edges, how: Convolution | None) -> bool:
        """Never."""
        return False


def is_transformed() -> bool:
    """Whether torch looks at a call in a way that operators of our own do not know: vmap, jvp, torch.jit.trace."""
    if torch.compiler.is_compiling():
        return False
    inside_functorch = torch._C._functorch.peek_interpreter_stack() is not None
    return inside_functorch or torch.autograd.forward_ad._current_level >= 0 or torch.jit.is_tracing()


def is_watched(*tensors: Tensor) -> bool:
    """Whether anyone looks at operators as they are called: torch.compile, torch.func and what batches gradients, a
    dispatch mode, a tensor of another class or whose memory does not hold its numbers, the profiler.

    If nobody does, an operator's functions may be called past torch's dispatcher, whose way through Python takes as
    long as a small layer.
    """
    if torch.compiler.is_compiling() or is_transformed():
        return True
    if torch.autograd._profiler_enabled() or torch._C._len_torch_dispatch_stack():
        return True
    batched = torch._C._functorch.is_legacy_batchedtensor  # by torch.autograd.grad's is_grads_batched
    for t in tensors:
        if type(t) not in (Tensor, torch.nn.Parameter) or batched(t) or t.is_neg() or t._is_zerotensor():
            return True
    return False


def check_inputs(index: Tensor, n_in: int) -> None:
    """Raises IndexError if a regular graph's index, on a CPU, names inputs that are not there."""
    found = index.detach().numpy()
    if found.size and not 0 <= found.min() <= found.max() < n_in:
        raise IndexError(f"The graph names inputs {found.min()} to {found.max()}, the layer has 0 to {n_in - 1}.")


def owned(view: Tensor) -> Tensor:
    """The same numbers, but no view: autograd lets no one (an in-place ReLU) change a view that an operator returns."""
    return view.new_empty(0).set_(view.untyped_storage(), view.storage_offset(), view.shape, view.stride())


KERNELS: dict[str, Kernel] = {}  # by name; xnets.layers fills it


def find_kernel(name: str) -> Kernel:
    """The kernel of that name; XNetsError names those there are."""
    if not isinstance(name, str) or name not in KERNELS:
        raise XNetsError(f"Unknown kernel {name!r}; there are {', '.join(KERNELS)}.")
    return KERNELS[name]
