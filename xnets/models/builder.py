"""Makes the layers of a network: dense, expander or grouped, by one rule for the whole network."""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from xnets.errors import XNetsError
from xnets.graphs import find_construction
from xnets.layers import ExpanderConv2d, ExpanderLinear
from xnets.layers.initialise import checked_init, initialise_convolution
from xnets.seeds import derive_seed


@dataclass
class Builder:
    """Hands out layers to a network's definition, which names the role of each.

    Args:
        kind: "" (dense), "X" (expander) or "G" (grouped).
        compression: C of an X- network or g of a G- network; networks that state degrees layer by layer have none.
        dense_roles: roles that stay dense, e.g. {"first", "last"}.
        graph: a name in xnets.graphs.CONSTRUCTIONS.
        graph_seed: layer i draws its graph with the seed derived from (graph_seed, i).
        conv_init, linear_init: rules of xnets.layers.initialise, for convolutions and for expander linear layers.
        narrow: divides every width and every stated degree, for trying things out on small machines.
        drop_strides: the first so many stride-2 steps (strided convolutions, pooling) keep the map's size instead,
            for images smaller than the network was made for.
        device: where the parameters live.
    """

    kind: str = ""
    compression: int | None = None
    dense_roles: frozenset[str] = frozenset({"first", "last"})
    graph: str = "random"
    graph_seed: int = 0
    conv_init: str = "torch"
    linear_init: str = "torch"
    narrow: int = 1
    drop_strides: int = 0
    device: Any = None
    _layers: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        find_construction(self.graph)  # a dense network too: the name is part of a run
        checked_init(self.conv_init)
        checked_init(self.linear_init)
        if self.narrow < 1 or self.drop_strides < 0:
            raise XNetsError(f"narrow must be >= 1 and drop_strides >= 0, not {self.narrow} and {self.drop_strides}.")

    def width(self, channels: int) -> int:
        """`channels` of the full network, narrowed."""
        if channels < self.narrow:
            raise XNetsError(f"A layer of {channels} channels cannot be narrowed {self.narrow} times.")
        return channels // self.narrow

    def conv(
        self, n_in: int, n_out: int, kernel: int, stride: int = 1, *, role: str = "body", degree: int | None = None,
        bias: bool = False, padding: int | None = None,
    ) -> nn.Module:  # fmt: skip
        """A convolution n_in -> n_out that keeps the map's size but for its stride. Expander layers have no bias."""
        kept_stride = self.stride(stride)
        padding = kernel // 2 if padding is None or kept_stride != stride else padding
        sparse = self._sparse(n_in, role, degree)
        if sparse and self.kind == "X":
            return ExpanderConv2d(
                n_in, n_out, kernel, kept_stride, padding, bias=False, **sparse, **self._graph(), init=self.conv_init
            )
        groups = self.compression if sparse else 1
        return self._plain_conv(n_in, n_out, kernel, kept_stride, padding, groups, bias)

    def depthwise(self, channels: int, stride: int) -> nn.Conv2d:
        """A 3x3 convolution of each channel by itself."""
        return self._plain_conv(channels, channels, 3, self.stride(stride), 1, channels, bias=False)

    def linear(self, n_in: int, n_out: int, *, role: str = "body", degree: int | None = None) -> nn.Module:
        """A linear layer: expander without bias, or dense with one."""
        sparse = self._sparse(n_in, role, degree)
        if sparse and self.kind == "X":
            return ExpanderLinear(n_in, n_out, bias=False, **sparse, **self._graph(), init=self.linear_init)
        return nn.Linear(n_in, n_out, device=self.device)

    def stride(self, stride: int) -> int:
        """`stride`, or 1 while there are strides left to drop."""
        if stride > 1 and self.drop_strides > 0:
            self.drop_strides -= 1
            return 1
        return stride

    def pool(self, layer: nn.Module) -> nn.Module:
        """`layer`, a pooling that halves the map, or nothing while there are strides left to drop."""
        return layer if self.stride(2) == 2 else nn.Identity()

    def _sparse(self, n_in: int, role: str, degree: int | None) -> dict[str, int]:
        """What tells an expander layer its degree; empty where the layer is dense."""
        if not self.kind or role in self.dense_roles:
            return {}
        if self.compression is not None:
            return {"compression": self.compression}
        if degree is None or degree >= n_in:
            return {}  # as the authors: sparse only if the degree is below the fan-in
        return {"degree": degree}

    def _graph(self) -> dict[str, Any]:
        self._layers += 1
        return {
            "graph": self.graph, "seed": derive_seed(self.graph_seed, "layer", self._layers - 1), "device": self.device
        }  # fmt: skip

    def _plain_conv(
        self, n_in: int, n_out: int, kernel: int, stride: int, padding: int, groups: int, bias: bool
    ) -> nn.Conv2d:
        if n_in % groups or n_out % groups:
            raise XNetsError(f"{groups} groups do not divide a layer of {n_in} inputs and {n_out} outputs.")
        layer = nn.Conv2d(n_in, n_out, kernel, stride, padding, groups=groups, bias=bias, device=self.device)
        if self.conv_init != "torch" and not layer.weight.is_meta:
            initialise_convolution(layer, self.conv_init)
        return layer


def norm_relu(builder: Builder, channels: int) -> list[nn.Module]:
    """Batch normalisation, then ReLU."""
    return [nn.BatchNorm2d(channels, device=builder.device), nn.ReLU(inplace=True)]
