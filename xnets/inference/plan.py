"""From nodes and a choice for each layer to steps: where each map stands, and where the layout changes."""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from xnets.inference import packed
from xnets.inference.graph import Network, Node, nodes_in
from xnets.inference.places import Buffer, Context, Place, arrange
from xnets.inference.plain import Other, Plain, Step, filled, numbered
from xnets.inference.winograd import Winograd
from xnets.layers.direct import jit

FOLLOW = ("norm", "relu", "add", "cat", "elementwise", "pool", "mean", "flatten")  # stay in the layout of their input
KEPT = 4  # arenas for that many batch sizes


class Plan:
    """Steps that compute a network for any number of images. `layers` has the step of each conv and linear node."""

    def __init__(self, network: Network, direct: set[Node], channels_last: bool = False) -> None:
        self.channels_last = channels_last
        self.steps: list[Step] = []
        self.layers: dict[str, Step] = {}
        self.whole = not direct or any(n.kind == "other" for n in network.nodes)  # "other" may mix images
        self._numbers = {node: i for i, node in enumerate(network.nodes)}
        self._blocked = self._layouts(network, direct)
        self._places = self._shared(network) if direct else {}
        self._packed: set[Node] = set()
        self._plain: set[Node] = set()
        self._absorbed = {n: n.inputs[0] for n in network.nodes if self._goes_into(n)}
        for node in network.nodes:
            self._add(node, network)
        results = [self._value(node) for node in nodes_in(network.result)]
        self.result = numbered(network.result, self._numbers)
        self.whole = self.whole or not isinstance(network.result, Node)
        self._lives(set(results))
        for name in ("_numbers", "_blocked", "_places", "_packed", "_plain", "_absorbed"):
            delattr(self, name)
        self.contexts: dict[tuple[int, int], list[Context]] = {}

    # --- making it ---

    def _layouts(self, network: Network, direct: set[Node]) -> set[Node]:
        blocked: set[Node] = set(direct)
        for node in network.nodes:
            if node.kind in FOLLOW and (any(i in blocked for i in node.inputs) or (node.kind == "pool" and direct)):
                blocked.add(node)
        return blocked

    def _shared(self, network: Network) -> dict[Node, Place]:
        """Places of what is concatenated, beside each other where possible: then there is nothing to copy."""
        places: dict[Node, Place] = {}
        for cat in reversed([n for n in network.nodes if n.kind == "cat" and n in self._blocked]):
            known = [places.get(i) for i in cat.inputs]
            if cat not in places and all(known) and _adjoin(known):
                places[cat] = Place(known[0].buffer, known[0].first, cat.shape[0])
                continue
            place = places.setdefault(cat, Place(Buffer(*cat.shape), 0, cat.shape[0]))
            first = place.first
            for i in cat.inputs:
                if i not in places and cat.inputs.count(i) == 1:
                    places[i] = Place(place.buffer, first, i.shape[0])
                first += i.shape[0]
        return places

    def _goes_into(self, norm: Node) -> bool:
        """Whether a norm and its ReLU are done by the layers that read it, as they load it."""

        def takes(user: Node | None) -> bool:
            return (
                user in self._blocked and user.kind == "conv" and user.weights.window == (1, 1)
                and user.weights.stride == (1, 1) and user.inputs[0] is norm and norm not in user.inputs[1:]
            )  # fmt: skip

        return norm.kind == "norm" and norm.relu and norm in self._blocked and all(takes(u) for u in norm.users)

    def _place(self, node: Node) -> Place:
        if node not in self._places:
            channels, height, width = node.shape if len(node.shape) == 3 else (node.shape[0], 1, 1)
            self._places[node] = Place(Buffer(channels, height, width), 0, channels)
        return self._places[node]

    def _source(self, node: Node) -> Place:
        """The node as a blocked map."""
        if node not in self._blocked and node not in self._packed:
            self.steps.append(packed.Pack(writes=self._place(node), takes=(self._numbers[node],)))
            self._packed.add(node)
        return self._place(node)

    def _value(self, node: Node) -> int:
        """The node as an ordinary tensor."""
        number = self._numbers[node]
        if node in self._blocked and node not in self._plain:
            self.steps.append(packed.Unpack(self._place(node), number, node.shape))
            self._plain.add(node)
        return number

    def _add(self, node: Node, network: Network) -> None:
        if node.kind == "input" or node in self._absorbed:
            return
        if node in self._blocked:
            self._add_blocked(node)
        else:
            takes = tuple(self._value(i) for i in node.inputs)
            if node.kind == "other":
                step = Other(node, self._numbers, network.attributes)
            else:
                step = Plain(node, takes, self._numbers[node], self.channels_last)
            self.steps.append(step)
        if node.weights is not None:
            self.layers[node.name] = self.steps[-1]

    def _add_blocked(self, node: Node) -> None:
        if node.kind == "flatten" and node.inputs[0].shape[1:] == (1, 1):
            self._places[node] = self._source(node.inputs[0])
            return
        before = None
        first = node.inputs[0]
        if first in self._absorbed:
            before, first = (first.scale, first.shift), self._absorbed[first]
        x, others = self._source(first), [self._source(i) for i in node.inputs[1:]]
        y = self._place(node)
        other = others[0] if others else None
        if node.kind in ("conv", "linear"):
            if node.kind == "conv" and node.weights.window == (3, 3):
                step = Winograd if Winograd.suits(x, node.weights) else packed.Window
                self.steps.append(step(x, y, node.weights, node.relu, node.pooled, other))
                return
            if node.weights.stride != (1, 1):
                thinned = Place(Buffer(x.channels, y.buffer.height, y.buffer.width), 0, x.channels)
                self.steps.append(packed.Copy(x, thinned, node.weights.stride[0]))
                x = thinned
            self.steps.append(packed.Pointwise(x, y, node.weights, node.relu, other, before))
        elif node.kind == "norm":
            self.steps.append(packed.Affine(x, y, node.relu, (node.scale, node.shift)))
        elif node.kind == "relu":
            self.steps.append(packed.Affine(x, y, True))
        elif node.kind == "add":
            self.steps.append(packed.Affine(x, y, node.relu, other=other))
        elif node.kind == "cat":
            at = y.first
            for part in (x, *others):
                if (part.buffer, part.first) != (y.buffer, at):
                    self.steps.append(packed.Copy(part, Place(y.buffer, at, part.channels)))
                at += part.channels
        elif node.kind == "pool":
            self.steps.append(packed.Pool(x, y, node.pooling))
        elif node.kind == "mean":
            self.steps.append(packed.Mean((x,), y))
        elif node.kind == "flatten":
            self.steps.append(packed.Copy(x, y))
        else:
            self.steps.append(packed.Elementwise(x, y, node.module, node.call))

    def _lives(self, results: set[int]) -> None:
        """Which values are dropped when, and how large the arena is."""
        last: dict[int, int] = {}
        lives: dict[Buffer, tuple[int, int]] = {}
        for i, step in enumerate(self.steps):
            for number in step.takes:
                last[number] = i
            for place in (*step.reads, step.writes):
                if place is not None:
                    lives[place.buffer] = (lives.get(place.buffer, (i, i))[0], i)
        for number, i in last.items():
            if number not in results:
                self.steps[i].drops.append(number)
        self.vectors = arrange(lives)

    # --- running it ---

    @torch.no_grad()
    def run(self, x: Tensor, watch: Callable[[Step, Context], None] | None = None) -> Any:
        """The network's output for images x (N, C, H, W); `watch` runs the steps, if given."""
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        if self.whole:
            return self._run(x, lanes_for(x.shape[0]), watch)
        lanes = lanes_for(len(x))
        parts = [self._run(x[i : i + lanes], lanes_for(len(x) - i), watch) for i in range(0, len(x), lanes)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _run(self, x: Tensor, lanes: int, watch: Callable[[Step, Context], None] | None) -> Any:
        key = lanes, -(-x.shape[0] // lanes)
        if len(self.contexts) > KEPT:
            self.contexts.clear()
        free = self.contexts.setdefault(key, [])
        try:
            c = free.pop()  # one caller to a context
        except IndexError:
            c = Context(self.vectors, *key)
        c.images, c.values = x.shape[0], {0: x}
        for step in self.steps:
            if watch is None:
                step.run(c)
            else:
                watch(step, c)
            for number in step.drops:
                del c.values[number]
        result, c.values = filled(self.result, c.values), {}
        free.append(c)
        return result

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"contexts": {}}


def lanes_for(images: int) -> int:
    """Lanes of the next block: the vector's, or fewer for the last few images."""
    return 4 if jit.missing() else jit.lanes_for(images)


def _adjoin(places: list[Place]) -> bool:
    """Whether each begins where the one before ends."""
    return all(a.buffer is b.buffer and a.first + a.channels == b.first for a, b in itertools.pairwise(places))
