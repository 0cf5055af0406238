"""Layer by layer: `make bench`, or python -m benchmarks.layers [--threads 1]. Writes benchmarks/layers.csv.

Each sparse layer against the dense one (the faster of NCHW and channels_last), the authors' masked layer, a group
convolution of as many weights and MKL's CSR product, forward and with the backward pass, in turns in one run. `limit`
is what the machine's peak allows at best; `limit, data moved` what it allows if all but the edges takes as long as in a
layer with one edge for each output.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.baselines import CSR, channels_last, grouped, masked
from benchmarks.records import machine, write_rows
from benchmarks.rooflines import bytes_per_second, least_milliseconds, multiply_adds_per_second
from benchmarks.timing import as_trained, interleaved, ratio
from xnets import ExpanderConv2d, ExpanderLinear

CSV = Path(__file__).with_suffix(".csv")
PART = ["threads", "layer", "pass", "compression"]  # of the columns, what is measured together
COLUMNS = [
    "machine",
    "threads",
    "layer",
    "pass",
    "compression",
    "method",
    "ms",
    "ratio",
    "ratio_low",
    "ratio_high",
    "n",
]
# name: (batch, inputs, outputs, height = width or 0 for a linear layer, kernel size)
LAYERS = {
    "3x3 256@14": (32, 256, 256, 14, 3),
    "3x3 512@4": (64, 512, 512, 4, 3),
    "3x3 240-60@32": (16, 240, 60, 32, 3),
    "1x1 512@14": (32, 512, 512, 14, 1),
    "1x1 1024@7": (32, 1024, 1024, 7, 1),
    "1x1 600-240@32": (16, 600, 240, 32, 1),
    "linear 9216-4096": (64, 9216, 4096, 0, 1),
}
COMPRESSIONS = (2, 4, 8, 16)
PASSES = ("forward", "forward+backward")


def sparse_layer(name: str, compression: int, kernel: str, block: int = 1) -> nn.Module:
    """X-Conv or X-Linear of that shape."""
    _, n_in, n_out, size, k = LAYERS[name]
    how = {"compression": compression, "seed": 0, "bias": False, "kernel": kernel, "block": block}
    return ExpanderConv2d(n_in, n_out, k, padding=k // 2, **how) if size else ExpanderLinear(n_in, n_out, **how)


def dense_layers(name: str) -> dict[str, nn.Module]:
    """In both of torch's layouts."""
    _, n_in, n_out, size, k = LAYERS[name]
    if not size:
        return {"dense": nn.Linear(n_in, n_out, bias=False)}
    layer = nn.Conv2d(n_in, n_out, k, padding=k // 2, bias=False)
    return {"dense": layer, "dense channels_last": channels_last(layer)}


def competitors(name: str, compression: int, forward_only: bool) -> dict[str, nn.Module]:
    """By method, for one compression."""
    _, n_in, n_out, size, k = LAYERS[name]
    ours = sparse_layer(name, compression, "direct")
    found = {"direct": ours, "auto": sparse_layer(name, compression, "auto"), "masked": masked(ours)}
    found["direct, block 4"] = sparse_layer(name, compression, "direct", block=4)
    if size and (groups := grouped(n_in, n_out, k, compression)) is not None:
        found["grouped"] = groups
    if forward_only:
        found["MKL CSR"] = CSR(ours)
    return found


def job(layer: nn.Module, x: Tensor, forward_only: bool) -> Callable[[], object]:
    """One pass; with the backward pass to the input and the weights."""
    if forward_only:

        def forward() -> None:
            with torch.no_grad():
                layer(x)

        return forward
    x = x.detach().requires_grad_()
    weights = [p for p in layer.parameters() if p.requires_grad]
    upstream = torch.ones_like(layer(x))
    return lambda: torch.autograd.grad(layer(x), [x, *weights], upstream)


def measure(name: str, what: str, compressions: list[int], repeats: int, peak: float, bandwidth: float) -> list[list]:
    """Rows of the csv for one layer and one kind of pass."""
    batch, n_in, n_out, size, k = LAYERS[name]
    x = torch.randn(batch, n_in, size, size) if size else torch.randn(batch, n_in)
    nhwc = x.contiguous(memory_format=torch.channels_last) if size else x
    forward_only = what == "forward"
    work = {
        (0, method): job(layer, nhwc if "last" in method else x, forward_only)
        for method, layer in dense_layers(name).items()
    }
    for c in compressions:
        for method, layer in competitors(name, c, forward_only).items():
            work[c, method] = job(layer, x, forward_only)
            if method == "grouped":
                work[c, "grouped channels_last"] = job(channels_last(layer), nhwc, forward_only)
    work[0, "one edge"] = job(sparse_layer(name, n_in, "direct"), x, forward_only)
    times = interleaved(work, repeats, f"{name}, {what}")
    one_edge = statistics.median(times.pop((0, "one edge")))
    dense = [took for (c, _), took in times.items() if c == 0]
    rows = []
    for (c, method), took in times.items():
        r = ratio(took, dense)
        rows.append(
            [
                name,
                what,
                c or 1,
                method,
                f"{statistics.median(took):.3f}",
                *(f"{v:.3f}" for v in (r.median, r.low, r.high)),
            ]
        )
    fastest = min(statistics.median(took) for took in dense)
    for c in compressions:
        edges, others = (n_out * degree * k * k for degree in (n_in // c, n_in // c - 1))
        pixels = batch * max(1, size) ** 2
        inside = (1 - (k // 2) * (k // 2 + 1) / (k * size)) ** 2 if size else 1  # taps that fall on the map
        passes = 1 if forward_only else 3  # dX and dW are as much work each
        least = passes * least_milliseconds(edges, inside * pixels, (n_in + n_out) * pixels, peak, bandwidth)
        moved = one_edge + passes * least_milliseconds(others, inside * pixels, 0, peak, bandwidth)
        for method, ms in (("limit", least), ("limit, data moved", moved)):
            rows.append([name, what, c, method, f"{ms:.3f}", *[f"{fastest / ms:.3f}"] * 3])
    return rows


def rows(options: argparse.Namespace) -> Iterator[list]:
    """Of the csv, each as it is measured."""
    torch.manual_seed(0)
    for threads in options.threads:
        torch.set_num_threads(threads)
        peak, bandwidth = multiply_adds_per_second(), bytes_per_second()
        print(f"{machine()}, {threads} threads: {peak / 1e9:.0f} G multiply-adds/s, {bandwidth / 1e9:.1f} GB/s")
        yield [threads, "", "", "", "peak G multiply-adds/s", "", f"{peak / 1e9:.1f}", "", "", ""]
        yield [threads, "", "", "", "memory GB/s", "", f"{bandwidth / 1e9:.1f}", "", "", ""]
        for name in options.layers:
            for what in PASSES:
                measured = measure(name, what, options.compressions, options.repeats, peak, bandwidth)
                yield from ([threads, *row, options.repeats] for row in measured)
                ours = [row[5] for row in measured if row[3] == "direct"]
                print(f"{threads} threads  {name:18}{what:18}" + "".join(f"{float(r):8.2f}" for r in ours), flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--layers", nargs="*", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--compressions", nargs="*", type=int, default=list(COMPRESSIONS))
    parser.add_argument("--csv", type=Path, default=CSV)
    options = parser.parse_args()
    as_trained()
    write_rows(options.csv, COLUMNS, PART, rows(options))


if __name__ == "__main__":
    main()
