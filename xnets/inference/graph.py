"""A network in eval mode as a list of nodes, each of a kind the planner knows, or left as it is.

Nodes have no side effects: an in-place operation is a node of its own, and who read its argument after it reads it.
"""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from xnets.errors import XNetsError
from xnets.inference.weights import Weights, of_layer
from xnets.layers.depthwise import DepthwiseConv2d
from xnets.layers.expander import ExpanderLayer
from xnets.layers.max_pool import MaxPool
from xnets.layers.norm_relu import NormReLU

# one number of the output from one of the input, whatever the layout
ELEMENTWISE_MODULES = (
    nn.ReLU6, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.LeakyReLU, nn.ELU,
)  # fmt: skip
ELEMENTWISE_FUNCTIONS = (
    F.relu6, F.silu, F.gelu, torch.sigmoid, torch.tanh, F.sigmoid, F.tanh, F.hardswish, F.hardsigmoid, F.hardtanh,
    F.leaky_relu, F.elu,
)  # fmt: skip


@dataclass(eq=False)
class Node:
    """One value of the network and how it is made.

    kind: "input", "conv", "linear", "norm" (scale and shift of each channel), "relu", "add", "cat" (of channels),
    "pool", "mean" (of each channel, to 1x1), "flatten", "elementwise", or "other".
    """

    kind: str
    name: str
    inputs: list["Node"] = field(repr=False)  # whose inputs have inputs
    shape: tuple[int, ...] | None  # of one image; None if it is no tensor of the example's dtype and batch
    weights: Weights | None = None  # of conv and linear
    scale: Tensor | None = None  # of norm
    shift: Tensor | None = None
    relu: bool = False  # after conv, linear, norm, add
    pooled: bool = False  # conv: and then the maximum of each 2 x 2 pixels, which `shape` counts
    pooling: tuple[bool, int, int, int] | None = None  # largest?, window, stride, padding
    module: nn.Module | None = None  # of elementwise and other
    call: "_AsNode | None" = None  # of elementwise and other
    users: list["Node"] = field(default_factory=list, repr=False)


@dataclass
class Network:
    """All nodes in the order they are computed; `result` is what the network returns, in terms of nodes."""

    nodes: list[Node]
    result: Any
    attributes: dict[str, Any]  # parameters and buffers that "other" nodes read

    def link(self) -> None:
        """Fill in users; the result counts as None among them."""
        for node in self.nodes:
            node.users = []
        for node in self.nodes:
            for i in node.inputs:
                i.users.append(node)
        for node in nodes_in(self.result):
            node.users.append(None)


def nodes_in(value: Any) -> list[Node]:
    """The nodes in a structure of tuples, lists, dicts and slices."""
    found: list[Node] = []
    mapped(value, lambda node: found.append(node))
    return found


def mapped(value: Any, function: Callable[[Node], Any]) -> Any:
    """The structure with function(node) for each node."""
    if isinstance(value, Node):
        return function(value)
    if isinstance(value, (tuple, list)):
        inner = [mapped(v, function) for v in value]
        return type(value)(*inner) if hasattr(value, "_fields") else type(value)(inner)
    if isinstance(value, dict):
        return {k: mapped(v, function) for k, v in value.items()}
    if isinstance(value, slice):
        return slice(*(mapped(v, function) for v in (value.start, value.stop, value.step)))
    return value


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        ours = (DepthwiseConv2d, ExpanderLayer, MaxPool, NormReLU)
        return isinstance(m, ours) or super().is_leaf_module(m, module_qualified_name)


