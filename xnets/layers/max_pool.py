"""Max pooling for training on a CPU."""

import torch
from torch import Tensor, nn

from xnets.layers.choice import other_kernel_in_force
from xnets.layers.direct import MOST, missing
from xnets.layers.kernels import FEWEST_NUMBERS, is_watched


class MaxPool(nn.MaxPool2d):
    """nn.MaxPool2d(2) that computes contiguous float32 images on a CPU by a kernel of ours, to the same bits.

    torch's takes several times as long where channels are not last, and keeps eight bytes for each maximum, not one.
    Everything else is torch's, and so is all while xnets.kernels("dense") is in force.
    """

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H // 2, W // 2)."""
        if self.why_not(x):
            return super().forward(x)
        from xnets.layers.direct.pool import MaxPool2x2

        return MaxPool2x2.apply(x)

    def why_not(self, x: Tensor) -> str:
        """Why torch's operator computes this batch, in a few words; "" if our kernel does."""
        if other := other_kernel_in_force():
            return other
        if x.device.type != "cpu" or x.dtype != torch.float32:
            return f"only float32 on a CPU, not {str(x.dtype).removeprefix('torch.')} on {x.device.type}"
        if x.dim() != 4 or not x.is_contiguous():
            return "only for contiguous batches"
        if not FEWEST_NUMBERS <= x.numel() < MOST or min(x.shape[2:]) < 2:
            return "not for small or very large batches"
        if is_watched(x):
            return "not under torch.compile, torch.func, forward-mode gradients, torch.jit.trace or a profiler"
        return missing()


def is_replaceable(pool: nn.Module) -> bool:
    """Whether MaxPool computes the same."""
    if type(pool) is not nn.MaxPool2d or pool.return_indices or pool.ceil_mode:
        return False
    sizes = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    pairs = [(n, n) if isinstance(n, int) else tuple(n) for n in sizes]
    return pairs == [(2, 2), (2, 2), (0, 0), (1, 1)]
