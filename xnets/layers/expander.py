"""X-Conv and X-Linear (paper, sections 3.2 and 4): drop-in for nn.Conv2d and nn.Linear, one filter per edge."""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from xnets.errors import XNetsError
from xnets.graphs import CONSTRUCTIONS, BipartiteGraph, find_construction, sample_graph
from xnets.layers.choice import AUTO, Call, checked_kernel, compute
from xnets.layers.dense import to_dense_weight
from xnets.layers.initialise import checked_init, initialise_expander
from xnets.layers.kernels import Convolution, Edges
from xnets.seeds import checked_seed

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class ExpanderLayer(nn.Module):
    """What X-Conv and X-Linear share: the graph, the condensed weight, its initialisation.

    state_dict holds `weight`, `bias` and the graph (`neighbours`); there is no mask and no dense weight. Another graph
    comes by load_state_dict or by writing to `neighbours`. What torch's own counter of writes does not see (through
    `.data` or numpy, by torch.distributed's broadcast) kernels that have computed the layer before do not see either.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    neighbours: Tensor

    def __init__(
        self,
        n_in: int,
        n_out: int,
        window: tuple[int, ...],
        bias: bool,
        degree: int | None,
        compression: int | None,
        graph: BipartiteGraph | str,
        seed: int | None,
        block: int,
        init: str,
        kernel: str,
        device: Any,
        dtype: Any,
    ) -> None:
        super().__init__()
        self.n_in, self.n_out, self.window, self.block = n_in, n_out, window, block
        self.init, self.kernel = checked_init(init), checked_kernel(kernel)
        if block < 1 or n_out % block:
            raise XNetsError(f"block must divide the {n_out} outputs, and {block} does not.")
        if isinstance(graph, BipartiteGraph):
            if (degree, compression, seed) != (None, None, None):
                raise XNetsError("Give a graph, or a degree or compression and a seed to sample one with, not both.")
            self._given, self.construction, self.seed = graph, graph.construction, graph.seed
            degree = graph.degree
            self._check_given(graph)
        else:
            if seed is None:  # follows torch.manual_seed, and is kept in `seed` so that the graph can be drawn again
                seed = int(torch.randint(2**62, (), device="cpu").item())
            drawn = find_construction(graph)
            self._given, self.construction, self.seed = None, graph, checked_seed(seed, "graph seed")
            degree = self._chosen_degree(degree, compression)
        # A meta tensor has no values, so a regular graph need not be sampled for it; to_empty() and
        # reset_parameters() draw it later.
        on_meta = torch.device(device or torch.get_default_device()).type == "meta"
        self._drawn_degree = degree
        sampled = None if on_meta and self._given is None and drawn.regular else self._sample()
        if sampled is None:
            self.regular, self._double_edges = True, drawn.may_repeat
        else:  # where inputs draw, the outputs' degrees may agree by luck; shapes do not hang on that
            by = CONSTRUCTIONS.get(sampled.construction)
            self.regular = sampled.degree is not None and (by is None or by.regular)
            self._double_edges = sampled.has_double_edges
        if block > 1 and not self.regular:
            raise XNetsError("block > 1 needs a graph whose outputs all have the same degree.")
        self.degree = degree if self.regular else None
        filters = (n_out, degree) if self.regular else (sampled.n_edges,)
        index = (n_out // block, degree) if self.regular else (2, sampled.n_edges)
        self.weight = nn.Parameter(torch.empty(*filters, *window, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(n_out, device=device, dtype=dtype)) if bias else None
        self.register_buffer("neighbours", torch.zeros(index, dtype=torch.int32, device=device))
        if not on_meta:
            self.neighbours.copy_(self._index(sampled))
            self.reset_weights()

    def _check_given(self, graph: BipartiteGraph) -> None:
        rows = self.n_out // self.block
        if (graph.n_in, graph.n_out) != (self.n_in, rows):
            raise XNetsError(
                f"The graph has {graph.n_in} inputs and {graph.n_out} outputs, the layer needs {self.n_in} and {rows}."
            )
        if not graph.n_edges:
            raise XNetsError("The graph has no edges.")

    def _chosen_degree(self, degree: int | None, compression: int | None) -> int:
        if (degree is None) == (compression is None):
            raise XNetsError("Give exactly one of degree (inputs of an output) and compression (n_in // degree).")
        # where inputs draw, the degree is an input's: the outputs it feeds
        by_input = find_construction(self.construction).drawn_by == "input"
        most = self.n_out // self.block if by_input else self.n_in
        if degree is None:
            if not 1 <= compression <= most:
                raise XNetsError(
                    f"compression {compression} does not fit a layer with fan-in {most}: "
                    f"choose between 1 and {most}, or keep this layer dense."
                )
            degree = most // compression
        if not 1 <= degree <= most:
            raise XNetsError(f"degree must lie between 1 and the layer's fan-in {most}, not {degree}.")
        return degree

    def _sample(self) -> BipartiteGraph:
        if self._given is not None:
            return self._given
        return sample_graph(self.construction, self.n_in, self.n_out // self.block, self._drawn_degree, self.seed)

    def _index(self, graph: BipartiteGraph) -> Tensor:
        index = graph.neighbours if self.regular else np.stack([graph.outputs, graph.indices])
        return torch.from_numpy(index.copy())

    @property
    def graph(self) -> BipartiteGraph:
        """The layer's graph, (n_in, n_out / block), read from `neighbours`, so right after load_state_dict too."""
        index = self.neighbours.cpu().numpy()
        if self.regular:
            return BipartiteGraph.from_neighbours(index, self.n_in, self.seed, self.construction)
        return BipartiteGraph.from_edges(index[1], index[0], self.n_in, self.n_out, self.seed, self.construction)

    @property
    def edges(self) -> Edges:
        """The graph as the kernels take it."""
        return Edges(self.neighbours, self.n_in, self.n_out, self.regular, self.block, self._double_edges)

    def reset_parameters(self) -> None:
        """Draw the graph again from its seed (after to_empty() it has no values) and initialise the weights."""
        self.neighbours.copy_(self._index(self._sample()))
        self.reset_weights()

    def reset_weights(self) -> None:
        """Initialise weight and bias by the rule `self.init`; see xnets.layers.initialise."""
        window = math.prod(self.window)
        if self.regular:
            fan_in = float(self.degree * window)
        else:
            outputs = self.neighbours[0].long()
            fan_in = torch.bincount(outputs, minlength=self.n_out)[outputs].to(self.weight.dtype) * window
        dense_fan = self.n_out * window if isinstance(self, ExpanderConv2d) else self.n_in
        initialise_expander(self.weight, self.bias, self.init, fan_in, dense_fan)

    def dense_weight(self) -> Tensor:
        """The equivalent weight of nn.Conv2d or nn.Linear, (n_out, n_in, *k), zero where there is no edge."""
        return to_dense_weight(self.weight, self.edges)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        index = state_dict.get(prefix + "neighbours")
        if index is None or index.is_meta or index.shape != self.neighbours.shape:
            super()._load_from_state_dict(state_dict, prefix, *args)
            return  # torch reports what is missing or has another shape
        most = torch.tensor(self.n_in) if self.regular else torch.tensor([[self.n_out], [self.n_in]])
        if not ((index.cpu() >= 0) & (index.cpu() < most)).all():
            raise XNetsError(f"{prefix}neighbours names channels this layer does not have: the checkpoint is damaged.")
        before = self._index(self._sample()) if self.neighbours.is_meta else self.neighbours.cpu().clone()
        super()._load_from_state_dict(state_dict, prefix, *args)
        if self.neighbours.is_meta:
            return  # torch has warned that nothing is loaded without assign=True
        self._double_edges = self.graph.has_double_edges
        if not (self.neighbours.cpu() == before).all():  # the checkpoint's graph, not the one drawn here
            self.seed, self.construction, self._given = None, "loaded", None
            self._given = self.graph

    def _describe(self) -> str:
        connections = f"degree={self.degree}" if self.regular else f"edges={self.weight.shape[0]}"
        block = f", block={self.block}" if self.block > 1 else ""
        return f"{connections}, graph={self.construction!r}, seed={self.seed}{block}, bias={self.bias is not None}"


