"""What each run is at: the store says what is done and what failed, SLURM what is under way."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from experiments.store import Store
from slurm.ends import Inquiry
from slurm.queue import Job
from slurm.records import Placement
from xnets.training import Run

KINDS = ("done", "running", "queued", "failed", "missing")
SUBMITTING = 120  # seconds that a submission may take from its record to SLURM's answer


@dataclass(frozen=True)
class State:
    """kind: one of KINDS. job: SLURM's id while queued or running. why: it failed, or still waits."""

    kind: str
    job: str | None = None
    why: str = ""


def run_states(
    runs: Iterable[Run], store: Store, placements: dict[str, Placement], jobs: dict[tuple[str, int], Job],
    keep_failures: bool = True, task: str = "train",
) -> dict[Run, State]:  # fmt: skip
    """The state of each run, given SLURM's live jobs. task: what a run is to have had done.

    Unless keep_failures is False, it is asked once why a vanished job ended, and kept: SLURM soon forgets.
    """
    inquiry, states = Inquiry(), {}
    for run in runs:
        if store.has(task, run):
            states[run] = State("done")
            continue
        reason, placed = store.failure(run), placements.get(run.fingerprint)
        job = jobs.get(placed.key) if placed else None
        if reason:
            states[run] = State("failed", why=reason)
        elif job:
            states[run] = _alive(run, store, job, alone=len(placed.array.packs[placed.index]) == 1)
        elif placed is None:
            states[run] = State("missing")
        else:
            states[run] = _gone(run, store, placed, inquiry if keep_failures else None, task)
    return states


def _alive(run: Run, store: Store, job: Job, alone: bool) -> State:
    if not job.running:
        return State("queued", job.id, job.why)
    attempts = store.attempts(run)
    last = attempts[-1] if attempts else {"ended": ""}
    at_it = "ended" not in last and last.get("slurm_job") == job.id  # not one that was killed in an earlier job
    return State(
        "running" if at_it else "queued",
        job.id,
        job.nodes if at_it else "its job is starting" if alone else "its job is at another run",
    )


def _gone(run: Run, store: Store, placed: Placement, inquiry: Inquiry | None, task: str) -> State:
    """It was put into a job that SLURM does not hold any more."""
    id = placed.array.job_id(placed.index)
    if id is None:  # never heard of again: interrupted while it was submitted, or being submitted right now
        recent = time.time() - placed.record.created < SUBMITTING
        return State("queued", why="it is being submitted") if recent else State("missing")
    if inquiry is None:
        return State("failed", why="its job is gone")
    why = inquiry.why_ended(id, placed.array.name)
    if store.has(task, run):  # between the two looks
        return State("done")
    if why is None:  # not kept: the run may have been sent anew since the records were read
        return State("failed", why=f"its job {id} is gone and SLURM does not know why")
    store.write_failure(run, why)
    return State("failed", why=why)
