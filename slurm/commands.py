"""What the actions of `xnets sweep` do."""

import argparse
import subprocess
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, replace
from functools import cached_property

from experiments.duration import duration
from experiments.estimate import Estimate
from experiments.outlook import print_outlook, print_outlook_here, unit
from experiments.plan import Plan, make_plan
from experiments.scales import read_scales
from experiments.settings import SlurmSettings, check_choice, read_settings
from experiments.sound import sound_result
from experiments.stages import check_result
from experiments.store import Store
from slurm import queue
from slurm.packs import make_packs
from slurm.preset import Preset, read_preset
from slurm.records import Placement, last_placements, read_submissions
from slurm.states import KINDS, State, run_states
from slurm.submission import Submitted, submit
from xnets.errors import XNetsError
from xnets.training import Run

SHOWN = 20  # lines of a kind, unless all runs are asked for


@dataclass
class Scope:
    """What every action looks at: the plan, the store, the cluster's preset and what SLURM holds."""

    plan: Plan
    preset: Preset

    @classmethod
    def asked(cls, args: argparse.Namespace) -> "Scope":
        """As params.yaml and the command line say."""
        settings = read_settings()
        if args.scale:
            check_choice("--scale", args.scale, list(read_scales()))
            settings = replace(settings, scale=args.scale)
        if args.cluster:
            settings = replace(settings, slurm=SlurmSettings(args.cluster))
        return cls(make_plan(settings), read_preset(settings.slurm.cluster, settings.local.threads))

    @property
    def store(self) -> Store:
        return Store(self.plan.settings.store)

    @cached_property
    def runs(self) -> list[Run]:
        return self.plan.runs()

    @cached_property
    def estimate(self) -> Estimate:
        return Estimate(self.plan, self.preset.device)

    @cached_property
    def placed(self) -> dict[str, Placement]:
        return last_placements(read_submissions(self.store))

    def states(self, runs: list[Run], keep_failures: bool = True) -> dict[Run, State]:
        """Raises queue.NoAnswer if SLURM has to be asked and does not answer."""
        lacking = {run.fingerprint for run in runs if not self.store.is_done(run)}
        jobs = queue.live_jobs() if lacking & self.placed.keys() else {}
        placed = last_placements(read_submissions(self.store))  # after the queue: a run may be sent anew in between
        return run_states(runs, self.store, placed, jobs, keep_failures)

    def seconds_left(self, run: Run) -> float:
        """Of one run, from its last epoch on."""
        epochs = run.protocol.epochs
        return self.estimate.seconds(run) * (epochs - min(epochs, len(self.store.history(run)))) / epochs


def plan(args: argparse.Namespace) -> None:
    """What there is to do, and how long it will take where params.yaml says."""
    scope = Scope.asked(args)
    if args.cluster or scope.plan.settings.executor == "slurm":
        print_outlook(scope.plan, scope.estimate, lambda lacking: _in_jobs(scope, lacking), args.runs)
    else:
        print_outlook_here(scope.plan, args.runs)


def _in_jobs(scope: Scope, lacking: list[Run]) -> str:
    preset, seconds = scope.preset, scope.estimate.seconds
    jobs = make_packs(lacking, preset, seconds)
    at_a_time = min(len(jobs), preset.at_most) or 1
    in_all = sum(map(seconds, lacking))
    share = in_all / at_a_time / preset.runs_at_once
    longest = max((seconds(run) / preset.shape(run.dataset).processes for run in lacking), default=0)
    return (
        f"on {preset.name}: {len(jobs)} jobs, {at_a_time} at a time, {in_all / 3600:.2g} {unit(preset.device)}-hours; "
        f"about {duration(max(share, longest))} once they run. Rows share runs."
    )


def submit_missing(args: argparse.Namespace) -> None:
    """Everything that is neither done nor in a live job."""
    scope = Scope.asked(args)
    lacking = [run for run in scope.runs if not scope.store.is_done(run)]
    if args.dry_run:
        states = scope.states(lacking, keep_failures=False)
        send = [run for run in lacking if states[run].kind in ("missing", "failed")]
        packs = make_packs(send, scope.preset, scope.estimate.seconds)
        print(f"{len(packs)} jobs for {len(send)} runs would be submitted; {len(lacking) - len(send)} are under way.")
        return
    _report(_send(scope, lacking), scope)


def _send(scope: Scope, runs: list[Run]) -> Submitted:
    return submit("train", runs, scope.plan.settings, scope.preset, scope.estimate.seconds)


def _report(came: Submitted, scope: Scope) -> None:
    done = sum(map(scope.store.is_done, scope.runs))
    print(f"{came.jobs} jobs submitted for {len(came.sent)} runs; {len(came.attached)} are under way, {done} are done.")
    if came.record:
        print(f"The record and the logs are in {came.record.folder}; `xnets sweep status` watches.")


def status(args: argparse.Namespace) -> int:
    """0 when every run is done, 1 otherwise."""
    while True:
        scope = Scope.asked(args)
        try:
            states, note = scope.states(scope.runs), ""
        except queue.NoAnswer as error:  # what is done and failed is known all the same
            states, note = run_states(scope.runs, scope.store, {}, {}), f"{error} What is under way is not known."
        if note:
            print(note)
        _print_status(scope, states, all_runs=args.runs)
        done = all(state.kind == "done" for state in states.values())
        if done or args.watch is None:
            return 0 if done else 1
        time.sleep(args.watch)
        print()