class _Shapes(fx.Interpreter):
    """Runs the network once and keeps the shape of each value that is a tensor with the example's dtype and batch."""

    def __init__(self, module: fx.GraphModule, example: Tensor) -> None:
        super().__init__(module)
        self.batch, self.dtype, self.shapes = example.shape[0], example.dtype, {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.dim() and value.shape[0] == self.batch and value.dtype == self.dtype:
            self.shapes[n] = tuple(value.shape[1:])
        return value


def traced(model: nn.Module, example: Tensor) -> Network:
    """The nodes of `model`, which is in eval mode. Raises XNetsError if torch.fx cannot follow its forward."""
    try:
        graph = _Tracer().trace(model)
        module = fx.GraphModule(model, graph)
    except Exception as error:  # whatever the model's own code raises when it meets a proxy
        raise XNetsError(
            f"torch.fx cannot trace this network ({type(error).__name__}: {str(error).splitlines()[0]}): its forward "
            "must not depend on the values of tensors."
        ) from error
    if sum(n.op == "placeholder" for n in graph.nodes) != 1:
        raise XNetsError("for_inference takes networks with one input, a batch of images.")
    interpreter = _Shapes(module, example)
    with torch.no_grad():
        interpreter.run(example.clone())
    return _translated(module, interpreter.shapes)


def _translated(module: fx.GraphModule, shapes: dict[fx.Node, tuple[int, ...]]) -> Network:
    modules = dict(module.named_modules())
    now: dict[fx.Node, Node] = {}  # the node that holds a value, after in-place operations on it
    nodes: list[Node] = []
    attributes: dict[str, Any] = {}
    result: Any = None
    for n in module.graph.nodes:
        if n.op == "output":
            result = _plain(n.args[0], now)
            continue
        layer = modules.get(n.target) if n.op == "call_module" else None
        if n.op == "get_attr":
            attributes[n.target] = operator.attrgetter(n.target)(module)
        inputs = [now[a] for a in n.all_input_nodes]
        node = _node(n, layer, inputs, shapes)
        if node is None:  # does nothing
            now[n] = inputs[0]
            continue
        nodes.append(node)
        now[n] = node
        if _in_place(n, layer):
            old = now[n.args[0]]
            for key in [k for k, v in now.items() if v is old]:
                now[key] = node
    return Network(nodes, result, attributes)


def _plain(value: Any, now: dict[fx.Node, Node]) -> Any:
    """fx's own containers as Python's, its nodes as ours."""
    if isinstance(value, fx.Node):
        return now[value]
    if isinstance(value, dict):
        return {k: _plain(v, now) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        inner = [_plain(v, now) for v in value]
        return type(value)(*inner) if hasattr(value, "_fields") else tuple(inner) if isinstance(value, tuple) else inner
    if isinstance(value, slice):
        return slice(*(_plain(v, now) for v in (value.start, value.stop, value.step)))
    return value


def _in_place(n: fx.Node, layer: nn.Module | None) -> bool:
    if getattr(layer, "inplace", False) or (n.op != "call_module" and n.kwargs.get("inplace") is True):
        return True
    if n.op == "call_function":
        name = getattr(n.target, "__name__", "")
        return n.target in (operator.iadd, operator.imul, operator.isub) or name in ("relu_", "add_")
    return n.op == "call_method" and n.target.endswith("_") and not n.target.startswith("__")


def _node(n: fx.Node, layer: nn.Module | None, inputs: list[Node], shapes: dict) -> Node | None:
    """The node of an fx node; None if it only passes its input on."""
    shape = shapes.get(n)
    name = n.target if n.op in ("call_module", "get_attr") else n.name
    if n.op == "placeholder":
        return Node("input", name, [], shape)
    known = None
    if shape is not None and inputs and all(i.shape is not None for i in inputs):
        known = _module(layer, shape, inputs[0].shape) if layer is not None else _call(n, shape, inputs)
    if known == "nothing":
        return None
    if known is None:
        return Node("other", name, inputs, shape, module=layer, call=_AsNode(n, inputs))
    return Node(name=name, inputs=inputs, shape=shape, **known)


class _AsNode:
    """What an fx node calls, with our nodes for arguments: free of the fx graph, so that it can be pickled."""

    def __init__(self, n: fx.Node, inputs: list[Node]) -> None:
        self.op, self.target = n.op, n.target
        ours = dict(zip(n.all_input_nodes, inputs, strict=True))
        self.args, self.kwargs = _plain(n.args, ours), _plain(n.kwargs, ours)


def _module(layer: nn.Module, shape: tuple[int, ...], before: tuple[int, ...]) -> dict | str | None:
    if layer._forward_hooks or layer._forward_pre_hooks:  # what they do is not known
        return None
    if isinstance(layer, (nn.Identity, nn.Dropout, nn.Dropout2d)) or (
        isinstance(layer, nn.AdaptiveAvgPool2d) and shape == before
    ):
        return "nothing"
    weights = of_layer(layer, before)
    if weights is not None:
        return {"kind": "conv" if len(shape) == 3 else "linear", "weights": weights}
    if type(layer) in (nn.BatchNorm2d, nn.BatchNorm1d, NormReLU) and layer.running_var is not None:
        scale = (layer.running_var.double() + layer.eps).rsqrt()
        scale = scale * layer.weight.double() if layer.weight is not None else scale
        shift = -layer.running_mean.double() * scale
        shift = shift + layer.bias.double() if layer.bias is not None else shift
        dtype = layer.running_var.dtype
        relu = getattr(layer, "relu", False)
        return {"kind": "norm", "scale": scale.to(dtype), "shift": shift.to(dtype), "relu": relu}
    if type(layer) is nn.ReLU:
        return {"kind": "relu"}
    if type(layer) in (nn.MaxPool2d, MaxPool) and not layer.return_indices:
        return _pooling(True, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode)
    if type(layer) is nn.AvgPool2d and layer.divisor_override is None:
        return _pooling(False, layer.kernel_size, layer.stride, layer.padding, 1, layer.ceil_mode)
    if type(layer) is nn.AdaptiveAvgPool2d and shape[1:] == (1, 1):
        return {"kind": "mean"}
    if type(layer) is nn.Flatten and (layer.start_dim, len(shape)) == (1, 1):
        return {"kind": "flatten"}
    if type(layer) in ELEMENTWISE_MODULES and len(shape) == 3:
        return {"kind": "elementwise", "module": layer}
    return None


def _call(n: fx.Node, shape: tuple[int, ...], inputs: list[Node]) -> dict | str | None:
    """Functions and methods; `inputs` are those of its arguments that are values."""
    target = n.target if n.op == "call_function" else getattr(torch.Tensor, n.target, None)
    before = inputs[0].shape
    alone = len(n.all_input_nodes) == 1 and n.args and n.args[0] is n.all_input_nodes[0]
    if target in (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_) and alone:
        return {"kind": "relu"}
    if target in (F.dropout, F.dropout2d) and alone:
        training = n.args[2] if len(n.args) > 2 else n.kwargs.get("training", True)
        return "nothing" if training is False else None
    adds = (operator.add, operator.iadd, torch.add, Tensor.add, Tensor.add_)
    if target in adds and len(inputs) == len(n.args) == 2 and not n.kwargs and shape == before == inputs[1].shape:
        return {"kind": "add"}
    if target in (torch.cat, torch.concat) and len(shape) == 3:
        dim = n.args[1] if len(n.args) > 1 else n.kwargs.get("dim", 0)
        same = len(n.args[0]) == len(inputs) and sum(i.shape[0] for i in inputs) == shape[0]
        return {"kind": "cat"} if dim in (1, -3) and same else None
    if target is torch.flatten or target is Tensor.flatten:
        return {"kind": "flatten"} if n.args[1:] == (1,) and not n.kwargs and len(shape) == 1 else None
    if target is F.adaptive_avg_pool2d and alone:
        return "nothing" if shape == before else {"kind": "mean"} if shape[1:] == (1, 1) else None
    if target in (Tensor.mean, torch.mean) and alone and len(before) == 3:
        dims = n.args[1] if len(n.args) > 1 else n.kwargs.get("dim")
        dims = sorted(d % 4 for d in dims) if isinstance(dims, (tuple, list)) else None
        if dims == [2, 3]:
            return {"kind": "mean"}
    if target in (F.max_pool2d, torch.max_pool2d) and alone:
        given = dict(zip(("kernel_size", "stride", "padding", "dilation", "ceil_mode"), n.args[1:], strict=False))
        given |= n.kwargs
        if given.pop("return_indices", False) is False:
            size = given["kernel_size"]
            return _pooling(
                True, size, given.get("stride") or size, given.get("padding", 0), given.get("dilation", 1),
                given.get("ceil_mode", False),
            )  # fmt: skip
    if target is F.avg_pool2d and alone and len(n.args) <= 3 and not set(n.kwargs) - {"stride", "kernel_size"}:
        size = n.args[1] if len(n.args) > 1 else n.kwargs["kernel_size"]
        stride = n.args[2] if len(n.args) > 2 else n.kwargs.get("stride")
        return _pooling(False, size, stride or size, 0, 1, False)
    if target in ELEMENTWISE_FUNCTIONS and alone and len(shape) == 3:
        return {"kind": "elementwise", "call": _AsNode(n, inputs)}
    return None


def _pooling(largest: bool, window: Any, stride: Any, padding: Any, dilation: Any, ceil: bool) -> dict | None:
    window, stride, padding, dilation = (
        v if isinstance(v, (tuple, list)) else (v, v) for v in (window, stride, padding, dilation)
    )
    square = all(v[0] == v[1] for v in (window, stride, padding, dilation))
    if not square or dilation[0] != 1 or ceil or (padding[0] and not largest) or math.prod(window) > 25:
        return None
    return {"kind": "pool", "pooling": (largest, window[0], stride[0], padding[0])}
