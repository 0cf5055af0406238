"""Steps on ordinary tensors, (images, channels, height, width) in either memory format, by torch's own operators."""

import copy
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xnets.inference.graph import Node, mapped
from xnets.inference.places import Context, Place


class Step:
    """Base: blocked maps read and written, values (by number) taken and given, and those not needed afterwards."""

    def __init__(
        self, reads: tuple[Place, ...] = (), writes: Place | None = None, takes: tuple[int, ...] = (),
        gives: int | None = None,
    ) -> None:  # fmt: skip
        self.reads, self.writes, self.takes, self.gives = reads, writes, takes, gives
        self.drops: list[int] = []

    def run(self, c: Context) -> None:
        """Do it."""
        raise NotImplementedError


class Plain(Step):
    """One node by torch."""

    def __init__(self, node: Node, takes: tuple[int, ...], gives: int, channels_last: bool) -> None:
        super().__init__(takes=takes, gives=gives)
        self.kind, self.relu, self.pooled = node.kind, node.relu, node.pooled
        self.pooling, self.scale, self.shift = node.pooling, node.scale, node.shift
        self.shape, self.module, self.call = node.shape, copy.deepcopy(node.module), None
        w = node.weights
        if w is not None:
            self.geometry = (w.stride, w.padding, w.dilation, w.groups)
            self.weight, self.bias = w.dense, w.bias
            if channels_last and self.weight.dim() == 4:
                self.weight = self.weight.contiguous(memory_format=torch.channels_last)
        if node.call is not None and node.kind == "elementwise":
            self.call = node.call

    def run(self, c: Context) -> None:
        """See Step."""
        y = self._made(*(c.values[i] for i in self.takes))
        y = F.relu_(y) if self.relu else y
        c.values[self.gives] = F.max_pool2d(y, 2) if self.pooled else y

    def _made(self, x: Tensor, *others: Tensor) -> Tensor:
        kind = self.kind
        if kind == "conv":
            y = F.conv2d(x, self.weight, self.bias, *self.geometry)
            return y.add_(others[0]) if others else y
        if kind == "linear":
            return F.linear(x, self.weight, self.bias)
        if kind == "norm":
            nothing, one = torch.zeros_like(self.scale), torch.ones_like(self.scale)
            return F.batch_norm(x, nothing, one, self.scale, self.shift, eps=0.0)
        if kind == "relu":
            return F.relu(x)
        if kind == "add":
            return x + others[0]
        if kind == "cat":
            return torch.cat([x, *others], 1)
        if kind == "pool":
            largest, window, stride, padding = self.pooling
            return F.max_pool2d(x, window, stride, padding) if largest else F.avg_pool2d(x, window, stride)
        if kind == "mean":
            return x.mean((2, 3)).view(-1, *self.shape)
        if kind == "flatten":
            return x.flatten(1)
        return self.module(x) if self.module is not None else called(self.call, [x])


class Other(Step):
    """What the planner does not know, as the network has it."""

    def __init__(self, node: Node, numbers: dict[Node, int], attributes: dict[str, Any]) -> None:
        super().__init__(takes=tuple(numbers[i] for i in node.inputs), gives=numbers[node])
        # a deep copy: the plan does not follow later changes of the network
        self.op, self.target, self.module = node.call.op, node.call.target, copy.deepcopy(node.module)
        self.args = mapped(node.call.args, lambda n: _Value(numbers[n]))
        self.kwargs = mapped(node.call.kwargs, lambda n: _Value(numbers[n]))
        self.attribute = copy.deepcopy(attributes[self.target]) if self.op == "get_attr" else None

    def run(self, c: Context) -> None:
        """See Step."""
        args, kwargs = filled(self.args, c.values), filled(self.kwargs, c.values)
        if self.op == "get_attr":
            y = self.attribute
        elif self.op == "call_module":
            y = self.module(*args, **kwargs)
        elif self.op == "call_method":
            y = getattr(args[0], self.target)(*args[1:], **kwargs)
        else:
            y = self.target(*args, **kwargs)
        c.values[self.gives] = y


class _Value:
    """A value of the run, by number."""

    def __init__(self, number: int) -> None:
        self.number = number


def numbered(structure: Any, numbers: dict[Node, int]) -> Any:
    """The structure with values in place of nodes."""
    return mapped(structure, lambda n: _Value(numbers[n]))


def filled(structure: Any, values: dict[int, Any]) -> Any:
    """The structure with what the values are now."""
    if isinstance(structure, _Value):
        return values[structure.number]
    if isinstance(structure, (tuple, list)):
        inner = [filled(v, values) for v in structure]
        return type(structure)(*inner) if hasattr(structure, "_fields") else type(structure)(inner)
    if isinstance(structure, dict):
        return {k: filled(v, values) for k, v in structure.items()}
    if isinstance(structure, slice):
        return slice(*(filled(v, values) for v in (structure.start, structure.stop, structure.step)))
    return structure


def called(call: Any, inputs: list[Tensor]) -> Tensor:
    """An elementwise function or method of one input."""
    args, kwargs = mapped(call.args, lambda _: inputs[0]), mapped(call.kwargs, lambda _: inputs[0])
    if call.op == "call_method":
        return operator.methodcaller(call.target, *args[1:], **kwargs)(args[0])
    return call.target(*args, **kwargs)
