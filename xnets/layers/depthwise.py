"""Depthwise convolutions for training on a CPU."""

import functools

import torch
from torch import Tensor, fx, nn

from xnets.layers.choice import other_kernel_in_force
from xnets.layers.direct import DirectKernel, why_not
from xnets.layers.kernels import FEWEST_NUMBERS, Convolution, Edges, is_watched


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise 3x3 nn.Conv2d that computes contiguous images on a CPU by the direct kernels.

    Each output has one edge, to the input of its number. torch's operator takes several times as long where channels
    are not last. Everything else is torch's, and so is all while xnets.kernels("dense") is in force.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        n, bias = conv.in_channels, conv.bias is not None
        super().__init__(n, n, 3, conv.stride, conv.padding, groups=n, bias=bias, device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        self.train(conv.training)

    @property
    def edges(self) -> Edges:
        """The graph: each output with its input."""
        return Edges(_own(self.in_channels), self.in_channels, self.out_channels, regular=True, block=1, double=False)

    @property
    def how(self) -> Convolution:
        """The convolution's geometry."""
        return Convolution(self.stride, self.padding, self.dilation)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H / stride, W / stride), rounded up."""
        weight, bias = self.weight, self.bias  # once: a parametrised one is computed anew each time
        if self._why_not(x, weight):
            return self._conv_forward(x, weight, bias)
        return DirectKernel().conv2d(x, weight, bias, self.edges, self.how)

    def why_not(self, x: Tensor) -> str:
        """Why torch's operator computes this batch, in a few words; "" if our kernel does."""
        return self._why_not(x, self.weight)

    def _why_not(self, x: Tensor, weight: Tensor) -> str:
        if isinstance(x, fx.Proxy) or is_watched(x, weight):
            return "not under torch.compile, torch.export, torch.fx, torch.func, fake tensors or a profiler"
        if self.padding_mode != "zeros":
            return "only with zeros for padding"
        if other := other_kernel_in_force():
            return other
        if x.dim() != 4 or x.shape[1] != self.in_channels or not x.is_contiguous():
            return f"only for contiguous batches of {self.in_channels} channels"
        if x.numel() < FEWEST_NUMBERS:
            return "not for small batches"
        return why_not(x, weight, self.edges, self.how)


@functools.cache
def _own(channels: int) -> Tensor:
    """Each output's input. No buffer of the layer: who averages, moves or empties those would change the graph."""
    with torch.inference_mode(False):  # gradients could not be computed with what is made in it
        return torch.arange(channels, dtype=torch.int32, device="cpu").unsqueeze(1)


def is_depthwise(conv: nn.Module) -> bool:
    """Whether DepthwiseConv2d computes the same."""
    if type(conv) is not nn.Conv2d or not conv.in_channels == conv.out_channels == conv.groups:
        return False
    same = (conv.kernel_size, conv.padding, conv.dilation, conv.padding_mode)
    return same == ((3, 3), (1, 1), (1, 1), "zeros") and conv.stride in ((1, 1), (2, 2))
