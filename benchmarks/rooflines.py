"""What this machine does at best: multiply-adds and memory traffic in a second, and a layer's limit by them."""

import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.timing import clock
from xnets.layers.direct import missing
from xnets.layers.direct.ir import Function

# Convolutions and products of matrices, as torch's profiler calls them.
PRODUCTS = {
    "aten::conv2d", "aten::convolution_backward", "aten::linear", "aten::addmm", "aten::mm", "xnets::direct",
    "xnets::direct_input_gradient", "xnets::direct_weight_gradient",
}  # fmt: skip
CHAINS = 12  # a CPU has few units for multiply-adds, and each takes some cycles


def best_seconds(work: Callable[[], object], repeats: int = 7) -> float:
    """The shortest of some calls."""
    times = []
    for _ in range(repeats):
        started = clock()
        work()
        times.append(clock() - started)
    return min(times)


def multiply_adds_per_second() -> float:
    """fp32, with torch's threads: of a loop that does nothing else, or of MKL's dense product if that is more."""
    n = 1536
    a, b, c = (torch.randn(n, n) for _ in range(3))
    product = n**3 / best_seconds(lambda: torch.mm(a, b, out=c))
    if missing():
        return product
    from xnets.layers.direct.jit import compiled, vector_width
    from xnets.layers.direct.threads import in_parallel

    loop, threads, rounds = compiled(_chains, vector_width()), torch.get_num_threads(), 2_000_000
    seconds = best_seconds(lambda: in_parallel(loop, [(a[i].data_ptr(), rounds) for i in range(threads)]))
    return max(product, threads * rounds * CHAINS * vector_width() / seconds)


def _chains(width: int) -> Function:
    """`rounds` times CHAINS multiply-adds of vectors, none of which waits for another."""
    code = Function("chains", ["a"], ["rounds"], width)
    factor = code.load("%a")
    sums = [code.zero() for _ in range(CHAINS)]
    with code.loop(0, "%rounds"):
        for s in sums:
            s.set(code.fma(factor, s.get(), factor))
    total = sums[0].get()
    for s in sums[1:]:
        total = code.plus(total, s.get())
    code.store(total, "%a")
    return code


def bytes_per_second() -> float:
    """Read and written by a copy of 256 MiB to memory that is there already."""
    source = torch.ones(2**26)
    target = torch.empty_like(source)
    return 2 * source.nbytes / best_seconds(lambda: target.copy_(source))


def least_milliseconds(edges: int, positions: float, activations: int, peak: float, bandwidth: float) -> float:
    """No kernel that multiplies each edge with each pixel can be faster; Winograd's algorithm does not.

    edges: weights, taps included. positions: what each is multiplied with, images x pixels. activations: floats of
    input and output, moved once. peak, bandwidth: multiply-adds and bytes a second.
    """
    return 1e3 * max(edges * positions / peak, 4 * (activations + edges) / bandwidth)


def rest_milliseconds(step: Callable[[], object], repeats: int = 3) -> float:
    """Of a training step, all but PRODUCTS, the least seen: norms, pooling, the loss, the update of weights, Python."""
    step()
    return 1e3 * min(_rest(step) for _ in range(repeats))


def _rest(step: Callable[[], object]) -> float:
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        started = time.perf_counter()  # as the profiler's: CPU time would lack what others took of these moments
        step()
        took = time.perf_counter() - started
    inside = 0.0
    for event in seen.events():
        above = event.cpu_parent
        while above is not None and above.name not in PRODUCTS:
            above = above.cpu_parent
        if event.name in PRODUCTS and above is None:
            inside += event.cpu_time_total / 1e6
    return max(0.0, took - inside)
