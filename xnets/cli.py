"""The `xnets` command. Commands from above the library join through the entry points "xnets.commands"."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import entry_points

from xnets import __version__
from xnets.errors import XNetsError
from xnets.files import DISK_ERRORS
from xnets.graph_cli import add_graph


def main(argv: list[str] | None = None) -> int:
    """Run one command; a mistake of the user's is one sentence and exit status 2."""
    parser = argparse.ArgumentParser("xnets", description="X-Nets: networks on expander graphs (ECCV 2018), rebuilt.")
    parser.add_argument("--version", action="version", version=f"xnets {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_models(commands)
    _add_cost(commands)
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


if __name__ == "__main__":
    sys.exit(main())
