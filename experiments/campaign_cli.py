"""`xnets campaign`: train the real thing in slices of some minutes, wherever minutes can be had."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.campaign import Entry

MOST_MINUTES = 100_000  # two months: longer ones are mistyped

ABOUT = """\
Train what experiments/campaign.yaml lists, most wanted first, in slices: minutes at a time, on machines that keep
nothing in between. A slice ends in bundles; the next one begins with them.

  xnets store import bundles/campaign-*                   what earlier slices brought, checkpoints too
  xnets campaign run --minutes 9 --out bundles            one slice, here or on a machine that is lent for ten minutes
  xnets campaign plan                                     what is finished and what comes next
  xnets published add --scale cifar                       once runs are finished: into published/"""
RUN = """\
Train down the list until the minutes are nearly over. Runs under way then write their checkpoints, and everything goes
into bundles of at most --max-mib. A slice that is killed loses at most one checkpoint interval (params.yaml), and the
seconds that packing takes. Once all runs are finished its last line is `nothing is left to train`, and it ends with
0."""


def add_campaign(commands: argparse._SubParsersAction) -> None:
    """Add `xnets campaign` to `xnets`."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        "campaign", help="train the real thing in slices of minutes", description=ABOUT, formatter_class=as_written
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    plan = actions.add_parser("plan", help="what is finished and what comes next")
    plan.add_argument("--runs", action="store_true", help="each run, in the order in which they are trained")
    plan.set_defaults(run=_plan)
    run = actions.add_parser("run", help="train for some minutes", description=RUN, formatter_class=as_written)
    run.add_argument("--minutes", type=float, required=True, help="of all of it, packing included")
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the bundles")
    run.add_argument("--max-mib", type=float, default=16.0, metavar="N", help="of a bundle (default: %(default)s)")
    run.add_argument("--max-files", type=int, default=8, metavar="N", help="bundles (default: %(default)s)")
    run.add_argument("--workers", type=int, help="runs at a time (default: local.workers of params.yaml)")
    run.add_argument("--kernel", help="of sparse layers (default: local.kernel of params.yaml)")
    run.add_argument("--compile", action="store_true", default=None, help="as local.compile of params.yaml")
    run.set_defaults(run=_run)
    for action in (plan, run):
        action.add_argument("--scale", help="entries of this scale only")


def _entries(scale: str | None) -> "list[Entry]":
    from experiments.campaign import read_campaign
    from experiments.scales import read_scales
    from experiments.settings import check_choice
    from xnets.errors import XNetsError

    if scale is None:
        return read_campaign()
    check_choice("--scale", scale, list(read_scales()))
    entries = [entry for entry in read_campaign() if entry.scale == scale]
    if not entries:
        raise XNetsError(f"experiments/campaign.yaml has no entry of scale {scale}.")
    return entries


def _plan(args: argparse.Namespace) -> None:
    from experiments.campaign import campaign_runs, plans_of, published_runs
    from experiments.duration import duration
    from experiments.settings import read_settings
    from experiments.store import Store

    settings, entries = read_settings(), _entries(args.scale)
    store, plans = Store(settings.store), plans_of(settings, entries)
    for name in sorted({name for plan in plans.values() for name in plan.unprepared()}):
        print(f"{name} is not prepared yet: its runs cannot be told from one another, and count as not begun.")
    published = published_runs(entries)
    print(f"{'':44}{'runs':>6}{'done':>6}{'begun':>6}   time left on one core")
    for entry, runs in campaign_runs(plans, entries, missing_ok=True).items():
        done = [run for run in runs if run in published or store.is_done(run)]
        begun = [run for run in runs if run not in done and (store.folder(run) / "checkpoint.pt").exists()]
        left = duration(sum(seconds for run, seconds in runs.items() if run not in done))
        print(f"{entry.scale + ': ' + ', '.join(entry.items):44}{len(runs):6}{len(done):6}{len(begun):6}   {left}")
        for run, seconds in runs.items() if args.runs else ():
            state = "done" if run in done else "begun" if run in begun else "to train"
            print(f"  {state:10}{duration(seconds):>10}  {run.label}")


def _run(args: argparse.Namespace) -> int:
    import sys
    from dataclasses import replace

    from experiments.bundles.room import check_max_mib
    from experiments.local import STOPPED
    from experiments.settings import KERNELS, check_choice, read_settings
    from experiments.slices import Folder, run_slice
    from experiments.stages import say
    from xnets.errors import XNetsError

    settings, entries = read_settings(), _entries(args.scale)
    if args.kernel is not None:
        check_choice("--kernel", args.kernel, KERNELS)
    if (args.workers or 0) < 0:
        raise XNetsError("--workers must be 0, as many as are useful here, or more.")
    said = {"workers": args.workers, "kernel": args.kernel, "compile": args.compile}
    local = replace(settings.local, **{key: value for key, value in said.items() if value is not None})
    if not 2 <= args.minutes <= MOST_MINUTES:
        raise XNetsError(f"--minutes must be from 2 to {MOST_MINUTES}, not {args.minutes:g}.")
    if args.max_files < 1:
        raise XNetsError(f"--max-files must be 1 or more, not {args.max_files}.")
    check_max_mib(args.max_mib)
    folder = Folder(args.out, args.max_mib, args.max_files)
    done = run_slice(replace(settings, local=local), entries, args.minutes, folder, say)
    for run, reason in done.failed.items():
        if reason != STOPPED:  # that the minutes are over is no fault
            print(f"{run.label}: {reason}", file=sys.stderr)
    for reason in done.packed.left_out:
        print(f"left out: {reason}", file=sys.stderr)
    if not done.packed.files and not done.nothing_left:
        raise XNetsError("Nothing came to a checkpoint that fits: give it more --minutes, --max-mib or --max-files.")
    for file in done.packed.files:
        print(f"{file}  {file.stat().st_size / 2**20:.1f} MiB")
    if done.packed.files:
        print(f"{done.packed.finished} finished runs and {done.packed.under_way} under way; xnets store import them")
    if done.nothing_left:
        print("nothing is left to train")
    return int(any(reason != STOPPED for reason in done.failed.values()))
