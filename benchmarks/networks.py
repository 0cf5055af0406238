"""Whole networks: `make bench`, or python -m benchmarks.networks [--threads 1]. Writes benchmarks/networks.csv.

A training step (forward, backward, SGD with momentum) and inference of the paper's X-Nets against their dense twin, the
same network with the authors' masked layers, and, for MobileNet, group convolutions; in turns in one run. All of them
also by for_training and for_inference, which do most for what is between the convolutions. `limit` is what the
machine's peak allows the X-Net: its multiply-adds at the peak, and in training all else as it was measured.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.baselines import channels_last, masked_twin
from benchmarks.records import write_rows
from benchmarks.rooflines import multiply_adds_per_second, rest_milliseconds
from benchmarks.timing import as_trained, interleaved, ratio
from xnets import for_inference, for_training, kernels
from xnets.cost import cost
from xnets.models import build, parse_name

CSV = Path(__file__).with_suffix(".csv")
PART = ["threads", "network", "pass"]  # of the columns, what is measured together
COLUMNS = [
    "machine", "threads", "network", "batch", "pass", "method", "ms",
    "to_dense", "to_dense_low", "to_dense_high", "to_masked", "to_masked_low", "to_masked_high", "n",
]  # fmt: skip
BATCHES = {
    "X-VGG16-1": 64, "X-VGG16-2": 64, "X-DenseNet-BC-2-40-24": 16,
    "X-MobileNet-0.5-2": 32, "X-MobileNet-0.5-4": 32, "X-MobileNet-0.5-8": 32, "X-MobileNet-0.5-16": 32,
    "X-ResNet-2-50": 8, "X-DenseNet-BC-30-40-200": 16,
}  # fmt: skip
SECONDS = 40  # for one network and kind of pass
PASSES = ("training step", "inference")


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """As the trainer's, but for a rate that changes next to nothing."""
    return torch.optim.SGD(model.parameters(), 1e-6, momentum=0.9, weight_decay=1e-4, fused=True)


def training_step(
    model: nn.Module, x: torch.Tensor, kernel: str, optimizer: torch.optim.Optimizer | None = None
) -> Callable[[], object]:
    """Forward, backward, update."""
    model.train()
    labels = torch.zeros(len(x), dtype=torch.long)
    optimizer = optimizer or optimizer_of(model)

    def step() -> None:
        with kernels(kernel):
            F.cross_entropy(model(x), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def inference(model: nn.Module, x: torch.Tensor, kernel: str) -> Callable[[], object]:
    """A forward pass in evaluation mode."""
    model.eval()

    def forward() -> None:
        with torch.inference_mode(), kernels(kernel):
            model(x)

    return forward


def competitors(name: str, x: torch.Tensor, what: str) -> dict[str, Callable[[], object]]:
    """By method, one pass each. Every method has a network of its own, so that none warms another's memory."""
    job = training_step if what == "training step" else inference
    nhwc = x.contiguous(memory_format=torch.channels_last)
    parsed = parse_name(name)
    dense = build(parsed.dense_twin)
    work = {
        "dense": job(dense, x, "dense"),
        "dense channels_last": job(channels_last(dense), nhwc, "dense"),
        "masked": job(masked_twin(build(name)), x, "dense"),
        "X, dense kernel": job(build(name), x, "dense"),
        "X, auto": job(build(name), x, "auto"),
        "X, auto channels_last": job(channels_last(build(name)), nhwc, "auto"),
    }
    if parsed.family == "mobilenet":
        groups = build(name.replace("X-", "G-"))
        work["grouped"] = job(groups, x, "dense")
        work["grouped channels_last"] = job(channels_last(groups), nhwc, "dense")
    if what == "training step":
        given = {"dense": parsed.dense_twin, "X": name}
        if parsed.family == "mobilenet":
            given["grouped"] = name.replace("X-", "G-")
        for method, network in given.items():
            work[f"{method}, for_training"] = job(for_training(build(network)), x, "auto")
            if parsed.family in ("mobilenet", "resnet"):  # VGG's and DenseNet's maps are faster contiguous
                nhwc_model = for_training(channels_last(build(network)))
                work[f"{method}, for_training channels_last"] = job(nhwc_model, nhwc, "auto")
    if what == "inference":
        work["dense, for_inference"] = inference(for_inference(build(parsed.dense_twin).eval(), x), x, "auto")
        work["X, for_inference"] = inference(for_inference(build(name).eval(), x), x, "auto")
        if parsed.family == "mobilenet":
            work["grouped, for_inference"] = inference(
                for_inference(build(name.replace("X-", "G-")).eval(), x), x, "auto"
            )
    return work


def measure(name: str, what: str, repeats: int, peak: float) -> list[list]:
    """Rows of the csv for one network and one kind of pass; peak: multiply-adds a second."""
    batch, size = BATCHES[name], parse_name(name).image_size
    x = torch.randn(batch, 3, size, size)
    work = competitors(name, x, what)
    times = interleaved(work, repeats, f"{name}, {what}", SECONDS)
    dense = [took for method, took in times.items() if method in ("dense", "dense channels_last")]
    rows = []
    for method, took in times.items():
        to_dense, to_masked = ratio(took, dense), ratio(took, [times["masked"]])
        numbers = [v for r in (to_dense, to_masked) for v in (r.median, r.low, r.high)]
        found = [f"{v:.3f}" for v in numbers]
        rows.append([name, batch, what, method, f"{statistics.median(took):.2f}", *found, len(took)])
    passes, rest = 1, 0.0
    if what == "training step":
        passes, rest = 3, min(rest_milliseconds(step) for method, step in work.items() if method.startswith("X, "))
    least = rest + 1e3 * passes * batch * cost(name).macs / peak
    fastest = min(statistics.median(took) for took in dense)
    ratios = [f"{ms / least:.3f}" for ms in (fastest, statistics.median(times["masked"])) for _ in range(3)]
    rows.append([name, batch, what, "limit", f"{least:.2f}", *ratios, len(times["dense"])])
    return rows


def rows(options: argparse.Namespace) -> Iterator[list]:
    """Of the csv, each as it is measured."""
    for threads in options.threads:
        torch.set_num_threads(threads)
        peak = multiply_adds_per_second()
        for name in options.networks:
            for what in options.passes:
                torch.manual_seed(0)
                measured = measure(name, what, options.repeats, peak)
                yield from ([threads, *row] for row in measured)
                said = "  ".join(f"{row[3]} {float(row[5]):.2f}" for row in measured)
                print(f"{threads} threads  {name}, {what}, times dense: {said}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--networks", nargs="*", default=list(BATCHES), choices=list(BATCHES))
    parser.add_argument("--passes", nargs="*", default=list(PASSES), choices=list(PASSES))
    parser.add_argument("--csv", type=Path, default=CSV)
    options = parser.parse_args()
    as_trained()
    write_rows(options.csv, COLUMNS, PART, rows(options))


if __name__ == "__main__":
    main()
