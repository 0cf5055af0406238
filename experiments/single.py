"""`xnets train`: one network on one data set, outside any table."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from experiments.execute import execute
from experiments.scales import read_protocols
from experiments.stages import ready_data, say
from experiments.store import Store
from xnets.errors import XNetsError
from xnets.models import ModelName, ModelSpec, build_spec
from xnets.training import Protocol, Run

if TYPE_CHECKING:
    import torch


def train_one(args: argparse.Namespace) -> None:
    """Train, evaluate and report; started again, it goes on from its checkpoint or says what it found before."""
    import torch

    from xnets.layers import kernels

    device = device_named(args.device)
    if args.threads is not None:
        if args.threads < 1:
            raise XNetsError(f"--threads must be 1 or more, not {args.threads}: leave it out to use all cores.")
        torch.set_num_threads(args.threads)
    kernels(args.kernel)
    network = (args.rule, args.graph, args.init, args.narrow, args.drop_strides)
    spec = ModelSpec(args.model, 10, *network)  # as many classes as the data have, once these are there
    build_spec(spec, args.graph_seed, device="meta")  # what is mistyped is told before data are prepared
    protocol = _protocol(args, spec.parsed)
    data = ready_data(args.data, args.data_folder, args.source)
    spec = ModelSpec(args.model, data.num_classes, *network)
    run = Run(spec, args.data, data.digest, protocol, args.graph_seed, args.train_seed)
    train_here(run, Store(args.store), args.data_folder, device, args.checkpoint_minutes, args.compile)


def train_here(
    run: Run, store: Store, data_folder: Path, device: "torch.device", checkpoint_minutes: float, compiled: bool = False
) -> None:
    """Train and evaluate one run in this process, telling of each epoch; what is done is told at once."""
    import torch

    say(f"{run.label}: {run.protocol}\n  {device}, {torch.get_num_threads()} threads, into {store.folder(run)}")
    with store.lock(), tqdm(total=run.protocol.epochs, unit="epoch") as bar:

        def on_epoch(record: dict) -> None:
            bar.update()
            bar.write(
                f"epoch {record['epoch']:3}  lr {record['lr']:.4g}  train loss {record['train_loss']:.3f} "
                f"top-1 {record['train_top1']:.2f} %  test top-1 {record['test_top1']:.2f} %"
            )

        execute("train", run, store, data_folder, device, 60 * checkpoint_minutes, on_epoch, compiled=compiled)
        execute("evaluate", run, store, data_folder, device, 0)
    result, seen = store.result(run), store.evaluation(run)
    best = max(record["test_top1"] for record in result["epochs"])
    print(
        f"{run.label}: final top-1 {seen['top1']:.2f} % of {seen['n']} test images after {run.protocol.epochs} epochs "
        f"(best epoch {best:.2f} %), {result['provenance']['seconds']:.0f} s; {store.folder(run)}/result.json"
    )


def device_named(name: str) -> "torch.device":
    """auto, cpu or cuda."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise XNetsError("torch finds no GPU: leave --device out, or say --device cpu.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _protocol(args: argparse.Namespace, name: ModelName) -> Protocol:
    protocols = read_protocols()
    family = {"vgg": "cifar-vgg", "mobilenet": "imagenet-mobilenet", "alexnet": "imagenet-alexnet"}.get(name.family)
    usual = family or ("cifar-densenet" if name.image_size == 32 else "imagenet-resnet")
    chosen = args.protocol or usual
    if chosen not in protocols:
        raise XNetsError(f"Unknown protocol {chosen!r}; there are {', '.join(protocols)}.")
    said = {"epochs": args.epochs, "batch_size": args.batch_size, "max_lr": args.max_lr}
    said |= {"augmentation": args.augmentation, "precision": args.precision}
    return Protocol(**{**protocols[chosen], **{key: value for key, value in said.items() if value is not None}})
