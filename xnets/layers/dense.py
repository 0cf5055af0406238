"""The kernel that computes every layer: its weight scattered to a dense one, and torch's convolution of that."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from xnets.layers.direct import MOST, missing
from xnets.layers.kernels import ComputesAll, Convolution, Edges, check_inputs, is_watched

FEWEST_SCATTERED = 1024  # numbers of a dense weight below which torch has the shortest call


def to_dense_weight(weight: Tensor, edges: Edges) -> Tensor:
    """Scatter a condensed weight to (n_out, n_in, *k), zero where there is no edge. Its gradient is a gather."""
    if _has_scatter(weight, edges):
        from xnets.layers.direct.scattered import Scatter, scattered

        scatter = Scatter.apply if torch.is_grad_enabled() and weight.requires_grad else scattered
        return scatter(weight, edges.index, edges.n_in)
    window = weight.shape[2:] if edges.regular else weight.shape[1:]
    if weight.is_meta and not torch.is_grad_enabled():  # there are no numbers, and torch's operators are slow to say so
        return weight.new_empty(edges.n_out, edges.n_in, *window)
    if edges.regular:
        if edges.index.device.type == "cpu" and not is_watched(edges.index):
            check_inputs(edges.index, edges.n_in)  # one too large would be in the next output's row
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


def _has_scatter(weight: Tensor, edges: Edges) -> bool:
    """Whether a kernel of ours does it, several times as fast as torch's operators and to the same bits."""
    index = edges.index
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or not edges.regular or edges.double:
        return False
    if weight.layout != torch.strided or index.layout != torch.strided:
        return False
    if is_watched(weight, index) or index.device.type != "cpu" or index.dtype != torch.int32 or index.is_inference():
        return False
    if not edges.fit(weight):  # torch says what does not
        return False
    return FEWEST_SCATTERED <= edges.n_out * edges.n_in * math.prod(weight.shape[2:]) < MOST and not missing()


class DenseKernel(ComputesAll):
    """Scatter the weight to a dense one and let cuDNN, oneDNN or BLAS do the rest: correct for every case."""

    competes = True

    def conv2d(self, x: Tensor, weight: Tensor, bias: Tensor | None, edges: Edges, how: Convolution) -> Tensor:
        """See Kernel."""
        return F.conv2d(x, to_dense_weight(weight, edges), bias, how.stride, how.padding, how.dilation)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, edges: Edges) -> Tensor:
        """See Kernel."""
        return F.linear(x, to_dense_weight(weight, edges), bias)
