"""The paper's Algorithm 1, as it is printed."""

import torch
import torch.nn.functional as F
from torch import Tensor

from xnets.layers.kernels import ComputesAll, Convolution, Edges


class Algorithm1Kernel(ComputesAll):
    """The paper's Algorithm 1: for every output select its D input channels, then convolve them with its own filter.

    A reference to read and to test against: the selected channels take n_out D / n_in times the input's memory.
    """

    competes = False  # it is slow

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
