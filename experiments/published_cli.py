"""`xnets published` and `xnets verify`: results that live in the repository, and what they say of the paper."""

import argparse
from pathlib import Path

ABOUT = """\
Results that live in the repository: published/<scale>/ has one JSON a run, with every epoch, versions, machine and
commit. A clone shows them in tables and figures without training anything.

  xnets published list                        how much of each table, figure and study is there
  xnets published add                         publish what the store has finished of the runs that params.yaml asks for
  xnets published remake published/...json    train that run again, the same way, and compare"""
REMAKE = """\
Train a published run again, with its kernel and its number of threads, into a store of its own, and say how far the two
are apart. Broken off, the same command goes on. With --note the outcome becomes a line of published/remade.csv."""
VERIFY = """\
Judge the paper's statements on accuracy (experiments/claims.yaml, written down beforehand with their tests and margins)
by the published runs: holds, fails, undecided, or not tested. Nothing is trained."""


def add_published(commands: argparse._SubParsersAction) -> None:
    """Add `xnets published` to `xnets`."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        "published", help="results that live in the repository", description=ABOUT, formatter_class=as_written
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listed = actions.add_parser("list", help="runs published of runs wanted, for each table, figure and study")
    listed.set_defaults(run=_list)
    add = actions.add_parser("add", help="publish what the store has finished")
    add.add_argument("--scale", help="of this scale instead of the one in params.yaml")
    add.add_argument(
        "--dirty", action="store_true",
        help="also runs trained with uncommitted changes, or by code of no known commit; their records say so",
    )  # fmt: skip
    add.set_defaults(run=_add)
    again = actions.add_parser(
        "remake", help="train a published run again and compare", description=REMAKE, formatter_class=as_written
    )
    again.add_argument("file", type=Path, metavar="FILE.json", help="in published/<scale>/")
    again.add_argument("--source", help="download, or the folder that holds its data (default: as params.yaml says)")
    again.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    again.add_argument("--store", type=Path, default=Path("store-remade"), help="folder of runs (%(default)s)")
    again.add_argument("--note", action="store_true", help="write the outcome into published/remade.csv")
    again.set_defaults(run=_remake)


def add_verify(commands: argparse._SubParsersAction) -> None:
    """Add `xnets verify` to `xnets`."""
    parser = commands.add_parser(
        "verify", help="judge the paper's claims by the published runs", description=VERIFY,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.set_defaults(run=_verify)


def _list(args: argparse.Namespace) -> None:
    from experiments.claims import scales_of_claims
    from experiments.plan import plan_of
    from experiments.published import coverage, not_asked_for, published_records, published_scales
    from experiments.settings import read_settings

    settings = read_settings()  # first: elsewhere than in the repository there is nothing to speak of
    for scale in dict.fromkeys([*published_scales(), *scales_of_claims()]):
        plan = plan_of(settings, scale)
        print(f"{scale}: {plan.about}")
        records = published_records(plan)
        for item, (there, wanted) in coverage(records).items():
            print(f"  {item:26}{there:5} of {wanted} runs")
        if others := not_asked_for(records, scale):
            print(f"  {len(others)} more that nothing asks for: of other seeds (params.yaml) or another protocol")


def _add(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from experiments.plan import make_plan
    from experiments.published import FOLDER, publish
    from experiments.scales import read_scales
    from experiments.settings import check_choice, read_settings
    from experiments.store import Store
    from xnets.errors import XNetsError

    settings = read_settings()
    if args.scale:
        check_choice("--scale", args.scale, list(read_scales()))
        settings = replace(settings, scale=args.scale)
    if any(name != stands for name, stands in read_scales()[settings.scale]["datasets"].items()):
        raise XNetsError(f"Scale {settings.scale} does not train on the paper's data: there is nothing to publish.")
    plan = make_plan(settings)
    for name in plan.unprepared():
        print(f"{name} is not prepared here: its runs are passed over.")
    runs = plan.runs(missing_ok=True)
    store, folder = Store(settings.store), FOLDER / settings.scale
    new, known = publish(store, runs, folder, args.dirty)
    print(f"{len(new)} new, {known} published before, of the {len(runs)} runs of scale {settings.scale}.")


def _remake(args: argparse.Namespace) -> None:
    from experiments.published import read_record
    from experiments.remake import note, remake
    from experiments.settings import read_settings
    from experiments.store import Store

    settings = read_settings()
    source = args.source or settings.sources.get(read_record(args.file).run.dataset)
    store = Store(args.store)
    record = remake(args.file, settings.data_folder, source, store, args.device)
    if args.note:
        note(record, store)


def _verify(args: argparse.Namespace) -> None:
    import json
    from dataclasses import asdict

    from experiments.claims import judge, number_of_tests, scales_of_claims
    from experiments.plan import plan_of
    from experiments.published import published_records, published_scales, results_of
    from experiments.settings import read_settings

    settings = read_settings()
    published_scales()  # refuses records in a folder that is no scale's: they would count nowhere
    results = {scale: results_of(published_records(plan_of(settings, scale))) for scale in scales_of_claims()}
    verdicts = judge(settings, results)
    for verdict in verdicts:
        if args.json:
            print(json.dumps(asdict(verdict)))
            continue
        numbers = ""
        if verdict.value is not None:
            sign = "" if verdict.claim.test == "spread" else "+"  # a ratio has none
            numbers = " {:{s}.2f} [{:{s}.2f}, {:{s}.2f}]".format(verdict.value, verdict.low, verdict.high, s=sign)
        runs = f"{verdict.n_first} and {verdict.n_second} runs, {verdict.claim.test}"
        print(f"{verdict.verdict:11}{verdict.scale:12}{verdict.claim.says} ({verdict.claim.where})")
        print(f"{'':23}{verdict.because};{numbers} ({runs})")
    if not args.json:
        print(number_of_tests(verdicts))
