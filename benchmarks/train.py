"""Training throughput of the CIFAR networks, input included: ours against a usual loop and the authors' approach.

Three loops take turns at some steps each. xnets: the trainer's (images kept as uint8, a batch cropped and flipped at
once, X-layers by the kernel that `auto` measured). plain: the same network by the dense kernel, fed by a DataLoader
with workers and torchvision's transforms. authors: the same DataLoader and masked weights. On a GPU, or with
--compiled, a fourth: xnets compiled, the trainer's with local.compile. All in fp32 with SGD, on made-up images of the
size of CIFAR's; all cores unless --threads says otherwise. Ratios are of times in the same round, and what is told is
their median: the ratio of the median speeds may be another, where the machine was not as fast in all rounds.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.baselines import masked_twin
from benchmarks.records import write_rows
from benchmarks.timing import as_trained, interleaved, ratio
from experiments.rows import read_rows
from xnets.data import PackedData, pack
from xnets.data.batches import Batches
from xnets.layers import kernels
from xnets.machine import cpu_name
from xnets.models import build, parse_name
from xnets.training.loop import in_fast_layout

CSV = Path(__file__).with_suffix(".csv")
PART = ["device", "threads", "network"]  # of the columns, what is measured together
COLUMNS = [
    "machine", "device", "threads", "network", "batch", "loop", "images_per_s", "to_plain", "to_plain_low",
    "to_plain_high", "to_authors", "to_authors_low", "to_authors_high", "n",
]  # fmt: skip
NETWORKS = [  # those of Table 4 and of the study on CIFAR-100
    "VGG16", "X-VGG16-1", "X-VGG16-2", "DenseNet-BC-40-24", "X-DenseNet-BC-2-40-24", "X-DenseNet-BC-2-40-36",
    "X-DenseNet-BC-2-40-48", "X-DenseNet-BC-2-40-60", "MobileNet-0.5", "X-MobileNet-0.5-8",
]  # fmt: skip
IMAGES = 4096
Loop = Iterator[tuple[Tensor, Tensor]]


class Images(Dataset):
    """As torchvision's CIFAR10 hands them out: one by one, with crop, flip and normalisation by PIL and torchvision."""

    def __init__(self, data: PackedData) -> None:
        split = data.split("train")
        self.images, self.labels = np.array(split.images), split.labels
        self.change = transforms.Compose([
            transforms.ToPILImage(), transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(),
            transforms.ToTensor(), transforms.Normalize(data.manifest["mean"], data.manifest["sd"]),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.change(self.images[i]), int(self.labels[i])


def ours(data: PackedData, batch: int, device: torch.device) -> Loop:
    """The trainer's batches, epoch after epoch."""
    batches, epoch = Batches(data, batch, "crop-4-flip", device), 0
    while True:
        for x, y in batches.train(0, epoch):
            if len(x) == batch:
                yield x, y
        epoch += 1


def usual(data: PackedData, batch: int, device: torch.device, workers: int) -> Loop:
    """A DataLoader's batches, epoch after epoch."""
    loader = DataLoader(
        Images(data), batch, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )  # fmt: skip
    while True:
        for x, y in loader:
            yield x.to(device, non_blocking=True), y.to(device, non_blocking=True)


def built(name: str) -> nn.Module:
    """As scale cifar-short has it: MobileNet, made for 224 pixels, with a stride less."""
    return build(name, 10, drop_strides=int(parse_name(name).family == "mobilenet"))


def as_the_trainer_has_it(name: str, device: torch.device) -> nn.Module:
    """The network, untrained, on the device and in the trainer's layout of memory."""
    model = built(name).to(device)
    return model.to(memory_format=torch.channels_last) if device.type == "cuda" else model


def steps(
    model: nn.Module, loop: Loop, kernel: str, fused: bool, count: int, call: Callable[[Tensor], Tensor] | None = None
) -> Callable[[], None]:
    """`count` steps of training, until the device is done with them. call: the network as steps call it."""
    optimizer = torch.optim.SGD(model.parameters(), 1e-6, momentum=0.9, nesterov=True, weight_decay=1e-4, fused=fused)
    model.train()

    def train() -> None:
        with kernels(kernel):
            for _ in range(count):
                x, y = next(loop)
                optimizer.zero_grad(set_to_none=True)
                F.cross_entropy((call or model)(x), y).backward()
                optimizer.step()
        if x.device.type == "cuda":
            torch.cuda.synchronize()

    return train


def batch_of(name: str) -> int:
    """Of the paper's protocol."""
    return 64 if parse_name(name).family == "densenet" else 128


def every_network() -> list[str]:
    """Each that the paper trains on CIFAR, and NETWORKS."""
    paper = [row.model for row in read_rows() if row.model and row.dataset.startswith("cifar")]
    return list(dict.fromkeys([*NETWORKS, *paper]))


def measure(name: str, data: PackedData, device: torch.device, options: argparse.Namespace) -> Iterator[list]:
    """Rows of the csv for one network."""
    batch, workers = batch_of(name), min(4, os.cpu_count() or 1)
    model = as_the_trainer_has_it(name, device)
    call = in_fast_layout(model, parse_name(name))
    work = {
        "xnets": steps(model, ours(data, batch, device), "auto", True, options.steps, call),
        "plain": steps(built(name).to(device), usual(data, batch, device, workers), "dense", False, options.steps),
        "authors": steps(
            masked_twin(built(name)).to(device), usual(data, batch, device, workers), "dense", False, options.steps
        ),
    }
    if options.compiled or device.type == "cuda":
        fused = torch.compile(as_the_trainer_has_it(name, device))
        work["xnets compiled"] = steps(fused, ours(data, batch, device), "auto", True, options.steps)
    times = interleaved(work, options.repeats, name, clock=time.perf_counter)  # loaders are other processes
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    for loop, took in times.items():
        against = [ratio(took, [times[baseline]]) for baseline in ("plain", "authors")]
        speed = 1e3 * options.steps * batch / statistics.median(took)
        numbers = [f"{v:.3f}" for r in against for v in (r.median, r.low, r.high)]
        yield [where, torch.get_num_threads(), name, batch, loop, f"{speed:.1f}", *numbers, len(took)]


def rows(options: argparse.Namespace) -> Iterator[list]:
    """Of the csv, each as it is measured."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    draws = np.random.default_rng(0)
    made_up = [(draws.integers(0, 256, (32, 32, 3), dtype=np.uint8), i % 10) for i in range(IMAGES)]
    with tempfile.TemporaryDirectory() as folder:
        data = pack(Path(folder), "made-up", {"train": made_up, "test": made_up[:500]}, list("0123456789"))
        for name in options.networks:
            for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
                for row in measure(name, data, torch.device(device), options):
                    print(*row, sep="  ", flush=True)
                    yield row


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="in a turn")
    parser.add_argument(
        "--networks", nargs="*", default=NETWORKS, choices=every_network(), metavar="NAME",
        help="any that the paper trains on CIFAR (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--compiled", action="store_true", help="the trainer's loop by torch.compile too, on a CPU")
    parser.add_argument("--csv", type=Path, default=CSV)
    options = parser.parse_args()
    as_trained()
    write_rows(options.csv, COLUMNS, PART, rows(options))


if __name__ == "__main__":
    main()
