"""Times the direct kernels of sparse layers against the dense layer: python benchmarks/kernels.py [--threads 1].

Prints a table and writes benchmarks/kernels.csv: for each layer, compression C and pass the median time and its ratio
to dense, which is the faster of NCHW and channels_last. All that is compared takes turns, so that what else the
machine does falls on all of it alike; with one thread the clock is that thread's, which stops while others run.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from xnets import ExpanderConv2d, ExpanderLinear

# name: (batch, inputs, outputs, height = width or 0 for a linear layer, kernel size)
LAYERS = {
    "3x3 256@14": (32, 256, 256, 14, 3),
    "3x3 512@4": (64, 512, 512, 4, 3),
    "3x3 240->60@32": (16, 240, 60, 32, 3),
    "1x1 512@14": (32, 512, 512, 14, 1),
    "1x1 1024@7": (32, 1024, 1024, 7, 1),
    "1x1 600->240@32": (16, 600, 240, 32, 1),
    "linear 9216->4096": (64, 9216, 4096, 0, 1),
}
COMPRESSIONS = (2, 4, 8, 16)
PASSES = ("forward", "forward+backward")


def functions(name: str, compressions: list[int]) -> tuple[list[tuple[str, Callable, Tensor]], list[Tensor]]:
    """(what, function of x, x) for dense and each compression, and the weights whose gradients are taken."""
    batch, n_in, n_out, size, k = LAYERS[name]
    x = torch.randn(batch, n_in, *[size] * 2) if size else torch.randn(batch, n_in)
    found: list[tuple[str, Callable, Tensor]] = []
    weights = []
    for layout in (torch.contiguous_format, torch.channels_last) if size else (torch.contiguous_format,):
        w = torch.randn(n_out, n_in, *[k] * 2) if size else torch.randn(n_out, n_in)
        w = (w * 0.01).contiguous(memory_format=layout).requires_grad_()
        weights.append(w)
        dense = (lambda x, w=w: F.conv2d(x, w, padding=k // 2)) if size else (lambda x, w=w: F.linear(x, w))
        found.append(("dense", dense, x.contiguous(memory_format=layout)))
    for c in compressions:
        how = {"compression": c, "seed": 0, "bias": False, "kernel": "direct"}
        layer = ExpanderConv2d(n_in, n_out, k, padding=k // 2, **how) if size else ExpanderLinear(n_in, n_out, **how)
        weights.append(layer.weight)
        found.append((f"C={c}", layer, x))
    return found, weights


def timed(function: Callable, x: Tensor, weight: Tensor, upstream: Tensor | None) -> float:
    """Milliseconds of one pass; with the gradient of the output, of the backward pass to x and the weight as well."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    if upstream is None:
        with torch.no_grad():
            start = clock()
            function(x)
            return 1e3 * (clock() - start)
    x = x.detach().requires_grad_()
    start = clock()
    torch.autograd.grad(function(x), (x, weight), upstream)
    return 1e3 * (clock() - start)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--layers", nargs="*", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--compressions", nargs="*", type=int, default=list(COMPRESSIONS))
    parser.add_argument("--csv", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows = []
    print(f"{'layer':20}{'pass':18}{'dense ms':>9}" + "".join(f"{f'C={c}':>8}" for c in options.compressions))
    for name in options.layers:
        compared, weights = functions(name, options.compressions)
        for what in PASSES:
            times: list[list[float]] = [[] for _ in compared]
            with torch.no_grad():
                upstreams = [None if what == "forward" else torch.randn_like(f(x)) for _, f, x in compared]
            for repeat in range(options.repeats + 1):
                for mine, (_, function, x), weight, upstream in zip(times, compared, weights, upstreams, strict=True):
                    took = timed(function, x, weight, upstream)
                    if repeat:  # the first compiles, sorts edges, warms caches
                        mine.append(took)
            medians = [statistics.median(t) for t in times]
            dense = min(m for m, (kind, _, _) in zip(medians, compared, strict=True) if kind == "dense")
            ratios = [dense / m for m, (kind, _, _) in zip(medians, compared, strict=True) if kind != "dense"]
            print(f"{name:20}{what:18}{dense:9.1f}" + "".join(f"{r:8.2f}" for r in ratios), flush=True)
            rows.append([name, what, options.threads, "dense", f"{dense:.2f}", 1])
            for c, ratio in zip(options.compressions, ratios, strict=True):
                rows.append([name, what, options.threads, c, f"{dense / ratio:.2f}", f"{ratio:.2f}"])
    with options.csv.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["layer", "pass", "threads", "compression", "ms", "ratio_to_dense"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
