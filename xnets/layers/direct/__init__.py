"""Kernels for CPUs that take the sparse graph as it is: compiled for the machine at run time, by llvmlite.

AVAILABLE says whether llvmlite is installed (`pip install xnets[fast]`). fp32, 1x1 and 3x3 convolutions of stride 1
or 2 whose padding keeps the image's size (or halves it), and linear layers; everything else is the dense kernel's.
"""

import importlib.util

import torch
from torch import Tensor

from xnets.layers.kernels import Convolution, DenseKernel, Edges

try:
    AVAILABLE = importlib.util.find_spec("llvmlite") is not None
except ValueError:  # a module masked by None has no spec
    AVAILABLE = False
MOST = 2**31  # positions are int32


class DirectKernel:
    """Computes along the edges; hands what it does not cover to DenseKernel. See kernels.Kernel."""

    def __init__(self) -> None:
        self.dense = DenseKernel()

    def conv2d(self, x: Tensor, weight: Tensor, bias: Tensor | None, edges: Edges, how: Convolution) -> Tensor:
        """See Kernel."""
        if not supports(x, weight, edges, how):
            return self.dense.conv2d(x, weight, bias, edges, how)
        return _with_bias(x, weight, bias, edges, (-1, 1, 1), how.stride[0])

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, edges: Edges) -> Tensor:
        """See Kernel."""
        if not supports(x, weight, edges):
            return self.dense.linear(x, weight, bias, edges)
        flat = x.reshape(-1, edges.n_in)
        return _with_bias(flat, weight, bias, edges, (-1,)).view(*x.shape[:-1], edges.n_out)


def supports(x: Tensor, weight: Tensor, edges: Edges, how: Convolution | None = None) -> bool:
    """Whether DirectKernel computes this layer itself."""
    plain = x.dtype == weight.dtype == torch.float32 and x.device.type == weight.device.type == "cpu"
    if not plain or not edges.regular or torch.is_autocast_enabled("cpu"):
        return False
    if not x.is_contiguous() or x.numel() == 0 or max(x.numel(), weight.numel()) >= MOST:
        return False
    if how is None:
        return True
    window = tuple(weight.shape[2:])
    keeps = {(1, 1): ((0, 0), "same", "valid"), (3, 3): ((1, 1), "same")}.get(window, ())
    return how.stride in ((1, 1), (2, 2)) and how.dilation == (1, 1) and how.padding in keeps


def _with_bias(
    x: Tensor, weight: Tensor, bias: Tensor | None, edges: Edges, shape: tuple[int, ...], stride: int = 1
) -> Tensor:
    from xnets.layers.direct.op import direct

    y = direct(x, weight, edges.index, stride)
    return y if bias is None else y + bias.view(shape)
