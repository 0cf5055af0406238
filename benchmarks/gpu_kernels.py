"""Times the Triton kernels of sparse layers against dense layers on a GPU: python benchmarks/gpu_kernels.py.

Prints a table and writes benchmarks/gpu_kernels.csv, one row for each layer, compression, output group, dtype and
pass: milliseconds of dense (the faster of NCHW and channels_last, and whether our weight was scattered to it each
time) and of Triton, their ratio, round by round, and its quartiles, what the estimate foretold, the error. Needs an
NVIDIA GPU and Triton.

All that is compared takes turns, measured by CUDA events, each after a sweep through the second-level cache.
measure() does the same for a caller.
"""

import argparse
import csv
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xnets import ExpanderConv2d, ExpanderLinear, XNetsError
from xnets.layers.kernels import Convolution
from xnets.layers.triton import AVAILABLE, TritonKernel, refuses

# name: (inputs, outputs, height = width or 0 for a linear layer, kernel size, stride)
LAYERS = {
    "3x3 256@14": (256, 256, 14, 3, 1),
    "3x3 256@28 stride 2": (256, 256, 28, 3, 2),
    "3x3 512@4": (512, 512, 4, 3, 1),
    "3x3 240-60@32": (240, 60, 32, 3, 1),
    "1x1 512@14": (512, 512, 14, 1, 1),
    "1x1 1024@7": (1024, 1024, 7, 1, 1),
    "1x1 600-240@32": (600, 240, 32, 1, 1),
    "linear 9216-4096": (9216, 4096, 0, 1, 1),
}
COMPRESSIONS = (2, 4, 8, 16)
BLOCKS = (1, 16, 64)
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
BATCH = 256
FIELDS = (
    "gpu", "layer", "dtype", "compression", "block", "pass", "dense_ms", "scatter_ms", "triton_ms", "ratio_to_dense",
    "ratio_low", "ratio_high", "estimated_ratio", "relative_error",
)  # fmt: skip


def measure(
    layers: Sequence[str] = tuple(LAYERS),
    compressions: Sequence[int] = COMPRESSIONS,
    blocks: Sequence[int] = BLOCKS,
    dtypes: Sequence[str] = tuple(DTYPES),
    batch: int = BATCH,
    repeats: int = 15,
) -> Iterator[dict[str, Any]]:
    """Rows of the CSV, as dictionaries with the keys FIELDS. Combinations that the kernels refuse are left out.

    Raises:
        XNetsError: there is no NVIDIA GPU, or no Triton.
    """
    if not torch.cuda.is_available() or torch.version.hip:
        raise XNetsError("These measurements need an NVIDIA GPU, and PyTorch sees none here.")
    if not AVAILABLE:
        raise XNetsError("These measurements need Triton, and it is not installed.")
    sweep = torch.empty(64 * 2**20, dtype=torch.int32, device="cuda")  # larger than any second-level cache
    before = torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    try:
        for name in layers:
            for kind in dtypes:
                precision = "tf32" if kind == "tf32" else "ieee"
                torch.backends.cudnn.conv.fp32_precision = torch.backends.cuda.matmul.fp32_precision = precision
                for c in compressions:
                    for block in blocks:
                        yield from _one(name, kind, c, block, batch, repeats, sweep)
    finally:
        torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision = before


