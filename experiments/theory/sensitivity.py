"""Theorem 1: how many layers it takes until every output sees every input."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from xnets.graphs import CONSTRUCTIONS, BipartiteGraph, sample_graph
from xnets.graphs.measures.sets import chosen, gathered, singletons
from xnets.seeds import derive_seed

MOST = 48  # layers after which it is called never


@dataclass(frozen=True)
class Stack:
    """What is stacked: layers of one construction, n channels wide, each drawn anew; and how many inputs to follow."""

    construction: str
    n: int
    degree: int
    seed: int
    followed: int | None


@dataclass(frozen=True)
class Reach:
    """What became of the followed inputs.

    layers: after which every output sees every one of them, or None. layers_of_rest: after which every output sees
    every one that is not lost, or None. lost: how many of them no output sees any more.
    """

    followed: int
    layers: int | None
    layers_of_rest: int | None
    lost: int


def follow(stack: Stack, most: int = MOST) -> Reach:
    """Follow inputs up through the layers, until all outputs see the same of them or after `most` layers."""
    inputs = chosen(stack.n, stack.followed, stack.seed)
    parts = list(singletons(stack.n, inputs, stack.n * stack.degree))
    graph = None
    for depth in range(1, most + 1):
        if graph is None or CONSTRUCTIONS[stack.construction].seeded:
            graph = _layer(stack, depth)
        parts = [_passed_on(graph, bits) for bits in parts]
        seen_by_some = sum(_size(np.bitwise_or.reduce(bits)) for bits in parts)
        if seen_by_some == sum(_size(np.bitwise_and.reduce(bits)) for bits in parts):
            lost = len(inputs) - seen_by_some
            return Reach(len(inputs), None if lost else depth, depth, lost)
    return Reach(len(inputs), None, None, len(inputs) - seen_by_some)


def sensitivity_rows(stacks: list[Stack]) -> Iterator[dict[str, Any]]:
    """One row for each stack; least_layers: an output sees at most D^t inputs after t layers."""
    for stack in stacks:
        reach = follow(stack)
        yield {
            "construction": stack.construction,
            "n": stack.n,
            "degree": stack.degree,
            "seed": stack.seed,
            "followed": reach.followed,
            "layers": reach.layers,
            "layers_of_rest": reach.layers_of_rest,
            "lost": reach.lost,
            "least_layers": least_layers(stack.n, stack.degree),
        }


def least_layers(n: int, degree: int) -> int:
    """The layers without which no output can see n inputs, whatever the graphs: log n / log D, rounded up."""
    return next(depth for depth in range(1, 64) if degree**depth >= n)


def gap_layers(n: float, degree: int) -> float:
    """The layers that suffice for D-regular Ramanujan graphs, by the gap alone: log(n - 1) / log(1 / ratio).

    The product of t layers, over D^t, is J / n and a rest of norm <= ratio^t, which is below 1 / n in every entry once
    ratio^t < 1 / (n - 1). The ratio is 2 sqrt(D - 1) / D; infinite for D = 2.
    """
    ratio = 2 * math.sqrt(degree - 1) / degree
    return math.inf if ratio >= 1 else math.log(n - 1) / -math.log(ratio)


def _layer(stack: Stack, depth: int) -> BipartiteGraph:
    return sample_graph(stack.construction, stack.n, stack.n, stack.degree, derive_seed(stack.seed, "layer", depth))


def _passed_on(graph: BipartiteGraph, bits: np.ndarray) -> np.ndarray:
    """(n_out, words): which followed inputs each output sees, (n_in, words) what each input does."""
    if graph.degree is None:
        return gathered(graph, bits, np.bitwise_or)
    neighbours = graph.neighbours
    seen = bits[neighbours[:, 0]]
    for i in range(1, graph.degree):
        seen |= bits[neighbours[:, i]]
    return seen


def _size(word: np.ndarray) -> int:
    """How many bits are set in (words,) uint64."""
    return int(sum(int(part).bit_count() for part in word))
