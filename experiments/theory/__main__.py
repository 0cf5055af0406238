"""`python -m experiments.theory`: measure what the paper says of graphs; a stage of dvc.yaml.

At the scales `cifar` and `paper` as much as docs/theory/measured has (20 minutes of one core), else seconds.
"""

import argparse
import csv
import io
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from experiments.settings import read_settings
from experiments.theory.gaps import gap_rows
from experiments.theory.mixing import mixing_rows
from experiments.theory.sensitivity import Stack, sensitivity_rows
from xnets.cli import run_command
from xnets.files import write_text

Rows = Iterator[dict[str, Any]]
FULL_AT = ("cifar", "paper")


def small() -> dict[str, Callable[[], Rows]]:
    """The same measurements on small graphs, in seconds."""
    names = ("random", "matchings", "ramanujan", "butterfly", "grouped-shuffled", "grouped")
    stacks = [Stack(name, n, 16, 0, 256) for name in names for n in (64, 256, 1024, 4096)]
    stacks += [Stack(name, n, d, 0, 256) for name in names[:2] for d in (2, 4, 8) for n in (64, 256, 1024, 4096)]
    return {
        "sensitivity": lambda: sensitivity_rows(stacks),
        "mixing": lambda: mixing_rows(128, 16, (32, 16, 8, 4, 2), 3, all_pairs=False),
        "gaps": lambda: gap_rows(200, 0.02, every=9),
    }


def full() -> dict[str, Callable[[], Rows]]:
    """What docs/theory/measured has."""
    sides = [4**k for k in range(3, 11)]
    names = ("random", "matchings", "ramanujan", "butterfly", "grouped-shuffled", "grouped")

    def stacks(name: str, degree: int) -> list[Stack]:
        return [
            Stack(name, n, degree, seed, None if n <= 4096 else 1024 if n <= 65536 else 128)
            for n in sides
            for seed in range(3 if n <= 65536 and name in names[:3] else 1)
        ]

    asked = [(name, 16) for name in names] + [(name, d) for name in names[:2] for d in (2, 4, 8, 32)]
    return {
        "sensitivity": lambda: sensitivity_rows([stack for pair in asked for stack in stacks(*pair)]),
        "mixing": lambda: mixing_rows(512, 64, (64, 32, 16, 8, 4, 2), 20, all_pairs=True),
        "gaps": lambda: gap_rows(10_000, 2.0),
    }


def main(argv: list[str] | None = None) -> int:
    """Write results/<scale>/theory/measured/*.csv."""
    parser = argparse.ArgumentParser("python -m experiments.theory", description=__doc__)
    what = "sensitivity, mixing, gaps; all unless given"
    parser.add_argument("what", nargs="*", choices=[*small(), []], metavar="WHAT", help=what)
    parser.add_argument("--size", choices=["small", "full"], help="by the scale of params.yaml unless given")
    parser.add_argument("--to", type=Path, help="a folder; results/<scale>/theory/measured unless given")
    args = parser.parse_args(argv)
    return run_command(lambda: _measure(args), "experiments.theory")


def _measure(args: argparse.Namespace) -> None:
    settings = read_settings()
    size = args.size or ("full" if settings.scale in FULL_AT else "small")
    folder = args.to or settings.results / "theory" / "measured"
    for name, rows in (full() if size == "full" else small()).items():
        if not args.what or name in args.what:
            started = time.thread_time()
            found = list(rows())
            write_rows(found, folder / f"{name}.csv")
            took = time.thread_time() - started
            print(f"theory: {name}, {len(found)} rows, {took:.0f} s of this core", file=sys.stderr, flush=True)


def write_rows(rows: list[dict[str, Any]], path: Path) -> None:
    """A csv file with six significant digits; empty where there is no number."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text.getvalue())


if __name__ == "__main__":
    sys.exit(main())