def _one(name: str, kind: str, c: int, block: int, batch: int, repeats: int, sweep: Tensor) -> Iterator[dict]:
    n_in, n_out, size, k, stride = LAYERS[name]
    if n_out % block:
        return
    torch.manual_seed(0)
    place = {"device": "cuda", "dtype": DTYPES[kind]}
    x = torch.randn(batch, n_in, *[size] * 2 if size else [], **place)
    how = {"compression": c, "seed": 0, "bias": False, "block": block, **place}
    if size:
        layer = ExpanderConv2d(n_in, n_out, k, stride, k // 2, **how)
        geometry = Convolution(layer.stride, layer.padding, layer.dilation)
    else:
        layer, geometry = ExpanderLinear(n_in, n_out, **how), None
    if refuses(x, layer.weight, layer.edges, geometry):
        return
    runs = _functions(layer, x, geometry)
    upstream = torch.randn_like(runs["triton"][0](*runs["triton"][1:]))
    error = _error(layer, x, geometry, upstream, runs["triton"])
    for what in ("forward", "forward+backward"):
        gradient = None if what == "forward" else upstream
        times: dict[str, list[float]] = {run: [] for run in runs}
        for repeat in range(repeats + 3):
            for run, (function, a, w) in runs.items():
                sweep.zero_()
                took = _timed(function, a, w, gradient)
                if repeat >= 3:  # the first ones compile, choose algorithms, sort edges
                    times[run].append(took)
        medians = {run: statistics.median(t) for run, t in times.items()}
        dense = min((r for r in runs if r.startswith("dense")), key=medians.__getitem__)
        ratios = [a / b for a, b in zip(times[dense], times["triton"], strict=True)]
        quartiles = statistics.quantiles(ratios, n=4, method="inclusive")
        yield dict(
            zip(
                FIELDS,
                (
                    torch.cuda.get_device_name(), name, kind, c, block, what, f"{medians[dense]:.4f}",
                    f"{medians['scatter']:.4f}", f"{medians['triton']:.4f}",
                    *(f"{ratio:.2f}" for ratio in (quartiles[1], quartiles[0], quartiles[2])),
                    f"{_estimated(layer, x, geometry, kind, what):.2f}", f"{error:.1e}",
                ),
                strict=True,
            )
        )  # fmt: skip


def _functions(layer: Any, x: Tensor, how: Convolution | None) -> dict[str, tuple[Callable, Tensor, Tensor]]:
    """What is compared: a function of x and a weight, x, the weight."""
    from xnets.layers.dense import DenseKernel

    def sparse(kernel: Any) -> Callable:
        if how is None:
            return lambda a, w: kernel.linear(a, w, None, layer.edges)
        return lambda a, w: kernel.conv2d(a, w, None, layer.edges, how)

    weight = layer.weight.detach().requires_grad_()
    found = {"triton": (sparse(TritonKernel()), x, weight), "scatter": (sparse(DenseKernel()), x, weight)}
    for layout in (torch.contiguous_format, torch.channels_last) if how else (torch.contiguous_format,):
        w = layer.dense_weight().detach().contiguous(memory_format=layout).requires_grad_()
        function = (lambda a, w: F.conv2d(a, w, None, *how)) if how else F.linear
        found[f"dense {layout}"] = (function, x.contiguous(memory_format=layout), w)
    return found


def _timed(function: Callable, x: Tensor, weight: Tensor, upstream: Tensor | None) -> float:
    """Milliseconds of one pass, by events; with the gradient of the output, of the backward pass as well."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    x = x.detach().requires_grad_(upstream is not None)
    with torch.set_grad_enabled(upstream is not None):
        start.record()
        y = function(x, weight)
        if upstream is not None:
            torch.autograd.grad(y, (x, weight), upstream)
        end.record()
    end.synchronize()
    return start.elapsed_time(end)


def _error(layer: Any, x: Tensor, how: Convolution | None, upstream: Tensor, run: tuple) -> float:
    """The largest relative error (in norm) of output and gradients against the dense layer in float64, 8 images."""
    few, some = x[:8].detach(), upstream[:8]
    function, _, weight = run
    a = few.clone().requires_grad_()
    y = function(a, weight)
    mine = (y, *torch.autograd.grad(y, (a, weight), some))
    exact, w = few.double().requires_grad_(), weight.detach().double().requires_grad_()
    from xnets.layers.dense import to_dense_weight

    dense = to_dense_weight(w, layer.edges)
    right = F.conv2d(exact, dense, None, *how) if how else F.linear(exact, dense)
    right = (right, *torch.autograd.grad(right, (exact, w), some.double()))
    errors = [
        float((m.detach().double() - r.detach()).norm() / r.detach().norm()) for m, r in zip(mine, right, strict=True)
    ]
    return max(errors) if all(e == e for e in errors) else float("nan")


def _estimated(layer: Any, x: Tensor, how: Convolution | None, kind: str, what: str) -> float:
    from xnets.layers.triton import estimate
    from xnets.layers.triton.geometry import layer_of

    sizes = (x.shape, layer.weight.shape, layer.neighbours.shape[0])
    shape = layer_of(*sizes, *(how or ((), (), ())))
    counted = slice(1) if what == "forward" else slice(3)
    precision = "tf32" if kind == "tf32" else "tf32x3"
    ours, dense = (sum(f(shape, x.element_size(), precision)[counted]) for f in (estimate.times, estimate.dense_times))
    return dense / ours


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", nargs="*", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--compressions", nargs="*", type=int, default=list(COMPRESSIONS))
    parser.add_argument("--blocks", nargs="*", type=int, default=list(BLOCKS))
    parser.add_argument("--dtypes", nargs="*", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--csv", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = vars(parser.parse_args())
    path = options.pop("csv")
    rows = measure(**options)
    try:
        first = next(rows, None)
    except XNetsError as error:
        print(error, file=sys.stderr)
        return 1
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        while first is not None:
            writer.writerow(first)
            file.flush()  # what is measured stays, should the machine be taken back
            print("  ".join(f"{value}" for value in first.values()), flush=True)
            first = next(rows, None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
