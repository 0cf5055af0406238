"""`xnets train`: one run by itself."""

import argparse
from pathlib import Path


def add_train(commands: argparse._SubParsersAction) -> None:
    """Add `xnets train` to `xnets`."""
    parser = commands.add_parser(
        "train",
        help="train one network on one data set",
        description="Train one network, e.g. xnets train X-VGG16-1 --data cifar10 --source ~/cifar --epochs 2. "
        "The run is kept in the store; the same command goes on where it stopped.",
    )
    parser.add_argument("model", help="in the paper's notation; `xnets models` lists them")
    data = parser.add_argument_group("data")
    data.add_argument("--data", default="cifar10", help="digits, cifar10, cifar100, imagenet or a name of your own")
    data.add_argument("--source", help="download, or the folder that holds it: train/ and test/ (or val/) of classes")
    data.add_argument("--data-folder", type=Path, default=Path("data"), help="where packed data are kept (%(default)s)")
    how = parser.add_argument_group("protocol (the paper's for this network, unless changed)")
    how.add_argument("--protocol", help="a name in experiments/protocols.yaml")
    how.add_argument("--epochs", type=int, help="fewer than the paper's run through its schedule in proportion")
    how.add_argument("--batch-size", type=int)
    how.add_argument("--max-lr", type=float)
    how.add_argument("--augmentation", help="none, crop-1, crop-4-flip or resized-crop-flip")
    how.add_argument("--precision", help="fp32, bf16 or fp16")
    network = parser.add_argument_group("network")
    network.add_argument("--rule", default="paper", help="paper or authors (%(default)s)")
    network.add_argument("--graph", help="random, matchings, ...")
    network.add_argument("--init", help="torch, sparse-aware or authors")
    network.add_argument("--narrow", type=int, default=1, help="divide all widths by this (%(default)s)")
    network.add_argument("--drop-strides", type=int, default=0, help="for small images (%(default)s)")
    network.add_argument("--graph-seed", type=int, default=0)
    network.add_argument("--train-seed", type=int, default=0)
    where = parser.add_argument_group("where")
    where.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    where.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    where.add_argument(
        "--kernel", default="auto", help="of sparse layers: auto (the fastest here), dense, direct, triton"
    )
    where.add_argument("--store", type=Path, default=Path("store"), help="folder of runs (%(default)s)")
    where.add_argument("--compile", action="store_true", help="the network by torch.compile: worth a try on a GPU")
    where.add_argument("--checkpoint-minutes", type=float, default=5)

    def run(args: argparse.Namespace) -> None:
        from experiments.single import train_one

        train_one(args)

    parser.set_defaults(run=run)
