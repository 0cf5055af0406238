"""`xnets store`: bring runs from one machine's store into another's."""

import argparse
import sys
from pathlib import Path

ABOUT = """\
Two machines without a shared disk: bring finished runs from the store of one into that of the other, where they count
as if they had been trained there.

  there:  xnets store export runs.tar          the finished runs of params.yaml
          (copy runs.tar over: scp, a stick, ...)
  here:   xnets store import runs.tar
          dvc repro                            trains what is still missing, and makes tables and figures

Both machines need the same version of this repository and the same data. A run that is here is never overwritten."""
EXPORT = """\
Write finished runs to a bundle: their results and evaluations, and the networks of those not evaluated yet.
"""
IMPORT = """\
Check bundles wholly, then add the runs that are not here. A run that is here with another result is reported and kept
as it is; the exit status is then 1. If an import is interrupted, start it again.
"""


def add_store(commands: argparse._SubParsersAction) -> None:
    """Add `xnets store` to `xnets`."""
    parser = commands.add_parser(
        "store", help="move finished runs between machines", description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    out = actions.add_parser("export", help="write runs of this machine's store to a bundle", description=EXPORT)
    out.add_argument("file", type=Path, metavar="FILE.tar", help="the bundle; .tar.gz or .tgz: compressed")
    out.add_argument("--scale", help="the runs of this scale instead of that in params.yaml")
    out.add_argument("--all", action="store_true", help="every finished run in the store, whatever params.yaml says")
    out.add_argument("--models", action="store_true", help="the trained networks too, of all runs")
    out.add_argument(
        "--unfinished", action="store_true", help="also the checkpoints of the plan's runs under way, to go on there"
    )
    out.add_argument(
        "--max-mib", type=float, metavar="N", help="cut it into FILE-1.tar, FILE-2.tar ... of N MiB at most"
    )
    out.set_defaults(run=_export)
    into = actions.add_parser("import", help="add the runs of bundles to this machine's store", description=IMPORT)
    into.add_argument("files", type=Path, nargs="+", metavar="FILE.tar", help="bundles, in any order")
    into.set_defaults(run=_import)


def _export(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from experiments.bundle import export_runs
    from experiments.plan import make_plan
    from experiments.scales import read_scales
    from experiments.settings import check_choice, read_settings
    from experiments.store import Store

    settings = read_settings()
    if args.scale:
        check_choice("scale", args.scale, list(read_scales()))
        settings = replace(settings, scale=args.scale)
    # --all asks no plan: data that are not prepared here do not matter to it
    planned = make_plan(settings).runs(missing_ok=True) if args.unfinished or not args.all else []
    done = export_runs(
        Store(settings.store), args.file, planned, args.all, args.models, args.unfinished, args.max_mib
    )  # fmt: skip
    for reason in done.left_out:
        print(f"left out: {reason}", file=sys.stderr)
    for file in done.files:
        print(f"{file}  {file.stat().st_size / 2**20:.1f} MiB")
    of_plan = "" if args.all else f" of the {len(planned)} of scale {settings.scale}"
    under_way = f", {done.under_way} under way" if args.unfinished else ""
    print(f"{done.finished} finished runs{of_plan}{under_way}; on the other machine: xnets store import FILE...")


def _import(args: argparse.Namespace) -> int:
    from experiments.bundle import import_bundles
    from experiments.settings import read_settings
    from experiments.store import Store

    store = Store(read_settings().store)
    done = import_bundles(store, args.files)
    for sentence in done.conflicts:
        print(f"conflict: {sentence}", file=sys.stderr)
    for sentence in done.kept:
        print(sentence)
    under_way = f", {len(done.under_way)} to go on" if done.under_way else ""
    known, conflicts = len(done.known), len(done.conflicts)
    print(f"{len(done.new)} new, {known} already here, {conflicts} in conflict{under_way}; in {store.root}")
    return 1 if done.conflicts else 0
