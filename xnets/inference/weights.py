"""The weight of a layer by its edges, whatever kind of layer it was; batch norms are folded into it."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from xnets.layers.depthwise import DepthwiseConv2d
from xnets.layers.expander import ExpanderConv2d, ExpanderLayer, ExpanderLinear


@dataclass
class Weights:
    """A convolution or linear layer: filters of its edges and the geometry."""

    n_in: int
    n_out: int
    outputs: Tensor  # (M,) int64, rising
    inputs: Tensor  # (M,) int64
    filters: Tensor  # (M, *window)
    bias: Tensor  # (n_out,)
    stride: tuple[int, int]
    padding: tuple[int, int] | str
    dilation: tuple[int, int]
    groups: int  # of the dense form
    sparse: bool  # whether it was an X-layer

    def fold(self, scale: Tensor, shift: Tensor) -> None:
        """Let the layer be followed by y * scale + shift."""
        s = scale[self.outputs]
        self.filters = self.filters * s.view(-1, *[1] * (self.filters.dim() - 1))
        self.bias = self.bias * scale + shift

    @cached_property
    def dense(self) -> Tensor:
        """As F.conv2d or F.linear take it; computed after the last fold."""
        per_group = self.n_in // self.groups
        weight = self.filters.new_zeros(self.n_out * per_group, *self.filters.shape[1:])
        places = self.outputs * per_group + self.inputs % per_group
        weight.index_add_(0, places, self.filters)  # an edge that stands twice adds up
        return weight.view(self.n_out, per_group, *self.filters.shape[1:])

    @property
    def window(self) -> tuple[int, ...]:
        """Size of a filter."""
        return tuple(self.filters.shape[1:])


def of_layer(layer: nn.Module, before: tuple[int, ...]) -> Weights | None:
    """The Weights of a layer whose input is (N, *before); None for other modules and for borders that are not zero."""
    kinds = {nn.Conv2d: 3, DepthwiseConv2d: 3, nn.Linear: 1, ExpanderConv2d: 3, ExpanderLinear: 1}
    if kinds.get(type(layer)) != len(before) or getattr(layer, "padding_mode", "zeros") != "zeros":
        return None
    is_conv = len(before) == 3
    if isinstance(layer, ExpanderLayer):
        filters, groups, n_in, n_out = layer.weight.detach(), 1, layer.n_in, layer.n_out
        edges = layer.edges
        if edges.regular:
            inputs = edges.index.long().repeat_interleave(edges.block, 0)
            outputs = torch.arange(n_out, device=filters.device).repeat_interleave(inputs.shape[1])
            inputs, filters = inputs.flatten(), filters.flatten(0, 1)
        else:
            order = torch.argsort(edges.index[0].long(), stable=True)
            outputs, inputs, filters = edges.index[0].long()[order], edges.index[1].long()[order], filters[order]
    else:
        weight = layer.weight.detach()
        groups = layer.groups if is_conv else 1
        n_out, per_group = weight.shape[:2]
        n_in = per_group * groups
        outputs = torch.arange(n_out, device=weight.device).repeat_interleave(per_group)
        inputs = torch.arange(per_group, device=weight.device).repeat(n_out)
        inputs = outputs // (n_out // groups) * per_group + inputs
        filters = weight.flatten(0, 1)
    bias = layer.bias.detach().clone() if layer.bias is not None else filters.new_zeros(n_out)
    geometry = (layer.stride, layer.padding, layer.dilation) if is_conv else ((1, 1), (0, 0), (1, 1))
    return Weights(
        n_in, n_out, outputs, inputs, filters.clone(), bias, *geometry, groups, isinstance(layer, ExpanderLayer)
    )


def why_dense(w: Weights) -> str:
    """Why the direct kernels cannot compute a layer; "" if they can."""
    if not w.window:  # linear
        return ""
    if w.window not in ((1, 1), (3, 3)):
        return f"the direct kernels are for 1x1 and 3x3, not {w.window[0]}x{w.window[1]}"
    border = w.window[0] // 2
    padded = w.padding == "same" if isinstance(w.padding, str) else w.padding == (border, border)
    padded = padded or (border == 0 and w.padding == "valid")
    if w.dilation != (1, 1) or w.stride not in ((1, 1), (2, 2)) or not padded:
        return f"stride {w.stride}, padding {w.padding}, dilation {w.dilation}"
    return ""
