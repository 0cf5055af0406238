"""The `xnets` command. Commands from above the library join through the entry points "xnets.commands"."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict

from xnets import __version__
from xnets.errors import XNetsError
from xnets.files import DISK_ERRORS
from xnets.graph_cli import add_graph
from xnets.plugins import entry_points

MOST_THREADS = 1024


def main(argv: list[str] | None = None) -> int:
    """Run one command; a mistake of the user's is one sentence and exit status 2."""
    parser = argparse.ArgumentParser("xnets", description="X-Nets: networks on expander graphs (ECCV 2018), rebuilt.")
    parser.add_argument("--version", action="version", version=f"xnets {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_models(commands)
    _add_cost(commands)
    _add_explain(commands)
    add_graph(commands)
    for entry in sorted(entry_points(group="xnets.commands"), key=lambda entry: entry.name):
        try:
            add = entry.load()
        except AttributeError:  # the code changed since it was installed
            print(f"xnets: `xnets {entry.name}` needs `make setup` again.", file=sys.stderr)
            continue
        except ModuleNotFoundError as error:
            if error.name != entry.module.split(".")[0]:
                raise
            continue  # the wheel alone: these commands live in the repository
        add(commands)
    args = parser.parse_args(argv)
    return run_command(lambda: args.run(args), "xnets")


def run_command(command: Callable[[], int | None], program: str) -> int:
    """Call `command` and return its exit status; what a user can mend ends in a sentence instead of a traceback."""
    try:
        status = command() or 0
        sys.stdout.flush()  # a closed pipe shows here, not after the last line of Python
        return status
    except XNetsError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a disk that is full, read-only or gone
        if error.errno not in DISK_ERRORS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"{program}: {where}{error.strerror}; free space or make it writable, then start again.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted; what was finished is kept, and the same command goes on from there.")
        return 130


def _add_models(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("models", help="list the paper's networks")

    def run(args: argparse.Namespace) -> None:
        from xnets.models import PAPER_MODELS

        print("\n".join(PAPER_MODELS))

    parser.set_defaults(run=run)


def _add_cost(commands: argparse._SubParsersAction) -> None:
    from xnets.cost import COUNTING_RULES

    parser = commands.add_parser(
        "cost",
        help="count a network's parameters, multiply-adds and activations",
        description="Count networks by name, e.g. xnets cost X-ResNet-2-50. One image; M = 10^6; FLOPs = 2 MACs.",
    )
    parser.add_argument("name", nargs="+", help="in the paper's notation; `xnets models` lists them")
    parser.add_argument("--rule", choices=[*COUNTING_RULES, "all"], default="all", help="counting rule (default: all)")
    parser.add_argument("--classes", type=int, help="number of classes (default: 10 at 32x32, 1000 at 224x224)")
    parser.add_argument("--image-size", type=int, help="side of the image in pixels (default: the paper's)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.set_defaults(run=_print_costs)


def _print_costs(args: argparse.Namespace) -> None:
    from xnets.cost import COUNTING_RULES, cost

    rules = COUNTING_RULES if args.rule == "all" else (args.rule,)
    if not args.json:
        print(f"{'network':28}{'rule':9}{'params':>10}{'no norms':>10}{'MACs':>11}{'FLOPs':>11}{'activations':>13}")
    for name in args.name:
        costs, refusals = {}, {}
        for rule in rules:
            try:
                costs[rule] = cost(name, rule, args.classes, args.image_size)
            except XNetsError as error:
                refusals[rule] = error
        if not costs:  # not this or that rule but the question is wrong
            raise refusals[rules[0]]
        for rule in rules:
            if rule in refusals:
                print(f"{name:28}{rule:9}{'':4}{refusals[rule]}", file=sys.stderr if args.json else sys.stdout)
                continue
            c = costs[rule]
            if args.json:
                print(json.dumps({"name": name, "rule": rule, **asdict(c), "flops": c.flops}))
            else:
                params = f"{c.parameters / 1e6:9.3f}M{(c.parameters - c.norms) / 1e6:9.3f}M"
                work = f"{c.macs / 1e6:10.2f}M{c.flops / 1e6:10.2f}M{c.activation_bytes / 2**20:10.1f}MiB"
                print(f"{name:28}{rule:9}{params}{work}")


def _add_explain(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "explain",
        help="say which kernel each sparse layer of a network uses on this machine, and why",
        description="Run a network by name, e.g. xnets explain X-VGG16-1 --batch 64, and print for each X-Conv and "
        "X-Linear which kernel computes it here and why. What was measured is kept, so that it is measured once.",
    )
    parser.add_argument("name", help="in the paper's notation; `xnets models` lists them")
    parser.add_argument("--batch", type=int, default=16, help="images (default: 16)")
    parser.add_argument("--inference", action="store_true", help="the forward pass alone, not a training step")
    parser.add_argument("--image-size", type=int, help="side of the image in pixels (default: the paper's)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: 1)")
    parser.set_defaults(run=_print_kernels)


def _print_kernels(args: argparse.Namespace) -> None:
    import torch

    from xnets.cost import cost
    from xnets.explain import describe, explain
    from xnets.layers.direct import vectors_here
    from xnets.layers.timings import Timings
    from xnets.machine import cpu_name
    from xnets.models import build, parse_name

    for what in ("batch", "threads", "image_size"):
        if getattr(args, what) is not None and getattr(args, what) < 1:
            raise XNetsError(f"--{what.replace('_', '-')} must be at least 1, not {getattr(args, what)}.")
    if args.threads > MOST_THREADS:  # torch would crash on far more
        raise XNetsError(f"--threads must be at most {MOST_THREADS}, not {args.threads}.")
    torch.set_num_threads(args.threads)
    size = args.image_size or parse_name(args.name).image_size
    example = torch.randn(args.batch, 3, size, size)
    cost(args.name, image_size=size)  # says so if the network does not take such images
    try:
        found = explain(build(args.name), example, training=not args.inference)
    except ValueError as error:  # batch norms of one value
        raise XNetsError(f"{args.name} cannot be trained on {args.batch} images of {size}x{size}: {error}") from None
    gpu = "" if torch.cuda.is_available() else "; no GPU here, so no Triton kernels"
    threads = f"{args.threads} thread{'s' if args.threads > 1 else ''} of {cpu_name()}"
    print(f"{args.name}, {args.batch} images of {size}x{size}, {threads}, {vectors_here()}{gpu}")
    print(describe(found) if found else "It has no sparse layer: all of it is torch's own.")
    if any(e.choice.milliseconds for e in found):
        print(f"Measured times are kept in {Timings.of_this_machine().path}")


if __name__ == "__main__":
    sys.exit(main())
