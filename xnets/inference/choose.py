"""Which layers run how: a few plans are timed on the example, and the fastest is kept."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xnets.inference.graph import Network, Node
from xnets.inference.packed import Pack, Unpack
from xnets.inference.places import FLOATS, Buffer, Context, Place, arrange
from xnets.inference.plain import Step
from xnets.inference.plan import Plan, lanes_for
from xnets.inference.weights import why_dense
from xnets.layers.expander import ExpanderLayer
from xnets.layers.timings import clock_of

ROUNDS = 5
SECONDS = 2.0  # after that long no more rounds, of the layers and of the whole plans each
HOPELESS = 1.5  # times the fastest: not timed again


@dataclass
class Choice:
    """The plan to use, and what it says of itself: (layer, kernel, why) for each, and the times of whole plans."""

    plan: Plan
    layers: list[tuple[str, str, str]]
    times: dict[str, float]


def choose(network: Network, example: Tensor, why_not: str) -> Choice:
    """The fastest plan for `example`; with `why_not`, the reason why there are no direct kernels, a dense one."""
    layers = [n for n in network.nodes if n.weights is not None]
    plans = {"dense": Plan(network, set()), "dense, channels_last": Plan(network, set(), channels_last=True)}
    direct = set() if why_not else {n for n in layers if not why_dense(n.weights)}
    mixed: set[Node] = set()
    of_layer: dict[str, tuple[float, float]] = {}
    if direct:
        plans["direct"] = Plan(network, direct)
        mixed, of_layer = _layer_by_layer(network, direct, plans["dense"], plans["direct"], example)
        if mixed and mixed != direct:
            plans["direct where faster"] = Plan(network, mixed)
    times = _race({name: (lambda p=p: p.run(example)) for name, p in plans.items()}, clock_of(example.device))
    best = min(times, key=times.get)
    plan = plans[best]
    chosen = {"direct": direct, "direct where faster": mixed}.get(best, set())
    rows = []
    for n in network.nodes:
        if n.weights is not None:
            rows.append((n.name, *_reason(n, n in chosen, best, why_not, of_layer.get(n.name), times)))
        elif isinstance(n.module, (nn.Conv2d, nn.Linear, ExpanderLayer)):
            rows.append((n.name, "as it is", "a layer of this form has no other"))
    return Choice(plan, rows, times)


def _layer_by_layer(
    network: Network, direct: set[Node], dense: Plan, blocked: Plan, example: Tensor
) -> tuple[set[Node], dict[str, tuple[float, float]]]:
    """The layers that are faster direct than dense with changes of layout around, and (direct, dense) ms of each."""
    fast, slow = _steps(blocked, example), _steps(dense, example)
    change = _layout_change()
    kept, times = set(), {}
    for node in direct:
        floats = example.shape[0] * (_size(node) + _size(node.inputs[0]))
        taken, otherwise = fast[blocked.layers[node.name]], slow[dense.layers[node.name]] + change * floats
        times[node.name] = (1e3 * taken, 1e3 * otherwise)
        if taken <= otherwise:
            kept.add(node)
    return kept, times


def _size(node: Node) -> int:
    return int(torch.Size(node.shape).numel())


def _steps(plan: Plan, example: Tensor) -> dict[Step, float]:
    """Seconds of each step, for the whole example."""
    clock = clock_of(example.device)
    times: dict[Step, list[float]] = {}
    begin = time.perf_counter()
    for i in range(ROUNDS):
        if i and time.perf_counter() - begin > SECONDS:
            break
        run: dict[Step, float] = {}

        def watch(step: Step, c: Context, run: dict[Step, float] = run) -> None:
            start = clock()
            step.run(c)
            run[step] = run.get(step, 0.0) + clock() - start

        plan.run(example, watch)
        for step, seconds in run.items():
            times.setdefault(step, []).append(seconds)
    return {step: min(found) for step, found in times.items()}


def _layout_change() -> float:
    """Seconds to pack or unpack a float."""
    place = Place(Buffer(64, 32, 32), 0, 64)
    c = Context(arrange({place.buffer: (0, 0)}), lanes_for(2**10), 1)
    c.images, c.values = c.lanes, {0: torch.zeros(c.lanes, 64, 32, 32, **FLOATS)}
    pack, unpack = Pack(writes=place, takes=(0,)), Unpack(place, 1, (64, 32, 32))
    clock, taken = clock_of(torch.device("cpu")), []
    for _ in range(4):
        start = clock()
        pack.run(c)
        unpack.run(c)
        taken.append(clock() - start)
    return min(taken) / 2 / c.values[0].numel()


def _race(runs: dict[str, Callable[[], object]], clock: Callable[[], float]) -> dict[str, float]:
    """Median ms of each, taking turns; what is far behind is not run again."""

    def timed(name: str) -> float:
        start = clock()
        runs[name]()
        return 1e3 * (clock() - start)

    times = {
        name: [timed(name)] for name in runs
    }  # may compile and warms caches: replaced by the next, if there is one
    alive, begin = list(runs), time.perf_counter()
    for i in range(ROUNDS):
        if i and time.perf_counter() - begin > SECONDS:
            break
        fastest = min(min(t) for t in times.values())
        alive = [name for name in alive if min(times[name]) <= (HOPELESS if i else 2 * HOPELESS) * fastest]
        for name in alive:
            times[name] = [*(times[name] if i else []), timed(name)]
    return {name: statistics.median(t) for name, t in times.items()}


def _reason(
    node: Node, direct: bool, plan: str, why_not: str, layer: tuple[float, float] | None, times: dict[str, float]
) -> tuple[str, str]:
    measured = f"direct {layer[0]:.2f} ms, dense with changes of layout {layer[1]:.2f} ms" if layer else ""
    if direct:
        return "direct", measured
    return "dense", why_not or why_dense(node.weights) or (
        measured if plan == "direct where faster" else
        f"the whole network is fastest dense: {', '.join(f'{k} {v:.1f} ms' for k, v in times.items())}"
    )  # fmt: skip
