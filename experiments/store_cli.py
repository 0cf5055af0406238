"""`xnets store`: bring runs from one machine's store into another's."""

import argparse
import sys
from pathlib import Path

ABOUT = """\
Bring finished runs from one machine to another that does not share its disk. There they count as if they had been
trained there.

  machine that trained:  xnets store export runs.tar    what is finished of the runs that params.yaml asks for
                         (copy runs.tar over: scp, a USB stick, ...)
  the other machine:     xnets store import runs.tar
                         dvc repro                      train what is still missing, make tables and figures

Both need the same version of this repository and the same data. Finished runs are never overwritten."""
EXPORT = """\
Write finished runs to FILE.tar: their results, histories and evaluations, and the trained networks (model.pt) of those
that are not evaluated yet. Nothing in the store changes.

  xnets store export runs.tar                        what is finished of the runs that params.yaml asks for
  xnets store export runs.tgz --all --models         everything finished, with all networks, compressed
  xnets store export runs.tar --unfinished           and checkpoints, to go on with on the other machine
  xnets store export runs.tar --max-mib 100          runs-1.tar, runs-2.tar, ...: each can be imported by itself"""
IMPORT = """\
Check the files, every byte of all of them, then add the runs that the store here lacks.

  finished here with the same result    it stays; evaluation or network are added if they are missing
  finished here with another result     it stays, and is reported as a conflict; the exit status is then 1
  begun or failed here                  a finished run takes its place; a checkpoint that has come further too
  being trained here right now          left alone and reported; import again when that is done

If an import is interrupted, start it again."""


def add_store(commands: argparse._SubParsersAction) -> None:
    """Add `xnets store` to `xnets`."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        "store", help="move finished runs between machines", description=ABOUT, formatter_class=as_written
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    out = actions.add_parser(
        "export", help="write runs of this machine's store to a file", description=EXPORT, formatter_class=as_written
    )
    out.add_argument(
        "file", type=Path, metavar="FILE.tar", help="to be written; compressed if it ends in .tar.gz or .tgz"
    )
    out.add_argument("--scale", help="the runs of this scale instead of the one in params.yaml")
    out.add_argument("--all", action="store_true", help="all finished runs in the store, whatever params.yaml asks for")
    out.add_argument("--models", action="store_true", help="the trained networks of all these runs too")
    out.add_argument(
        "--unfinished", action="store_true",
        help="also checkpoints of the runs that params.yaml asks for, unless a process is training them",
    )  # fmt: skip
    out.add_argument("--max-mib", type=float, metavar="N", help="cut it into files of at most N MiB")
    out.set_defaults(run=_export)
    into = actions.add_parser(
        "import", help="add the runs in such files to this machine's store", description=IMPORT,
        formatter_class=as_written,
    )  # fmt: skip
    into.add_argument("files", type=Path, nargs="+", metavar="FILE.tar", help="written by export; in any order")
    into.set_defaults(run=_import)


def _export(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from experiments.bundles.exporting import export_runs
    from experiments.plan import make_plan
    from experiments.scales import read_scales
    from experiments.settings import check_choice, read_settings
    from experiments.store import Store

    settings = read_settings()
    if args.scale:
        check_choice("--scale", args.scale, list(read_scales()))
        settings = replace(settings, scale=args.scale)
    # --all asks no plan: data that are not prepared here do not matter to it
    planned = make_plan(settings).runs(missing_ok=True) if args.unfinished or not args.all else []
    done = export_runs(
        Store(settings.store), args.file, planned, everything=args.all, models=args.models,
        unfinished=args.unfinished, max_mib=args.max_mib,
    )  # fmt: skip
    for reason in done.left_out:
        print(f"left out: {reason}", file=sys.stderr)
    for file in done.files:
        print(f"{file}  {file.stat().st_size / 2**20:.1f} MiB")
    of_plan = "" if args.all else f" of the {len(planned)} of scale {settings.scale}"
    under_way = f", {done.under_way} under way" if args.unfinished else ""
    print(f"{done.finished} finished runs{of_plan}{under_way}; on the other machine: xnets store import FILE...")


def _import(args: argparse.Namespace) -> int:
    from experiments.bundles.importing import import_bundles
    from experiments.settings import read_settings
    from experiments.store import Store

    store = Store(read_settings().store)
    done = import_bundles(store, args.files)
    for sentence in done.conflicts:
        print(f"conflict: {sentence}", file=sys.stderr)
    for sentence in [*done.kept, *done.held]:
        print(f"kept: {sentence}")
    under_way = f", {len(done.under_way)} to go on" if done.under_way else ""
    known, conflicts = len(done.known), len(done.conflicts)
    print(f"{len(done.new)} new, {known} already here, {conflicts} in conflict{under_way}; in {store.root}")
    return 1 if done.conflicts else 0
