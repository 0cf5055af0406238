"""`xnets sweep` and `xnets train`: what the pipeline would do before it does it, and one run by itself."""

import argparse
from collections import Counter
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
    where.add_argument("--store", type=Path, default=Path("store"), help="folder of runs (%(default)s)")
    where.add_argument("--checkpoint-minutes", type=float, default=5)

    def run(args: argparse.Namespace) -> None:
        from experiments.single import train_one

        train_one(args)

    parser.set_defaults(run=run)


def add_sweep(commands: argparse._SubParsersAction) -> None:
    """Add `xnets sweep` to `xnets`."""
    parser = commands.add_parser("sweep", help="the runs of params.yaml: what there is to do")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    plan = actions.add_parser("plan", help="runs done and missing, table by table, and the time they will take")
    plan.add_argument("--scale", help="instead of the one in params.yaml")
    plan.add_argument("--runs", action="store_true", help="list every run")
    plan.set_defaults(run=_plan)


def _plan(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from experiments.estimate import Estimate
    from experiments.local import places
    from experiments.plan import make_plan
    from experiments.scales import read_scales
    from experiments.settings import check_choice, read_settings
    from experiments.store import Store

    settings = read_settings()
    if args.scale:
        check_choice("scale", args.scale, list(read_scales()))
        settings = replace(settings, scale=args.scale)
    plan = make_plan(settings)
    workers = places(settings, 10**6)
    store, estimate = Store(settings.store), Estimate(plan, workers[0].split(":")[0])
    items = plan.runs_of_items(missing_ok=True)
    state = {run: "done" if store.result(run) else "to train" for runs in items.values() for run in runs}
    print(f"scale {settings.scale}: {plan.about}")
    print(f"{'':10}{'runs':>6}{'done':>6}{'to train':>10}   time of one worker, were it alone")
    for item, wanted in items.items():
        missing = [run for run in wanted if state[run] != "done"]
        time = duration(sum(map(estimate.seconds, missing)))
        print(f"{item:10}{len(wanted):6}{len(wanted) - len(missing):6}{len(missing):10}   {time}")
    counts = Counter(state.values())
    missing = [run for run in state if state[run] != "done"]
    time = duration(sum(map(estimate.seconds, missing)) / len(workers))
    where = f"{len(workers)} worker{'s' * (len(workers) > 1)} ({workers[0].split(':')[0]})"
    print(
        f"{'together':10}{len(state):6}{counts['done']:6}{counts['to train']:10}   {time} on {where}; rows share runs"
    )
    if args.runs:
        for run in state:
            print(f"  {state[run]:9}{duration(estimate.seconds(run)):>10}  {run.fingerprint[:12]}  {run.label}")


def duration(seconds: float) -> str:
    """1.5 h, 12 min, 8 s, 3 days: one figure and its unit."""
    for length, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}" if seconds < 10 * length else f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
