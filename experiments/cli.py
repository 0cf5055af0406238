"""`xnets sweep`: what the pipeline would do, before it does it."""

import argparse
from collections import Counter, defaultdict


def add_sweep(commands: argparse._SubParsersAction) -> None:
    """Add the command to `xnets`."""
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
    from experiments.plan import make_plan, read_scales
    from experiments.settings import check_choice, read_settings
    from experiments.store import Store
    from xnets.training import Run

    settings = read_settings()
    if args.scale:
        check_choice("scale", args.scale, list(read_scales()))
        settings = replace(settings, scale=args.scale)
    plan = make_plan(settings)
    workers = places(settings, 10**6)
    store, estimate = Store(settings.store), Estimate(plan, workers[0].split(":")[0])
    digests = plan.digests(missing_ok=True)
    runs = [(cell, run) for cell in plan.cells for run in cell.runs(digests[cell.dataset] or "not prepared yet")]
    state = {run: "done" if store.result(run) else "to train" for _, run in runs}
    items: dict[str, set[Run]] = defaultdict(set)
    for cell, run in runs:
        for row in cell.rows:
            if run.graph_seed < settings.seed_count(row.item, row.model):
                items[row.item].add(run)
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