class ExpanderConv2d(ExpanderLayer):
    """X-Conv: a convolution whose output channels each see D input channels, chosen by a random expander graph.

    Takes nn.Conv2d's arguments (but groups) and one of degree, compression or a graph. Input (N, C_in, H, W) or
    (C_in, H, W), output (N, C_out, H', W'), as nn.Conv2d. weight is (C_out, D, k, k).

    Args:
        degree: D, the inputs of each output.
        compression: C; D = floor(C_in / C).
        graph: a BipartiteGraph (C_in, C_out / block), or the name of a construction in xnets.graphs.CONSTRUCTIONS.
        seed: graph seed; left out, it follows torch.manual_seed. `layer.seed` has it.
        block: outputs that share one list of neighbours: 1 for the paper's graphs.
        init: "torch", "sparse-aware" or "authors"; see xnets.layers.initialise.
        kernel: "auto" (the fastest on this machine, measured once), or a name in xnets.layers.KERNELS; where that one
            cannot compute the layer, "dense" does.

    Raises:
        XNetsError: a compression or degree that does not fit the fan-in, a graph of another size, unknown names.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        degree: int | None = None,
        compression: int | None = None,
        graph: BipartiteGraph | str = "random",
        seed: int | None = None,
        block: int = 1,
        init: str = "torch",
        kernel: str = AUTO,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        window = _pair(kernel_size)
        if min(window) < 1:
            raise XNetsError(f"kernel_size must be at least 1, not {kernel_size}.")
        super().__init__(
            in_channels, out_channels, window, bias, degree, compression, graph, seed, block, init, kernel,
            device, dtype,
        )  # fmt: skip
        if padding_mode not in PADDING_MODES:
            raise XNetsError(f"padding_mode must be one of {', '.join(PADDING_MODES)}, not {padding_mode!r}.")
        if isinstance(padding, str) and (
            padding not in ("same", "valid") or (padding == "same" and _pair(stride) != (1, 1))
        ):
            raise XNetsError(f"padding must be numbers, 'valid', or 'same' with stride 1, not {padding!r}.")
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, window
        self.stride, self.dilation, self.padding_mode = _pair(stride), _pair(dilation), padding_mode
        self.padding = padding if isinstance(padding, str) else _pair(padding)

    def call(self, x: Tensor) -> Call:
        """What a kernel is asked to compute for x (N, C_in, H, W)."""
        padding = self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, self._border(), mode=self.padding_mode), (0, 0)
        return Call(x, self.weight, self.bias, self.edges, Convolution(self.stride, padding, self.dilation))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) or (C_in, H, W) -> the same with C_out channels."""
        if x.dim() not in (3, 4) or x.shape[-3] != self.in_channels:
            raise XNetsError(f"Expected input ([N,] {self.in_channels}, H, W), not {tuple(x.shape)}.")
        if x.dim() == 3:
            return compute(self.kernel, self.call(x.unsqueeze(0))).squeeze(0)
        return compute(self.kernel, self.call(x))

    def _border(self) -> list[int]:
        """Left, right, top, bottom, for F.pad."""
        if self.padding == "valid":
            return [0, 0, 0, 0]
        if self.padding == "same":
            totals = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return [totals[1] // 2, totals[1] - totals[1] // 2, totals[0] // 2, totals[0] - totals[0] // 2]
        return [self.padding[1], self.padding[1], self.padding[0], self.padding[0]]

    @torch.no_grad()
    def to_dense(self) -> nn.Conv2d:
        """The same function as an nn.Conv2d, for deployment."""
        layer = nn.Conv2d(
            self.in_channels, self.out_channels, self.kernel_size, self.stride, self.padding, self.dilation,
            bias=self.bias is not None, padding_mode=self.padding_mode, device=self.weight.device,
            dtype=self.weight.dtype,
        )  # fmt: skip
        return _filled(layer, self)

    def extra_repr(self) -> str:
        """Shown when the layer is printed."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, {self._describe()}"
        )


class ExpanderLinear(ExpanderLayer):
    """X-Linear: a linear layer whose outputs each see D inputs, chosen by a random expander graph.

    Input (..., in_features), output (..., out_features). weight is (out_features, D). The other arguments and the
    errors are ExpanderConv2d's.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        degree: int | None = None,
        compression: int | None = None,
        graph: BipartiteGraph | str = "random",
        seed: int | None = None,
        block: int = 1,
        init: str = "torch",
        kernel: str = AUTO,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_features, out_features, (), bias, degree, compression, graph, seed, block, init, kernel, device, dtype
        )
        self.in_features, self.out_features = in_features, out_features

    def call(self, x: Tensor) -> Call:
        """What a kernel is asked to compute for x (..., in_features)."""
        return Call(x, self.weight, self.bias, self.edges, None)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        if x.shape[-1:] != (self.in_features,):
            raise XNetsError(f"Expected input (..., {self.in_features}), not {tuple(x.shape)}.")
        return compute(self.kernel, self.call(x))

    @torch.no_grad()
    def to_dense(self) -> nn.Linear:
        """The same function as an nn.Linear, for deployment."""
        layer = nn.Linear(
            self.in_features, self.out_features, self.bias is not None, self.weight.device, self.weight.dtype
        )
        return _filled(layer, self)

    def extra_repr(self) -> str:
        """Shown when the layer is printed."""
        return f"{self.in_features}, {self.out_features}, {self._describe()}"


def _filled(dense: nn.Module, layer: ExpanderLayer) -> nn.Module:
    dense.weight.copy_(layer.dense_weight())
    if layer.bias is not None:
        dense.bias.copy_(layer.bias)
    dense.train(layer.training)
    dense.requires_grad_(layer.weight.requires_grad)
    return dense