def _print_status(scope: Scope, states: dict[Run, State], all_runs: bool) -> None:
    left = {run: scope.seconds_left(run) for run, state in states.items() if state.kind != "done"}
    at_work = Counter(state.kind for state in states.values())["running"] or 1
    items = scope.plan.runs_of_items()
    wide = max(map(len, [*items, "together"])) + 2
    print(f"{'':{wide}}{'runs':>6}" + "".join(f"{kind:>9}" for kind in KINDS) + "   time left with what runs now")
    for item, wanted in [*items.items(), ("together", list(states))]:
        counts = Counter(states[run].kind for run in wanted)
        seconds = sum(left.get(run, 0) for run in dict.fromkeys(wanted)) / at_work
        row = "".join(f"{counts[kind]:9}" for kind in KINDS)
        print(f"{item:{wide}}{len(wanted):6}{row}   {duration(seconds) if seconds else '-'}")
    for kind in KINDS[1:] if not all_runs else KINDS:
        found = [(run, state) for run, state in states.items() if state.kind == kind]
        if kind == "queued" and found and not all_runs:
            reasons = Counter(state.why for _, state in found).most_common(3)
            print("queued: " + ", ".join(f"{n} ({why})" for why, n in reasons))
        if not found or (kind in ("queued", "missing") and not all_runs):
            continue
        print(f"{kind}:")
        for run, state in found[: None if all_runs else SHOWN]:
            print(f"  {run.label}  {_about(scope, run, state, left)}".rstrip())
        if len(found) > SHOWN and not all_runs:
            print(f"  and {len(found) - SHOWN} more: --runs lists them")


def _about(scope: Scope, run: Run, state: State, left: dict[Run, float]) -> str:
    if state.kind != "running":
        return f"job {state.job}: {state.why}" if state.job else state.why
    history = scope.store.history(run)
    seen = f", test {history[-1]['test_top1']:.1f} %" if history else ""
    return (
        f"job {state.job} on {state.why}: epoch {len(history)}/{run.protocol.epochs}{seen}, {duration(left[run])} left"
    )


def logs(args: argparse.Namespace) -> None:
    """Of each run that is named."""
    scope = Scope.asked(args)
    for run in _chosen(args.which, scope.runs):
        print(f"{run.label}  ({scope.store.folder(run)})")
        reason, placed = scope.store.failure(run), scope.placed.get(run.fingerprint)
        if reason:
            print(f"  failed: {reason}")
        for note in scope.store.attempts(run):
            print("  " + ", ".join(f"{key} {value}" for key, value in note.items() if value is not None))
        found = placed.logs() if placed else []
        for path in found:
            with open(path, errors="replace") as file:
                print(f"--- {path}")
                print("".join(deque(file, args.lines)), end="")
        if not found:
            print("  no job of it has started yet" if placed else "  it was never submitted")


def cancel(args: argparse.Namespace) -> None:
    """All jobs of this store, or those that hold the runs that are named."""
    scope = Scope.asked(args)
    jobs = queue.live_jobs()
    if args.which:
        keys = {
            scope.placed[run.fingerprint].key
            for run in _chosen(args.which, scope.runs)
            if run.fingerprint in scope.placed
        }
    else:
        names = {array.name for sent in read_submissions(scope.store) for array in sent.arrays}
        keys = {key for key in jobs if key[0] in names}
    ours = [jobs[key] for key in keys if key in jobs]
    if not ours:
        print("No job of these is queued or running.")
        return
    running = sum(job.running for job in ours)
    held = [p for p in scope.placed.values() if p.key in jobs and p.key in keys]
    print(f"{len(ours)} jobs ({running} running) hold {len(held)} runs.")
    if not args.yes and not _agreed("Cancel them? [y/N] "):
        raise XNetsError("nothing was cancelled.")
    queue.cancel([job.id for job in ours])
    print(f"{len(ours)} jobs cancelled; checkpoints are kept, `xnets sweep retry` goes on from them.")


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise XNetsError("there is nobody to ask: say --yes.")
    return input(question).strip().lower() in ("y", "yes")


def retry(args: argparse.Namespace) -> None:
    """The failed runs alone."""
    scope = Scope.asked(args)
    chosen = _chosen(args.which, scope.runs) if args.which else scope.runs
    states = scope.states(chosen)
    failed = [run for run in chosen if states[run].kind == "failed"]
    if not failed:
        print("No run of these has failed.")
        return
    _report(_send(scope, failed), scope)


def collect(args: argparse.Namespace) -> int:
    """Check what is there, say what is not, and go on with the pipeline when all is."""
    if args.scale and not args.check_only:
        raise XNetsError("--scale goes with --check-only: `dvc repro` follows the scale of params.yaml.")
    scope = Scope.asked(args)
    missing, damaged = [], []
    for run in scope.runs:
        try:
            result = sound_result(scope.store, run)
            if result:
                check_result(scope.plan, run, result)
            else:
                missing.append(run)
        except XNetsError as error:
            damaged.append(str(error))
    print(f"{len(scope.runs) - len(missing) - len(damaged)} of {len(scope.runs)} results are in the store and sound.")
    for sentence in damaged:
        print(f"  {sentence}")
    if missing:
        print(f"{len(missing)} are missing: `xnets sweep status` says where they are, `xnets sweep submit` sends them.")
    if missing or damaged:
        return 1
    return 0 if args.check_only else subprocess.run([sys.executable, "-m", "dvc", "repro"], check=False).returncode


def _chosen(parts: list[str], runs: list[Run]) -> list[Run]:
    found = {}
    for part in parts:
        matches = [run for run in runs if part in run.label or run.fingerprint.startswith(part)]
        if not matches:
            raise XNetsError(
                f"no run has {part!r} in its label or fingerprint: `xnets sweep status --runs` lists them."
            )
        found |= dict.fromkeys(matches)
    return list(found)


ACTIONS = {
    "plan": plan, "submit": submit_missing, "status": status, "logs": logs, "cancel": cancel, "retry": retry,
    "collect": collect,
}  # fmt: skip
