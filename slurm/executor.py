"""The executor "slurm": submit what is missing, attach to what is under way, wait for all of it."""

import time
from collections import Counter

from experiments.estimate import Estimate
from experiments.executors import OnEvent
from experiments.plan import make_plan
from experiments.settings import Settings
from experiments.store import Store
from slurm.preset import read_preset
from slurm.queue import Job, NoAnswer, live_jobs
from slurm.records import Placement, last_placements, read_submissions
from slurm.states import run_states
from slurm.submission import submit
from xnets.training import Run

LOOKS = 3  # in a row without a run's job before it is held to have ended: queues and shared disks lag


def run_on_slurm(task: str, runs: list[Run], settings: Settings, on_event: OnEvent) -> dict[Run, str]:
    """Called again after any interruption, it goes on waiting for the same jobs. Ctrl-C leaves them running."""
    preset = read_preset(settings.slurm.cluster, settings.local.threads)
    estimate = Estimate(make_plan(settings), preset.device)  # the stage has one for a CPU core alone
    came = submit(task, runs, settings, preset, estimate.seconds)
    sent = f"{came.jobs} jobs sent for {len(came.sent)} runs, {len(came.attached)} runs were under way"
    on_event("note", None, f"{preset.name}: {sent}")
    try:
        return Watch(task, runs, settings, on_event).wait(preset.poll_seconds)
    except KeyboardInterrupt:
        on_event("note", None, "the jobs go on: `dvc repro` waits for them again, `xnets sweep cancel` ends them")
        raise


class Watch:
    """Follows runs in the store and in SLURM's queue until each is done or failed."""

    def __init__(self, task: str, runs: list[Run], settings: Settings, on_event: OnEvent) -> None:
        self.store, self.on_event = Store(settings.store), on_event
        self.task = task
        self.waiting = list(runs)
        self.told = dict.fromkeys(runs, 0)  # epochs
        self.absent = dict.fromkeys(runs, 0)  # looks in a row without its job
        self.failed: dict[Run, str] = {}
        self.silent = ""  # what SLURM's commands said last, while they do not answer

    def wait(self, seconds: float) -> dict[Run, str]:
        """Look every `seconds` until nothing is waited for; the reasons of the failed ones."""
        while self.waiting:
            jobs = self._ask()  # before the records: a run may be sent anew by hand meanwhile
            self.look(last_placements(read_submissions(self.store)), jobs)
            if self.waiting:
                time.sleep(seconds)
        return self.failed

    def look(self, placements: dict[str, Placement], jobs: dict[tuple[str, int], Job] | None) -> None:
        """Take in what the store and SLURM say now. jobs: None if SLURM does not answer."""
        for run in self.waiting:
            self._tell_epochs(run)
        for run in [run for run in self.waiting if self.store.has(self.task, run)]:
            self._settle(run, None)
        if jobs is None:
            return
        for run in self.waiting:
            placed = placements.get(run.fingerprint)
            self.absent[run] = 0 if placed and placed.key in jobs else self.absent[run] + 1
        gone = [run for run in self.waiting if self.absent[run] >= LOOKS]
        for run, state in run_states(gone, self.store, placements, {}, task=self.task).items():
            if state.kind == "done":  # since the first look
                self._settle(run, None)
            elif state.kind != "queued":  # its submission was interrupted a moment ago: SLURM may still show it
                self._settle(run, state.why or "its job ended without leaving this")
        for run in [run for run in self.waiting if self.store.failure(run)]:
            self._settle(run, self.store.failure(run))
        states = run_states(self.waiting, self.store, placements, jobs, False, self.task).values()
        kinds = [state.kind for state in states]
        reasons = Counter(state.why for state in states if state.kind == "queued" and state.why != "None")
        why = f" ({reasons.most_common(1)[0][0]})" if reasons else ""
        self.on_event("where", None, f"{kinds.count('running')} running, {kinds.count('queued')} queued{why}")

    def _ask(self) -> dict[tuple[str, int], Job] | None:
        try:
            jobs = live_jobs()
        except NoAnswer as error:
            if not self.silent:
                self.on_event("note", None, f"{error} The jobs go on; it is asked again.")
                self.on_event("where", None, "SLURM does not answer")
            self.silent = str(error)
            return None
        self.silent = ""
        return jobs

    def _tell_epochs(self, run: Run) -> None:
        history = self.store.history(run)
        if len(history) > self.told[run]:
            self.on_event("epoch", run, history[-1])
        self.told[run] = len(history)

    def _settle(self, run: Run, reason: str | None) -> None:
        self.waiting.remove(run)
        if reason:
            self.failed[run] = reason
        self.on_event("failed" if reason else "done", run, reason)
