"""What X-Conv and X-Linear are compared with: the authors' masked layer, and MKL's sparse matrix product."""

import copy
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xnets import to_dense
from xnets.layers import ExpanderConv2d, ExpanderLayer, ExpanderLinear

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")


class MaskedConv2d(nn.Module):
    """The authors' layer: a dense weight, multiplied by a 0/1 mask in every pass."""

    def __init__(self, layer: ExpanderConv2d) -> None:
        super().__init__()
        self.dense = layer.to_dense()
        self.register_buffer("mask", (self.dense.weight != 0).to(self.dense.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """As nn.Conv2d."""
        return self.dense._conv_forward(x, self.dense.weight * self.mask, self.dense.bias)


class MaskedLinear(nn.Module):
    """The same for linear layers."""

    def __init__(self, layer: ExpanderLinear) -> None:
        super().__init__()
        self.dense = layer.to_dense()
        self.register_buffer("mask", (self.dense.weight != 0).to(self.dense.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """As nn.Linear."""
        return F.linear(x, self.dense.weight * self.mask, self.dense.bias)


def masked(layer: ExpanderLayer) -> nn.Module:
    """The authors' layer that computes what `layer` does."""
    return MaskedConv2d(layer) if isinstance(layer, ExpanderConv2d) else MaskedLinear(layer)


def masked_twin(model: nn.Module) -> nn.Module:
    """A copy of `model` with the authors' layers for the sparse ones."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, ExpanderLayer):
                setattr(parent, name, masked(child))
    return model


class CSR(nn.Module):
    """The layer as a sparse matrix for MKL: (n_out, n_in k k) times the unfolded image. Forward only, stride 1."""

    def __init__(self, layer: ExpanderLayer) -> None:
        super().__init__()
        weight = to_dense(layer).weight.detach()
        self.k = weight.shape[-1] if weight.dim() == 4 else 0
        self.matrix = weight.flatten(1).to_sparse_csr()

    def forward(self, x: Tensor) -> Tensor:
        """As the layer."""
        if not self.k:
            return (self.matrix @ x.t()).t().contiguous()
        columns = F.unfold(x, self.k, padding=self.k // 2) if self.k > 1 else x.flatten(2)
        n, rows, pixels = columns.shape
        y = self.matrix @ columns.transpose(0, 1).reshape(rows, n * pixels)
        return y.view(-1, n, pixels).transpose(0, 1).reshape(n, -1, *x.shape[2:])


def grouped(n_in: int, n_out: int, k: int, groups: int) -> nn.Conv2d | None:
    """A group convolution with as many weights, where `groups` divides the channels."""
    if n_in % groups or n_out % groups:
        return None
    return nn.Conv2d(n_in, n_out, k, padding=k // 2, groups=groups, bias=False)


def channels_last(module: nn.Module) -> nn.Module:
    """A copy in torch's NHWC layout."""
    return copy.deepcopy(module).to(memory_format=torch.channels_last)
