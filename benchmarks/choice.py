"""Is "auto" ever slower? `make bench`, or python -m benchmarks.choice. Writes benchmarks/choice.csv.

Every distinct sparse layer of the networks of benchmarks.networks, at their batch sizes: the automatic choice against
the dense layer in the same layout (NCHW) and the authors' masked layer, in turns, in training and in inference.
"""

import argparse
import itertools
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.baselines import masked
from benchmarks.layers import job
from benchmarks.networks import BATCHES
from benchmarks.records import write_rows
from benchmarks.timing import as_trained, interleaved, ratio
from xnets.explain import explain
from xnets.layers import ExpanderLayer, kernels
from xnets.models import build, parse_name

CSV = Path(__file__).with_suffix(".csv")
PART = ["threads", "network"]  # of the columns, what is measured together
COLUMNS = ["machine", "threads", "network", "layer", "input", "outputs", "degree", "window", "pass", "kernel",
           "dense_ms", "masked_ms", "auto_ms", "ratio", "ratio_low", "ratio_high", "n"]  # fmt: skip


def distinct_layers(name: str) -> Iterator[tuple[str, ExpanderLayer, tuple[int, ...]]]:
    """Name, layer and input shape of the sparse layers of a network that are not alike."""
    size = parse_name(name).image_size
    with kernels("dense"):
        found = explain(build(name), torch.zeros(BATCHES[name], 3, size, size), training=False)
    seen = set()
    for e in found:
        stride = getattr(e.layer, "stride", None)
        shape = (e.shape, e.layer.n_out, e.layer.degree, e.layer.window, stride)
        if shape not in seen:
            seen.add(shape)
            yield e.name, e.layer, e.shape


def measure(layer: ExpanderLayer, shape: tuple[int, ...], forward_only: bool, repeats: int) -> list[object]:
    """Kernel, milliseconds of dense, masked and auto, and auto's ratio to the faster of the others."""
    x = torch.randn(shape)
    work = {
        "dense": job(layer.to_dense(), x, forward_only),
        "masked": job(masked(layer), x, forward_only),
        "auto": job(layer, x, forward_only),
    }
    times = interleaved(work, repeats)
    r = ratio(times["auto"], [times["dense"], times["masked"]])
    asked = x if forward_only else x.requires_grad_()
    with torch.set_grad_enabled(not forward_only):
        kernel = explain(layer, asked, training=not forward_only)[0].choice.kernel
    medians = [f"{statistics.median(times[name]):.3f}" for name in ("dense", "masked", "auto")]
    return [kernel, *medians, *(f"{v:.3f}" for v in (r.median, r.low, r.high))]


def rows(options: argparse.Namespace) -> Iterator[list]:
    """Of the csv, each as it is measured."""
    torch.manual_seed(0)
    for threads, name in itertools.product(options.threads, options.networks):
        torch.set_num_threads(threads)
        ratios = {}
        for where, layer, shape in tqdm(list(distinct_layers(name)), desc=name):
            for forward_only in (True, False):
                found = measure(layer, shape, forward_only, options.repeats)
                what = "forward" if forward_only else "forward+backward"
                window = "x".join(map(str, layer.window)) or "linear"
                about = [name, where, "x".join(map(str, shape)), layer.n_out, layer.degree, window, what]
                yield [threads, *about, *found, options.repeats]
                ratios[where, what] = float(found[-3])
        worst = min(ratios, key=lambda key: ratios[key])
        said = f"{ratios[worst]:.2f} times as fast as the faster of dense and masked in {worst}, the worst case"
        print(f"{threads} threads, {name}: {said}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--networks", nargs="*", default=list(BATCHES), choices=list(BATCHES))
    parser.add_argument("--csv", type=Path, default=CSV)
    options = parser.parse_args()
    as_trained()
    write_rows(options.csv, COLUMNS, PART, rows(options))


if __name__ == "__main__":
    main()
