"""What this machine does at best: multiply-adds and memory traffic in a second, and a layer's limit by them."""

from collections.abc import Callable

import torch

from benchmarks.timing import clock


def best_seconds(work: Callable[[], object], repeats: int = 7) -> float:
    """The shortest of some calls."""
    times = []
    for _ in range(repeats):
        started = clock()
        work()
        times.append(clock() - started)
    return min(times)


def multiply_adds_per_second() -> float:
    """As MKL's dense matrix product reaches them, fp32, with torch's threads."""
    n = 1536
    a, b, c = (torch.randn(n, n) for _ in range(3))
    return n**3 / best_seconds(lambda: torch.mm(a, b, out=c))


def bytes_per_second() -> float:
    """Read and written by a copy of 256 MiB to memory that is there already."""
    source = torch.ones(2**26)
    target = torch.empty_like(source)
    return 2 * source.nbytes / best_seconds(lambda: target.copy_(source))


def least_milliseconds(edges: int, positions: float, activations: int, peak: float, bandwidth: float) -> float:
    """No kernel that computes along the edges can be faster.

    edges: weights, taps included. positions: what each is multiplied with, images x pixels. activations: floats of
    input and output, moved once. peak, bandwidth: multiply-adds and bytes a second.
    """
    return 1e3 * max(edges * positions / peak, 4 * (activations + edges) / bandwidth)
