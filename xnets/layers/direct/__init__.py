"""Kernels for CPUs that take the sparse graph as it is: compiled for the machine at run time, by llvmlite.

They need llvmlite (`pip install xnets[fast]`); `missing` says whether it is there, and without it they refuse every
layer. They are for 1x1 and 3x3 convolutions of stride 1 or 2 whose padding keeps the image's size (or halves it), and
for linear layers, in float32, or bfloat16 that is computed in float32; everything else is the dense kernel's.

op.py has the PyTorch operators. For each kind of kernel one file emits its IR, and a file run_* decides which is taken
and splits the work among threads. Below, the first that suits is taken.

1x1 and linear, chosen in run_pointwise.py:
    planes.py         images as they lie: contiguous, pixels fill vectors, few edges for each channel
    shared.py         blocks of outputs share their inputs (a graph with `block`, not its transpose)
    pointwise.py      inputs fit the cache, and outputs share so many that several are summed at once
    segments.py       everything else
The weight's gradient is always pointwise.py's. channels_last.py moves tiles of maps whose channels are last.

3x3, chosen in op.py by `suit_product` and `suit_gradient` of the files run_*:
    winograd.py       stride 1 and many edges, by an estimate of the time (run_winograd.py); transforms of maps and
                      filters, with the products between them in winograd_products.py
    lines.py          maps as they lie: lines fill vectors, or images are few, or outputs have one edge (run_lines.py)
    window.py         everything else: packed, an image to each lane (run_window.py); gradients in window_gradient.py

Beside layers: norm_op.py (IR in norms.py, norms_last.py), pool.py, scattered.py (dense weights and back); blocked.py
and winograd_blocked.py are for xnets.inference.

Tools: ir.py writes LLVM's IR, jit.py compiles it, machine_code.py keeps that on disk; threads.py runs tasks, scratch.py
has memory for them, tiles.py cuts maps; adjacency.py has a graph's tables, planned.py keeps with it what run_*
decided for each shape; forked.py has locks for forked processes.

3x3 convolutions of many edges go by Winograd's algorithm (run_winograd.py). Of these a value that is not finite, or
near the largest there is, may spoil the 4x4 tiles that read it, and all nine taps of the gradients it enters; of all
others it goes where it goes in a dense layer.
"""

import torch
from torch import Tensor

from xnets.layers.direct.jit import missing, vector_width
from xnets.layers.direct.op import apply
from xnets.layers.kernels import Convolution, Edges, is_transformed

MOST = 2**31  # numbers of a tensor: places in it are int32


VECTORS = {16: "AVX-512", 8: "AVX2"}  # by their floats; of 4 floats any 64-bit CPU has


class DirectKernel:
    """Computes along the edges; see kernels.Kernel."""

    competes = True
    device = "cpu"

    def refuses(self, x: Tensor, weight: Tensor, edges: Edges, how: Convolution | None) -> str:
        """See Kernel."""
        return why_not(x, weight, edges, how)

    def prefers(self, x: Tensor, weight: Tensor, edges: Edges, how: Convolution | None) -> bool:
        """3x3 at any compression, 1x1 and linear from 3 on: what was measured, with AVX-512 and with AVX2."""
        return (weight.dim() == 4 and weight.shape[2] > 1) or edges.index.shape[1] * 3 <= edges.n_in

    def conv2d(self, x: Tensor, weight: Tensor, bias: Tensor | None, edges: Edges, how: Convolution) -> Tensor:
        """See Kernel."""
        return _with_bias(x, weight, bias, edges, (-1, 1, 1), how.stride[0])

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, edges: Edges) -> Tensor:
        """See Kernel."""
        if x.dim() == 2:  # no view of it, whose gradient takes a while too
            return _with_bias(x, weight, bias, edges, (-1,))
        flat = x.reshape(-1, edges.n_in)
        return _with_bias(flat, weight, bias, edges, (-1,)).view(*x.shape[:-1], edges.n_out)


def vectors_here() -> str:
    """What the kernels are compiled for on this machine, in words."""
    if missing():
        return f"no direct kernels: {missing()}"
    return f"direct kernels of {vector_width()} floats a vector ({VECTORS.get(vector_width(), 'any 64-bit CPU')})"


def why_not(x: Tensor, weight: Tensor, edges: Edges, how: Convolution | None = None) -> str:
    """Why DirectKernel cannot compute this layer; "" if it can."""
    elsewhere = {t.device.type for t in (x, weight, edges.index)} - {"cpu"}
    if elsewhere:
        return f"only on a CPU, not on {' and '.join(sorted(elsewhere))}"
    if is_transformed():
        return "not under torch.func, forward-mode gradients or torch.jit.trace"
    if missing():
        return missing()
    dtypes = {_cast(x.dtype), _cast(weight.dtype)}
    if dtypes not in ({torch.float32}, {torch.bfloat16}):
        return f"only float32 or bfloat16, not {' with '.join(sorted(str(t).removeprefix('torch.') for t in dtypes))}"
    if not edges.regular:
        return "only where all outputs have one degree"
    if not edges.fit(weight):
        return "weight and graph differ in degree or outputs"
    if x.numel() == 0 or max(x.numel(), weight.numel()) >= MOST:
        return "not for empty or very large tensors"
    if not x.is_contiguous() and not (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)):
        return "only on contiguous or channels_last input"
    if how is None:
        return ""
    window = tuple(weight.shape[2:])
    if window not in ((1, 1), (3, 3)) or how.dilation != (1, 1):
        return f"only 1x1 and 3x3, not {'x'.join(map(str, window))} with dilation {how.dilation}"
    if how.padding not in {(1, 1): ((0, 0), "same", "valid"), (3, 3): ((1, 1), "same")}[window]:
        return f"not with padding {how.padding}"
    if how.stride not in ((1, 1), (2, 2)):
        return f"not with stride {how.stride}"
    return ""


def _cast(dtype: torch.dtype) -> torch.dtype:
    """What autocast makes of it in a convolution or linear layer."""
    castable = torch.is_autocast_enabled("cpu") and dtype in (torch.float32, torch.bfloat16, torch.float16)
    return torch.get_autocast_dtype("cpu") if castable else dtype


def _with_bias(
    x: Tensor, weight: Tensor, bias: Tensor | None, edges: Edges, shape: tuple[int, ...], stride: int = 1
) -> Tensor:
    dtype = _cast(x.dtype)
    x, weight = (t if t.dtype == dtype else t.to(dtype) for t in (x, weight))
    y = apply(x, weight, edges.index, stride)
    # not in place: a bias of another device or class than y is to be refused, or to decide about the result
    return y if bias is None else y + bias.to(dtype).view(shape)
