"""`xnets sweep`: all the runs of params.yaml at once, on a cluster, looked after from the command line."""

import argparse

_WHICH = "part of a run's label or fingerprint, as `status --runs` lists them"


def add_sweep(commands: argparse._SubParsersAction) -> None:
    """Add `xnets sweep` to `xnets`."""
    parser = commands.add_parser(
        "sweep",
        help="the runs of params.yaml: what there is to do, and doing it on a SLURM cluster",
        description="All runs that params.yaml asks for. With `executor: slurm` there, plain `dvc repro` submits and "
        "waits by itself; these commands do the same in steps. docs/cluster.md walks through it.",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    plan = _add(actions, "plan", "runs done and missing, table by table, and the time they will take")
    plan.add_argument("--runs", action="store_true", help="list every run")

    send = _add(actions, "submit", "submit every run that is neither done nor under way")
    send.add_argument("--dry-run", action="store_true", help="say what would be submitted, and submit nothing")

    status = _add(actions, "status", "what is done, running, queued, failed and missing, and the time left")
    status.add_argument("--runs", action="store_true", help="list every run")
    status.add_argument("--watch", type=seconds, metavar="SECONDS", help="look again every so often, until all is done")

    logs = _add(actions, "logs", "why a run failed, its attempts, and the end of its job's log")
    logs.add_argument("which", nargs="+", metavar="RUN", help=_WHICH)
    logs.add_argument("--lines", type=_lines, default=40, help="of each log (%(default)s)")

    cancel = _add(actions, "cancel", "end jobs that are queued or running; what they have reached is kept")
    cancel.add_argument("which", nargs="*", metavar="RUN", help=f"{_WHICH}; none: all")
    cancel.add_argument("--yes", action="store_true", help="do not ask")

    retry = _add(actions, "retry", "submit the failed runs again, and nothing else")
    retry.add_argument("which", nargs="*", metavar="RUN", help=f"{_WHICH}; none: all that failed")

    collect = _add(actions, "collect", "check every result in the store; when all are there, `dvc repro` for the rest")
    collect.add_argument("--check-only", action="store_true", help="leave out `dvc repro`")


def seconds(said: str) -> float:
    """For argparse, which names this function when `said` is no number."""
    if not 1 <= float(said) <= 86400:
        raise argparse.ArgumentTypeError(f"say 1 to 86400 seconds, not {said}")
    return float(said)


def _lines(said: str) -> int:
    if int(said) < 0:
        raise argparse.ArgumentTypeError(f"say 0 or more lines, not {said}")
    return int(said)


def _add(actions: argparse._SubParsersAction, name: str, about: str) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
    parser.add_argument("--scale", help="instead of the one in params.yaml")
    parser.add_argument("--cluster", help="instead of slurm.cluster in params.yaml")

    def run(args: argparse.Namespace) -> int | None:
        from slurm import commands  # late: it needs the pipeline's packages

        return commands.ACTIONS[name](args)

    parser.set_defaults(run=run)
    return parser
